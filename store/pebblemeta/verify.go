package pebblemeta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// Verify reads every row, and with it every block of the database and its checksum. It calls found
// for problems that only this package sees: keys that mean nothing, rows of sessions and entries
// that can't be read, indexes that differ from the sessions, and wrong totals. It does not look at
// what the rows of the catalog say. At a corrupt block it reports the hole with the rows that it
// may have had, and goes on behind it. An error says that it could not read on.
func (db *DB) Verify(ctx context.Context, found func(problem string, hole bool)) error {
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.calls.leave()
	v, err := db.views.atLeast(ctx, 0)
	if err != nil {
		return err
	}
	defer db.views.release(v)
	w := verifier{r: v, found: func(problem string) { found(problem, false) }}
	err = db.each(v.Snapshot, nil, nil, false, func(key, row []byte) bool {
		if err := w.checkRow(key, row); err != nil {
			found(fmt.Sprintf("row %x: %v", key, err), false)
		}
		return ctx.Err() == nil
	}, func(err error) bool {
		w.holes = true
		found(err.Error(), true)
		return ctx.Err() == nil
	})
	if err := errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("reading the metadata: %w", err)
	}
	if w.holes {
		return nil // the totals count more than can be read
	}
	return w.compareTotals()
}

// verifier compares sessions with their index rows.
type verifier struct {
	r      pebble.Reader
	found  func(string)
	counts totals
	holes  bool
}

var (
	errWrongIndex = errors.New("it leads to a session that is not there, or that is elsewhere in the index")
	errKey        = errors.New("its key means nothing")
)

func (v *verifier) checkRow(key, value []byte) error {
	switch kind := key[0]; {
	case kind == keySession && len(key) == 9:
		return v.checkSession(session.SessionID(binary.BigEndian.Uint64(key[1:])), value)
	case kind == keyEntry && len(key) == 17:
		return v.checkEntry(key, value)
	case kind == keyIdem && len(value) == 8:
		return v.checkIndexKey(key, session.SessionID(binary.BigEndian.Uint64(value)))
	case kind == keyBegan || kind == keyOwner || kind == keySeen || kind == keyEnded:
		if p, ok := parsePosition(key); ok {
			return v.checkIndexKey(key, p.id)
		}
	case kind == keyCatalog && len(key) > 1:
		if _, known := codecs[catalog.TableID(key[1])]; known {
			return nil
		}
	case bytes.Equal(key, totalsKey):
		return nil
	}
	return errKey
}

// checkSession checks that each index has the session.
func (v *verifier) checkSession(id session.SessionID, value []byte) error {
	s, err := decodeSession(id, value)
	if err != nil {
		return err
	}
	v.counts.count(&s, 1)
	for name, key := range indexKeys(&s) {
		row, err := get(v.r, key)
		if err != nil {
			return err
		}
		if row == nil || name == keyIdem && !bytes.Equal(row, appendUint(nil, uint64(id))) {
			return fmt.Errorf("session %s is not in index %c", id, name)
		}
	}
	return nil
}

func (v *verifier) checkEntry(key, value []byte) error {
	p, _ := parsePosition(key)
	if _, err := decodeEntry(int64(uint64(p.id)^1<<63), value); err != nil {
		return err
	}
	id := session.SessionID(p.order)
	s, err := loadSession(v.r, id)
	if errors.Is(err, session.ErrNotFound) || err == nil && s.State.Ended() {
		return fmt.Errorf("it is a piece of session %s, which is not open", id)
	}
	return nil
}

// checkIndexKey checks that the session to which an index's key leads has this key.
func (v *verifier) checkIndexKey(key []byte, id session.SessionID) error {
	s, err := loadSession(v.r, id)
	if errors.Is(err, session.ErrNotFound) {
		return errWrongIndex
	}
	if err != nil {
		return nil // reported with its row
	}
	name := key[0]
	if name == keyEnded {
		name = keySeen // one of the two, by its state
	}
	if !bytes.Equal(indexKeys(&s)[name], key) {
		return errWrongIndex
	}
	return nil
}

func (v *verifier) compareTotals() error {
	t, err := loadTotals(v.r)
	if err != nil {
		v.found(err.Error())
		return nil
	}
	if t.Open != v.counts.Open || t.Expected != v.counts.Expected || t.Received != v.counts.Received {
		v.found(fmt.Sprintf("the totals say that %d sessions are open with %d of %d bytes, "+
			"and there are %d with %d of %d",
			t.Open, t.Received, t.Expected, v.counts.Open, v.counts.Received, v.counts.Expected))
	}
	return nil
}
