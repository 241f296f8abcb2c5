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

// Verify reads every row, and so every block of the database with its checksum, and calls found for
// what is wrong with those that only this package sees: keys that mean nothing, rows of sessions
// and pieces that can't be read, indexes that differ from the sessions, and the totals. What the
// rows of the catalog say is not looked at. Behind a rotten block it goes on, once it has told of
// that hole, and which rows it may have had. An error says that it could not read on.
func (db *DB) Verify(ctx context.Context, found func(problem string, hole bool)) error {
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.calls.leave()
	v, err := db.views.at(ctx, 0)
	if err != nil {
		return err
	}
	defer db.views.release(v)
	w := verifier{r: v, found: func(problem string) { found(problem, false) }}
	err = db.each(v.Snapshot, nil, nil, false, func(key, row []byte) bool {
		if err := w.row(key, row); err != nil {
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
		return nil // the totals are of more than can be read
	}
	return w.compareTotals()
}

// verifier compares sessions with what leads to them.
type verifier struct {
	r      pebble.Reader
	found  func(string)
	counts totals
	holes  bool
}

var (
	errStray = errors.New("it leads to a session that is not there, or that is elsewhere in the index")
	errKey   = errors.New("its key means nothing")
)

func (w *verifier) row(key, value []byte) error {
	switch kind := key[0]; {
	case kind == keySession && len(key) == 9:
		return w.session(session.SessionID(binary.BigEndian.Uint64(key[1:])), value)
	case kind == keyEntry && len(key) == 17:
		return w.entry(key, value)
	case kind == keyIdem && len(value) == 8:
		return w.leads(key, session.SessionID(binary.BigEndian.Uint64(value)))
	case kind == keyNewest || kind == keyOwner || kind == keyUnseen || kind == keyEnded:
		if p, ok := placeIn(key); ok {
			return w.leads(key, p.id)
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

// session makes sure that each index has the session.
func (w *verifier) session(id session.SessionID, value []byte) error {
	s, err := decodeSession(id, value)
	if err != nil {
		return err
	}
	w.counts.count(&s, 1)
	for name, key := range indexKeys(&s) {
		row, err := get(w.r, key)
		if err != nil {
			return err
		}
		if row == nil || name == keyIdem && !bytes.Equal(row, appendUint(nil, uint64(id))) {
			return fmt.Errorf("session %s is not in index %c", id, name)
		}
	}
	return nil
}

func (w *verifier) entry(key, value []byte) error {
	p, _ := placeIn(key)
	if _, err := decodeEntry(int64(uint64(p.id)^1<<63), value); err != nil {
		return err
	}
	id := session.SessionID(p.order)
	s, err := loadSession(w.r, id)
	if errors.Is(err, session.ErrNotFound) || err == nil && s.State.Ended() {
		return fmt.Errorf("it is a piece of session %s, which is not open", id)
	}
	return nil
}

// leads makes sure that the session which an index's key leads to has this key.
func (w *verifier) leads(key []byte, id session.SessionID) error {
	s, err := loadSession(w.r, id)
	if errors.Is(err, session.ErrNotFound) {
		return errStray
	}
	if err != nil {
		return nil // told of where its row is
	}
	name := key[0]
	if name == keyEnded {
		name = keyUnseen // one of the two, by its state
	}
	if !bytes.Equal(indexKeys(&s)[name], key) {
		return errStray
	}
	return nil
}

func (w *verifier) compareTotals() error {
	t, err := loadTotals(w.r)
	if err != nil {
		w.found(err.Error())
		return nil
	}
	if t.Open != w.counts.Open || t.Expected != w.counts.Expected || t.Received != w.counts.Received {
		w.found(fmt.Sprintf("the totals say that %d sessions are open with %d of %d bytes, and there are %d with %d of %d",
			t.Open, t.Received, t.Expected, w.counts.Open, w.counts.Received, w.counts.Expected))
	}
	return nil
}
