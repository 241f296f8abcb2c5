package crashfs

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/durable"
)

// VFS is the disk as Pebble's file system.
func (d *Disk) VFS() vfs.FS { return pebbleFS{d} }

type pebbleFS struct{ d *Disk }

// pebbleFile adds the position of a file that Pebble has open. Reads and writes without an offset
// have a position each.
type pebbleFile struct {
	*file
	readAt, writeAt int64
}

var (
	_ vfs.FS   = pebbleFS{}
	_ vfs.File = (*pebbleFile)(nil)
)

func (p pebbleFS) open(path string, flag int, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := p.d.open(path, flag)
	if err != nil {
		return nil, err
	}
	out := &pebbleFile{file: f}
	for _, o := range opts {
		o.Apply(out)
	}
	return out, nil
}

// Create implements vfs.FS. It takes the name from any other file.
func (p pebbleFS) Create(path string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	path = clean(path)
	dir, name, old, err := d.find(OpCreate, path)
	if err == nil && old != nil && old.dir {
		err = failed(OpCreate, path, syscall.EISDIR)
	}
	if err != nil {
		return nil, err
	}
	var ino *inode
	if err := d.create(dir, name, path, &ino); err != nil {
		return nil, err
	}
	return &pebbleFile{file: d.handle(ino, path)}, nil
}

// Link implements vfs.FS.
func (p pebbleFS) Link(from, to string) error {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, ino, err := d.find(OpLink, from)
	if err == nil && ino == nil {
		err = failed(OpLink, from, syscall.ENOENT)
	}
	if err != nil {
		return err
	}
	dir, name, old, err := d.find(OpLink, to)
	if err == nil && old != nil {
		err = failed(OpLink, to, syscall.EEXIST)
	}
	if err != nil {
		return err
	}
	return d.do(OpLink, clean(to), func() error { d.link(OpLink, dir, name, ino); return nil })
}

// Open implements vfs.FS.
func (p pebbleFS) Open(path string, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(path, os.O_RDONLY, opts...)
}

// OpenReadWrite implements vfs.FS.
func (p pebbleFS) OpenReadWrite(path string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.open(path, os.O_RDWR|os.O_CREATE, opts...)
}

// OpenDir implements vfs.FS.
func (p pebbleFS) OpenDir(path string) (vfs.File, error) { return p.open(path, os.O_RDONLY) }

// Remove implements vfs.FS.
func (p pebbleFS) Remove(path string) error { return p.d.Remove(path) }

// RemoveAll implements vfs.FS.
func (p pebbleFS) RemoveAll(path string) error {
	names, _ := p.d.List(path) // there is none of a file
	for _, name := range names {
		if err := p.RemoveAll(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	if err := p.d.Remove(path); !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Rename implements vfs.FS.
func (p pebbleFS) Rename(from, to string) error { return p.d.Rename(from, to) }

// ReuseForWrite implements vfs.FS.
func (p pebbleFS) ReuseForWrite(from, to string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := p.d.Rename(from, to); err != nil {
		return nil, err
	}
	return p.open(to, os.O_RDWR)
}

// MkdirAll implements vfs.FS.
func (p pebbleFS) MkdirAll(path string, perm os.FileMode) error {
	path = clean(path)
	if info, err := p.d.Stat(path); err == nil {
		if !info.Dir {
			return failed(OpMkdir, path, syscall.ENOTDIR)
		}
		return nil
	}
	if err := p.MkdirAll(filepath.Dir(path), perm); err != nil {
		return err
	}
	return p.d.Mkdir(path, perm)
}

// Lock implements vfs.FS.
func (p pebbleFS) Lock(path string) (io.Closer, error) {
	f, err := durable.Lock(p.d, path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// List implements vfs.FS.
func (p pebbleFS) List(path string) ([]string, error) { return p.d.List(path) }

// Stat implements vfs.FS.
func (p pebbleFS) Stat(path string) (vfs.FileInfo, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	_, name, ino, err := p.d.find(OpRead, path)
	if err == nil && ino == nil {
		err = failed(OpRead, path, syscall.ENOENT)
	}
	if err != nil {
		return nil, err
	}
	return info{name, ino.size, ino.dir}, nil
}

// PathBase implements vfs.FS.
func (pebbleFS) PathBase(path string) string { return filepath.Base(path) }

// PathJoin implements vfs.FS.
func (pebbleFS) PathJoin(elem ...string) string { return filepath.Join(elem...) }

// PathDir implements vfs.FS.
func (pebbleFS) PathDir(path string) string { return filepath.Dir(path) }

// GetDiskUsage implements vfs.FS.
func (p pebbleFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	free, err := p.d.Free(path)
	return vfs.DiskUsage{
		AvailBytes: uint64(free), TotalBytes: uint64(p.d.capacity), UsedBytes: uint64(p.d.capacity - free),
	}, err
}

// Unwrap implements vfs.FS.
func (pebbleFS) Unwrap() vfs.FS { return nil }

// Read implements vfs.File.
func (f *pebbleFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.readAt)
	f.readAt += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Write implements vfs.File.
func (f *pebbleFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.writeAt)
	f.writeAt += int64(n)
	return n, err
}

// Preallocate implements vfs.File.
func (*pebbleFile) Preallocate(int64, int64) error { return nil }

// Stat implements vfs.File.
func (f *pebbleFile) Stat() (vfs.FileInfo, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return info{filepath.Base(f.path), f.ino.size, f.ino.dir}, f.use(OpRead)
}

// SyncData implements vfs.File.
func (f *pebbleFile) SyncData() error { return f.Sync() }

// SyncTo implements vfs.File. As on Linux, it begins to write and promises nothing.
func (f *pebbleFile) SyncTo(n int64) (bool, error) {
	f.WriteBack(0, n)
	return false, nil
}

// Prefetch implements vfs.File.
func (*pebbleFile) Prefetch(int64, int64) error { return nil }

// Fd implements vfs.File.
func (*pebbleFile) Fd() uintptr { return vfs.InvalidFd }

// info implements vfs.FileInfo.
type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) ModTime() time.Time     { return time.Time{} }
func (i info) IsDir() bool            { return i.dir }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
