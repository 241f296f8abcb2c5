package main

import (
	"bytes"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// arena is the random data of all uploads: a file in memory, so that the kernel sends it
// (sendfile). The client then costs little beside the servers, with which it shares the cores.
type arena struct {
	f *os.File
	b []byte
}

func newArena(size int64) (*arena, error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory: %w", err)
	}
	a := &arena{f: os.NewFile(uintptr(fd), "bench")}
	if err := a.f.Truncate(size); err != nil {
		return nil, err
	}
	if a.b, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("%d bytes of random data do not fit into memory: %w", size, err)
	}
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	_, _ = rand.NewChaCha8(seed).Read(a.b)
	return a, nil
}

func (a *arena) close() {
	_ = unix.Munmap(a.b)
	_ = a.f.Close()
}

// item is one upload: size bytes of the arena from off on. They wrap around at the end of the
// arena.
type item struct {
	a         *arena
	name      string
	off, size int64
	chunk     int64
	sum       string   // SHA-256, hex
	parts     []string // of each chunk
}

func (a *arena) item(name string, off, size, chunk int64) item {
	it := item{a: a, name: name, off: off, size: size, chunk: chunk}
	whole := sha256.New()
	for i := range it.chunks() {
		from, n := it.bounds(i)
		part := sha256.New()
		for _, p := range it.pieces(from, n) {
			whole.Write(p)
			part.Write(p)
		}
		it.parts = append(it.parts, hex.EncodeToString(part.Sum(nil)))
	}
	it.sum = hex.EncodeToString(whole.Sum(nil))
	return it
}

func (it item) chunks() int { return int((it.size + it.chunk - 1) / it.chunk) }

// bounds gives offset and length of a chunk.
func (it item) bounds(i int) (off, n int64) {
	off = int64(i) * it.chunk
	return off, min(it.chunk, it.size-off)
}

// pieces gives n bytes of the item from off on, as slices of the arena.
func (it item) pieces(off, n int64) [][]byte {
	var all [][]byte
	for n > 0 {
		at := (it.off + off) % int64(len(it.a.b))
		p := it.a.b[at:min(at+n, int64(len(it.a.b)))]
		all = append(all, p)
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return all
}

// body gives the body of a request for a part of the item: a file of its own on the arena for large
// parts (sendfile needs its offset), a slice for small ones.
func (it item) body(off, n int64) (io.ReadCloser, error) {
	p := it.pieces(off, n)
	if len(p) != 1 || n < 256<<10 {
		var rs []io.Reader
		for _, b := range p {
			rs = append(rs, bytes.NewReader(b))
		}
		if len(rs) == 1 {
			return io.NopCloser(rs[0]), nil
		}
		return io.NopCloser(io.MultiReader(rs...)), nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", it.a.f.Fd()))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek((it.off+off)%int64(len(it.a.b)), io.SeekStart); err != nil {
		return nil, err
	}
	return &section{f, n}, nil
}

// section is the part of a file that one request sends.
type section struct {
	f    *os.File
	left int64
}

func (s *section) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.f.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}

func (s *section) Close() error { return s.f.Close() }

// conn is a connection that sends net/http's sections by sendfile. The net package does so for
// files, and not for parts of one.
type conn struct{ *net.TCPConn }

func (c conn) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	s, ok := l.R.(*section)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	n, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: s.f, N: min(l.N, s.left)})
	s.left -= n
	l.N -= n
	return n, err
}
