package uploadtest

import (
	"bytes"
	"io"
	"testing"

	"sluice/catalog"
	"sluice/upload"
)

// Taker is an upload.FileTaker that keeps what it takes, and counts what came as files.
type Taker struct {
	bytes.Buffer
	Files int
}

// TakeFile implements upload.FileTaker.
func (t *Taker) TakeFile(f io.ReadSeeker, n int64) (int64, error) {
	t.Files++
	return io.Copy(&t.Buffer, io.LimitReader(f, n))
}

// sent checks that what a Sender sends is what it would read.
func sent(t *testing.T, s upload.Blobs, extents []catalog.Extent, all []byte, off, n int64) {
	t.Helper()
	body, err := s.Read(t.Context(), extents, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	sender, ok := body.(upload.Sender)
	if !ok {
		return
	}
	var to Taker
	if k, err := sender.Send(&to); err != nil || k != n || !bytes.Equal(to.Bytes(), all[off:off+n]) {
		t.Errorf("sending %d bytes from %d: %d, %v", n, off, k, err)
	}
}
