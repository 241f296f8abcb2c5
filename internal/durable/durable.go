// Package durable has the file steps that survive power loss: write a file, make a folder, remove a
// name. Each returns when the step is on the disk, folder entries included. It owns no format and
// no policy.
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

// FS is a file system. No step is durable before the file, or the folder whose entries changed, is
// synced. Errors are those of package os: errors.Is knows fs.ErrNotExist, fs.ErrExist and the
// system's numbers. It is safe for concurrent use.
type FS interface {
	// OpenFile opens a file, or a folder for its Sync, as os.OpenFile does.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	// Mkdir makes a folder; fs.ErrExist if the name is taken.
	Mkdir(path string, perm fs.FileMode) error
	// Remove removes a name. An open file stays usable.
	Remove(path string) error
	// Rename gives a file another name, and takes that name from whatever had it, in one step.
	Rename(from, to string) error
	// List gives the names in a folder, sorted.
	List(path string) ([]string, error)
	// Stat describes what has the name, or the target of a link there.
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
	// WriteBack is a hint to begin with bringing n bytes from off to the disk. It does not wait.
	// Sync reports an error.
	WriteBack(off, n int64)
	// PastCache gives a function that reads, past the cache, the n bytes from off as the disk holds
	// them: whole blocks of [Block] bytes, into memory that is aligned to Block, short only at the
	// file's end. If the file system can't, the read comes as close as it can. done ends it.
	PastCache(off, n int64) (read func(p []byte, off int64) (int, error), done func() error)
	// Direct opens the file once more, for writes past the cache. errors.ErrUnsupported: the file
	// system has none. In this case, or without a descriptor for it, write through the cache.
	Direct() (DirectFile, error)
	// Punch gives n bytes from off back to the disk: they read as zeros then, and the file keeps
	// its length. Both are to be multiples of [Block]. errors.ErrUnsupported: the file system
	// can't, and nothing has changed.
	Punch(off, n int64) error
	// NextData gives the first offset from offset off that may hold something else than punched or
	// unwritten bytes; io.EOF if there is none.
	NextData(off int64) (int64, error)
	// Lock takes the file's exclusive lock until Close, or the end of the process, without waiting;
	// ErrLocked if another open file has it.
	Lock() error
}

// DirectFile writes past the cache: whole blocks of [Block] bytes, and of a page, from memory that
// is aligned so. For anything else, or if the file system can't, it gives errors.ErrUnsupported and
// has changed nothing. Before the File's Sync the bytes are no safer than in the cache. It is safe
// for concurrent use.
type DirectFile interface {
	io.WriterAt
	io.Closer
}

// Block is the unit of reads past the cache: offsets, lengths and addresses are multiples of it, in
// bytes.
const Block = 4096

// Info describes a file or a folder.
type Info struct {
	Dir     bool
	Regular bool   // a plain file itself, not a link to one
	ID      string // differs from that of a copy
	Bytes   int64  // allocated on the disk
}

// ErrLocked: somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// SyncDisk syncs the whole disk that a file is on; errors.ErrUnsupported if the file system can't.
func SyncDisk(f File) error {
	if d, ok := f.(interface{ SyncDisk() error }); ok {
		return d.SyncDisk()
	}
	return errors.ErrUnsupported
}

// Boot tells one run of the machine from another; "" if the file system does not know.
func Boot(on FS) string {
	if b, ok := on.(interface{ Boot() string }); ok {
		return b.Boot()
	}
	return ""
}

// WriteFile makes path have exactly this content, or leaves it as it was: temporary file, fsync,
// rename, fsync of the folder. If only the last of these failed, the new content is there, and a
// power loss may still bring the old one back.
func WriteFile(on FS, path string, data []byte, perm fs.FileMode) error {
	if err := writeFile(on, path, data, perm); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func writeFile(on FS, path string, data []byte, perm fs.FileMode) error {
	f, temp, err := createFirst(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."),
		func(name string) (File, error) {
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

// createFirst creates a file under the first unused name of prefix+"0", prefix+"1" and so on.
// create gives fs.ErrExist for a used name.
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

// MkdirAll makes path and all missing folders above it. It leaves a folder that is there as it is,
// but syncs its name: whoever made it may have died before that was durable.
func MkdirAll(on FS, path string, perm fs.FileMode) error {
	parent := filepath.Dir(path)
	info, err := on.Stat(path)
	if err == nil {
		if !info.Dir {
			return fmt.Errorf("%s is not a folder", path)
		}
		// The process may have no right to read above a folder that it was given.
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

// Mkdir is MkdirAll for the last part of the path alone: a missing folder above it may be on a disk
// that is not mounted.
func Mkdir(on FS, path string, perm fs.FileMode) error {
	parent := filepath.Dir(path)
	if _, err := on.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there, and only the last part of %s is made: is its disk mounted? Else make "+
			"it first (%w)", parent, path, fs.ErrNotExist)
	}
	return MkdirAll(on, path, perm)
}

// RemoveAll removes path and everything in it. Links are removed, and not followed. Unlike the
// other steps it is not durable when it returns: after a crash some of it may be there again.
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

// Lock takes the exclusive lock of the file at path, and makes the file if it is not there. The
// lock lasts until the file is closed or the process ends. ErrLocked: another open file has it,
// perhaps one of this process.
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

// OpenRegular opens a regular file for reading, and follows no link. It gives nil if the name is
// that of something else, and fs.ErrNotExist if there is no such name.
func OpenRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return os.Open(path)
}
