package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// txn is one read-modify-write. It reads the newest rows, durable or not. So nobody may learn what
// it read before commit or endUnchanged has returned. It is used by one goroutine.
type txn struct {
	db    *DB
	batch *pebble.Batch
	rows  pebble.Reader // the newest rows; with an indexed batch, the writes too
	// The locks that it has. It may lock stripes in any order, since only a txn with the catalog's
	// lock takes a second one.
	catalog       bool
	lockedStripes [stripes]bool

	// decided: the hook has decided without the catalog's lock, by the state of commit decidedAt.
	decided   bool
	decidedAt uint64

	delta    totals // what the commit adds
	unsynced bool   // it need not survive a power loss
	changed  []session.Session

	seq       uint64         // with the catalog's lock: the newest commit when the txn got it
	writes    []rowWrite     // the rows that the cache may have
	lastWrite map[string]int // the index in writes of a row's last write, once they are many
	tables    uint32         // the tables that the batch has rows of, a bit for each
}

// rowWrite is a row that a commit writes.
type rowWrite struct {
	table catalog.TableID
	key   []byte
	row   any // for the cache; nil: the cache removes the row
}

// begin starts a txn on sessions. The caller must close it.
func (db *DB) begin() *txn {
	return &txn{db: db, batch: db.peb.NewBatch(), rows: db.peb}
}

// beginCatalog starts a txn that may also change the catalog, and sees its own writes. The caller
// must close it.
func (db *DB) beginCatalog() *txn {
	db.catalogMu.Lock()
	db.applyMu.Lock()
	seq := db.applied
	db.applyMu.Unlock()
	b := db.peb.NewIndexedBatch()
	return &txn{db: db, batch: b, rows: b, catalog: true, seq: seq}
}

// lockSession keeps all others from changing the session until unlock.
func (t *txn) lockSession(id session.SessionID) {
	if i := id % stripes; !t.lockedStripes[i] {
		t.db.stripes[i].Lock()
		t.lockedStripes[i] = true
	}
}

func (t *txn) unlock() {
	for i, locked := range t.lockedStripes {
		if locked {
			t.db.stripes[i].Unlock()
			t.lockedStripes[i] = false
		}
	}
	if t.catalog {
		t.db.catalogMu.Unlock()
		t.catalog = false
	}
}

// close releases all locks and the batch.
func (t *txn) close() {
	t.unlock()
	_ = t.batch.Close()
}

// commit applies what was written. It returns when that is published, and durable or, if the txn is
// unsynced, safe from the death of the process.
func (t *txn) commit() error {
	defer t.db.syncs.begin(t.unsynced)()
	seq, snap, err := t.apply()
	t.unlock()
	if err != nil {
		return err
	}
	if err := t.batch.SyncWait(); err != nil {
		t.db.fatal(fmt.Errorf("writing the metadata's log: %w", err))
	}
	t.db.views.publish(snap, seq)
	shown := t.db.views.shown.Load()
	for _, w := range t.writes {
		if w.row != nil {
			t.db.cache.forgetPrevious(w.table, w.key, shown)
		}
	}
	for _, s := range t.changed {
		t.db.seals.removeOlder(s)
	}
	return nil
}

// accessTables has a bit for each of catalog.AccessTables.
var accessTables = func() (bits uint32) {
	for _, table := range catalog.AccessTables() {
		bits |= 1 << table
	}
	return bits
}()

// apply gives the commit its place in the order of all commits. It gives errNeedsCatalog, and
// changes nothing, if the hook's decision may not hold any more.
func (t *txn) apply() (seq uint64, snap *pebble.Snapshot, err error) {
	db := t.db
	db.applyMu.Lock()
	defer db.applyMu.Unlock()
	if t.decided && db.access > t.decidedAt {
		return 0, nil, errNeedsCatalog
	}
	if after := db.totals.plus(t.delta); after != db.totals {
		row, err := after.encode()
		if err != nil {
			return 0, nil, err
		}
		if err := t.batch.Set(totalsKey, row, nil); err != nil {
			return 0, nil, err
		}
		db.totals = after
	}
	if err := db.peb.ApplyNoSyncWait(t.batch, pebble.Sync); err != nil {
		// Pebble gives an error only when it can't go on.
		db.fatal(fmt.Errorf("applying a commit to the metadata: %w", err))
	}
	db.applied++
	if t.tables&accessTables != 0 {
		db.access = db.applied
	}
	for _, w := range t.writes {
		db.cache.commitRow(w.table, w.key, db.applied, w.row)
	}
	return db.applied, db.peb.NewSnapshot(), nil
}

// endUnchanged ends a txn that changes nothing. It returns err once everything that led to it is
// durable and published.
func (t *txn) endUnchanged(ctx context.Context, err error) error {
	t.db.applyMu.Lock()
	seq := t.db.applied
	t.db.applyMu.Unlock()
	t.unlock()
	if waitErr := t.db.views.wait(ctx, seq); waitErr != nil {
		return waitErr
	}
	return err
}

// maxScannedWrites is how many writes of a txn are searched one by one.
const maxScannedWrites = 32

// noteWrite notes that a row is written, and what the cache gets for it.
func (t *txn) noteWrite(table catalog.TableID, key []byte, row any) {
	t.writes = append(t.writes, rowWrite{table, key, row})
	if len(t.writes) <= maxScannedWrites {
		return
	}
	if t.lastWrite == nil {
		t.lastWrite = map[string]int{}
		for i, w := range t.writes {
			t.lastWrite[w.mapKey()] = i
		}
	}
	t.lastWrite[t.writes[len(t.writes)-1].mapKey()] = len(t.writes) - 1
}

func (w rowWrite) mapKey() string { return string(byte(w.table)) + string(w.key) }

// ownWrite gives the txn's last write of a row that the cache may have; nil: none.
func (t *txn) ownWrite(table catalog.TableID, key []byte) *rowWrite {
	if t.lastWrite != nil {
		if i, ok := t.lastWrite[rowWrite{table, key, nil}.mapKey()]; ok {
			return &t.writes[i]
		}
		return nil
	}
	for i := len(t.writes) - 1; i >= 0; i-- {
		if w := &t.writes[i]; w.table == table && bytes.Equal(w.key, key) {
			return w
		}
	}
	return nil
}

// get copies a row. It gives nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	row, done, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading row %x: %w", key, markCorrupt(err))
	}
	row = append(make([]byte, 0, len(row)), row...)
	return row, done.Close()
}
