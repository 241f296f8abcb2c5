//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system.
type OS struct{}

var _ FS = OS{}

// OpenFile implements FS.
func (OS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f, nil}, nil
}

// Mkdir implements FS.
func (OS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// List implements FS.
func (OS) List(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Stat implements FS.
func (OS) Stat(path string) (Info, error) {
	info, err := os.Lstat(path)
	regular := err == nil && info.Mode().IsRegular()
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(path)
	}
	if err != nil {
		return Info{}, err
	}
	out := Info{Dir: info.IsDir(), Regular: regular, Bytes: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		out.ID, out.Bytes = fmt.Sprintf("%d:%d", st.Dev, st.Ino), int64(st.Blocks)*512
	}
	return out, nil
}

// Free implements FS.
func (OS) Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// osFile is a file of the operating system.
type osFile struct {
	*os.File
	in *Held // nil: the file was opened by its path alone
}

// reopen opens the file once more.
func (f osFile) reopen(flag int) (*os.File, error) {
	if f.in != nil {
		return f.in.open(f.Name(), flag, 0)
	}
	return os.OpenFile(f.Name(), flag, 0)
}

// WriteBack is File.WriteBack for a file of package os.
func WriteBack(f *os.File, off, n int64) { osFile{f, nil}.WriteBack(off, n) }

// Lock implements File.
func (f osFile) Lock() error { return LockFile(f.File) }
