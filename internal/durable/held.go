//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Held is an open folder of the operating system, as a file system. A path that begins with the
// folder's name leads into the folder that was opened, even if it was moved since or if another
// folder has the name by now. All other paths are refused with fs.ErrPermission.
type Held struct {
	name string
	dir  *os.File
}

var _ FS = (*Held)(nil)

// Hold opens a folder. A link is followed, once.
func (OS) Hold(path string) (*Held, error) { return hold(unix.AT_FDCWD, path, path) }

// Hold opens a folder in the held one. A link is followed, once.
func (h *Held) Hold(path string) (out *Held, err error) {
	err = h.at("open", path, func(fd int, rel string) error {
		out, err = hold(fd, rel, path)
		return err
	})
	return out, err
}

func hold(at int, rel, path string) (*Held, error) {
	f, err := openat(at, rel, path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Held{filepath.Clean(path), f}, nil
}

func openat(at int, rel, path string, flag int, perm fs.FileMode) (*os.File, error) {
	for {
		fd, err := unix.Openat(at, rel, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// Name is the folder's name when it was opened.
func (h *Held) Name() string { return h.name }

// HeldPath gives a path that leads into the folder even if it is moved. It is for functions
// that take paths alone. It gives the folder's name if the system has no such path.
func (h *Held) HeldPath() string {
	path := fmt.Sprintf("/proc/self/fd/%d", h.dir.Fd())
	if info, err := os.Stat(path); err != nil || !h.is(info) {
		return h.name
	}
	return path
}

// is reports whether this describes the folder.
func (h *Held) is(info fs.FileInfo) bool {
	own, err := h.dir.Stat()
	return err == nil && os.SameFile(own, info)
}

// InPlace gives an error if another folder, or none, has the folder's name.
func (h *Held) InPlace() error {
	info, err := os.Stat(h.name)
	if err != nil {
		return err
	}
	if !h.is(info) {
		return fmt.Errorf("another folder has the name %s", h.name)
	}
	return nil
}

// Lock takes the lock of File.Lock for the folder itself. The lock file in a folder may be removed
// and made anew; this lock belongs to the folder that all openers share. errors.ErrUnsupported: the
// file system can't lock folders.
func (h *Held) Lock() error {
	err := LockFile(h.dir)
	for _, not := range []error{unix.EBADF, unix.EINVAL, unix.ENOLCK, unix.ENOSYS, unix.ENOTSUP, unix.EISDIR} {
		if errors.Is(err, not) {
			return fmt.Errorf("locking the folder %s: %w: %w", h.name, errors.ErrUnsupported, err)
		}
	}
	return err
}

// Close closes the folder. No path below it can be opened any more.
func (h *Held) Close() error { return h.dir.Close() }

// at calls do with the folder's descriptor and the path relative to it.
func (h *Held) at(op, path string, do func(fd int, rel string) error) error {
	fail := func(err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }
	rel, inside := strings.CutPrefix(path, h.name)
	switch {
	case rel == "":
		rel = "."
	case inside && rel[0] == '/' && len(rel) > 1:
		rel = rel[1:]
	default:
		inside = false
	}
	if !inside {
		return fail(fs.ErrPermission)
	}
	raw, err := h.dir.SyscallConn()
	if err != nil {
		return fail(err)
	}
	if ctl := raw.Control(func(fd uintptr) { err = do(int(fd), rel) }); ctl != nil {
		return fail(ctl)
	}
	var pathErr *fs.PathError
	if err != nil && !errors.As(err, &pathErr) {
		return fail(err)
	}
	return err
}

// OpenFile implements FS.
func (h *Held) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := h.open(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f, h}, nil
}

func (h *Held) open(path string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = h.at("open", path, func(fd int, rel string) error {
		f, err = openat(fd, rel, path, flag, perm)
		return err
	})
	return f, err
}

// Mkdir implements FS.
func (h *Held) Mkdir(path string, perm fs.FileMode) error {
	return h.at("mkdir", path, func(fd int, rel string) error { return unix.Mkdirat(fd, rel, uint32(perm.Perm())) })
}

// Remove implements FS.
func (h *Held) Remove(path string) error {
	return h.at("remove", path, func(fd int, rel string) error {
		err := unix.Unlinkat(fd, rel, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) { // the errors of unlink for a folder
			if dir := unix.Unlinkat(fd, rel, unix.AT_REMOVEDIR); !errors.Is(dir, unix.ENOTDIR) {
				return dir
			}
		}
		return err
	})
}

// Rename implements FS.
func (h *Held) Rename(from, to string) error {
	return h.at("rename", from, func(fd int, rel string) error {
		return h.at("rename", to, func(_ int, into string) error { return unix.Renameat(fd, rel, fd, into) })
	})
}

// List implements FS.
func (h *Held) List(path string) ([]string, error) {
	d, err := h.open(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// Stat implements FS.
func (h *Held) Stat(path string) (info Info, err error) {
	err = h.at("stat", path, func(fd int, rel string) error {
		var st unix.Stat_t
		err := unix.Fstatat(fd, rel, &st, unix.AT_SYMLINK_NOFOLLOW)
		regular := err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err = unix.Fstatat(fd, rel, &st, 0)
		}
		info = Info{
			Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Regular: regular,
			ID: fmt.Sprintf("%d:%d", st.Dev, st.Ino), Bytes: int64(st.Blocks) * 512,
		}
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return info, nil
}

// Free implements FS, for the disk that the folder itself is on.
func (h *Held) Free(path string) (free int64, err error) {
	err = h.at("statfs", path, func(fd int, _ string) error {
		var st unix.Statfs_t
		err := unix.Fstatfs(fd, &st)
		free = int64(st.Bavail) * int64(st.Bsize)
		return err
	})
	return free, err
}

// Boot gives the machine's boot id.
func (h *Held) Boot() string { return Boot(OS{}) }
