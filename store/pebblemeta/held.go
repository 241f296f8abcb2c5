package pebblemeta

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Held is the operating system's file system with one folder that its owner holds open. A path that
// begins with the folder's name goes by way instead, which leads into that folder even if it has
// been moved. All other paths are refused with fs.ErrPermission, except that the folders above may
// be opened, synced and examined by Stat.
func Held(name, way string) vfs.FS { return heldFS{vfs.Default, name, way} }

type heldFS struct {
	vfs.FS
	name, way string
}

// path gives the path by h.way, or an error.
func (h heldFS) path(op, path string) (string, error) {
	rest, below := strings.CutPrefix(path, h.name)
	if !below || rest != "" && rest[0] != '/' {
		return "", &fs.PathError{Op: op, Path: path, Err: fs.ErrPermission}
	}
	return h.way + rest, nil
}

func (h heldFS) file(op, path string, open func(path string) (vfs.File, error)) (vfs.File, error) {
	path, err := h.path(op, path)
	if err != nil {
		return nil, err
	}
	f, err := open(path)
	return f, h.nameFolder(err)
}

// nameFolder puts the folder's name in place of h.way into an error.
func (h heldFS) nameFolder(err error) error {
	var in *fs.PathError
	if !errors.As(err, &in) {
		return err
	}
	rest, below := strings.CutPrefix(in.Path, h.way)
	if !below {
		return err
	}
	return &fs.PathError{Op: in.Op, Path: h.name + rest, Err: in.Err}
}

func (h heldFS) do(op, path string, do func(path string) error) error {
	path, err := h.path(op, path)
	if err != nil {
		return err
	}
	return h.nameFolder(do(path))
}

func (h heldFS) move(op, from, to string, do func(from, to string) error) error {
	return h.do(op, from, func(from string) error {
		return h.do(op, to, func(to string) error { return do(from, to) })
	})
}

// Create implements vfs.FS.
func (h heldFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file("create", name, func(name string) (vfs.File, error) { return h.FS.Create(name, c) })
}

// Open implements vfs.FS.
func (h heldFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return h.file("open", name, func(name string) (vfs.File, error) { return h.FS.Open(name, opts...) })
}

// OpenReadWrite implements vfs.FS.
func (h heldFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return h.file("open", name, func(name string) (vfs.File, error) { return h.FS.OpenReadWrite(name, c, opts...) })
}

// OpenDir implements vfs.FS.
func (h heldFS) OpenDir(name string) (vfs.File, error) {
	if h.above(name) {
		return h.FS.OpenDir(name)
	}
	return h.file("open", name, h.FS.OpenDir)
}

// above reports whether the folder is somewhere in dir.
func (h heldFS) above(dir string) bool {
	rest, ok := strings.CutPrefix(h.name, dir)
	return ok && strings.HasPrefix(rest, "/") || dir == "/"
}

// ReuseForWrite implements vfs.FS.
func (h heldFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = h.move("rename", from, to, func(from, to string) error {
		f, err = h.FS.ReuseForWrite(from, to, c)
		return err
	})
	return f, err
}

// Link implements vfs.FS.
func (h heldFS) Link(from, to string) error { return h.move("link", from, to, h.FS.Link) }

// Rename implements vfs.FS.
func (h heldFS) Rename(from, to string) error { return h.move("rename", from, to, h.FS.Rename) }

// Remove implements vfs.FS.
func (h heldFS) Remove(name string) error { return h.do("remove", name, h.FS.Remove) }

// RemoveAll implements vfs.FS.
func (h heldFS) RemoveAll(name string) error { return h.do("remove", name, h.FS.RemoveAll) }

// MkdirAll implements vfs.FS.
func (h heldFS) MkdirAll(dir string, perm os.FileMode) error {
	return h.do("mkdir", dir, func(dir string) error { return h.FS.MkdirAll(dir, perm) })
}

// Lock implements vfs.FS.
func (h heldFS) Lock(name string) (l io.Closer, err error) {
	err = h.do("lock", name, func(name string) error {
		l, err = h.FS.Lock(name)
		return err
	})
	return l, err
}

// List implements vfs.FS.
func (h heldFS) List(dir string) (names []string, err error) {
	err = h.do("list", dir, func(dir string) error {
		names, err = h.FS.List(dir)
		return err
	})
	return names, err
}

// Stat implements vfs.FS.
func (h heldFS) Stat(name string) (info vfs.FileInfo, err error) {
	if h.above(name) {
		return h.FS.Stat(name)
	}
	err = h.do("stat", name, func(name string) error {
		info, err = h.FS.Stat(name)
		return err
	})
	return info, err
}

// GetDiskUsage implements vfs.FS.
func (h heldFS) GetDiskUsage(path string) (use vfs.DiskUsage, err error) {
	err = h.do("statfs", path, func(path string) error {
		use, err = h.FS.GetDiskUsage(path)
		return err
	})
	return use, err
}
