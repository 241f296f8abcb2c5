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

// corruption remembers what could not be read since the start. Only reads that need one of these
// rows fail.
type corruption struct {
	log *slog.Logger

	mu            sync.Mutex
	reads         int64 // reads that failed
	found         []string
	tables        map[string]corruptTable // by path
	compactionErr error                   // of the last compaction, if it has met corruption
}

// corruptTable is a table with a corrupt block.
type corruptTable struct {
	lo, hi   []byte // its first and its last key
	examined bool
	holes    []hole
}

const (
	// maxReports bounds how many messages are kept for people.
	maxReports = 100
	// corruptionPause is how long Pebble's background work pauses after it has met corruption.
	// Pebble itself tries again at once.
	corruptionPause = time.Minute
)

func newCorruption(log *slog.Logger) *corruption {
	return &corruption{log: log, tables: map[string]corruptTable{}}
}

// markCorrupt wraps Pebble's error for a corrupt block in catalog.ErrDamaged.
func markCorrupt(err error) error {
	if pebble.IsCorruptionError(err) && !errors.Is(err, catalog.ErrDamaged) {
		err = fmt.Errorf("%w: %w", catalog.ErrDamaged, err)
	}
	return err
}

// reportUnreadable reports a row that can't be decoded, and returns err. Pebble itself reports a
// corrupt block, by onCorruption.
func (db *DB) reportUnreadable(err error) error {
	if errors.Is(err, catalog.ErrDamaged) && !pebble.IsCorruptionError(err) {
		db.corruption.report(err.Error())
	}
	return err
}

// report counts a read that failed, and logs the reason if it is new.
func (c *corruption) report(what string) {
	c.mu.Lock()
	c.reads++
	known := slices.Contains(c.found, what) || len(c.found) >= maxReports
	if !known {
		c.found = append(c.found, what)
	}
	c.mu.Unlock()
	if !known {
		c.log.Error("the metadata is damaged: what needs this fails, all else goes on; "+
			"sluice check names all of it, and with --repair brings out the rest", "what", what)
	}
}

// Damaged says how many reads have failed since the start because the rows or blocks that they
// needed were damaged, and which these are. At most 100 are remembered.
func (db *DB) Damaged() (reads int64, what []string) {
	db.corruption.mu.Lock()
	defer db.corruption.mu.Unlock()
	return db.corruption.reads, slices.Clone(db.corruption.found)
}

// onCorruption is called by Pebble, in the goroutine that reads, for a table with a block that is
// not what was written.
func (c *corruption) onCorruption(i pebble.DataCorruptionInfo) {
	c.mu.Lock()
	if _, known := c.tables[i.Path]; !known {
		c.tables[i.Path] = corruptTable{lo: slices.Clone(i.Bounds.Start), hi: slices.Clone(i.Bounds.End.Key)}
	}
	c.mu.Unlock()
	text, _, _ := strings.Cut(i.Details.Error(), "\n")
	c.report(fmt.Sprintf("%s: %s", i.Path, text))
}

// holes gives the holes of all tables that are known to be corrupt.
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
			if f.examined = err == nil; err != nil { // it is examined again with the next need
				f.holes = wholeTable(path, f.lo, f.hi, err)
			}
			c.tables[path] = f
		}
		all = append(all, f.holes...)
	}
	return mergeHoles(all)
}

// onCompactionEnd notes whether a compaction has met corruption.
func (c *corruption) onCompactionEnd(i pebble.CompactionInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compactionErr = nil
	if i.Err != nil && pebble.IsCorruptionError(i.Err) {
		c.compactionErr = i.Err
	}
}

// blocksCompaction reports whether the last compaction has met corruption.
func (c *corruption) blocksCompaction() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compactionErr != nil
}

// onBackgroundError gets the errors of Pebble's background work. A disk that can't be written ends
// the process. Corruption does not.
func (db *DB) onBackgroundError(err error) {
	switch {
	case errors.Is(err, pebble.ErrClosed), errors.Is(err, errCompactionSpace):
	case !pebble.IsCorruptionError(err):
		// Pebble would try a failed flush or compaction again at once, and for ever, until commits
		// wait for it.
		db.fatal(fmt.Errorf("compacting the metadata: %w", err))
	default:
		db.corruption.mu.Lock()
		compaction := errors.Is(err, db.corruption.compactionErr)
		db.corruption.mu.Unlock()
		if !compaction { // of reading a table's statistics: Pebble has no lock, and tries again at once
			db.pauseAfterCorruption()
		}
	}
}

// pauseAfterCorruption waits for corruptionPause, or until the database closes.
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
	names := map[byte]string{
		keySession: "sessions", keyEntry: "pieces", keyIdem: "sessions by key",
		keyBegan: "sessions by state", keyOwner: "sessions by owner",
		keySeen: "open sessions by time", keyEnded: "ended sessions by time",
	}
	if name := names[key[0]]; name != "" {
		return fmt.Sprintf("%s %x", name, key[1:])
	}
	return fmt.Sprintf("%x", key)
}
