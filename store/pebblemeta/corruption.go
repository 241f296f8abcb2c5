package pebblemeta

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
)

// damage remembers what could not be read since the start. That fails the reads which need it, and
// nothing else.
type damage struct {
	log *slog.Logger

	mu    sync.Mutex
	reads int64 // that failed
	found []string
	files map[string]rotten // by path
	bad   error             // the last compaction's, which is not to be tried again at once
}

// rotten is a table with a rotten block.
type rotten struct {
	lo, hi   []byte // its first and its last key
	examined bool
	holes    []hole
}

const (
	// mostDamages bounds what is remembered for people.
	mostDamages = 100
	// rotPause is how long what Pebble does in the background rests after it has met rot. Pebble
	// itself tries again at once.
	rotPause = time.Minute
)

// errDamaged: the bytes of a row are not what was written, or can't be read any more.
var errDamaged = catalog.ErrDamaged

func newDamage(log *slog.Logger) *damage { return &damage{log: log, files: map[string]rotten{}} }

// damaged marks Pebble's error for a rotten block.
func damaged(err error) error {
	if pebble.IsCorruptionError(err) && !errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// unreadable is damaged for a row that can't be decoded, which it notes: a rotten block notes
// Pebble.
func (db *DB) unreadable(err error) error {
	if errors.Is(err, errDamaged) && !pebble.IsCorruptionError(err) {
		db.damage.note(err.Error())
	}
	return err
}

// note counts a read that failed, and logs what it met when that is new.
func (d *damage) note(what string) {
	d.mu.Lock()
	d.reads++
	known := slices.Contains(d.found, what) || len(d.found) >= mostDamages
	if !known {
		d.found = append(d.found, what)
	}
	d.mu.Unlock()
	if !known {
		d.log.Error("the metadata is damaged: what needs this fails, all else goes on; sluice check names all of it, and with --repair brings out the rest", "what", what)
	}
}

// Damaged says how many reads have failed since the start since what they needed is damaged, and
// what that is, as far as it is remembered.
func (db *DB) Damaged() (reads int64, what []string) {
	db.damage.mu.Lock()
	defer db.damage.mu.Unlock()
	return db.damage.reads, slices.Clone(db.damage.found)
}

// rot is called by Pebble, by whoever reads, for a table with a block that is not what was written.
func (d *damage) rot(i pebble.DataCorruptionInfo) {
	d.mu.Lock()
	if _, known := d.files[i.Path]; !known {
		d.files[i.Path] = rotten{lo: slices.Clone(i.Bounds.Start), hi: slices.Clone(i.Bounds.End.Key)}
	}
	d.mu.Unlock()
	text, _, _ := strings.Cut(i.Details.Error(), "\n")
	d.note(fmt.Sprintf("%s: %s", i.Path, text))
}

// holes gives the holes of all tables that are known to be rotten.
func (d *damage) holes(disk vfs.FS) (all []hole) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, f := range d.files {
		if !f.examined {
			var err error
			if f.holes, err = examine(disk, path, f.lo, f.hi); errors.Is(err, fs.ErrNotExist) {
				delete(d.files, path)
				continue
			}
			if f.examined = err == nil; err != nil { // looked at again when it is next needed
				f.holes = wholly(path, f.lo, f.hi, err)
			}
			d.files[path] = f
		}
		all = append(all, f.holes...)
	}
	return joined(all)
}

// compacted notes whether a compaction has met rot.
func (d *damage) compacted(i pebble.CompactionInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad = nil
	if i.Err != nil && pebble.IsCorruptionError(i.Err) {
		d.bad = i.Err
	}
}

// stuck reports whether the last compaction has met rot.
func (d *damage) stuck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bad != nil
}

// background is told of what Pebble could not do by itself. A disk that can't be written ends the
// process; what is rotten does not.
func (db *DB) background(err error) {
	switch {
	case errors.Is(err, pebble.ErrClosed), errors.Is(err, errTidy):
	case !pebble.IsCorruptionError(err):
		// Pebble tries again at once, and for ever, what it could not flush or compact, until
		// commits wait for it.
		db.fatal(fmt.Errorf("tidying the metadata: %w", err))
	default:
		db.damage.mu.Lock()
		compaction := errors.Is(err, db.damage.bad)
		db.damage.mu.Unlock()
		if !compaction { // a table's figures: Pebble holds no lock, and reads them again without a pause
			db.rest()
		}
	}
}

// rest waits for rotPause, or for the end.
func (db *DB) rest() {
	t := time.NewTimer(rotPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-db.reserve.closed:
	}
}

// describe names a key for people.
func describe(key []byte) string {
	switch {
	case len(key) == 0:
		return "the beginning"
	case key[0] == keyCatalog && len(key) > 1:
		return fmt.Sprintf("%s %x", tableName(catalog.TableID(key[1])), key[2:])
	}
	names := map[byte]string{keySession: "sessions", keyEntry: "pieces", keyIdem: "sessions by key", keyNewest: "sessions by state", keyOwner: "sessions by owner", keyUnseen: "open sessions by time", keyEnded: "ended sessions by time"}
	if name := names[key[0]]; name != "" {
		return fmt.Sprintf("%s %x", name, key[1:])
	}
	return fmt.Sprintf("%x", key)
}
