// Package folder owns a data folder as a whole: that its two halves, the metadata and the content,
// belong together, that one server at a time has it, and that what is used is the folder that was
// opened. It does not own what is in the halves: that is the stores'.
//
// Either half may be on a disk of its own, and that disk may be missing, or be another one, when
// the server starts or while it runs. An empty mount point looks like a half that is to be made. So
// a half is made only where the whole folder has never held anything, and the halves know each
// other by an id that is drawn when the folder is made:
//
//	DIR/folder          {"format":1,"folder":ID,"part":"whole"}
//	DIR/content/folder  {"format":1,"folder":ID,"part":"content"}
//	DIR/meta/FOLDER     {"format":1,"folder":ID,"part":"meta",
//	                     "life":9,"open":true,"unknown":[[5,7]]}
//	DIR/lock            locked while a process has the folder open, as are DIR, DIR/meta and
//	                    DIR/content themselves
//
// Each is written whole: temporary file, sync, rename. DIR/folder has "state":"new" until both
// halves have their ids, and in this time alone an empty half is made. It has "state":"joining"
// while a folder that has none gets its ids: one of an older program, or one whose halves were
// joined deliberately.
//
// # Incarnations
//
// The content store counts how often it was opened, and its files carry that number, the
// incarnation. The metadata keeps it too: "next" before one begins, "life" and "open" when it has,
// and "open" goes before the content is closed cleanly. So an older copy of the metadata shows: its
// content has lived on. What was made in the incarnations between the two ("unknown") is nothing
// that this metadata can judge: it is not garbage for having no record. An older copy of the
// content shows too, and is refused.
package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"sluice/internal/durable"
	"sluice/internal/system"
)

// Options are what Open needs beside the path. Each may be left out.
type Options struct {
	// FS is the file system that the folder is on (the operating system's).
	FS durable.FS
	// Existing refuses to make a folder.
	Existing bool
	// ReadOnly changes nothing, not even the marks.
	ReadOnly bool
	// Rejoin takes halves that do not belong together for one folder from now on, and makes an
	// empty content where it is gone: its owner says so. The metadata must be there.
	Rejoin bool
	// Made is called when a new folder was made.
	Made func()
	Log  *slog.Logger
	// Rand is for the folder's id (crypto/rand).
	Rand io.Reader
}

// Folder is an open data folder. It is safe for concurrent use.
type Folder struct {
	// FS is the file system for what is in the folder itself, beside its halves.
	FS durable.FS
	// Path is its absolute name, and Way another path, which leads there though the folder was
	// moved, where the system has one.
	Path, Way string
	// Meta and Content are its halves.
	Meta, Content Half

	id       string
	joining  bool // the halves get their ids in Begin
	rejoin   bool
	readOnly bool // nothing is written
	folders  []*durable.Held
	lock     durable.File
	locks    []lockFile // the files of the locks, as they were when they were taken
	log      *slog.Logger
	random   io.Reader

	mu   sync.Mutex
	meta mark

	looking    sync.Mutex
	extraCheck func() error
	away       atomic.Pointer[error]
}

// Half is one of the two, as a store opens it.
type Half struct {
	// FS leads into the folder that was opened, for paths that begin with Path.
	FS   durable.FS
	Path string
	// Way is another path for the same, which leads there though the folder was moved; it is Path
	// where the system has none.
	Way string

	part, file, format, lock string // which half, the file of its mark, that which a store makes first, and the lock's
}

// ErrLocked: another process has the folder open.
var ErrLocked = errors.New("another sluice server is using this data folder")

// ErrTaken: another process has, or may have, opened the folder that this one has open.
var ErrTaken = errors.New("another server may have it")

// Open opens the data folder, and makes it, the last part of its path alone, where nothing is. A
// folder with a half that is missing, empty, or another's is refused, and nothing in it is touched.
// Begin is to follow before the content is opened, and Begun after it.
func Open(path string, opts Options) (f *Folder, err error) {
	if opts.FS == nil {
		opts.FS = durable.OS{}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Rand == nil {
		opts.Rand = system.Random{}
	}
	named := path
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("the folder that %s is to be found from, the current one, is gone: give the whole path with --data (%w)", named, err)
	}
	f = &Folder{FS: opts.FS, Path: path, Way: path, log: opts.Log, random: opts.Rand, rejoin: opts.Rejoin, readOnly: opts.ReadOnly}
	f.Meta = Half{FS: opts.FS, Path: filepath.Join(path, "meta"), part: "meta", file: "FOLDER", format: "FORMAT", lock: "LOCK"}
	f.Content = Half{FS: opts.FS, Path: filepath.Join(path, "content"), part: "content", file: "folder", format: "format", lock: "lock"}
	f.Meta.Way, f.Content.Way = f.Meta.Path, f.Content.Path
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			f = nil
		}
	}()
	made, err := f.makeFolder(opts.Existing)
	if err != nil {
		return f, err
	}
	if f.FS, err = f.keepOpen(f.FS, path); errors.Is(err, fs.ErrNotExist) { // something has the name
		return f, fmt.Errorf("%s is a link that leads nowhere: is its disk mounted? Else make the folder first, or give another with --data (%w)", path, err)
	} else if err != nil {
		return f, err
	}
	f.Way = wayOf(f.FS, path)
	if err := f.takeLock(); err != nil {
		return f, err
	}
	if err := f.identify(opts.Existing); err != nil {
		return f, err
	}
	if made && opts.Made != nil {
		opts.Made()
	}
	return f, nil
}

// Close lets the folder go; what is in it must be closed before.
func (f *Folder) Close() (err error) {
	if f.lock != nil {
		err = f.lock.Close()
	}
	for _, h := range f.folders {
		err = errors.Join(err, h.Close())
	}
	f.lock, f.folders = nil, nil
	return err
}

// takeLock takes the lock's file, which programs before this one know alone. Where a folder has
// none, and nothing may be changed, the locks of the folders have to do.
func (f *Folder) takeLock() (err error) {
	path := filepath.Join(f.Path, "lock")
	if f.readOnly {
		if _, err := f.FS.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if f.lock, err = durable.Lock(f.FS, path); errors.Is(err, durable.ErrLocked) {
		return lockedBy(f.Path)
	}
	if err != nil {
		return err
	}
	return f.noteLock(f.FS, path)
}

// lockedBy says that another process has a folder open, and that its locks are no leftover.
func lockedBy(path string) error {
	return fmt.Errorf("%w: %s. Stop that one first. Its lock ends with its process by itself; no lock file is to be removed", ErrLocked, path)
}

// keepOpen keeps a folder open, and locked, where the file system can, and gives what leads into
// it. The lock is that of the folder itself: lock files can be removed while they are locked, and
// whoever makes them anew gets other ones.
func (f *Folder) keepOpen(on durable.FS, path string) (durable.FS, error) {
	h, ok := on.(interface {
		Hold(path string) (*durable.Held, error)
	})
	if !ok {
		return on, nil
	}
	held, err := h.Hold(path)
	if err != nil {
		return nil, err
	}
	f.folders = append(f.folders, held)
	switch err := held.Lock(); {
	case errors.Is(err, durable.ErrLocked):
		return nil, lockedBy(path)
	case err != nil && !errors.Is(err, errors.ErrUnsupported): // then the lock files have to do, and the watch
		return nil, err
	}
	return held, nil
}

// wayOf gives a path that leads into a held folder.
func wayOf(on durable.FS, path string) string {
	if held, ok := on.(*durable.Held); ok {
		return held.Way()
	}
	return path
}

// makeFolder makes the folder where there is none, and refuses one that holds something else: its
// files would lie among those of a data folder.
func (f *Folder) makeFolder(existing bool) (made bool, err error) {
	names, err := f.FS.List(f.Path)
	names = slices.DeleteFunc(names, leftover)
	switch {
	case err == nil && len(names) == 0, errors.Is(err, fs.ErrNotExist):
		if existing {
			return false, fmt.Errorf("%s is no data folder of sluice: there is nothing in it (see --data)", f.Path)
		}
	case errors.Is(err, syscall.ENOTDIR):
		return false, fmt.Errorf("%s is a file, or below one, and no folder: give a folder with --data (%w)", f.Path, err)
	case err != nil:
		return false, err
	default:
		for _, of := range []string{"meta", "content", "admin-token", "folder"} {
			if slices.Contains(names, of) {
				return false, nil
			}
		}
		return false, fmt.Errorf("%s is no data folder of sluice, and not empty (it has %s): give an empty one, or one that is not there yet, with --data", f.Path, names[0])
	}
	if err == nil {
		return true, nil
	}
	return true, durable.Mkdir(f.FS, f.Path, 0o700)
}

// Used reports whether the content was ever opened: then the metadata has a database, and none is
// to be made.
func (f *Folder) Used() bool { return f.meta.Incarnation > 0 || f.meta.Next > 0 }

// leftover reports whether a file is there in a folder that holds nothing: what file systems make,
// the lock, and what a write of a mark has left.
func leftover(name string) bool {
	return name == "lost+found" || strings.EqualFold(name, "lock") || strings.HasPrefix(strings.ToLower(name), ".folder.")
}
