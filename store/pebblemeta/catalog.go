package pebblemeta

import (
	"context"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// catalogStore implements catalog.Store.
type catalogStore struct{ db *DB }

// enter begins a call. The caller ends it with db.calls.leave.
func (db *DB) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.calls.enter()
}

// View implements catalog.Store.
func (c catalogStore) View(ctx context.Context, f func(catalog.Reader) error) error {
	if err := c.db.enter(ctx); err != nil {
		return err
	}
	defer c.db.calls.leave()
	v, err := c.db.views.atLeast(ctx, 0)
	if err != nil {
		return err
	}
	defer c.db.views.release(v)
	return f(reader{v, c.db, c.db.cache, v.seq})
}

// Update implements catalog.Store. The closure runs once.
func (c catalogStore) Update(ctx context.Context, f func(catalog.Tx) error) error {
	if err := c.db.enterChange(ctx); err != nil {
		return err
	}
	defer c.db.calls.leave()
	t := c.db.beginCatalog()
	defer t.close()
	if err := f(t); err != nil || t.batch.Empty() {
		return t.endUnchanged(ctx, err)
	}
	return t.commit()
}

// Get implements catalog.Reader. A txn with the catalog's lock reads what the newest commit has,
// from the cache too, and its own writes. A look into the batch costs more, so the txn looks there
// only for a row that it may have written.
func (t *txn) Get(table catalog.TableID, key []byte) (any, error) {
	switch own := t.ownWrite(table, key); {
	case own != nil && own.row != nil:
		return copyForCache[table](own.row), nil
	case own != nil || !isCached(table) && t.tables&(1<<table) != 0:
		return reader{Reader: t.rows, db: t.db}.Get(table, key)
	}
	return reader{t.db.peb, t.db, t.db.cache, t.seq}.Get(table, key)
}

// Scan implements catalog.Reader. Rows that are written while it runs may or may not be visited.
func (t *txn) Scan(table catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return reader{Reader: t.rows, db: t.db}.Scan(table, lo, hi, desc)
}

// Put implements catalog.Tx.
func (t *txn) Put(table catalog.TableID, key []byte, row any) error {
	b, err := encodeCatalog(table, row)
	if err != nil {
		return rowError(table, key, err)
	}
	var cacheRow any
	if len(b) <= cacheLargest {
		cacheRow = rowToCache(table, row)
	}
	return t.batch.Set(t.prepareWrite(table, key, cacheRow), b, nil)
}

// Delete implements catalog.Tx.
func (t *txn) Delete(table catalog.TableID, key []byte) error {
	return t.batch.Delete(t.prepareWrite(table, key, nil), nil)
}

// prepareWrite gives the database key of a row that is about to be written, and notes row as what
// the cache gets for it.
func (t *txn) prepareWrite(table catalog.TableID, key []byte, row any) []byte {
	stored := catalogKey(table, key)
	t.tables |= 1 << table
	if isCached(table) {
		t.noteWrite(table, stored[2:], row)
	}
	return stored
}

// EndSession implements catalog.Tx. An ended session is kept for a time that counts from its seal.
func (t *txn) EndSession(id session.SessionID, gen uint64, to session.State) error {
	if !to.Ended() || to >= session.Gone {
		return fmt.Errorf("%w: %s is not the end of a session", session.ErrInvalid, to)
	}
	t.lockSession(id)
	before, err := t.current(id)
	if err != nil {
		return err
	}
	if before.State == session.Open {
		return session.ErrFenced
	}
	sealed, _ := t.db.seals.get(id)
	after, changed, err := session.Transition(before, session.Step{Gen: gen, To: to, Seen: sealed.seen})
	if err != nil || !changed {
		return err
	}
	return t.write(&before, &after)
}

// reader implements catalog.Reader.
type reader struct {
	pebble.Reader
	db    *DB
	cache *cache // of rows that the Reader has too, as of commit seq; nil: none
	seq   uint64
}

// Get implements catalog.Reader.
func (r reader) Get(table catalog.TableID, key []byte) (any, error) {
	useCache := r.cache != nil && isCached(table)
	if useCache {
		if row := r.cache.get(table, key, r.seq); row != nil {
			return row, nil
		}
	}
	b, err := get(r.Reader, catalogKey(table, key))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, catalog.ErrNotFound
	}
	row, err := decodeCatalog(table, b)
	if err != nil {
		return nil, r.db.reportUnreadable(rowError(table, key, err))
	}
	if useCache && len(b) <= cacheLargest {
		r.cache.put(table, key, r.seq, row)
	}
	return row, nil
}

// Scan implements catalog.Reader.
func (r reader) Scan(table catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		prefix := catalogKey(table, nil)
		start, end := catalogKey(table, lo), prefixEnd(prefix)
		if hi != nil {
			end = catalogKey(table, hi)
		}
		if string(start) >= string(end) {
			return
		}
		more := true
		err := r.db.each(r.Reader, start, end, desc, func(key, b []byte) bool {
			row, err := decodeCatalog(table, b)
			if err != nil {
				err = r.db.reportUnreadable(rowError(table, key[len(prefix):], err))
			}
			more = yield(row, err)
			return more
		}, func(err error) bool {
			more = yield(nil, fmt.Errorf("table %s: %w", tableName(table), err))
			return more
		})
		if err != nil && more {
			yield(nil, fmt.Errorf("reading table %s: %w", tableName(table), err))
		}
	}
}

// Key is the database key of a row of the catalog.
func Key(table catalog.TableID, key []byte) []byte { return catalogKey(table, key) }

func catalogKey(table catalog.TableID, key []byte) []byte {
	return append(append(make([]byte, 0, 2+len(key)), keyCatalog, byte(table)), key...)
}
