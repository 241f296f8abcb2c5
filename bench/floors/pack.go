package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"
)

// most is how large an upload of a pack may be.
const most = 1 << 20

// pack appends all uploads to one file, each in whole blocks, and keeps one record for each: name →
// offset, length, SHA-256.
type pack struct {
	f, d  *os.File // the same file, d with O_DIRECT
	db    *pebble.DB
	queue chan *record
	pool  sync.Pool
}

// record is one upload on its way.
type record struct {
	p    *pack
	name string
	buf  *[]byte
	n    int
	off  int64
	done chan error
}

func newPack(dir string) (*pack, error) {
	path := filepath.Join(dir, "pack")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	d, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	db, err := pebble.Open(filepath.Join(dir, "records"), &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, Logger: silent{},
	})
	if err != nil {
		return nil, err
	}
	p := &pack{f: f, d: d, db: db, queue: make(chan *record, 64)}
	p.pool.New = func() any { b := aligned(most); return &b }
	go p.append()
	return p, nil
}

// append writes and syncs the waiting uploads, again and again. The longer a sync takes, the more
// uploads share the next one.
func (p *pack) append() {
	var end, allocated int64
	for r := range p.queue {
		batch := []*record{r}
		for len(p.queue) > 0 {
			batch = append(batch, <-p.queue)
		}
		var parts [][]byte
		at := end
		for _, r := range batch {
			r.off = end
			parts = append(parts, (*r.buf)[:(r.n+align-1)&^(align-1)])
			end += int64(len(parts[len(parts)-1]))
		}
		var err error
		if end > allocated {
			allocated = end + 64<<20
			if err = unix.Fallocate(int(p.f.Fd()), 0, 0, allocated); errors.Is(err, unix.EOPNOTSUPP) {
				err = nil
			}
		}
		if err == nil {
			n, werr := unix.Pwritev(int(p.d.Fd()), parts, at)
			if err = werr; err == nil && int64(n) != end-at {
				err = io.ErrShortWrite
			}
		}
		if err == nil {
			err = unix.Fdatasync(int(p.d.Fd()))
		}
		for _, r := range batch {
			r.done <- err
		}
	}
}

func (p *pack) begin(name string, total int64) (upload, error) {
	if total > most {
		return nil, fmt.Errorf("%d bytes are too many for a pack, at most %d", total, most)
	}
	return &record{p: p, name: name, buf: p.pool.Get().(*[]byte), done: make(chan error, 1)}, nil
}

func (r *record) write(body io.Reader, n int64) error {
	_, err := io.ReadFull(body, (*r.buf)[r.n:r.n+int(n)])
	r.n += int(n)
	return err
}

func (r *record) end() ([]byte, error) {
	sum := sha256.Sum256((*r.buf)[:r.n])
	r.p.queue <- r
	err := <-r.done
	r.p.pool.Put(r.buf)
	if err != nil {
		return nil, err
	}
	v := binary.BigEndian.AppendUint64(nil, uint64(r.off))
	v = binary.BigEndian.AppendUint64(v, uint64(r.n))
	return sum[:], r.p.db.Set([]byte(r.name), append(v, sum[:]...), pebble.Sync)
}

func (p *pack) read(w http.ResponseWriter, _ *http.Request, name string) {
	v, c, err := p.db.Get([]byte(name))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	off, n := int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))
	_ = c.Close() // an in-memory reference
	_, _ = io.Copy(w, io.NewSectionReader(p.f, off, n))
}

// silent discards Pebble's log.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
