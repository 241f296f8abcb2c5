// Package durable is the small leaf of file steps that survive power loss: write a file, make a
// folder, remove a name. Each returns when the step is on the disk, folder entries included. It
// owns no format and no policy.
//
// It also declares what such steps need of a file system, [FS] and [File], so that the same code
// runs on the operating system's ([OS]) and on a simulated disk that loses power (package crashfs).
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// FS is a file system. Nothing that its methods do is durable before the file, or the folder whose
// entries changed, is synced. Errors are those of package os: errors.Is knows fs.ErrNotExist,
// fs.ErrExist and the system's numbers. It is safe for concurrent use.
type FS interface {
	// OpenFile opens a file, or a folder for its Sync, as os.OpenFile does.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	// Mkdir makes a folder; fs.ErrExist where the name is taken.
	Mkdir(path string, perm fs.FileMode) error
	// Remove removes a name. Who has the file open keeps it.
	Remove(path string) error
	// Rename gives a file another name, and takes that from whatever had it, at once.
	Rename(from, to string) error
	// List gives the names in a folder, sorted.
	List(path string) ([]string, error)
	// Stat describes what has the name, or what a link there leads to.
	Stat(path string) (Info, error)
	// Free is the number of bytes that can still be written on the disk that path is on.
	Free(path string) (int64, error)
}

// File is an open file, or folder. It is safe for concurrent use.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes what was written, or a folder's entries, survive power loss. After a failure
	// nobody knows what is on the disk, and another Sync that succeeds says nothing of what was
	// written before the failed one.
	Sync() error
	// WriteBack is a hint to begin with bringing n bytes from off to the disk. It does not wait; an
	// error shows at the Sync.
	WriteBack(off, n int64)
	// PastCache gives a way to read past the cache what the disk holds of the n bytes from off:
	// whole blocks of [Block] bytes, into memory at such an address, short only at the file's end.
	// Where the file system can't, the read is as good as it gets. done ends it.
	PastCache(off, n int64) (read func(p []byte, off int64) (int, error), done func() error)
	// Direct opens the file once more, for writes past the cache. errors.ErrUnsupported where the
	// file system has none; then, or where there is no descriptor for it, write through the cache.
	Direct() (DirectFile, error)
	// Punch gives n bytes from off back to the disk: they read as zeros then, and the file stays as
	// long as it is. Both are to be multiples of [Block]. errors.ErrUnsupported where the file
	// system can't, and then nothing has changed.
	Punch(off, n int64) error
	// NextData gives where, from off on, there may be something else than what was punched or never
	// written; io.EOF where there is nothing more.
	NextData(off int64) (int64, error)
	// Lock takes the file's exclusive lock until Close, or the end of the process, without waiting;
	// ErrLocked where another open file has it.
	Lock() error
}

// DirectFile writes past the cache: whole blocks of [Block] bytes, and of a page, from memory at
// such an address; what is not, or what the file system can't, is errors.ErrUnsupported, and has
// changed nothing. What was written is no safer than through the cache before the File's Sync. It
// is safe for concurrent use.
type DirectFile interface {
	io.WriterAt
	io.Closer
}

// Block is what reads past the cache ask offsets, lengths and addresses to be multiples of.
const Block = 4096

// Info describes a file or a folder.
type Info struct {
	Dir     bool
	Regular bool   // a plain file itself, not a link to one
	ID      string // tells it from a copy of it
	Bytes   int64  // what is allocated
}

// ErrLocked: somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// SyncDisk syncs the whole disk that a file is on, where the file system can; else it fails.
func SyncDisk(f File) error {
	if d, ok := f.(interface{ SyncDisk() error }); ok {
		return d.SyncDisk()
	}
	return errors.ErrUnsupported
}

// Boot tells one run of the machine below the file system from another; "" where that is not known.
func Boot(on FS) string {
	if b, ok := on.(interface{ Boot() string }); ok {
		return b.Boot()
	}
	return ""
}

// WriteFile makes path have exactly this content, or leaves it as it was: temporary file, fsync,
// rename, fsync of the folder. Where only the last of these failed, the new content is there until
// a power loss may bring the old one back.
func WriteFile(on FS, path string, data []byte, perm fs.FileMode) error {
	if err := writeFile(on, path, data, perm); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func writeFile(on FS, path string, data []byte, perm fs.FileMode) error {
	f, temp, err := createFirst(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."), func(name string) (File, error) {
		return on.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	})
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = on.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, on.Remove(temp))
	}
	return SyncDir(on, filepath.Dir(path))
}

// mostTemps bounds how many temporary files of one name there may be. A crash leaves one at most.
const mostTemps = 10_000

// createFirst creates a file under the first of prefix+"0", prefix+"1" and so on that nothing has.
// create gives fs.ErrExist for a name that something has.
func createFirst[F any](prefix string, create func(name string) (F, error)) (f F, name string, err error) {
	for n := range mostTemps {
		name = prefix + strconv.Itoa(n)
		if f, err = create(name); !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
	return f, "", fmt.Errorf("%d temporary files are in the way: %s0 and so on", mostTemps, prefix)
}

// ReadFile gives a file's content.
func ReadFile(on FS, path string) ([]byte, error) {
	f, err := on.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<62))
	return data, errors.Join(err, f.Close())
}

// MkdirAll makes path and what is missing above it. A folder that is there already is left as it
// is, but for its name: whoever made it may have died before that was durable.
func MkdirAll(on FS, path string, perm fs.FileMode) error {
	parent := filepath.Dir(path)
	info, err := on.Stat(path)
	if err == nil {
		if !info.Dir {
			return fmt.Errorf("%s is not a folder", path)
		}
		// Above a folder that was given to us nothing can be read, perhaps.
		if err := SyncDir(on, parent); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent != path {
		if err := MkdirAll(on, parent, perm); err != nil {
			return err
		}
	}
	if err := on.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(on, parent)
}

// Mkdir is MkdirAll for the last part of the path alone: what is missing above it may be on a disk
// that is not mounted.
func Mkdir(on FS, path string, perm fs.FileMode) error {
	parent := filepath.Dir(path)
	if _, err := on.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there, and only the last part of %s is made: is its disk mounted? Else make it first (%w)", parent, path, fs.ErrNotExist)
	}
	return MkdirAll(on, path, perm)
}

// RemoveAll removes path and what is in it. Links are removed, and not followed. Unlike the other
// steps it is not on the disk when it returns: after a crash some of it may be there again.
func RemoveAll(on FS, path string) error {
	err := on.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	names, listed := on.List(path)
	if listed != nil {
		return err
	}
	for _, name := range names {
		if err := RemoveAll(on, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return on.Remove(path)
}

// SyncDir makes the entries of a folder survive power loss.
func SyncDir(on FS, path string) error {
	d, err := on.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock takes the exclusive lock of the file at path, which it makes where there is none, until the
// file is closed or the process ends. ErrLocked where another open file has it, also one of this
// process.
func Lock(on FS, path string) (File, error) {
	f, err := on.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Lock(); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f, nil
}

// OpenRegular opens a file for reading that is a regular one, and no link to one. It gives nil
// where something else has the name, and fs.ErrNotExist where nothing has.
func OpenRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return os.Open(path)
}
