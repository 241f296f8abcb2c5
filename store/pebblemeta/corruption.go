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
type corruption struct {
	log *slog.Logger

	mu            sync.Mutex
	reads         int64 // that failed
	found         []string
	tables        map[string]corruptTable // by path
	compactionErr error                   // the last compaction's, which is not to be tried again at once
}

// rotten is a table with a rotten block.
type corruptTable struct {
	lo, hi   []byte // its first and its last key
	examined bool
	holes    []hole
}

const (
	// mostDamages bounds what is remembered for people.
	maxReports = 100
	// rotPause is how long what Pebble does in the background rests after it has met rot. Pebble
	// itself tries again at once.
	corruptionPause = time.Minute
)

func newCorruption(log *slog.Logger) *corruption {
	return &corruption{log: log, tables: map[string]corruptTable{}}
}

// damaged marks Pebble's error for a rotten block.
func markCorrupt(err error) error {
	if pebble.IsCorruptionError(err) && !errors.Is(err, catalog.ErrDamaged) {
		err = fmt.Errorf("%w: %w", catalog.ErrDamaged, err)
	}
	return err
}

// unreadable is damaged for a row that can't be decoded, which it notes: a rotten block notes
// Pebble.
func (db *DB) reportUnreadable(err error) error {
	if errors.Is(err, catalog.ErrDamaged) && !pebble.IsCorruptionError(err) {
		db.corruption.report(err.Error())
	}
	return err
}

// note counts a read that failed, and logs what it met when that is new.
func (c *corruption) report(what string) {
	c.mu.Lock()
	c.reads++
	known := slices.Contains(c.found, what) || len(c.found) >= maxReports
	if !known {
		c.found = append(c.found, what)
	}
	c.mu.Unlock()
	if !known {
		c.log.Error("the metadata is damaged: what needs this fails, all else goes on; sluice check names all of it, and with --repair brings out the rest", "what", what)
	}
}

// Damaged says how many reads have failed since the start since what they needed is damaged, and
// what that is, as far as it is remembered.
func (db *DB) Damaged() (reads int64, what []string) {
	db.corruption.mu.Lock()
	defer db.corruption.mu.Unlock()
	return db.corruption.reads, slices.Clone(db.corruption.found)
}

// rot is called by Pebble, by whoever reads, for a table with a block that is not what was written.
func (c *corruption) onCorruption(i pebble.DataCorruptionInfo) {
	c.mu.Lock()
	if _, known := c.tables[i.Path]; !known {
		c.tables[i.Path] = corruptTable{lo: slices.Clone(i.Bounds.Start), hi: slices.Clone(i.Bounds.End.Key)}
	}
	c.mu.Unlock()
	text, _, _ := strings.Cut(i.Details.Error(), "\n")
	c.report(fmt.Sprintf("%s: %s", i.Path, text))
}

// holes gives the holes of all tables that are known to be rotten.
func (c *corruption) holes(disk vfs.FS) (all []hole) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, f := range c.tables {
		if !f.examined {
			var err error
			if f.holes, err = holesInFile(disk, path, f.lo, f.hi); errors.Is(err, fs.ErrNotExist) {
				delete(c.tables, path)
				continue
			}
			if f.examined = err == nil; err != nil { // looked at again when it is next needed
				f.holes = wholeTable(path, f.lo, f.hi, err)
			}
			c.tables[path] = f
		}
		all = append(all, f.holes...)
	}
	return mergeHoles(all)
}

// compacted notes whether a compaction has met rot.
func (c *corruption) onCompactionEnd(i pebble.CompactionInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compactionErr = nil
	if i.Err != nil && pebble.IsCorruptionError(i.Err) {
		c.compactionErr = i.Err
	}
}

// stuck reports whether the last compaction has met rot.
func (c *corruption) blocksCompaction() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compactionErr != nil
}

// background is told of what Pebble could not do by itself. A disk that can't be written ends the
// process; what is rotten does not.
func (db *DB) onBackgroundError(err error) {
	switch {
	case errors.Is(err, pebble.ErrClosed), errors.Is(err, errCompactionSpace):
	case !pebble.IsCorruptionError(err):
		// Pebble tries again at once, and for ever, what it could not flush or compact, until
		// commits wait for it.
		db.fatal(fmt.Errorf("compacting the metadata: %w", err))
	default:
		db.corruption.mu.Lock()
		compaction := errors.Is(err, db.corruption.compactionErr)
		db.corruption.mu.Unlock()
		if !compaction { // a table's figures: Pebble holds no lock, and reads them again without a pause
			db.pauseAfterCorruption()
		}
	}
}

// rest waits for rotPause, or for the end.
func (db *DB) pauseAfterCorruption() {
	t := time.NewTimer(corruptionPause)
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
	names := map[byte]string{keySession: "sessions", keyEntry: "pieces", keyIdem: "sessions by key", keyBegan: "sessions by state", keyOwner: "sessions by owner", keySeen: "open sessions by time", keyEnded: "ended sessions by time"}
	if name := names[key[0]]; name != "" {
		return fmt.Sprintf("%s %x", name, key[1:])
	}
	return fmt.Sprintf("%x", key)
}
