package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
)

// Filling makes a database of the rows of another one. It is used by one goroutine. The folder must
// not be used until Close has returned nil.
type Filling struct {
	dir         string
	fs          vfs.FS
	opts        *pebble.Options
	lock        *pebble.Lock
	tables      []string
	table       *sstable.Writer // nil: none is begun
	size        int
	last        []byte
	rows        int64
	afterIngest func(*pebble.DB) error // a further step once the rows are there; nil: none
}

// tableSize is how many bytes of rows go into one table.
const tableSize = 32 << 20

// Fill begins a database in the folder dir, which must be empty or missing.
func Fill(dir string, opts Options) (*Filling, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Die == nil {
		opts.Die = func(err error) { panic(err) }
	}
	if err := makeDir(opts.FS, dir); err != nil {
		return nil, fmt.Errorf("making the metadata folder: %w", err)
	}
	names, err := opts.FS.List(dir)
	if names = slices.DeleteFunc(names, foreign); err != nil || len(names) > 0 {
		return nil, errors.Join(fmt.Errorf("the metadata folder %s is not empty", dir), err)
	}
	lock, err := prepare(opts.FS, dir, false)
	if err != nil {
		return nil, err
	}
	db := &DB{die: opts.Die, corruption: newCorruption(opts.Log), reserve: &reserve{closed: make(chan struct{})}}
	return &Filling{dir: dir, fs: opts.FS, opts: db.pebbleOptions(opts, lock), lock: lock}, nil
}

// Add appends a row. Keys must come in order, as Walk gives them.
func (f *Filling) Add(key, row []byte) error {
	if f.last != nil && bytes.Compare(key, f.last) <= 0 {
		return fmt.Errorf("row %x: %w: it does not come after the row before", key, catalog.ErrDamaged)
	}
	if f.table == nil {
		path := f.fs.PathJoin(f.dir, fmt.Sprintf("fill-%06d.sst", len(f.tables)))
		file, err := f.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("writing the metadata: %w", err)
		}
		f.tables = append(f.tables, path)
		f.table = sstable.NewWriter(objstorageprovider.NewFileWritable(file),
			f.opts.MakeWriterOptions(0, pebbleFormat.MaxTableFormat()))
	}
	if err := f.table.Set(key, row); err != nil {
		return fmt.Errorf("writing the metadata: %w", err)
	}
	f.last = append(f.last[:0], key...)
	f.rows++
	if f.size += len(key) + len(row); f.size >= tableSize {
		return f.finishTable()
	}
	return nil
}

// finishTable finishes and syncs the table under way.
func (f *Filling) finishTable() error {
	if f.table == nil {
		return nil
	}
	err := f.table.Close()
	f.table, f.size = nil, 0
	if err != nil {
		return fmt.Errorf("writing the metadata: %w", err)
	}
	return nil
}

// Close makes the database of what was added, syncs it, and checks the number of rows by reading
// them back.
func (f *Filling) Close(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, f.unlock()) }()
	if err := f.finishTable(); err != nil {
		return err
	}
	peb, err := pebble.Open(f.dir, f.opts)
	if err != nil {
		return fmt.Errorf("making the metadata: %w", err)
	}
	if len(f.tables) > 0 {
		err = peb.Ingest(ctx, f.tables)
	}
	if err == nil {
		err = f.count(peb)
	}
	if err == nil && f.afterIngest != nil {
		err = f.afterIngest(peb)
	}
	if err = errors.Join(err, peb.Close()); err != nil {
		return fmt.Errorf("making the metadata: %w", err)
	}
	for _, path := range f.tables {
		_ = f.fs.Remove(path) // linked into the database by now; a file that stays does no harm
	}
	return syncDir(f.fs, f.dir)
}

func (f *Filling) count(peb *pebble.DB) error {
	it, err := peb.NewIter(nil)
	if err != nil {
		return err
	}
	n := int64(0)
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	if n != f.rows {
		return fmt.Errorf("%d rows were written, and %d are there", f.rows, n)
	}
	return nil
}

// Abandon stops, and leaves a folder that must not be used. It may follow Close.
func (f *Filling) Abandon() {
	_ = f.finishTable()
	_ = f.unlock()
}

func (f *Filling) unlock() error {
	lock := f.lock
	if f.lock = nil; lock == nil {
		return nil
	}
	return lock.Close()
}
