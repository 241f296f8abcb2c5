package pebblemeta

import (
	"context"
	"errors"
	"fmt"

	"sluice/catalog"
)

// Format is the version of the rows that Walk gives and Fill takes.
const Format = format

// Frozen is the state of the database at one moment. All of it is durable. Its only cost is the
// space of rows that are replaced later: they are kept until Close. It is used by one goroutine.
// The DB's Close waits for the Close of each Frozen.
type Frozen struct {
	db *DB
	v  *view
}

// Freeze gives the newest durable state. Everything that was acknowledged before the call is in it,
// and every commit is in it wholly or not at all.
func (db *DB) Freeze(ctx context.Context) (*Frozen, error) {
	if err := db.enter(ctx); err != nil {
		return nil, err
	}
	v, err := db.views.atLeast(ctx, 0)
	if err != nil {
		db.calls.leave()
		return nil, err
	}
	return &Frozen{db, v}, nil
}

// Close releases the state. A repeat does nothing.
func (f *Frozen) Close() {
	if f.v != nil {
		f.db.views.release(f.v)
		f.db.calls.leave()
		f.v = nil
	}
}

// Walk visits all rows in the order of their keys. visit must keep neither key nor row. Pebble
// compares each block that it reads with its checksum. If a block is corrupt, Walk calls onHole
// with a catalog.ErrDamaged for the rows that the block may have had: from is the first key, and to
// the key behind the last. It goes on behind them unless onHole returns an error.
func (f *Frozen) Walk(
	ctx context.Context, visit func(key, row []byte) error,
	onHole func(from, to []byte, why error) error,
) error {
	var failed error
	err := f.db.each(f.v.Snapshot, nil, nil, false, func(key, row []byte) bool {
		if failed = ctx.Err(); failed == nil {
			failed = visit(key, row)
		}
		return failed == nil
	}, func(err error) bool {
		var h *holeError
		if failed = err; errors.As(err, &h) {
			failed = onHole(h.lo, h.hi, err)
		}
		return failed == nil
	})
	if failed == nil && err != nil {
		failed = fmt.Errorf("reading the metadata: %w", err)
	}
	return failed
}

// Decode gives what a row says: a session.Session, a session.Entry, or a row of the catalog as its
// table's type. It gives nil for the totals and for rows that only lead to other rows. A row that
// is damaged, or of an unknown kind, is an error that names it. The result shares nothing with row.
func Decode(key, row []byte) (any, error) {
	fail := func(err error) (any, error) { return nil, fmt.Errorf("row %x: %w", key, err) }
	if len(key) == 0 {
		return fail(catalog.ErrDamaged)
	}
	switch key[0] {
	case keySession:
		p, ok := parsePosition(append(make([]byte, 8, keyPosition), key[1:]...))
		if !ok || len(key) != 9 {
			return fail(catalog.ErrDamaged)
		}
		s, err := decodeSession(p.id, row)
		if err != nil {
			return fail(err)
		}
		return s, nil
	case keyEntry:
		p, ok := parsePosition(key)
		if !ok || len(key) != 1+keyPosition {
			return fail(catalog.ErrDamaged)
		}
		e, err := decodeEntry(int64(uint64(p.id)^1<<63), row)
		if err != nil {
			return fail(err)
		}
		return e, nil
	case keyCatalog:
		if len(key) < 2 {
			return fail(catalog.ErrDamaged)
		}
		table := catalog.TableID(key[1])
		v, err := decodeCatalog(table, row)
		if err != nil {
			return nil, rowError(table, key[2:], err)
		}
		return v, nil
	case totalsKey[0]:
		var t totals
		if err := decodeRow(rowVersion, row, &t); err != nil || len(key) != 1 {
			return fail(catalog.ErrDamaged)
		}
		return nil, nil
	case keyIdem:
		if len(row) != 8 {
			return fail(catalog.ErrDamaged)
		}
		return nil, nil
	case keyBegan, keyOwner, keySeen, keyEnded:
		if _, whole := parsePosition(key); !whole {
			return fail(catalog.ErrDamaged)
		}
		return nil, nil
	}
	return fail(fmt.Errorf("%w: no such kind of row", catalog.ErrDamaged))
}
