//go:build unix && !linux

package localblob

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// bootID: without one every stop that was not clean counts as the machine's.
func bootID() string { return "" }

// identity tells the folder from a copy of it.
func identity(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// syncDisk: the system has no call for one file system.
func syncDisk(*os.File) error { return unix.Sync() }

// writeBack is a hint, which this system has no call for.
func writeBack(*os.File, int64, int64) {}

// pastCache: this system has no way past the cache that needs no other alignment.
func pastCache(f *os.File, _, _ int64) (read func(p []byte, off int64) (int, error), done func() error) {
	return f.ReadAt, func() error { return nil }
}
