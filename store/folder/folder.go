// Package folder owns a data folder as a whole: its two halves, the metadata and the content,
// belong together; one server at a time has the folder; and the stores use the folder that was
// opened. The package does not own what is in the halves: that is the stores'.
//
// Either half may be on a disk of its own. That disk may be missing, or be another one, when the
// server starts or while it runs. An empty mount point looks like a half that is to be made. So a
// half is made only if the whole folder has never held anything, and the halves know each other by
// an id that is drawn when the folder is made:
//
//	DIR/folder          {"format":1,"folder":ID,"part":"whole"}
//	DIR/content/folder  {"format":1,"folder":ID,"part":"content"}
//	DIR/meta/FOLDER     {"format":1,"folder":ID,"part":"meta",
//	                     "life":9,"open":true,"unknown":[[5,7]]}
//	DIR/lock            locked while a process has the folder open, as are DIR, DIR/meta and
//	                    DIR/content themselves
//
// Each is written whole: temporary file, sync, rename. DIR/folder has "state":"new" until both
// halves have their ids, and only in this time is an empty half made. It has "state":"joining"
// while a folder without ids gets them: a folder of an older program, or one whose halves were
// joined deliberately.
//
// # Incarnations
//
// The content store counts how often it was opened, and its files carry that number, the
// incarnation. The metadata keeps it too: "next" before one begins, "life" and "open" after that.
// "open" is cleared before the content is closed cleanly. So an older copy of the metadata is
// recognised: its content was opened again since. These metadata can't judge content of the
// incarnations between the two ("unknown"): such content is not garbage for having no row. An
// older copy of the content is recognised too, and refused.
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
	// empty content if it is gone: its owner says so. The metadata must be there.
	Rejoin bool
	// Made is called after a new folder was made.
	Made func()
	Log  *slog.Logger
	// Rand is for the folder's id (crypto/rand).
	Rand io.Reader
}

// Folder is an open data folder. It is safe for concurrent use.
type Folder struct {
	// FS is the file system for what is in the folder itself, beside its halves.
	FS durable.FS
	// Path is its absolute name. HeldPath is another path, which leads there even if the folder is
	// moved; it is Path if the system has none.
	Path, HeldPath string
	// Meta and Content are its halves.
	Meta, Content Half

	id       string
	joining  bool // the halves get their ids in Begin
	rejoin   bool
	readOnly bool // nothing may be written
	folders  []*durable.Held
	lock     durable.File
	locks    []lockFile // the lock files, as they were when their locks were taken
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
	// HeldPath is another path to it, which leads there even if the folder is moved. It is Path if
	// the system has none.
	HeldPath string

	// the half's name, and three files: its mark, the first that a store makes, and the lock
	part, file, format, lock string
}

// ErrLocked: another process has the folder open.
var ErrLocked = errors.New("another sluice server is using this data folder")

// ErrTaken: another process has, or may have, opened the folder that this one has open.
var ErrTaken = errors.New("another server may have it")

// Open opens the data folder. If there is none, it makes the folder, but no missing folder above
// it. It refuses a folder with a half that is missing, empty, or another folder's, and changes
// nothing then. Begin is to follow before the content is opened, and Begun after it.
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
		return nil, fmt.Errorf("the folder that %s is to be found from, the current one, is gone: give the whole "+
			"path with --data (%w)", named, err)
	}
	f = &Folder{
		FS: opts.FS, Path: path, HeldPath: path, log: opts.Log, random: opts.Rand, rejoin: opts.Rejoin,
		readOnly: opts.ReadOnly,
	}
	f.Meta = Half{
		FS: opts.FS, Path: filepath.Join(path, "meta"), part: "meta", file: "FOLDER", format: "FORMAT",
		lock: "LOCK",
	}
	f.Content = Half{
		FS: opts.FS, Path: filepath.Join(path, "content"), part: "content", file: "folder",
		format: "format", lock: "lock",
	}
	f.Meta.HeldPath, f.Content.HeldPath = f.Meta.Path, f.Content.Path
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
	if f.FS, err = f.keepOpen(f.FS, path); errors.Is(err, fs.ErrNotExist) { // the name is taken, by a link
		return f, fmt.Errorf("%s is a link that leads nowhere: is its disk mounted? Else make the folder first, or "+
			"give another with --data (%w)", path, err)
	} else if err != nil {
		return f, err
	}
	f.HeldPath = heldPathOf(f.FS, path)
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

// Close unlocks the folder. Its stores must be closed before.
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

// takeLock takes the lock of the lock file: earlier programs know that lock alone. If the folder
// has no such file, and may not be changed, the locks of the folders have to do.
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

// lockedBy says that another process has a folder open, and that its lock files are no leftovers.
func lockedBy(path string) error {
	return fmt.Errorf("%w: %s. Stop that one first. Its lock ends with its process by itself; no lock file is to "+
		"be removed", ErrLocked, path)
}

// keepOpen opens a folder, keeps it open and locked if the file system can, and gives the file
// system that leads into it. The lock is that of the folder itself: lock files can be removed while
// they are locked, and whoever makes them anew locks other files.
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
	case err != nil && !errors.Is(err, errors.ErrUnsupported): // else the lock files and the watch have to do
		return nil, err
	}
	return held, nil
}

// heldPathOf gives a path that leads into an open folder.
func heldPathOf(on durable.FS, path string) string {
	if held, ok := on.(*durable.Held); ok {
		return held.HeldPath()
	}
	return path
}

// makeFolder makes the folder if it is not there. It refuses a folder that holds something else,
// whose files would lie among those of a data folder.
func (f *Folder) makeFolder(existing bool) (made bool, err error) {
	names, err := f.FS.List(f.Path)
	names = slices.DeleteFunc(names, leftover)
	switch {
	case err == nil && len(names) == 0, errors.Is(err, fs.ErrNotExist):
		if existing {
			return false, fmt.Errorf("%s is no data folder of sluice: there is nothing in it (see --data)", f.Path)
		}
	case errors.Is(err, syscall.ENOTDIR):
		return false, fmt.Errorf("%s is a file, or below one, and no folder: give a folder with --data (%w)",
			f.Path, err)
	case err != nil:
		return false, err
	default:
		for _, of := range []string{"meta", "content", "admin-token", "folder"} {
			if slices.Contains(names, of) {
				return false, nil
			}
		}
		return false, fmt.Errorf(
			"%s is no data folder of sluice, and not empty (it has %s): give an empty one, or one that is not "+
				"there yet, with --data", f.Path, names[0])
	}
	if err == nil {
		return true, nil
	}
	return true, durable.Mkdir(f.FS, f.Path, 0o700)
}

// Used reports whether the content was ever opened. Then the metadata has a database, and none is
// to be made.
func (f *Folder) Used() bool { return f.meta.Incarnation > 0 || f.meta.Next > 0 }

// leftover reports whether a folder with this file may still count as empty: file systems make such
// files, or it is the lock, or the rest of a write of a mark.
func leftover(name string) bool {
	return name == "lost+found" || strings.EqualFold(name, "lock") ||
		strings.HasPrefix(strings.ToLower(name), ".folder.")
}
