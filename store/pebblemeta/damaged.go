package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
)

// Damaged is a database some of whose tables are corrupt, truncated or missing. It is opened for
// reading only, and nothing in its folder changes. It is used by one goroutine.
//
// Pebble merges the tables. In place of each table that is not whole it gets one with the readable
// rows. So every key has its newest readable row. That need not be the newest row that there was: a
// row is sure unless a hole of a newer table covers its key.
type Damaged struct {
	peb        *pebble.DB
	lock       *pebble.Lock
	holes      []tableHole
	newestRead map[string]bool // keys in holes whose newest row, or deletion, could be read
}

// tableHole is a hole with the age of the rows that were in it.
type tableHole struct {
	hole
	level  int
	newest pebble.SeqNum // of the table
}

// newer reports whether the hole may have had a newer row than one of this level and number.
func (h *tableHole) newer(level int, seq pebble.SeqNum) bool {
	return h.level < level || h.level == 0 && level == 0 && seq <= h.newest
}

// OpenDamaged opens the database in the folder dir, even if tables are not whole, and reads every
// block of them. It uses the options FS, Log, Die and Tables. It refuses damaged logs as Open does.
func OpenDamaged(dir string, opts Options) (d *Damaged, err error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Die == nil {
		opts.Die = func(err error) { panic(err) }
	}
	opts.FS, opts.ReadOnly = readOnly{opts.FS}, true
	d = &Damaged{}
	if d.lock, err = prepare(opts.FS, dir, true); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("opening the metadata in %s: %w", dir, err), d.Close())
			d = nil
		}
	}()
	if _, err := checkLogs(opts.FS, dir); err != nil {
		return d, err
	}
	tables, err := d.tables(dir, opts)
	if err != nil {
		return d, err
	}
	files := overlay{opts.FS, vfs.NewMem(), dir}
	if err := files.mem.MkdirAll(dir, 0o700); err != nil {
		return d, err
	}
	for _, t := range tables {
		path := opts.FS.PathJoin(dir, fmt.Sprintf("%06d.sst", t.file))
		holes, err := holesInTable(opts.FS, path, t)
		if err != nil {
			return d, fmt.Errorf("nothing is known of table %s: %w", path, err)
		}
		if len(holes) == 0 {
			continue
		}
		for _, h := range holes {
			d.holes = append(d.holes, tableHole{h, t.level, t.newest})
		}
		if err := files.putTable(opts, path, t, holes); err != nil {
			return d, err
		}
	}
	opts.FS = files
	d.peb, err = d.open(dir, opts, true)
	return d, err
}

// open opens Pebble for reading. lenient allows tables that are missing or have another size.
func (d *Damaged) open(dir string, opts Options, lenient bool) (*pebble.DB, error) {
	db := &DB{
		die: opts.Die, corruption: newCorruption(opts.Log), readOnly: true,
		reserve: &reserve{closed: make(chan struct{})},
	}
	o := db.pebbleOptions(opts, d.lock)
	o.ErrorIfNotExists, o.DisableConsistencyCheck = true, lenient
	return pebble.Open(dir, o)
}

// tableInfo is what the MANIFEST says of a table.
type tableInfo struct {
	file   uint64
	level  int
	size   int64
	newest pebble.SeqNum
	lo, hi []byte // its first and its last key
}

// ErrTables: tables are missing, or not as long as they were.
var ErrTables = errors.New("tables of the metadata are missing or cut: if they can't be had back, " +
	"sluice check --repair brings out all that is left, and sluice backup --salvage backs that up")

// tablesRefused recognizes Pebble's refusal of tables that are missing or truncated.
var tablesRefused = regexp.MustCompile(`\(type sstable\) unknown|object size mismatch`)

// explain adds to Pebble's refusal what can be done about it.
func explain(err error) error {
	if err != nil && tablesRefused.MatchString(err.Error()) {
		err = fmt.Errorf("%w; %w", ErrTables, err)
	}
	return err
}

// tableMissing finds the numbers of missing tables in Pebble's refusal.
var tableMissing = regexp.MustCompile(`file (\d+) \(type sstable\) unknown`)

// tables lists the tables that the MANIFEST names. Pebble lists nothing if one of them is missing.
// So it is shown an empty file in its place.
func (d *Damaged) tables(dir string, opts Options) (out []tableInfo, err error) {
	shown := overlay{opts.FS, vfs.NewMem(), dir}
	if err := shown.mem.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	opts.FS = shown
	peb, refusal := d.open(dir, opts, false)
	if refusal != nil {
		for _, of := range tableMissing.FindAllStringSubmatch(refusal.Error(), -1) {
			f, err := shown.mem.Create(shown.PathJoin(dir, of[1]+".sst"), vfs.WriteCategoryUnspecified)
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				return nil, err
			}
		}
		if peb, err = d.open(dir, opts, true); err != nil {
			return nil, err
		}
	}
	levels, err := peb.SSTables()
	for level, tables := range levels {
		for _, t := range tables {
			if t.Virtual {
				err = errors.Join(err,
					fmt.Errorf("table %s is a part of another file, which this program never makes", t.FileNum))
			}
			out = append(out, tableInfo{
				uint64(t.FileNum), level, int64(t.Size), t.LargestSeqNum,
				slices.Clone(t.Smallest.UserKey), slices.Clone(t.Largest.UserKey),
			})
		}
	}
	return out, errors.Join(err, peb.Close())
}

// holesInTable is holesInFile for a table that may be missing or truncated.
func holesInTable(disk vfs.FS, path string, t tableInfo) ([]hole, error) {
	whole := func(what string) ([]hole, error) {
		return []hole{{lo: t.lo, hi: append(slices.Clone(t.hi), 0), what: what}}, nil
	}
	info, err := disk.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return whole(fmt.Sprintf("table %s is gone", path))
	case err != nil:
		return nil, err
	case info.Size() != t.size:
		return whole(fmt.Sprintf("table %s has %d bytes, and had %d", path, info.Size(), t.size))
	}
	return holesInFile(disk, path, t.lo, t.hi)
}

// Holes says, for people, which rows are lost, or may be older than they were.
func (d *Damaged) Holes() (out []string) {
	for _, h := range d.holes {
		out = append(out, (&holeError{h.hole}).Error())
	}
	return out
}

// Lost reports whether the newest state of this key in the catalog, which may be a deletion, may
// have been lost. It is known after a Walk.
func (d *Damaged) Lost(table catalog.TableID, key []byte) bool {
	return d.mayBeLost(catalogKey(table, key))
}

func (d *Damaged) mayBeLost(key []byte) bool { return !d.newestRead[string(key)] && d.inHole(key) }

func (d *Damaged) inHole(key []byte) bool {
	return slices.ContainsFunc(d.holes, func(h tableHole) bool { return h.has(key) })
}

func (h *hole) has(key []byte) bool {
	return bytes.Compare(h.lo, key) <= 0 && bytes.Compare(key, h.hi) < 0
}

// Walk visits the newest readable row of each key, in the order of the keys. sure means that it is
// the newest row that there was. A row that is not sure may have been replaced or deleted since.
// visit must keep neither key nor row.
func (d *Damaged) Walk(ctx context.Context, visit func(key, row []byte, sure bool) error) error {
	d.newestRead = map[string]bool{}
	visitKey := func(key *pebble.InternalKey, value pebble.LazyValue, at pebble.IteratorLevel) error {
		sure := at.Kind == pebble.IteratorLevelFlushable || !slices.ContainsFunc(d.holes, func(h tableHole) bool {
			return h.has(key.UserKey) && (at.Kind != pebble.IteratorLevelLSM || h.newer(at.Level, key.SeqNum()))
		})
		if sure && d.inHole(key.UserKey) {
			d.newestRead[string(key.UserKey)] = true
		}
		if kind := key.Kind(); kind != pebble.InternalKeyKindSet && kind != pebble.InternalKeyKindSetWithDelete {
			return ctx.Err()
		}
		row, _, err := value.Value(nil)
		if err != nil {
			return err
		}
		return errors.Join(visit(key.UserKey, row, sure), ctx.Err())
	}
	err := d.peb.ScanInternal(ctx, block.CategoryUnknown, nil, nil, visitKey, nil, nil, nil, nil)
	if err != nil {
		return fmt.Errorf("reading what is left of the metadata: %w", err)
	}
	return nil
}

// Sure visits the rows that are sure, as Frozen's Walk does, after it has called onHole for each
// hole.
func (d *Damaged) Sure(
	ctx context.Context, visit func(key, row []byte) error,
	onHole func(from, to []byte, why error) error,
) error {
	for _, h := range d.holes {
		if err := onHole(h.lo, h.hi, &holeError{h.hole}); err != nil {
			return err
		}
	}
	return d.Walk(ctx, func(key, row []byte, sure bool) error {
		if !sure {
			return nil
		}
		return visit(key, row)
	})
}

// Close closes the database and unlocks the folder. A repeat does nothing.
func (d *Damaged) Close() (err error) {
	if d.peb != nil {
		err = d.peb.Close()
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	d.peb, d.lock = nil, nil
	return err
}
