package api_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"sluice/api"
)

// ofFile is a body of n bytes of a file, from off on.
type ofFile struct {
	*io.SectionReader
	f         *os.File
	off       int64
	taken     atomic.Int64
	backwards atomic.Bool
	unknown   bool // it does not say where it is
}

func (b *ofFile) File() (*os.File, int64) {
	if b.unknown {
		return nil, 0
	}
	return b.f, b.off
}

func (b *ofFile) Taken(to int64) {
	if b.taken.Swap(to) > to {
		b.backwards.Store(true)
	}
}

func fastClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return api.FastConn(c), nil
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestAFilesBytesGoOutAsTheyAre(t *testing.T) {
	const size = 3<<20 + 17
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i*7 + i>>9)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if got, err = io.ReadAll(r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(srv.Close)
	c := api.NewClient(srv.URL, "", fastClient(t))
	for _, unknown := range []bool{false, true} {
		for _, r := range [][2]int64{{0, size}, {0, 1}, {1, 70_000}, {12345, 2 << 20}, {size - 5, 5}} {
			b := &ofFile{SectionReader: io.NewSectionReader(f, r[0], r[1]), f: f, off: r[0], unknown: unknown}
			if err := c.PutChunk(t.Context(), "s", 0, b, r[1], api.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes from %d arrived as %d others", r[1], r[0], len(got))
			}
			if to, direct := b.taken.Load(), !unknown && runtime.GOOS == "linux"; direct && to != r[1] ||
				!direct && to != 0 || b.backwards.Load() {
				t.Errorf("%d bytes of %d were said to be taken, last", to, r[1])
			}
		}
	}
	// The body is in memory, from its middle on.
	b := bytes.NewReader(content)
	if _, err := b.Seek(1000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := c.PutChunk(t.Context(), "s", 0, b, 1<<20, api.PutOptions{}); err != nil ||
		!bytes.Equal(got, content[1000:1000+1<<20]) {
		t.Errorf("%d bytes of memory, %v", len(got), err)
	}
	// A file that ends before it should is an error, and not an endless request.
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	short := &ofFile{SectionReader: io.NewSectionReader(f, 0, size), f: f}
	if err := c.PutChunk(t.Context(), "s", 0, short, size, api.PutOptions{}); err == nil {
		t.Error("a file that got shorter went out whole")
	}
}
