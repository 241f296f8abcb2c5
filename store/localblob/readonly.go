package localblob

import (
	"errors"
	"io/fs"
	"os"

	"sluice/internal/durable"
)

// ErrReadOnly: the folder was opened with Options.ReadOnly.
var ErrReadOnly = errors.New("the content folder is open for reading only")

// readOnly is a file system on which nothing can be changed. It opens files for reading, and
// refuses to make, rename or remove one.
type readOnly struct{ durable.FS }

// OpenFile implements durable.FS. Only the lock's file must be there already.
func (r readOnly) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := r.FS.OpenFile(path, os.O_RDONLY, perm)
	if errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0 {
		err = errors.Join(err, ErrReadOnly)
	}
	return f, err
}

// Mkdir implements durable.FS.
func (readOnly) Mkdir(string, fs.FileMode) error { return ErrReadOnly }

// Remove implements durable.FS.
func (readOnly) Remove(string) error { return ErrReadOnly }

// Rename implements durable.FS.
func (readOnly) Rename(string, string) error { return ErrReadOnly }
