// Package journal keeps sessions in one file, for one process: a [session.Store] that is
// [session.Mem] plus a log of its operations.
//
// It owns the format of that file, its durability, its lock and its recovery. It does not own the
// rules of sessions (they are those of session.Mem), nor any bytes of content. It is meant for the
// few sessions of a command: everything is in memory, and calls that change something wait for the
// disk one after the other.
//
// # The file
//
//	┌──────────────────────────────┐
//	│ header, 16 bytes             │ "sluice journal" 0x00 version
//	├──────────┬──────────┬────────┴─────────┐
//	│ length   │ CRC-32C  │ operation, JSON  │ one frame for each operation
//	│ u32 LE   │ u32 LE   │ length bytes     │
//	├──────────┼──────────┼──────────────────┤
//	│ …        │ …        │ …                │
//
// The checksum covers the length and the operation, so a tail of zeros is no frame. Each operation
// has changed the store (see stored). The state of the store is the result of all operations, done
// in order on an empty store.
//
// # Durability
//
// A frame is written and synced before the change that it describes shows. So a call that returned
// survives kill -9 and power loss, seals included, and nothing shows that a crash could take back.
// A call that failed may or may not have happened. After a failed sync nothing more is written: the
// disk may have discarded bytes that a second sync would report as safe. After a failed write the
// file is truncated to its last whole frame and stays usable.
//
// Opening removes one unfinished frame at the end. A crash may have left it there, and it was never
// acknowledged. Any other damage is [ErrDamaged]. If more than half of the file describes sessions
// that are gone, opening writes the file anew: beside it, synced, renamed, the folder synced.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"sluice/internal/durable"
	"sluice/session"
)

var (
	// ErrLocked: another Journal, of this or another process, has the file open.
	ErrLocked = errors.New("journal is in use")
	// ErrDamaged: the file is no journal, or was changed by more than appends. It is left as it is.
	ErrDamaged = errors.New("journal is damaged")
	// ErrVersion: a newer program has written the file. It is left as it is.
	ErrVersion = errors.New("journal was written by a newer version")
	// ErrClosed: the Journal was closed, or its file removed.
	ErrClosed = errors.New("journal is closed")
)

// Journal is a session.Store on a file. It is safe for concurrent use, by any number of Services of
// this process.
type Journal struct {
	*session.Mem
	path string

	mu   sync.Mutex // taken under Mem's lock, never the other way round
	file file
	end  int64 // behind the last whole frame
	err  error // why nothing can be written any more
}

// file is the part of an open file that a Journal uses; crash tests have another one.
type file interface {
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// compactFrom is the size in bytes below which a file is not rewritten.
const compactFrom = 16 << 10

// suffixNew is appended to the journal's name for the file that replaces it.
const suffixNew = ".new"

// Open opens the journal at path, or makes an empty one, and locks it until Close. Its folder must
// exist. Errors: ErrLocked, ErrDamaged, ErrVersion, those of the file system.
func Open(path string) (*Journal, error) {
	f, err := openLocked(path)
	if err != nil {
		return nil, err
	}
	j, err := load(path, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the journal %s: %w", path, err), f.Close())
	}
	return j, nil
}

// load reads the file into memory and repairs its end. If it fails the caller still owns f.
func load(path string, f *os.File) (*Journal, error) {
	size, err := ensureHeader(path, f)
	if err != nil {
		return nil, err
	}
	j := &Journal{path: path}
	j.Mem = session.NewMemWith(session.MemObservers{Log: j.log})
	j.end, err = replay(f, size, j.Do)
	if err != nil {
		return nil, err
	}
	if j.end < size {
		if err := errors.Join(f.Truncate(j.end), f.Sync()); err != nil {
			return nil, fmt.Errorf("truncating an unfinished frame: %w", err)
		}
	}
	// A crash may have left an unfinished new file. Another file of that name is left as it is.
	if is, err := Is(path + suffixNew); err != nil {
		return nil, err
	} else if is {
		if err := os.Remove(path + suffixNew); err != nil {
			return nil, err
		}
	}
	compact, err := image(j.Rows())
	if err != nil {
		return nil, err
	}
	if j.end > compactFrom && int64(len(compact)) < j.end/2 {
		rewritten, err := rewrite(path, compact)
		switch {
		case err == nil:
			// The old file has no name any more, so nobody needs its lock.
			_ = f.Close()
			f, j.end = rewritten, int64(len(compact))
		case !errors.Is(err, os.ErrExist): // another file has the name: the journal stays as it is
			return nil, fmt.Errorf("writing it anew: %w", err)
		}
	}
	j.file = f
	return j, nil
}

// ensureHeader returns the file's size. It writes the header if the file is empty, or a crash has
// left a part of it. No frame is acknowledged before the header is durable, so a torn header means
// an empty journal.
func ensureHeader(path string, f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: it is not a regular file", ErrDamaged)
	}
	if info.Size() >= headerSize {
		return info.Size(), checkHeader(f)
	}
	torn := make([]byte, info.Size())
	if _, err := io.ReadFull(f, torn); err != nil {
		return 0, err
	}
	if !tornHeader(torn) {
		return 0, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if _, err := f.WriteAt(header(), 0); err != nil {
		return 0, err
	}
	return headerSize, errors.Join(f.Sync(), durable.SyncDir(durable.OS{}, filepath.Dir(path)))
}

// rewrite replaces the file at path by one with this content, and gives it open and locked. The
// caller holds the lock of the old one.
func rewrite(path string, content []byte) (*os.File, error) {
	temp := path + suffixNew
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	// It is locked before others can find it under its name.
	err = lock(f)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = durable.SyncDir(durable.OS{}, filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// log makes one operation durable. It runs under Mem's lock, before the change shows.
func (j *Journal) log(op session.Op) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	b, err := frame(op)
	if err != nil {
		return err
	}
	if _, err := j.file.WriteAt(b, j.end); err != nil {
		if undoErr := errors.Join(j.file.Truncate(j.end), j.file.Sync()); undoErr != nil {
			j.err = fmt.Errorf("journal %s can't be written any more: %w", j.path, undoErr)
		}
		return fmt.Errorf("writing to the journal %s: %w", j.path, err)
	}
	if err := j.file.Sync(); err != nil {
		j.err = fmt.Errorf("journal %s can't be written any more: %w", j.path, err)
		return j.err
	}
	j.end += int64(len(b))
	return nil
}

// Close closes the file and releases its lock. From then on calls that change something fail with
// ErrClosed. Repeating it is fine.
func (j *Journal) Close() error { return j.close(func() error { return nil }) }

// Remove closes the journal and deletes its file, durably. It keeps the lock until the file is
// gone.
func (j *Journal) Remove() error {
	return j.close(func() error {
		if err := os.Remove(j.path); err != nil {
			return err
		}
		return durable.SyncDir(durable.OS{}, filepath.Dir(j.path))
	})
}

func (j *Journal) close(first func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.err, ErrClosed) {
		return nil
	}
	j.err = ErrClosed
	return errors.Join(first(), j.file.Close())
}

// openLocked opens path, or makes it if it is missing, and locks it for this Journal alone:
// ErrLocked if another one has it.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := durable.OpenLocked(path)
		if errors.Is(err, os.ErrNotExist) {
			f, err = durable.CreateLocked(path, 0o666, func(f *os.File) error {
				_, err := f.WriteAt(header(), 0)
				return errors.Join(err, f.Sync())
			})
			if err == nil {
				return f, durable.SyncDir(durable.OS{}, filepath.Dir(path))
			}
		}
		switch {
		case errors.Is(err, os.ErrExist):
			continue // another one was faster
		case errors.Is(err, durable.ErrLocked):
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return f, err
	}
}

// Is reports whether the file at path is a journal, or a part of one that a crash has left. It is
// false if there is no file, for a link, and for an empty file.
func Is(path string) (bool, error) {
	f, err := durable.OpenRegular(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if f == nil {
		return false, err
	}
	defer f.Close()
	b := make([]byte, len(magic))
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	return n > 0 && bytes.HasPrefix([]byte(magic), b[:n]), nil
}

// lock takes the file for this Journal alone, or returns ErrLocked at once. The lock ends when the
// file is closed, and so with the process.
func lock(f *os.File) error {
	err := durable.LockFile(f)
	if errors.Is(err, durable.ErrLocked) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}
