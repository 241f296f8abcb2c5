package localblob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// bootID tells one run of the machine from another.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

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
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// writeBack asks the kernel to begin with writing; an error shows at the sync.
func writeBack(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// syncDisk syncs all of the file system that f is on.
func syncDisk(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// pastCache reads whole blocks at the place of f past the cache: by direct I/O, or, where the file system has none, through a cache that has forgotten
// the n bytes from off. Where it can't forget either, as in memory, the read is as good as it gets.
func pastCache(f *os.File, off, n int64) (read func(p []byte, off int64) (int, error), done func() error) {
	buffered := func(p []byte, at int64) (int, error) {
		// Only whole pages are forgotten, and some are large.
		const page = 2 << 20
		from, to := off/page*page, (off+n+page-1)/page*page
		if at <= off {
			_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
		}
		return f.ReadAt(p, at)
	}
	direct, err := os.OpenFile(f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return buffered, func() error { return nil }
	}
	return func(p []byte, at int64) (int, error) {
		for {
			n, err := unix.Pread(int(direct.Fd()), p, at)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EINVAL):
				return buffered(p, at)
			case err != nil:
				return 0, err
			case n == 0:
				return 0, io.EOF
			}
			return n, nil
		}
	}, direct.Close
}
