package crashfs

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"sluice/internal/durable"
)

var _ durable.FS = (*Disk)(nil)

// Boot tells one run of the machine from another: it changes with each Crash.
func (d *Disk) Boot() string { return fmt.Sprintf("boot %d", d.boot) }

// OpenFile implements durable.FS.
func (d *Disk) OpenFile(path string, flag int, _ fs.FileMode) (durable.File, error) {
	f, err := d.open(path, flag)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *Disk) open(path string, flag int) (*file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path = clean(path)
	dir, name, ino, err := d.find(OpOpen, path)
	switch {
	case err != nil:
		return nil, err
	case ino == nil && flag&os.O_CREATE == 0:
		return nil, failed(OpOpen, path, syscall.ENOENT)
	case ino != nil && flag&os.O_EXCL != 0:
		return nil, failed(OpOpen, path, syscall.EEXIST)
	case ino != nil && ino.dir && flag&(os.O_WRONLY|os.O_RDWR) != 0:
		return nil, failed(OpOpen, path, syscall.EISDIR)
	case ino == nil:
		err = d.create(dir, name, path, &ino)
	case flag&os.O_TRUNC != 0 && ino.size > 0:
		err = d.do(OpTruncate, path, func() error { ino.truncate(); return nil })
	default:
		err = d.do(OpOpen, path, func() error { return nil })
	}
	if err != nil {
		return nil, err
	}
	return d.handle(ino, path), nil
}

// create makes a file, and takes the name from any other.
func (d *Disk) create(dir *inode, name, path string, ino **inode) error {
	return d.do(OpCreate, path, func() error {
		if d.capacity != unlimited && d.used() >= d.capacity {
			return failed(OpCreate, path, syscall.ENOSPC)
		}
		*ino = d.newInode(false)
		d.link(OpCreate, dir, name, *ino)
		return nil
	})
}

func (d *Disk) handle(ino *inode, path string) *file {
	return &file{d: d, ino: ino, path: path, reported: ino.failures, heard: d.failures}
}

// Mkdir implements durable.FS.
func (d *Disk) Mkdir(path string, _ fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, ino, err := d.find(OpMkdir, path)
	if err != nil {
		return err
	}
	if ino != nil {
		return failed(OpMkdir, path, syscall.EEXIST)
	}
	return d.do(OpMkdir, clean(path), func() error {
		d.link(OpMkdir, dir, name, d.newInode(true))
		return nil
	})
}

// Remove implements durable.FS.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, ino, err := d.find(OpRemove, path)
	switch {
	case err != nil:
		return err
	case ino == nil:
		return failed(OpRemove, path, syscall.ENOENT)
	case ino == d.root || len(ino.names) > 0:
		return failed(OpRemove, path, syscall.ENOTEMPTY)
	}
	return d.do(OpRemove, clean(path), func() error {
		delete(dir.names, name)
		d.pending = append(d.pending, &change{op: OpRemove, to: dir, name: name, ino: ino})
		return nil
	})
}

// Rename implements durable.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fromDir, fromName, ino, err := d.find(OpRename, from)
	if err != nil {
		return err
	}
	if ino == nil {
		return failed(OpRename, from, syscall.ENOENT)
	}
	toDir, toName, old, err := d.find(OpRename, to)
	if err != nil {
		return err
	}
	if old != nil && (old.dir || ino.dir) {
		return failed(OpRename, to, syscall.EEXIST)
	}
	return d.do(OpRename, clean(to), func() error {
		delete(fromDir.names, fromName)
		toDir.names[toName] = ino
		d.pending = append(d.pending, &change{OpRename, fromDir, toDir, fromName, toName, ino})
		return nil
	})
}

func sorted(of map[string]*inode) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// List implements durable.FS.
func (d *Disk) List(path string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, ino, err := d.find(OpRead, path)
	switch {
	case err != nil:
		return nil, err
	case ino == nil:
		return nil, failed(OpRead, path, syscall.ENOENT)
	case !ino.dir:
		return nil, failed(OpRead, path, syscall.ENOTDIR)
	}
	return sorted(ino.names), d.do(OpRead, clean(path), func() error { return nil })
}

// Stat implements durable.FS.
func (d *Disk) Stat(path string) (durable.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _, ino, err := d.find(OpRead, path)
	if err == nil && ino == nil {
		err = failed(OpRead, path, syscall.ENOENT)
	}
	if err != nil {
		return durable.Info{}, err
	}
	return durable.Info{Dir: ino.dir, Regular: !ino.dir, ID: fmt.Sprint(ino.num), Bytes: ino.allocated()}, nil
}

// Free implements durable.FS.
func (d *Disk) Free(string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.capacity == unlimited {
		return unlimited, nil
	}
	return max(d.capacity-d.used(), 0), nil
}
