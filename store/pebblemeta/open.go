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
	// format is the version of this package's rows and of the Pebble below them.
	format = 1
	// pebbleFormat belongs to it: a newer Pebble must not move it by itself, or an older program
	// could not say why it refuses.
	pebbleFormat = pebble.FormatValueSeparation

	formatFile = "FORMAT"
	formatTemp = "FORMAT.new"
	formatLine = "sluice metadata, format %d\n"
	lockFile   = "LOCK"
)

// Open opens the database in the folder dir, and makes it where there is none. A folder of a newer
// format, one that another process has open, and one whose FORMAT is lost are refused, and nothing
// in them is touched. Without a hook, and not for reading alone, it is metadata.ErrNoHook.
func Open(dir string, opts Options) (*DB, error) {
	if opts.Hook == nil && !opts.ReadOnly {
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
	db := &DB{damage: newDamage(opts.Log), lock: lock, dir: dir, hook: opts.Hook, die: opts.Die, allow: opts.Allow, durability: opts.Durability, readOnly: opts.ReadOnly, cache: newCache()}
	db.reserve = openReserve(opts.FS, dir, opts.Reserve, opts.Log)
	db.disk = withReserve{opts.FS, db.reserve}
	opts.FS = db.disk
	fail := func(err error) (*DB, error) {
		return nil, errors.Join(fmt.Errorf("opening the metadata in %s: %w", dir, err), lock.Close())
	}
	po := db.pebbleOptions(opts, lock)
	if po.ErrorIfNotExists, err = hadDatabase(opts.FS, dir); err != nil {
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
		db.pacer.begin()
	}
	// After the mere death of the process the log that is replayed need not have been synced to its
	// end. Pebble writes what it replayed into tables, and syncs those, before Open returns: so all
	// of it is durable now.
	db.views.open(db.peb.NewSnapshot())
	db.seals.of = map[session.SessionID]seal{}
	if opts.ReadOnly {
		return db, nil
	}
	if err := db.reserve.fill(); errors.Is(err, ErrDiskFull) {
		db.reserve.full.Store(true)
		opts.Log.Warn("the disk has no room for the metadata's reserve: nothing new is taken until it has")
	} else if err != nil {
		opts.Log.Warn("making the metadata's reserve", "err", err)
	}
	return db, nil
}

const (
	// memTable is the size of a table in memory, and memTables how many there are at most: one that
	// is written, the others on their way to the disk or kept for the next.
	memTable, memTables = 4 << 20, 3
	// blockCache is what is kept of the tables on the disk.
	blockCache = 8 << 20
)

// pebbleOptions keep the database small. Pebble takes the tables in memory out of its cache: one of
// no more than these leaves no room for a single block, and then each read of a row reads the
// disk's pages and unpacks them anew.
func (db *DB) pebbleOptions(opts Options, lock *pebble.Lock) *pebble.Options {
	o := &pebble.Options{
		// Pebble collects statistics of tables in a goroutine that an Open which fails late does
		// not wait for, and that panics then. They only make room for new compactions of deleted
		// rows earlier.
		DisableTableStats: true,
		FS:                failStop{logFS{opts.FS, db}, db}, Lock: lock, FormatMajorVersion: pebbleFormat,
		CacheSize: blockCache + memTables*memTable, MemTableSize: memTable, MemTableStopWritesThreshold: memTables,
		// Where a table has rotted, those that lie over it can't be merged with it: commits go on
		// nevertheless.
		L0CompactionThreshold: 2, L0StopWritesThreshold: 500, LBaseMaxBytes: 16 << 20,
		MaxOpenFiles: cmp.Or(opts.Tables, 256), ReadOnly: opts.ReadOnly,
		Logger:        logger{opts.Log, db},
		EventListener: &pebble.EventListener{BackgroundError: db.background, DataCorruption: db.damage.rot, CompactionEnd: db.damage.compacted},
	}
	db.pacer.db = db
	o.Experimental.CompactionScheduler = &db.pacer
	// Most of what a commit looks up is not there: whether the content is known, the key taken.
	// Above the lowest level, which Pebble asks no filter for, that costs no read.
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	o.Levels[len(o.Levels)-1].FilterPolicy = pebble.NoFilterPolicy
	o.EnsureDefaults()
	return o
}

// failStop is Pebble's file system. Where a folder can't be synced Pebble panics, in a goroutine of
// its own perhaps; the process shall end by Die.
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
	return folder{d, s.db}, nil
}

type folder struct {
	vfs.File
	db *DB
}

// Sync implements vfs.File.
func (f folder) Sync() error {
	if err := f.File.Sync(); err != nil {
		f.db.fatal(fmt.Errorf("syncing the metadata's folder: %w", err))
	}
	return nil
}

// logger passes Pebble's complaints on and drops its chatter.
type logger struct {
	to *slog.Logger
	db *DB
}

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(f string, args ...any) {
	l.to.Error("metadata store: " + fmt.Sprintf(f, args...))
}

// Fatalf must not return, says Pebble.
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

// hadDatabase reports whether the folder has held a database: where its rows or its log are, but
// not Pebble's marker that leads to them, an empty one must not be made in their place.
func hadDatabase(disk vfs.FS, dir string) (bool, error) {
	names, err := disk.List(dir)
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".log") || strings.HasSuffix(n, ".sst") }), err
}

// checkFormat refuses what this program can't read, and writes FORMAT into a folder that is empty
// but for the lock.
func checkFormat(disk vfs.FS, dir string, existing bool) error {
	f, err := disk.Open(disk.PathJoin(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		names, err := disk.List(dir)
		if err != nil {
			return fmt.Errorf("reading the metadata folder: %w", err)
		}
		if i := slices.IndexFunc(names, func(n string) bool { return !besides(n) }); i >= 0 {
			return fmt.Errorf("%s holds %s, but no file %s that says what format it is. %s", dir, names[i], formatFile, formatRemedy())
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
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return fmt.Errorf("reading the metadata's format: %w", err)
	}
	var have int
	if _, err := fmt.Sscanf(string(text), formatLine, &have); err != nil || have < 1 {
		return fmt.Errorf("%s in %s is not one of sluice's: %.64q. %s", formatFile, dir, text, formatRemedy())
	}
	if have > format {
		return fmt.Errorf("the metadata in %s has format %d, and this program knows formats up to %d: use a newer sluice", dir, have, format)
	}
	return nil
}

// formatRemedy says what can be done where FORMAT is lost.
func formatRemedy() string {
	return "Nothing was touched. Restore a backup; or, where no newer sluice has had the folder, put the file back, with this line: " + strings.TrimSpace(fmt.Sprintf(formatLine, format))
}

// besides reports whether a file is there in a folder that holds no metadata: ours from before
// FORMAT, the file system's, or what its owner (package folder) has put there.
func besides(name string) bool {
	return name == lockFile || name == formatTemp || name == "lost+found" || strings.HasPrefix(strings.TrimPrefix(name, "."), "FOLDER")
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

// makeDir makes the folder, and those above it, so that a crash does not take one of them away with
// all that is in it: also where an earlier process made it, and died before its name was durable.
func makeDir(disk vfs.FS, dir string) error {
	parent := disk.PathDir(dir)
	_, err := disk.Stat(dir)
	if err == nil {
		// Above a folder that was given to us nothing can be read, perhaps.
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
