package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"sluice/internal/durable"
	"sluice/session"
)

// sessions implements session.Store.
type sessions struct{ db *DB }

// Create implements session.Store.
func (st sessions) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	if err := st.db.enterChange(ctx); err != nil {
		return session.Session{}, false, err
	}
	defer st.db.calls.leave()
	// The catalog's lock also makes creations one after the other, and with that unique on (Owner,
	// Idem).
	t := st.db.beginCatalog()
	defer t.close()
	if s.Idem != "" {
		if held, err := t.holder(&s); err != nil || held.ID != 0 {
			return held, false, t.refuse(ctx, err)
		}
	}
	t.lockSession(s.ID)
	if _, err := loadSession(t.rows, s.ID); !errors.Is(err, session.ErrNotFound) {
		if err == nil {
			err = session.ErrTaken
		}
		return session.Session{}, false, t.refuse(ctx, err)
	}
	s = stored(s)
	if err := t.change(nil, s); err != nil {
		return session.Session{}, false, t.refuse(ctx, err)
	}
	if err := t.write(nil, &s); err != nil {
		return session.Session{}, false, err
	}
	return s, true, t.commit()
}

// stored is a new session as it will be loaded: times in whole ms, slices of its own.
func stored(s session.Session) session.Session {
	s.State, s.Gen, s.Rev = session.Open, 1, 1
	s.Began, s.LastSeen, s.Ends = time.UnixMilli(s.Began.UnixMilli()).UTC(), time.UnixMilli(s.LastSeen.UnixMilli()).UTC(), time.Time{}
	s.Note, s.Received, s.Dropped = slices.Clone(s.Note), slices.Clone(s.Received), slices.Clone(s.Dropped)
	return s
}

// holder gives the session that has (Owner, Idem); its ID is 0 where none has. It locks it.
func (t *txn) holder(of *session.Session) (session.Session, error) {
	row, err := get(t.rows, idemKey(of))
	if err != nil || row == nil {
		return session.Session{}, err
	}
	if len(row) != 8 {
		return session.Session{}, fmt.Errorf("row %x: %w", idemKey(of), errDamaged)
	}
	id, _ := placeIn(append(make([]byte, 8, keyPosition), row...))
	t.lockSession(id.id)
	// It may have given the pair up before it was locked. Nobody else can have taken it since:
	// creations exclude each other.
	s, err := t.newest(id.id)
	if errors.Is(err, session.ErrNotFound) || (err == nil && !holds(s.State)) {
		return session.Session{}, nil
	}
	return s, err
}

// holds reports whether a session of this state has its (Owner, Idem).
func holds(st session.State) bool { return st <= session.Finished }

// newest gives the session as it is now. It must be locked.
func (t *txn) newest(id session.SessionID) (session.Session, error) {
	var s session.Session
	var err error
	if t.own(sessionTable, cacheKey(id)) != nil {
		s, err = loadSession(t.rows, id)
	} else {
		s, err = t.db.sessionAt(t.rows, id, math.MaxUint64) // nobody else changes it meanwhile
	}
	if err != nil {
		return s, t.db.unreadable(err)
	}
	if o, ok := t.db.seals.get(id); ok {
		o.over(&s)
	}
	return s, nil
}

// change runs the hook.
func (t *txn) change(before *session.Session, after session.Session) error {
	if before != nil {
		b := clone(*before)
		before = &b
	}
	return t.db.hook(t, before, clone(after))
}

// clone shares nothing with s.
func clone(s session.Session) session.Session {
	s.Note, s.Received, s.Dropped = slices.Clone(s.Note), slices.Clone(s.Received), slices.Clone(s.Dropped)
	return s
}

// Load implements session.Store.
func (st sessions) Load(ctx context.Context, id session.SessionID) (session.Session, error) {
	if err := st.db.enter(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	o, _ := st.db.seals.get(id)
	v, err := st.db.views.at(ctx, o.seq)
	if err != nil {
		return session.Session{}, err
	}
	defer st.db.views.release(v)
	s, err := st.db.sessionAt(v, id, v.seq)
	if err != nil {
		return session.Session{}, st.db.unreadable(err)
	}
	o.over(&s)
	return s, nil
}

// Record implements session.Store. Where the length is known it takes no lock but the session's.
func (st sessions) Record(ctx context.Context, id session.SessionID, gen uint64, c session.Change) (session.Session, error) {
	if err := st.db.enterChange(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	s, err := st.record(ctx, st.db.begin(), id, gen, c)
	if errors.Is(err, errNeedsCatalog) {
		s, err = st.record(ctx, st.db.beginCatalog(), id, gen, c)
	}
	return s, err
}

// errNeedsCatalog: the hook has to run, and that needs the catalog's lock, which comes before that
// of the session.
var errNeedsCatalog = errors.New("needs the catalog")

func (st sessions) record(ctx context.Context, t *txn, id session.SessionID, gen uint64, c session.Change) (session.Session, error) {
	defer t.close()
	t.lockSession(id)
	before, err := t.newest(id)
	if err != nil {
		return session.Session{}, t.refuse(ctx, err)
	}
	after, err := session.Apply(before, gen, c)
	if err == nil {
		err = t.entries(id, c)
	}
	if err != nil {
		return session.Session{}, t.refuse(ctx, err)
	}
	if before.BytesExpected < 0 {
		if !t.catalog {
			return session.Session{}, errNeedsCatalog
		}
		if err := t.change(&before, after); err != nil {
			return session.Session{}, t.refuse(ctx, err)
		}
	}
	if err := t.write(&before, &after); err != nil {
		return session.Session{}, err
	}
	t.unsynced = st.db.durability == durable.Process && !t.catalog && c.Drop.Empty() && c.Length < 0
	return after, t.commit()
}

// entries writes what c does to the session's entries.
func (t *txn) entries(id session.SessionID, c session.Change) error {
	for _, r := range c.Remove {
		key := entryKey(id, r.Off)
		row, err := get(t.rows, key)
		if err != nil {
			return err
		}
		if row == nil {
			return session.ErrOverlap
		}
		e, err := decodeEntry(r.Off, row)
		if err != nil {
			return fmt.Errorf("row of session %s, entry at %d: %w", id, r.Off, err)
		}
		if e.Range != r {
			return session.ErrOverlap
		}
		if err := t.batch.Delete(key, nil); err != nil {
			return err
		}
	}
	for _, e := range c.Add {
		if err := t.batch.Set(entryKey(id, e.Off), encodeEntry(e), nil); err != nil {
			return err
		}
	}
	return nil
}

// Move implements session.Store. A seal is kept in memory, every other step is a commit.
func (st sessions) Move(ctx context.Context, id session.SessionID, step session.Step) (session.Session, error) {
	if err := st.db.enter(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	t := st.db.begin()
	defer t.close()
	t.lockSession(id)
	before, err := t.newest(id)
	if err != nil {
		return session.Session{}, t.refuse(ctx, err)
	}
	after, changed, err := session.Transition(before, step)
	if err != nil || !changed {
		return after, t.refuse(ctx, err)
	}
	if step.To == session.Sealed {
		st.db.apply.Lock()
		seq := st.db.applied
		st.db.apply.Unlock()
		st.db.seals.put(&after, step.Seen, seq)
		// It is sealed: that must be said, also to one who has stopped listening.
		return after, t.refuse(context.WithoutCancel(ctx), nil)
	}
	if err := t.write(&before, &after); err != nil {
		return session.Session{}, err
	}
	return after, t.commit()
}

// write puts the row of after, with its indexes and its part of the totals; before is nil for a new
// session. A session that is Gone is removed.
func (t *txn) write(before, after *session.Session) error {
	t.moved = append(t.moved, *after)
	t.delta.count(after, 1)
	t.delta.Newest = max(t.delta.Newest, after.Seen)
	if before == nil {
		t.delta.Begun++
	} else {
		t.delta.count(before, -1)
	}
	if before != nil && before.State != after.State {
		switch after.State {
		case session.Finished:
			t.delta.Finished++
		case session.Aborted:
			t.delta.Aborted++
		case session.Expired:
			t.delta.Expired++
		}
	}
	if before != nil && after.State.Ended() && before.EntryCount > 0 {
		if err := t.forgetEntries(before); err != nil {
			return err
		}
	}
	if err := t.index(before, after); err != nil {
		return err
	}
	if after.State == session.Gone {
		t.note(sessionTable, cacheKey(after.ID), nil)
		return t.batch.Delete(sessionKey(after.ID), nil)
	}
	row, err := encodeSession(after)
	if err != nil {
		return err
	}
	var keep any
	if kept(after) {
		keep = readBack(*after)
	}
	t.note(sessionTable, cacheKey(after.ID), keep)
	return t.batch.Set(sessionKey(after.ID), row, nil)
}

// readBack is s as it will be read, sharing nothing.
func readBack(s session.Session) session.Session {
	s = clone(s)
	if len(s.Received) == 0 {
		s.Received = nil
	}
	if len(s.Dropped) == 0 {
		s.Dropped = nil
	}
	if len(s.Note) == 0 {
		s.Note = nil
	}
	return s
}

// manyPieces is from where on a session's entries are deleted as a range. For fewer that costs all
// readers more than it saves.
const manyPieces = 4096

func (t *txn) forgetEntries(s *session.Session) error {
	prefix := entriesPrefix(s.ID)
	if s.EntryCount >= manyPieces {
		return t.batch.DeleteRange(prefix, behind(prefix), nil)
	}
	it, err := t.rows.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: behind(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := t.batch.Delete(it.Key(), nil); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return damaged(errors.Join(it.Error(), it.Close()))
}

// index brings the keys that lead to the session from before to after.
func (t *txn) index(before, after *session.Session) error {
	was, is := indexKeys(before), indexKeys(after)
	for name, key := range was {
		if string(is[name]) != string(key) {
			if err := t.batch.Delete(key, nil); err != nil {
				return err
			}
		}
	}
	for name, key := range is {
		if string(was[name]) == string(key) {
			continue
		}
		var row []byte
		if name == keyIdem {
			row = appendUint(nil, uint64(after.ID))
		}
		if err := t.batch.Set(key, row, nil); err != nil {
			return err
		}
	}
	return nil
}

// indexKeys gives the keys that lead to s, by their kind. A sealed session is found as an open one.
func indexKeys(s *session.Session) map[byte][]byte {
	if s == nil || s.State == session.Gone {
		return nil
	}
	st := s.State
	if st == session.Sealed {
		st = session.Open
	}
	keys := map[byte][]byte{
		keyNewest: newest(s).appendTo(statePrefix(st)),
		keyOwner:  newest(s).appendTo(ownerPrefix(s.Owner, st)),
		keyUnseen: unseen(s).appendTo(unseenPrefix(st)),
	}
	if s.Idem != "" && holds(st) {
		keys[keyIdem] = idemKey(s)
	}
	return keys
}
