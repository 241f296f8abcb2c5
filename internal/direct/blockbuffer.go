package direct

import (
	"errors"
	"io"

	"sluice/internal/durable"
)

// Whole is memory for one write of whole blocks: for a file that is written in such pieces only. It
// is used by one goroutine at a time.
type BlockBuffer struct {
	// Mem is what is to be written: as long as was asked for, its content undefined.
	Bytes []byte
	pool  *Pool
	buf   *buffer
}

// Whole gives memory for n bytes, a multiple of a block, or nil: where that is more than a buffer
// has, or where all are in use.
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

// Open opens a file for Write; nil where there is no direct I/O, or is to be none.
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

// Write writes Mem at off, a multiple of a block: past the cache with what Open gave for the file,
// else through it.
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
