package pebblemeta

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errTidy marks that tidying up found no room. It can wait, and does not draw on the reserve.
var errTidy = errors.New("no room for tidying the metadata")

// withReserve is a file system on which what finds no room takes the reserve's, part by part, and
// is tried again. A sync is not: what it has lost is gone. Tidying (Pebble's compactions) gets
// nothing of it.
type withReserve struct {
	vfs.FS
	r *reserve
}

// again runs do until it has room, or there is none left.
func (w withReserve) again(do func() error) error {
	err := do()
	for noRoom(err) && w.r.give() {
		err = do()
	}
	return err
}

func (w withReserve) file(open func() (vfs.File, error)) (out vfs.File, err error) {
	err = w.again(func() (err error) { out, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return roomFile{out, w}, nil
}

// Create implements vfs.FS.
func (w withReserve) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if c == "pebble-compaction" || c == "pebble-blob-file-rewrite" {
		return w.tidy(name, c)
	}
	return w.file(func() (vfs.File, error) { return w.FS.Create(name, c) })
}

// tidy makes a file for what can wait. On a full disk it is slow to fail, since Pebble tries again
// at once.
func (w withReserve) tidy(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if w.r.full.Load() {
		select {
		case <-time.After(tidyPause):
		case <-w.r.closed:
		}
		if w.r.full.Load() {
			return nil, errTidy
		}
	}
	f, err := w.FS.Create(name, c)
	if err != nil {
		return nil, w.tidied(err)
	}
	return tidyFile{f, w}, nil
}

// tidied marks an error, and that the disk is full.
func (w withReserve) tidied(err error) error {
	if noRoom(err) {
		w.r.full.Store(true)
		return fmt.Errorf("%w: %w", errTidy, err)
	}
	return err
}

// OpenReadWrite implements vfs.FS.
func (w withReserve) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return w.file(func() (vfs.File, error) { return w.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (w withReserve) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return w.file(func() (vfs.File, error) { return w.FS.ReuseForWrite(from, to, c) })
}

// Link implements vfs.FS.
func (w withReserve) Link(from, to string) error {
	return w.again(func() error { return w.FS.Link(from, to) })
}

// Rename implements vfs.FS.
func (w withReserve) Rename(from, to string) error {
	return w.again(func() error { return w.FS.Rename(from, to) })
}

// Remove implements vfs.FS: on some file systems that takes room too.
func (w withReserve) Remove(name string) error {
	return w.again(func() error { return w.FS.Remove(name) })
}

// MkdirAll implements vfs.FS.
func (w withReserve) MkdirAll(dir string, perm os.FileMode) error {
	return w.again(func() error { return w.FS.MkdirAll(dir, perm) })
}

// roomFile is a file that is written with what the reserve has.
type roomFile struct {
	vfs.File
	on withReserve
}

// Write implements vfs.File.
func (f roomFile) Write(p []byte) (n int, err error) {
	err = f.on.again(func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (f roomFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.on.again(func() error {
		m, err := f.File.WriteAt(p[n:], off+int64(n))
		n += m
		return err
	})
	return n, err
}

// tidyFile is a file that can be written later.
type tidyFile struct {
	vfs.File
	on withReserve
}

// Write implements vfs.File.
func (f tidyFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.on.tidied(err)
}

// WriteAt implements vfs.File.
func (f tidyFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.on.tidied(err)
}

// Sync implements vfs.File.
func (f tidyFile) Sync() error { return f.on.tidied(f.File.Sync()) }

// SyncData implements vfs.File.
func (f tidyFile) SyncData() error { return f.on.tidied(f.File.SyncData()) }
