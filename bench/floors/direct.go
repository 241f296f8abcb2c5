package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"
)

const (
	align  = 4096    // of memory, offsets and lengths: the most that direct I/O asks for
	buffer = 1 << 20 // bytes of one write
)

// buffers are reused: making and clearing a MiB costs as much as hashing it.
var buffers = sync.Pool{New: func() any { b := aligned(buffer); return &b }}

// aligned gives n bytes that begin at a multiple of align.
func aligned(n int) []byte {
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// directFile is a file that is written past the page cache. A buffer is hashed and written at the
// same time, while the next one is read:
//
//	body ─▶ read ─▶ hash          this goroutine
//	             └▶ write         the other, one buffer behind
type directFile struct {
	file
	d *os.File // the same file, O_DIRECT
}

func (u *directFile) write(body io.Reader, n int64) error {
	type block struct {
		b   *[]byte
		n   int
		off int64
	}
	free, full := make(chan *[]byte, 2), make(chan block, 2)
	for range cap(free) {
		free <- buffers.Get().(*[]byte)
	}
	failed := make(chan error, 1)
	go func() {
		var err error
		for k := range full {
			if err == nil {
				err = u.pwrite((*k.b)[:k.n], k.off)
			}
			free <- k.b
		}
		failed <- err
	}()
	var err error
	for end := u.off + n; u.off < end && err == nil; {
		b := <-free
		k := block{b, int(min(buffer, end-u.off)), u.off}
		if _, err = io.ReadFull(body, (*b)[:k.n]); err != nil {
			free <- b
			break
		}
		full <- k
		u.sum.Write((*b)[:k.n])
		u.off += int64(k.n)
	}
	close(full)
	err = errors.Join(err, <-failed)
	for range cap(free) {
		buffers.Put(<-free)
	}
	return err
}

// pwrite writes whole blocks directly, and the rest through the page cache.
func (u *directFile) pwrite(p []byte, off int64) error {
	whole := 0
	if off%align == 0 {
		whole = len(p) &^ (align - 1)
	}
	if whole > 0 {
		if _, err := u.d.WriteAt(p[:whole], off); err != nil {
			return err
		}
	}
	if whole == len(p) {
		return nil
	}
	_, err := u.f.WriteAt(p[whole:], off+int64(whole))
	return err
}

func (u *directFile) end() ([]byte, error) {
	err := u.d.Close()
	sum, err2 := u.file.end()
	return sum, errors.Join(err, err2)
}
