package pebblemeta

import (
	"context"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// rows implements catalog.Store.
type rows struct{ db *DB }

// enter begins a call, which leaves by db.calls.leave.
func (db *DB) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.calls.enter()
}

// View implements catalog.Store.
func (c rows) View(ctx context.Context, f func(catalog.Reader) error) error {
	if err := c.db.enter(ctx); err != nil {
		return err
	}
	defer c.db.calls.leave()
	v, err := c.db.views.at(ctx, 0)
	if err != nil {
		return err
	}
	defer c.db.views.release(v)
	return f(reader{v})
}

// Update implements catalog.Store. The closure runs once.
func (c rows) Update(ctx context.Context, f func(catalog.Tx) error) error {
	if err := c.db.enter(ctx); err != nil {
		return err
	}
	defer c.db.calls.leave()
	t := c.db.beginCatalog()
	defer t.close()
	if err := f(t); err != nil || t.batch.Empty() {
		return t.refuse(ctx, err)
	}
	return t.commit()
}

// Get implements catalog.Reader.
func (t *txn) Get(table catalog.TableID, key []byte) (any, error) {
	return reader{t.rows}.Get(table, key)
}

// Scan implements catalog.Reader. What is written while it runs may or may not be seen.
func (t *txn) Scan(table catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return reader{t.rows}.Scan(table, lo, hi, desc)
}

// Put implements catalog.Tx.
func (t *txn) Put(table catalog.TableID, key []byte, row any) error {
	b, err := encodeCatalog(table, row)
	if err != nil {
		return rowError(table, key, err)
	}
	return t.batch.Set(catalogKey(table, key), b, nil)
}

// Delete implements catalog.Tx.
func (t *txn) Delete(table catalog.TableID, key []byte) error {
	return t.batch.Delete(catalogKey(table, key), nil)
}

// EndSession implements catalog.Tx. Keeping the ended session counts from its seal.
func (t *txn) EndSession(id, gen uint64, state uint8) error {
	sid, to := session.SessionID(id), session.State(state)
	if !to.Ended() || to >= session.Gone {
		return fmt.Errorf("%w: %s is not the end of a session", session.ErrInvalid, to)
	}
	t.lockSession(sid)
	before, err := t.newest(sid)
	if err != nil {
		return err
	}
	if before.State == session.Open {
		return session.ErrFenced
	}
	sealed, _ := t.db.seals.get(sid)
	after, changed, err := session.Transition(before, session.Step{Gen: gen, To: to, Seen: sealed.seen})
	if err != nil || !changed {
		return err
	}
	return t.write(&before, &after)
}

// reader implements catalog.Reader.
type reader struct{ pebble.Reader }

// Get implements catalog.Reader.
func (r reader) Get(table catalog.TableID, key []byte) (any, error) {
	b, err := get(r.Reader, catalogKey(table, key))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, catalog.ErrNotFound
	}
	row, err := decodeCatalog(table, b)
	if err != nil {
		return nil, rowError(table, key, err)
	}
	return row, nil
}

// Scan implements catalog.Reader.
func (r reader) Scan(table catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		bounds := pebble.IterOptions{LowerBound: catalogKey(table, lo), UpperBound: catalogKey(table, hi)}
		if hi == nil {
			bounds.UpperBound = behind(catalogKey(table, nil))
		}
		if string(bounds.LowerBound) >= string(bounds.UpperBound) {
			return
		}
		it, err := r.NewIter(&bounds)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = it.Close() }() // its error is Error's, below
		start, step := it.First, it.Next
		if desc {
			start, step = it.Last, it.Prev
		}
		for ok := start(); ok; ok = step() {
			row, err := decodeCatalog(table, it.Value())
			if err != nil {
				err = rowError(table, it.Key()[len(catalogKey(table, nil)):], err)
			}
			if !yield(row, err) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(nil, fmt.Errorf("reading table %s: %w", tableName(table), err))
		}
	}
}

func catalogKey(table catalog.TableID, key []byte) []byte {
	return append(append(make([]byte, 0, 2+len(key)), keyCatalog, byte(table)), key...)
}
