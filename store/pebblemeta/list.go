package pebblemeta

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// sealedView is a view with the seals of the same moment. A seal hides a part of a session's row.
type sealedView struct {
	view  *view
	db    *DB
	seals map[session.SessionID]seal
}

// viewWithSeals gives a consistent state of all sessions. The caller must release its view.
func (db *DB) viewWithSeals(ctx context.Context) (sealedView, error) {
	seals, seq := db.seals.all()
	v, err := db.views.atLeast(ctx, seq)
	return sealedView{v, db, seals}, err
}

func (v sealedView) session(id session.SessionID) (session.Session, error) {
	s, err := v.db.listedAt(v.view, id, v.view.seq)
	if err == nil {
		v.seals[id].applyTo(&s)
	}
	return s, v.db.reportUnreadable(err)
}

// skips reports whether a list leaves a session out: its row can't be read, or is missing
// although an index leads to it. Other sessions are still found.
func (v sealedView) skips(id session.SessionID, err error) bool {
	if errors.Is(err, session.ErrNotFound) {
		v.db.corruption.report(fmt.Sprintf("an index leads to session %s, which is not there", id))
		return true
	}
	return errors.Is(err, catalog.ErrDamaged)
}

// Entries implements session.Store.
func (st sessionStore) Entries(
	ctx context.Context, id session.SessionID, r session.Range, n int,
) ([]session.Entry, error) {
	if err := st.db.enter(ctx); err != nil {
		return nil, err
	}
	defer st.db.calls.leave()
	v, err := st.db.views.atLeast(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer st.db.views.release(v)
	if s, ok := st.db.cachedSession(id, v.seq); ok {
		if off, only := onlyEntry(&s); only {
			return onlyEntryIn(v, id, off, r)
		}
	} else if row, err := get(v, sessionKey(id)); err != nil || row == nil {
		return nil, cmp.Or(err, error(session.ErrNotFound))
	}
	prefix := entriesPrefix(id)
	it, err := v.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, err
	}
	var out []session.Entry
	// The last entry that begins before r may reach into it. SeekLT is costly, so it is left out if
	// there can be no such entry.
	ok := r.Off > 0 && it.SeekLT(entryKey(id, r.Off))
	if !ok {
		ok = it.First()
	}
	for ; ok && (n == 0 || len(out) < n); ok = it.Next() {
		p, _ := parsePosition(it.Key())
		off := int64(uint64(p.id) ^ 1<<63)
		e, err := decodeEntry(off, it.Value())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("row of session %s, entry at %d: %w", id, off, err), it.Close())
		}
		if e.Off >= r.End {
			break
		}
		if e.Overlaps(r) {
			out = append(out, e)
		}
	}
	return out, markCorrupt(errors.Join(it.Error(), it.Close()))
}

// onlyEntryIn gives the entry at off, which is the session's only one, if it overlaps r.
func onlyEntryIn(v *view, id session.SessionID, off int64, r session.Range) ([]session.Entry, error) {
	row, err := get(v, entryKey(id, off))
	if err != nil || row == nil {
		return nil, err
	}
	e, err := decodeEntry(off, row)
	if err != nil {
		return nil, fmt.Errorf("row of session %s, entry at %d: %w", id, off, err)
	}
	if !e.Overlaps(r) {
		return nil, nil
	}
	return []session.Entry{e}, nil
}

// KeepTime implements session.Store. It takes no lock of sessions or the catalog.
func (st sessionStore) KeepTime(ctx context.Context, running int64) (int64, error) {
	if err := st.db.enter(ctx); err != nil {
		return 0, err
	}
	defer st.db.calls.leave()
	if newest, err := st.newestTime(ctx); err != nil || newest >= running {
		return newest, err
	}
	t := st.db.begin()
	defer t.close()
	t.delta.Newest = running
	if err := t.commit(); err != nil {
		return 0, err
	}
	return st.newestTime(ctx)
}

// newestTime gives the newest running time that was stored, once it is durable.
func (st sessionStore) newestTime(ctx context.Context) (int64, error) {
	st.db.applyMu.Lock()
	newest, seq := st.db.totals.Newest, st.db.applied
	st.db.applyMu.Unlock()
	return newest, st.db.views.wait(ctx, seq)
}

// Stats implements session.Store.
func (st sessionStore) Stats(ctx context.Context) (session.Stats, error) {
	if err := st.db.enter(ctx); err != nil {
		return session.Stats{}, err
	}
	defer st.db.calls.leave()
	l, err := st.db.viewWithSeals(ctx)
	if err != nil {
		return session.Stats{}, err
	}
	defer st.db.views.release(l.view)
	t, err := loadTotals(l.view)
	if errors.Is(err, catalog.ErrDamaged) && st.db.readOnly {
		t, err = st.db.totals, nil // as they were counted at the start
	}
	if err != nil {
		return session.Stats{}, l.db.reportUnreadable(err)
	}
	out := session.Stats{
		Open: t.Open, BytesExpected: t.Expected, BytesReceived: t.Received,
		Begun: t.Begun, Finished: t.Finished, Aborted: t.Aborted, Expired: t.Expired, Newest: t.Newest,
	}
	for id := range l.seals {
		switch s, err := l.session(id); {
		case err == nil && s.State == session.Sealed:
			out.Open, out.Sealed = out.Open-1, out.Sealed+1
		case err != nil && !l.skips(id, err):
			return session.Stats{}, err
		}
	}
	err = l.walk([]byte{keySeen}, position{}, nil, session.Open, func(s session.Session, _ position) bool {
		out.OldestSeen = s.LastSeen.UnixMilli()
		return false
	})
	return out, err
}

// walk visits the sessions of state st that an index leads to, until visit returns false. It begins
// behind after (the zero position: at the beginning), and ends before end (nil: at the end of the
// index). State 0 stands for all ended states. Sessions whose rows can't be read are left out,
// and reported.
func (v sealedView) walk(
	prefix []byte, after position, end []byte, st session.State,
	visit func(session.Session, position) bool,
) error {
	lo := prefix
	if after != (position{}) {
		lo = append(after.appendTo(slices.Clone(prefix)), 0)
	}
	if end == nil {
		end = prefixEnd(prefix)
	}
	var failed error
	err := v.db.each(v.view.Snapshot, lo, end, false, func(key, _ []byte) bool {
		p, whole := parsePosition(key)
		if !whole {
			v.db.corruption.report(fmt.Sprintf("row %x leads nowhere", key))
			return true
		}
		s, err := v.session(p.id)
		if err != nil {
			if !v.skips(p.id, err) {
				failed = fmt.Errorf("row %x leads to session %s: %w", key, p.id, err)
			}
			return failed == nil
		}
		// The index has a sealed session among the open ones.
		return s.State != st && (st != 0 || !s.State.Ended()) || visit(s, p)
	}, func(error) bool { return true })
	return errors.Join(failed, err)
}

// List implements session.Store.
func (st sessionStore) List(ctx context.Context, q session.Query) ([]session.Session, string, error) {
	if err := st.db.enter(ctx); err != nil {
		return nil, "", err
	}
	defer st.db.calls.leave()
	if q.Limit < 1 || q.Limit > 10_000 {
		return nil, "", fmt.Errorf("%w: limit %d is not within 1 to 10,000", session.ErrInvalid, q.Limit)
	}
	after, err := parseCursor(q)
	if err != nil {
		return nil, "", err
	}
	l, err := st.db.viewWithSeals(ctx)
	if err != nil {
		return nil, "", err
	}
	defer st.db.views.release(l.view)
	p := page{query: q}
	switch {
	case q.Idem != "":
		err = l.holder(&p)
	case q.Due != 0:
		err = l.due(&p, after)
	default:
		err = l.states(&p, after)
	}
	if err != nil {
		return nil, "", err
	}
	return p.sessions, p.next, nil
}

// page collects a page of a list.
type page struct {
	query    session.Query
	sessions []session.Session
	size     int
	last     cursor
	next     string
}

// add takes the next session. It returns false if the page is full. It knows that only when one
// more session comes.
func (p *page) add(s session.Session, at cursor) bool {
	if len(p.sessions) == p.query.Limit || p.size >= session.PageBytes {
		p.next = p.last.String()
		return false
	}
	p.sessions, p.last, p.size = append(p.sessions, s), at, p.size+s.Size()
	return true
}

// holder lists the session that has (Owner, Idem).
func (v sealedView) holder(p *page) error {
	row, err := get(v.view, idemKey(&session.Session{Spec: session.Spec{Owner: *p.query.Owner, Idem: p.query.Idem}}))
	if err != nil || row == nil {
		return err
	}
	id, ok := parsePosition(append(make([]byte, 8, keyPosition), row...))
	if !ok || len(row) != 8 {
		return fmt.Errorf("row of the key %q: %w", p.query.Idem, catalog.ErrDamaged)
	}
	s, err := v.session(id.id)
	if err == nil && holdsIdem(s.State) {
		p.add(s, cursor{})
	}
	return err
}

// due lists by Seen.
func (v sealedView) due(p *page, after cursor) error {
	st, prefix := session.Open, seenPrefix(session.Open)
	if p.query.State.Ended() {
		st, prefix = 0, seenPrefix(session.Finished)
	}
	end := appendUint(slices.Clone(prefix), signed(p.query.Due))
	return v.walk(prefix, after.position, end, st, func(s session.Session, at position) bool {
		return p.add(s, cursor{kind: prefix[0], position: at})
	})
}

// states lists state by state, the newest first in each.
func (v sealedView) states(p *page, after cursor) error {
	from := max(after.state, session.Open)
	for st := from; st < session.Gone; st++ {
		if p.query.State != 0 && p.query.State != st {
			continue
		}
		start := position{}
		if st == after.state {
			start = after.position
		}
		visit := func(s session.Session, at position) bool {
			return p.add(s, cursor{kind: keyBegan, state: st, position: at})
		}
		var err error
		switch {
		case st == session.Sealed:
			err = v.sealed(p.query.Owner, start, visit)
		case p.query.Owner != nil:
			err = v.walk(ownerPrefix(*p.query.Owner, st), start, nil, st, visit)
		default:
			err = v.walk(statePrefix(st), start, nil, st, visit)
		}
		if err != nil || p.next != "" {
			return err
		}
	}
	return nil
}

// sealed visits the sealed sessions as walk does.
func (v sealedView) sealed(owner *string, after position, visit func(session.Session, position) bool) error {
	var found []session.Session
	for id := range v.seals {
		s, err := v.session(id)
		if errors.Is(err, session.ErrNotFound) || errors.Is(err, catalog.ErrDamaged) {
			continue
		}
		if err != nil {
			return err
		}
		if s.State == session.Sealed && (owner == nil || *owner == s.Owner) && byBegan(&s).compare(after) > 0 {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b session.Session) int { return byBegan(&a).compare(byBegan(&b)) })
	for _, s := range found {
		if !visit(s, byBegan(&s)) {
			return nil
		}
	}
	return nil
}

// cursor is a position in one of the lists.
type cursor struct {
	kind     byte          // the index
	state    session.State // with keyNewest
	position position
}

const cursorVersion = 1

// String gives the opaque form: version, kind, state, position and CRC-32C, in base64url.
func (c cursor) String() string {
	b := c.position.appendTo([]byte{cursorVersion, c.kind, byte(c.state)})
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return base64.RawURLEncoding.EncodeToString(append(b, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)))
}

// parseCursor reads q.After. The cursor must come from a list of the same kind.
func parseCursor(q session.Query) (cursor, error) {
	kind := byte(keyBegan)
	if q.Due != 0 {
		kind = seenPrefix(max(q.State, session.Open))[0]
	}
	if q.After == "" {
		return cursor{kind: kind}, nil
	}
	bad := fmt.Errorf("%w: cursor %.64q", session.ErrInvalid, q.After)
	b, err := base64.RawURLEncoding.DecodeString(q.After)
	if err != nil || len(b) != 3+keyPosition+4 {
		return cursor{}, bad
	}
	c := cursor{kind: b[1], state: session.State(b[2])}
	c.position, _ = parsePosition(b[:3+keyPosition])
	if c.String() != q.After || c.kind != kind {
		return cursor{}, bad
	}
	return c, nil
}
