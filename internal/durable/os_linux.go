package durable

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Boot is the machine's boot id.
func (OS) Boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// WriteBack implements File.
func (f osFile) WriteBack(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// SyncDisk syncs all of the file system that f is on.
func (f osFile) SyncDisk() error { return unix.Syncfs(int(f.Fd())) }

// PastCache implements File by direct I/O. If the file system has none, it reads through a cache
// that has evicted the n bytes from off. A file system in memory can do neither.
func (f osFile) PastCache(off, n int64) (read func(p []byte, off int64) (int, error), done func() error) {
	buffered := func(p []byte, at int64) (int, error) {
		// Only whole pages are evicted, and some are large.
		const page = 2 << 20
		from, to := off/page*page, (off+n+page-1)/page*page
		if at <= off {
			_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
		}
		return f.ReadAt(p, at)
	}
	direct, err := f.reopen(os.O_RDONLY | unix.O_DIRECT)
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

// Punch implements File.
func (f osFile) Punch(off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			return errors.ErrUnsupported
		default:
			return err
		}
	}
}

// NextData implements File.
func (f osFile) NextData(off int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return off, io.EOF
	}
	return at, err
}

// Direct implements File.
func (f osFile) Direct() (DirectFile, error) {
	d, err := f.reopen(os.O_WRONLY | unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) {
		return nil, errors.ErrUnsupported
	}
	if err != nil {
		return nil, err
	}
	return directFile{d}, nil
}

// directFile is a file that was opened with O_DIRECT.
type directFile struct{ *os.File }

func (f directFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if errors.Is(err, unix.EINVAL) && n == 0 {
		return 0, errors.ErrUnsupported
	}
	return n, err
}

// Allocate gives an open file n bytes of the disk, as zeros. errors.ErrUnsupported: the file system
// can't.
func Allocate(fd uintptr, n int64) error {
	for {
		err := unix.Fallocate(int(fd), 0, 0, n)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EBADF): // the file has no descriptor
			return errors.ErrUnsupported
		default:
			return err
		}
	}
}
