package pebblemeta

import (
	"errors"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// ErrReadOnly: the folder was opened with Options.ReadOnly.
var ErrReadOnly = errors.New("the metadata's folder is open for reading only")

// readOnly is a file system on which nothing can be changed.
type readOnly struct{ vfs.FS }

// Create implements vfs.FS.
func (readOnly) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, ErrReadOnly }

// Link implements vfs.FS.
func (readOnly) Link(string, string) error { return ErrReadOnly }

// OpenReadWrite implements vfs.FS.
func (readOnly) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, ErrReadOnly
}

// Remove implements vfs.FS.
func (readOnly) Remove(string) error { return ErrReadOnly }

// RemoveAll implements vfs.FS.
func (readOnly) RemoveAll(string) error { return ErrReadOnly }

// Rename implements vfs.FS.
func (readOnly) Rename(string, string) error { return ErrReadOnly }

// ReuseForWrite implements vfs.FS.
func (readOnly) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, ErrReadOnly
}

// MkdirAll implements vfs.FS.
func (readOnly) MkdirAll(string, os.FileMode) error { return ErrReadOnly }

// Lock implements vfs.FS. Pebble's own lock truncates the file, which changes its time.
func (r readOnly) Lock(name string) (io.Closer, error) {
	if h, ok := r.FS.(heldFS); ok {
		way, err := h.path("lock", name)
		if err != nil {
			return nil, err
		}
		name = way
	} else if r.FS != vfs.Default {
		return r.FS.Lock(name)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
