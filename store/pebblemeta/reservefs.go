package pebblemeta

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errCompactionSpace marks that a compaction found no space. It can wait, and does not use the
// reserve.
var errCompactionSpace = errors.New("no free space for compacting the metadata")

// reserveFS is a file system on which an operation that finds no space is tried again, each time
// after a part of the reserve was released. A sync is not tried again, since what it failed to
// write is gone. Pebble's compactions get nothing of the reserve.
type reserveFS struct {
	vfs.FS
	reserve *reserve
}

// retryOnNoSpace runs do until it has space, or the reserve has no part left.
func (rfs reserveFS) retryOnNoSpace(do func() error) error {
	err := do()
	for noSpace(err) && rfs.reserve.releasePart() {
		err = do()
	}
	return err
}

func (rfs reserveFS) file(open func() (vfs.File, error)) (out vfs.File, err error) {
	err = rfs.retryOnNoSpace(func() (err error) { out, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return reserveFile{out, rfs}, nil
}

// Create implements vfs.FS.
func (rfs reserveFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if c == "pebble-compaction" || c == "pebble-blob-file-rewrite" {
		return rfs.createForCompaction(name, c)
	}
	return rfs.file(func() (vfs.File, error) { return rfs.FS.Create(name, c) })
}

// createForCompaction makes a file for a compaction, which can wait. On a full disk it fails
// slowly, since Pebble tries again at once.
func (rfs reserveFS) createForCompaction(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if rfs.reserve.diskFull.Load() {
		select {
		case <-time.After(compactionPause):
		case <-rfs.reserve.closed:
		}
		if rfs.reserve.diskFull.Load() {
			return nil, errCompactionSpace
		}
	}
	f, err := rfs.FS.Create(name, c)
	if err != nil {
		return nil, rfs.compactionErr(err)
	}
	return compactionFile{f, rfs}, nil
}

// compactionErr marks an error of a full disk, and notes that the disk is full.
func (rfs reserveFS) compactionErr(err error) error {
	if noSpace(err) {
		rfs.reserve.diskFull.Store(true)
		return fmt.Errorf("%w: %w", errCompactionSpace, err)
	}
	return err
}

// OpenReadWrite implements vfs.FS.
func (rfs reserveFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return rfs.file(func() (vfs.File, error) { return rfs.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (rfs reserveFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return rfs.file(func() (vfs.File, error) { return rfs.FS.ReuseForWrite(from, to, c) })
}

// Link implements vfs.FS.
func (rfs reserveFS) Link(from, to string) error {
	return rfs.retryOnNoSpace(func() error { return rfs.FS.Link(from, to) })
}

// Rename implements vfs.FS.
func (rfs reserveFS) Rename(from, to string) error {
	return rfs.retryOnNoSpace(func() error { return rfs.FS.Rename(from, to) })
}

// Remove implements vfs.FS. On some file systems that takes space too.
func (rfs reserveFS) Remove(name string) error {
	return rfs.retryOnNoSpace(func() error { return rfs.FS.Remove(name) })
}

// MkdirAll implements vfs.FS.
func (rfs reserveFS) MkdirAll(dir string, perm os.FileMode) error {
	return rfs.retryOnNoSpace(func() error { return rfs.FS.MkdirAll(dir, perm) })
}

// reserveFile is a file whose writes may use the reserve.
type reserveFile struct {
	vfs.File
	fs reserveFS
}

// Write implements vfs.File.
func (f reserveFile) Write(p []byte) (n int, err error) {
	err = f.fs.retryOnNoSpace(func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (f reserveFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fs.retryOnNoSpace(func() error {
		m, err := f.File.WriteAt(p[n:], off+int64(n))
		n += m
		return err
	})
	return n, err
}

// compactionFile is a file of a compaction. It can be written later.
type compactionFile struct {
	vfs.File
	fs reserveFS
}

// Write implements vfs.File.
func (f compactionFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.compactionErr(err)
}

// WriteAt implements vfs.File.
func (f compactionFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.fs.compactionErr(err)
}

// Sync implements vfs.File.
func (f compactionFile) Sync() error { return f.fs.compactionErr(f.File.Sync()) }

// SyncData implements vfs.File.
func (f compactionFile) SyncData() error { return f.fs.compactionErr(f.File.SyncData()) }
