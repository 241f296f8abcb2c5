//go:build unix

package durable

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// LockFile is File.Lock for a file of package os.
func LockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		case !errors.Is(err, syscall.EINTR):
			return err
		}
	}
}

// ErrForeign: the name is not that of a regular file. It is neither followed nor changed.
var ErrForeign = errors.New("it is no regular file")

// OpenLocked opens a regular file for reading and writing, and takes its lock until it is closed.
// It makes sure that the locked file still has the name: another process may have removed or
// replaced it between the two steps. It follows no link and waits for no pipe. Errors:
// fs.ErrNotExist; ErrLocked if another open file has the lock; ErrForeign.
func OpenLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENXIO) {
			return nil, fmt.Errorf("%s: %w", path, ErrForeign)
		}
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, fmt.Errorf("%s: %w", path, ErrForeign), f.Close())
		}
		if err := LockFile(f); err != nil {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		}
		same, err := Named(f, path)
		if err == nil && same {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// CreateLocked makes a file and takes its lock until it is closed. The file gets its name after
// begin has written to it: other processes never see it unlocked, or without those bytes.
// fs.ErrExist: the name is taken.
func CreateLocked(path string, perm os.FileMode, begin func(*os.File) error) (*os.File, error) {
	f, temp, err := createFirst(path+"~", func(name string) (*os.File, error) {
		return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, perm)
	})
	if err != nil {
		return nil, err
	}
	err = LockFile(f)
	if err == nil {
		err = begin(f)
	}
	if err == nil {
		err = RenameNew(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(temp))
	}
	return f, nil
}

// Named reports whether f is the file that has this name.
func Named(f *os.File, path string) (bool, error) {
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	its, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(own, its), err
}

// linkNew gives a file a new name that is not taken, on systems and file systems that have no such
// rename.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, os.ErrExist) {
		return errors.Join(err, removeIf(err == nil, from))
	}
	// There are no links either: a file that appears between these two steps is lost.
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: os.ErrExist}
	}
	return os.Rename(from, to)
}

func removeIf(due bool, path string) error {
	if !due {
		return nil
	}
	return os.Remove(path)
}
