package api

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// FileBody is a body whose bytes are those of a file. Over a [FastConn] they need not pass through
// this process. If the system or TLS has no way for that, it is sent as any other reader.
type FileBody interface {
	io.ReaderAt
	io.Seeker
	// File returns the file, and the offset in bytes at which the body begins there. A nil f means
	// that the body is in no file.
	File() (f *os.File, off int64)
	// Taken reports how far the body has been sent by a way other than ReadAt, in bytes from its
	// beginning. It is not called concurrently with itself.
	Taken(to int64)
}

// section is the body of one attempt at a request: n bytes of at, from start on.
type section struct {
	*io.SectionReader
	at       io.ReaderAt
	start, n int64
}

func newSection(at io.ReaderAt, start, n int64) *section {
	return &section{io.NewSectionReader(at, start, n), at, start, n}
}

// Close implements io.Closer. The underlying body stays open: it may have to be sent again.
func (s *section) Close() error { return nil }

// FastConn sends a request's body over c in large blocks, and a file by sendfile(2) if the system
// has it. It is for the DialContext of an http.Transport, for connections without TLS. TLS above it
// works, but is no faster.
func FastConn(c net.Conn) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok {
		return &fastConn{tcp}
	}
	return c
}

type fastConn struct{ *net.TCPConn }

// copyBuffers are for bodies that are no file. net/http's own buffers are an eighth of these.
var copyBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// ReadFrom implements io.ReaderFrom. net/http calls it with the rest of a body, limited to the
// announced length.
func (c *fastConn) ReadFrom(r io.Reader) (n int64, err error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if s, ok := l.R.(*section); ok {
			n, err = c.sendFile(s, l.N)
			l.N -= n
			if !errors.Is(err, errors.ErrUnsupported) {
				return n, err
			}
		}
	}
	buf := copyBuffers.Get().(*[256 << 10]byte)
	defer copyBuffers.Put(buf)
	k, err := io.CopyBuffer(struct{ io.Writer }{c.TCPConn}, r, buf[:])
	return n + k, err
}

// sendFile sends what is left of s, n bytes at most, and advances s. If its error is
// ErrUnsupported, the caller sends the rest the other way.
func (c *fastConn) sendFile(s *section, n int64) (sent int64, err error) {
	body, ok := s.at.(FileBody)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	f, off := body.File()
	at, err := s.Seek(0, io.SeekCurrent)
	if f == nil || err != nil {
		return 0, errors.ErrUnsupported
	}
	n = min(n, s.n-at)
	for sent < n && err == nil {
		var k int64
		k, err = sendFile(c.TCPConn, f, off+s.start+at+sent, n-sent)
		if sent += k; k > 0 {
			body.Taken(s.start + at + sent)
		}
	}
	_, seek := s.Seek(at+sent, io.SeekStart)
	return sent, errors.Join(err, seek)
}
