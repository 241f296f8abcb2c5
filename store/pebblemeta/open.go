package pebblemeta

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/session"

	"sluice/metadata"
)

const (
	// format is the version of this package's rows and of the Pebble format below them. 2 has more
	// tables than 1: lists of tokens. 3 has tables of tickets and links, and more members in
	// the rows of capsules, sessions and reservations.
	format = 3
	// pebbleFormat belongs to format. A newer Pebble must not raise it by itself: an older program
	// could not say why it refuses the folder then.
	pebbleFormat = pebble.FormatValueSeparation

	formatFile = "FORMAT"
	formatTemp = "FORMAT.new"
	formatLine = "sluice metadata, format %d\n"
	lockFile   = "LOCK"
)

// Open opens the database in the folder dir, and makes one if there is none. It refuses a folder of
// a newer format, one that another process has open, and one whose FORMAT is missing, and changes
// nothing in them. Without a hook it fails with metadata.ErrNoHook, unless it opens for reading
// only.
func Open(dir string, opts Options) (*DB, error) {
	if !opts.Hook.Whole() && !opts.ReadOnly {
		return nil, metadata.ErrNoHook
	}
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Die == nil {
		opts.Die = func(err error) { panic(err) }
	}
	if opts.Allow == nil {
		opts.Allow = func() error { return nil }
	}
	if opts.ReadOnly {
		opts.FS = readOnly{opts.FS}
	}
	lock, err := prepare(opts.FS, dir, opts.Existing)
	if err != nil {
		return nil, err
	}
	db := &DB{
		corruption: newCorruption(opts.Log), lock: lock, dir: dir, hook: opts.Hook,
		die: opts.Die, allow: opts.Allow, durability: opts.Durability,
		readOnly: opts.ReadOnly, cache: newCache(),
	}
	db.reserve = openReserve(opts.FS, dir, opts.Reserve, opts.Log)
	db.disk = reserveFS{opts.FS, db.reserve}
	opts.FS = db.disk
	if !opts.ReadOnly {
		if err := raiseFormat(db.disk, dir); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	fail := func(err error) (*DB, error) {
		return nil, errors.Join(fmt.Errorf("opening the metadata in %s: %w", dir, err), lock.Close())
	}
	po := db.pebbleOptions(opts, lock)
	if po.ErrorIfNotExists, err = holdsDatabase(opts.FS, dir); err != nil {
		return fail(err)
	}
	po.ErrorIfNotExists = po.ErrorIfNotExists || opts.Existing
	clean, err := checkLogs(opts.FS, dir)
	if err == nil && clean && !opts.ReadOnly {
		err = unmarkClean(opts.FS, dir)
	}
	if err != nil {
		return fail(err)
	}
	if db.peb, err = pebble.Open(dir, po); err != nil {
		return fail(explain(err))
	}
	if err := db.loadTotals(opts.Log); err != nil {
		close(db.reserve.closed)
		return fail(errors.Join(err, db.peb.Close()))
	}
	if !opts.ReadOnly {
		db.scheduler.enable()
	}
	// After the mere death of the process the log that is replayed need not have been synced to its
	// end. Before Open returns, Pebble writes what it replayed into tables and syncs these. So all
	// of it is durable now.
	db.views.open(db.peb.NewSnapshot())
	db.seals.byID = map[session.SessionID]seal{}
	if opts.ReadOnly {
		return db, nil
	}
	if err := db.reserve.refill(); errors.Is(err, ErrDiskFull) {
		db.reserve.diskFull.Store(true)
		opts.Log.Warn("the disk has no free space for the metadata's reserve: nothing new is taken until it has")
	} else if err != nil {
		opts.Log.Warn("making the metadata's reserve", "err", err)
	}
	return db, nil
}

const (
	// memTableSize is the size of a table in memory in bytes. maxMemTables is how many there are at
	// most: one is written, and the others are on their way to the disk or kept for the next.
	memTableSize, maxMemTables = 4 << 20, 3
	// blockCacheSize is how many bytes of the tables on the disk are cached.
	blockCacheSize = 8 << 20
)

// pebbleOptions keep the database small. Pebble counts the tables in memory as a part of its cache.
// A cache that is no larger than these could hold no block, and then each read of a row would read
// and unpack the disk's pages again.
func (db *DB) pebbleOptions(opts Options, lock *pebble.Lock) *pebble.Options {
	o := &pebble.Options{
		// Pebble collects statistics of tables in a goroutine. An Open that fails late does not
		// wait for it, and then it panics. The statistics only start compactions of deleted rows
		// earlier.
		DisableTableStats: true,
		FS:                failStop{logFS{opts.FS, db}, db}, Lock: lock, FormatMajorVersion: pebbleFormat,
		CacheSize: blockCacheSize + maxMemTables*memTableSize, MemTableSize: memTableSize,
		MemTableStopWritesThreshold: maxMemTables,
		// The tables above a corrupt one can't be merged with it. Commits must go on nevertheless.
		L0CompactionThreshold: 2, L0StopWritesThreshold: 500, LBaseMaxBytes: 16 << 20,
		MaxOpenFiles: cmp.Or(opts.Tables, 256), ReadOnly: opts.ReadOnly,
		Logger: logger{opts.Log, db},
		EventListener: &pebble.EventListener{
			BackgroundError: db.onBackgroundError, DataCorruption: db.corruption.onCorruption,
			CompactionEnd: db.corruption.onCompactionEnd,
		},
	}
	db.scheduler.db = db
	o.Experimental.CompactionScheduler = &db.scheduler
	// Most keys that a commit looks up are not there: it asks whether the content is known, or the
	// idempotency key taken. A filter saves these reads above the lowest level. Pebble asks no
	// filter for the lowest level.
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	o.Levels[len(o.Levels)-1].FilterPolicy = pebble.NoFilterPolicy
	o.EnsureDefaults()
	return o
}

// failStop is Pebble's file system. If a folder can't be synced Pebble panics, perhaps in a
// goroutine of its own. The process must end by Die instead.
type failStop struct {
	vfs.FS
	db *DB
}

// OpenDir implements vfs.FS.
func (s failStop) OpenDir(name string) (vfs.File, error) {
	d, err := s.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return failStopDir{d, s.db}, nil
}

type failStopDir struct {
	vfs.File
	db *DB
}

// Sync implements vfs.File.
func (f failStopDir) Sync() error {
	if err := f.File.Sync(); err != nil {
		f.db.fatal(fmt.Errorf("syncing the metadata's folder: %w", err))
	}
	return nil
}

// logger passes Pebble's errors on, and discards its other messages.
type logger struct {
	log *slog.Logger
	db  *DB
}

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(f string, args ...any) {
	l.log.Error("metadata store: " + fmt.Sprintf(f, args...))
}

// Fatalf must not return: Pebble requires that.
func (l logger) Fatalf(f string, args ...any) {
	l.db.fatal(fmt.Errorf("metadata store: "+f, args...))
}

// prepare makes the folder, locks it, and checks or writes its FORMAT.
func prepare(disk vfs.FS, dir string, existing bool) (*pebble.Lock, error) {
	if err := makeDir(disk, dir); err != nil {
		return nil, fmt.Errorf("making the metadata folder: %w", err)
	}
	lock, err := pebble.LockDirectory(dir, disk)
	if errors.Is(err, syscall.EAGAIN) || (err != nil && err.Error() == "lock held by current process") {
		return nil, fmt.Errorf("another sluice server is using this data folder: %s", dir)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("%w. Is its disk mounted for reading only, or is the folder another user's?", err)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the metadata folder: %w", err)
	}
	if err := checkFormat(disk, dir, existing); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// holdsDatabase reports whether the folder has tables or logs. If it has, but Pebble's marker that
// leads to them is missing, no empty database may be made in their place.
func holdsDatabase(disk vfs.FS, dir string) (bool, error) {
	names, err := disk.List(dir)
	return slices.ContainsFunc(names, func(n string) bool {
		return strings.HasSuffix(n, ".log") || strings.HasSuffix(n, ".sst")
	}), err
}

// checkFormat refuses a format that this program can't read. It writes FORMAT into a folder that is
// empty except for the lock.
func checkFormat(disk vfs.FS, dir string, existing bool) error {
	f, err := disk.Open(disk.PathJoin(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		names, err := disk.List(dir)
		if err != nil {
			return fmt.Errorf("reading the metadata folder: %w", err)
		}
		if i := slices.IndexFunc(names, func(n string) bool { return !foreign(n) }); i >= 0 {
			return fmt.Errorf("%s holds %s, but no file %s that says what format it is. %s",
				dir, names[i], formatFile, formatRemedy())
		}
		if existing {
			return fmt.Errorf("%s has held metadata, and is empty now: is its disk whole? Restore a backup", dir)
		}
		return writeFormat(disk, dir)
	}
	if err != nil {
		return fmt.Errorf("reading the metadata's format: %w", err)
	}
	defer f.Close()
	have, err := readFormat(f, dir)
	if err == nil && have > format {
		err = fmt.Errorf("the metadata in %s has format %d, and this program knows formats up to %d: "+
			"use a newer sluice", dir, have, format)
	}
	return err
}

func readFormat(f io.Reader, dir string) (have int, err error) {
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return 0, fmt.Errorf("reading the metadata's format: %w", err)
	}
	if _, err := fmt.Sscanf(string(text), formatLine, &have); err != nil || have < 1 {
		return 0, fmt.Errorf("%s in %s is not one of sluice's: %.64q. %s", formatFile, dir, text, formatRemedy())
	}
	return have, nil
}

// raiseFormat makes a folder of an older format one of this program's. All that such a folder may
// have, this format has too. Older programs refuse it from here on.
func raiseFormat(disk vfs.FS, dir string) error {
	f, err := disk.Open(disk.PathJoin(dir, formatFile))
	if err != nil {
		return fmt.Errorf("reading the metadata's format: %w", err)
	}
	defer f.Close()
	have, err := readFormat(f, dir)
	if err != nil || have == format {
		return err
	}
	return writeFormat(disk, dir)
}

// formatRemedy says what can be done if FORMAT is missing.
func formatRemedy() string {
	return "Nothing was touched. Restore a backup; or, where no newer sluice has had the folder, " +
		"put the file back, with this line: " + strings.TrimSpace(fmt.Sprintf(formatLine, format))
}

// foreign reports whether a file may be in a folder that holds no metadata: one that this program
// makes before FORMAT, one of the file system, or one of the folder's owner (package folder).
func foreign(name string) bool {
	return name == lockFile || name == formatTemp || name == "lost+found" ||
		strings.HasPrefix(strings.TrimPrefix(name, "."), "FOLDER")
}

// writeFormat writes FORMAT so that a crash leaves all of it or nothing.
func writeFormat(disk vfs.FS, dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the metadata's format: %w", err)
		}
	}()
	temp := disk.PathJoin(dir, formatTemp)
	f, err := disk.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, formatLine, format)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := disk.Rename(temp, disk.PathJoin(dir, formatFile)); err != nil {
		return err
	}
	return syncDir(disk, dir)
}

// makeDir makes the folder and those above it, so that a crash takes none of them away with its
// content. The folder may exist already: an earlier process may have died before its name was
// durable.
func makeDir(disk vfs.FS, dir string) error {
	parent := disk.PathDir(dir)
	_, err := disk.Stat(dir)
	if err == nil {
		// The folder above may not be readable for this user.
		if err := syncDir(disk, parent); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent != dir {
		if err := makeDir(disk, parent); err != nil {
			return err
		}
	}
	if err := disk.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(disk, parent)
}

func syncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("syncing folder %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
