package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
	"unsafe"

	"sluice/internal/durable"
)

// file is an open file or folder.
type file struct {
	d        *Disk
	ino      *inode
	path     string
	reported int // failed write-backs of the file that this handle need not report
	heard    int // the same, of the whole disk
	closed   atomic.Bool
}

// use begins a call. d.mu is held.
func (f *file) use(op Op) error {
	if f.closed.Load() {
		return &fs.PathError{Op: string(op), Path: f.path, Err: fs.ErrClosed}
	}
	return nil
}

// ReadAt implements durable.File.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	return f.read(p, off, func() []*sector { return f.ino.cache })
}

func (f *file) read(p []byte, off int64, from func() []*sector) (n int, err error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(OpRead); err != nil {
		return 0, err
	}
	if fault := f.d.step(OpRead, f.path, len(p)); fault != nil {
		return 0, failed(OpRead, f.path, fault.Err)
	}
	return f.ino.read(from(), p, off)
}

// PastCache implements durable.File.
func (f *file) PastCache(_, _ int64) (read func(p []byte, off int64) (int, error), done func() error) {
	return func(p []byte, off int64) (int, error) {
		if off%durable.Block != 0 || len(p)%durable.Block != 0 {
			return 0, failed(OpRead, f.path, syscall.EINVAL)
		}
		n, err := f.read(p, off, func() []*sector {
			f.ino.writeBack(int(off/sectorSize), sectors(off+int64(len(p))))
			return f.ino.drive
		})
		if n > 0 {
			err = nil
		}
		return n, err
	}, func() error { return nil }
}

// WriteAt implements durable.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.write(p, off)
}

func (f *file) write(p []byte, off int64) (int, error) {
	if err := f.use(OpWrite); err != nil {
		return 0, err
	}
	n := len(p)
	fault := f.d.step(OpWrite, f.path, n)
	switch {
	case fault != nil && !fault.After:
		n = min(fault.Short, n)
	case f.d.capacity != unlimited && f.d.used()+int64(n) > f.d.capacity:
		return 0, failed(OpWrite, f.path, syscall.ENOSPC)
	}
	if n > 0 {
		f.ino.write(p[:n], off)
	}
	switch {
	case fault != nil && fault.Err != 0:
		return n, failed(OpWrite, f.path, fault.Err)
	case n < len(p):
		return n, io.ErrShortWrite
	}
	return n, nil
}

// Punch implements durable.File: it is a write of zeros that take no space.
func (f *file) Punch(off, n int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(OpPunch); err != nil {
		return err
	}
	if off%sectorSize != 0 || n%sectorSize != 0 {
		return failed(OpPunch, f.path, syscall.EINVAL)
	}
	return f.d.do(OpPunch, f.path, func() error { f.ino.punch(int(off/sectorSize), sectors(off+n)); return nil })
}

// NextData implements durable.File.
func (f *file) NextData(off int64) (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(OpRead); err != nil {
		return off, err
	}
	for i := int(off / sectorSize); i < len(f.ino.cache); i++ {
		if s := f.ino.cache[i]; s != nil && s != hole {
			return max(off, int64(i)*sectorSize), nil
		}
	}
	return off, io.EOF
}

// Direct implements durable.File.
func (f *file) Direct() (durable.DirectFile, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(OpOpen); err != nil {
		return nil, err
	}
	if fault := f.d.step(OpOpen, f.path, 0); fault != nil {
		return nil, failed(OpOpen, f.path, fault.Err)
	}
	return directFile{&file{d: f.d, ino: f.ino, path: f.path, reported: f.ino.failures, heard: f.d.failures}}, nil
}

// directFile writes whole sectors from aligned memory. The drive has them at once, and the platter
// with the next sync or never.
type directFile struct{ *file }

func (f directFile) WriteAt(p []byte, off int64) (int, error) {
	if off%sectorSize != 0 || len(p)%sectorSize != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%sectorSize != 0 {
		return 0, errors.ErrUnsupported
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n, err := f.write(p, off)
	f.ino.writeBack(int(off/sectorSize), sectors(off+int64(n)))
	return n, err
}

// WriteBack implements durable.File.
func (f *file) WriteBack(off, n int64) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.use(OpWriteBack) != nil {
		return
	}
	switch fault := f.d.step(OpWriteBack, f.path, int(n)); {
	case fault != nil && !fault.After:
		f.d.lose(f.ino)
	default:
		f.ino.writeBack(int(off/sectorSize), sectors(off+n))
	}
}

// Sync implements durable.File.
func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.ino.dir {
		if err := f.use(OpSyncDir); err != nil {
			return err
		}
		return f.d.do(OpSyncDir, f.path, func() error { f.d.syncDir(f.ino); return nil })
	}
	if err := f.use(OpSync); err != nil {
		return err
	}
	fault := f.d.step(OpSync, f.path, 0)
	if fault != nil && !fault.After {
		f.d.lose(f.ino)
		f.reported = f.ino.failures
		return failed(OpSync, f.path, fault.Err)
	}
	f.ino.sync()
	switch {
	case fault != nil:
		return failed(OpSync, f.path, fault.Err)
	case f.reported != f.ino.failures:
		f.reported = f.ino.failures
		return failed(OpSync, f.path, syscall.EIO)
	}
	return nil
}

// SyncDisk syncs everything.
func (f *file) SyncDisk() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.use(OpSync); err != nil {
		return err
	}
	return f.d.do(OpSync, "/", func() error {
		f.d.root.walk("/", func(_ string, ino *inode) {
			if ino.dir {
				f.d.syncDir(ino)
			} else {
				ino.sync()
			}
		})
		f.d.syncDir(f.d.root)
		if f.heard != f.d.failures {
			f.heard = f.d.failures
			return failed(OpSync, "/", syscall.EIO)
		}
		return nil
	})
}

// Lock implements durable.File.
func (f *file) Lock() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.ino.locked != nil && f.ino.locked != f {
		return durable.ErrLocked
	}
	f.ino.locked = f
	return nil
}

// Close implements durable.File.
func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed.Swap(true) {
		return &fs.PathError{Op: "close", Path: f.path, Err: fs.ErrClosed}
	}
	if f.ino.locked == f {
		f.ino.locked = nil
	}
	return nil
}
