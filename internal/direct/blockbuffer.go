package direct

import (
	"errors"
	"io"

	"sluice/internal/durable"
)

// BlockBuffer is memory for one write of whole blocks, for a file that is written in no other way.
// It is used by one goroutine at a time.
type BlockBuffer struct {
	// Bytes is what is to be written. It has the length that was asked for, and undefined content.
	Bytes []byte
	pool  *Pool
	buf   *buffer
}

// BlockBuffer gives memory for n bytes, a multiple of a block. It gives nil if that is more than a
// buffer has, or if all are in use.
func (p *Pool) BlockBuffer(n int64) *BlockBuffer {
	if n > int64(p.cfg.Buffer) {
		return nil
	}
	b := p.get()
	if b == nil {
		return nil
	}
	return &BlockBuffer{Bytes: b.mem[:n], pool: p, buf: b}
}

// Free gives the memory back.
func (b *BlockBuffer) Free() { b.pool.unref(b.buf) }

// Open opens a file for Write; nil if there is no direct I/O, or if it is off.
func (p *Pool) Open(f durable.File) durable.DirectFile {
	if p.cfg.Off || p.noDirectIO.Load() {
		return nil
	}
	past, err := f.Direct()
	if err != nil {
		p.noDirectIO.Store(errors.Is(err, errors.ErrUnsupported))
		return nil
	}
	return past
}

// Write writes Bytes at off, a multiple of a block: past the cache if Open gave something for the
// file, else through it.
func (b *BlockBuffer) Write(f durable.File, past durable.DirectFile, off int64) error {
	n, err := 0, errors.ErrUnsupported
	if past != nil {
		n, err = past.WriteAt(b.Bytes, off)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		n, err = f.WriteAt(b.Bytes, off)
	}
	if err == nil && n < len(b.Bytes) {
		err = io.ErrShortWrite
	}
	return err
}
