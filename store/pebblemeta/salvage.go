package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/session"
)

// Salvage makes a database in the folder dir, which is empty or missing, of what is left: the sure
// sessions and entries, and the rows of the catalog for which keep returns true. sure says that a
// row is the newest that there was. The indexes of sessions and the totals are made anew. Salvage
// calls report for everything of sessions that is known to be lost, and for each row that can't be
// read. If it returns nil, the database is synced.
func (d *Damaged) Salvage(
	ctx context.Context, dir string, opts Options,
	keep func(row any, sure bool) bool, report func(string),
) error {
	f, err := Fill(dir, opts)
	if err != nil {
		return err
	}
	defer f.Abandon()
	add := f.Salvage(ctx, keep, report)
	if err := d.Walk(ctx, add); err != nil {
		return err
	}
	return f.Close(ctx)
}

// Salvage makes the Filling a database of salvaged rows. The caller gives these to add, in the
// order of their keys, and none to Add. keep and report are as for a Damaged's Salvage.
func (f *Filling) Salvage(
	ctx context.Context, keep func(row any, sure bool) bool, report func(string),
) (add func(key, row []byte, sure bool) error) {
	s := &salvage{f: f, keep: keep, report: report}
	f.afterIngest = func(peb *pebble.DB) error { return s.index(ctx, peb) }
	return s.row
}

// salvage is one under way.
type salvage struct {
	f      *Filling
	keep   func(row any, sure bool) bool
	report func(string)
	totals totals
}

// row adds a row or leaves it out.
func (s *salvage) row(key, row []byte, sure bool) error {
	what, err := Decode(key, row)
	if err != nil {
		s.report(err.Error())
		return nil
	}
	switch kind := key[0]; {
	case kind == keyCatalog:
		if !s.keep(what, sure) {
			return nil
		}
	case kind == keySession && !sure:
		was := what.(session.Session)
		s.report(fmt.Sprintf("session %s (%s when it was last readable) is left out: "+
			"it may have gone on or ended since", was.ID, was.State))
		return nil
	case kind == keySession, kind == keyEntry && sure:
	case bytes.Equal(key, totalsKey):
		return decodeRow(rowVersion, row, &s.totals)
	default: // index makes it anew
		return nil
	}
	return s.f.Add(key, row)
}

// indexBatch is how many bytes are written at a time.
const indexBatch = 1 << 20

// index brings sessions and their entries into agreement, and writes the indexes of sessions and
// the totals.
func (s *salvage) index(ctx context.Context, peb *pebble.DB) error {
	s.totals.Open, s.totals.Expected, s.totals.Received = 0, 0, 0
	b := peb.NewBatch()
	defer func() { _ = b.Close() }()
	entries, err := peb.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEntry}, UpperBound: []byte{keyEntry + 1}})
	if err != nil {
		return err
	}
	defer func() { _ = entries.Close() }()
	prefix := []byte{keySession}
	rows, err := peb.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	walk := entryWalk{it: entries, b: b}
	entries.First()
	for ok := rows.First(); ok && ctx.Err() == nil; ok = rows.Next() {
		p, _ := parsePosition(append(make([]byte, 8, keyPosition), rows.Key()[1:]...))
		was, err := decodeSession(p.id, rows.Value())
		if err != nil {
			return err
		}
		is, err := walk.session(was)
		if err != nil {
			return err
		}
		if missing := session.Total(was.Received) - session.Total(is.Received); missing > 0 {
			s.report(fmt.Sprintf("session %s: the records of %d of its %d bytes; the client is asked for them again",
				is.ID, missing, session.Total(was.Received)))
		}
		if err := s.add(b, &is); err != nil {
			return err
		}
		if b.Len() < indexBatch {
			continue
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		b.Reset()
	}
	if err := errors.Join(ctx.Err(), rows.Error(), walk.deleteRest(), entries.Error()); err != nil {
		return err
	}
	row, err := s.totals.encode()
	if err == nil {
		err = b.Set(totalsKey, row, nil)
	}
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err != nil {
		return err
	}
	return peb.Flush()
}

// add writes a session's row and its index rows.
func (s *salvage) add(b *pebble.Batch, is *session.Session) error {
	s.totals.count(is, 1)
	s.totals.Newest = max(s.totals.Newest, is.Seen)
	row, err := encodeSession(is)
	if err == nil {
		err = b.Set(sessionKey(is.ID), row, nil)
	}
	if err != nil {
		return err
	}
	return (&txn{batch: b}).index(nil, is)
}

// entryWalk walks through the entries of all sessions, while its caller walks through the sessions.
type entryWalk struct {
	it *pebble.Iterator // at the first entry that was not examined
	b  *pebble.Batch
}

// session gives the session as its entries say. It deletes entries before them, which belong to no
// session, and the entries of a session that has ended.
func (w *entryWalk) session(s session.Session) (session.Session, error) {
	prefix := entriesPrefix(s.ID)
	var got []session.Range
	n := 0
	for ; w.it.Valid() && bytes.Compare(w.it.Key(), prefixEnd(prefix)) < 0; w.it.Next() {
		at, _ := parsePosition(w.it.Key())
		e, err := decodeEntry(int64(uint64(at.id)^1<<63), w.it.Value())
		valid := err == nil && bytes.HasPrefix(w.it.Key(), prefix) && !s.State.Ended() &&
			session.Covers(s.Received, e.Range) && !session.Touches(got, e.Range)
		if valid {
			got, n = session.Add(got, e.Range), n+1
			continue
		}
		if err := w.b.Delete(w.it.Key(), nil); err != nil {
			return s, err
		}
	}
	if s.State.Ended() {
		return s, nil
	}
	missing := slices.Clone(s.Received)
	for _, r := range got {
		missing = session.Sub(missing, r)
	}
	for _, r := range missing {
		var err error
		c := session.Change{Remove: []session.Range{r}, Drop: r, Length: session.Unknown}
		if s, err = session.Apply(s, s.Gen, c); err != nil {
			return s, err
		}
	}
	s.EntryCount = n
	return s, nil
}

// deleteRest deletes the entries that follow the last session.
func (w *entryWalk) deleteRest() error {
	for ; w.it.Valid(); w.it.Next() {
		if err := w.b.Delete(w.it.Key(), nil); err != nil {
			return err
		}
	}
	return nil
}
