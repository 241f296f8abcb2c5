package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// sessionStore implements session.Store.
type sessionStore struct{ db *DB }

// Create implements session.Store.
func (st sessionStore) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	if err := st.db.enterChange(ctx); err != nil {
		return session.Session{}, false, err
	}
	defer st.db.calls.leave()
	// The catalog's lock also makes creations run one after the other. That keeps (Owner, Idem)
	// unique.
	t := st.db.beginCatalog()
	defer t.close()
	if s.Idem != "" {
		if existing, err := t.holder(&s); err != nil || existing.ID != 0 {
			return existing, false, t.endUnchanged(ctx, err)
		}
	}
	t.lockSession(s.ID)
	if _, err := loadSession(t.rows, s.ID); !errors.Is(err, session.ErrNotFound) {
		if err == nil {
			err = session.ErrTaken
		}
		return session.Session{}, false, t.endUnchanged(ctx, err)
	}
	s = initialSession(s)
	if err := t.db.hook.Decide(ctx, t, s); err != nil {
		return session.Session{}, false, t.endUnchanged(ctx, err)
	}
	if err := t.reserve(nil, s); err != nil {
		return session.Session{}, false, t.endUnchanged(ctx, err)
	}
	if err := t.write(nil, &s); err != nil {
		return session.Session{}, false, err
	}
	return s, true, t.commit()
}

// initialSession is a new session as it will be loaded: times in whole milliseconds, slices of its
// own.
func initialSession(s session.Session) session.Session {
	s.State, s.Gen, s.Rev = session.Open, 1, 1
	s.Began = time.UnixMilli(s.Began.UnixMilli()).UTC()
	s.LastSeen = time.UnixMilli(s.LastSeen.UnixMilli()).UTC()
	s.Ends = time.Time{}
	s.Note, s.Received, s.Dropped = slices.Clone(s.Note), slices.Clone(s.Received), slices.Clone(s.Dropped)
	return s
}

// holder gives the session that has (Owner, Idem), and locks it. The ID is 0 if none has.
func (t *txn) holder(of *session.Session) (session.Session, error) {
	row, err := get(t.rows, idemKey(of))
	if err != nil || row == nil {
		return session.Session{}, err
	}
	if len(row) != 8 {
		return session.Session{}, fmt.Errorf("row %x: %w", idemKey(of), catalog.ErrDamaged)
	}
	id, _ := parsePosition(append(make([]byte, 8, keyPosition), row...))
	t.lockSession(id.id)
	// The session may have given the pair up before it was locked. Nobody else can have taken the
	// pair since, as creations exclude each other.
	s, err := t.current(id.id)
	if errors.Is(err, session.ErrNotFound) || (err == nil && !holdsIdem(s.State)) {
		return session.Session{}, nil
	}
	return s, err
}

// holdsIdem reports whether a session of this state has its (Owner, Idem).
func holdsIdem(st session.State) bool { return st <= session.Finished }

// current gives the session as it is now. It must be locked.
func (t *txn) current(id session.SessionID) (session.Session, error) {
	var s session.Session
	var err error
	if t.ownWrite(sessionTable, cacheKey(id)) != nil {
		s, err = loadSession(t.rows, id)
	} else {
		s, err = t.db.sessionAt(t.rows, id, math.MaxUint64) // it is locked, so nobody else changes it
	}
	if err != nil {
		return s, t.db.reportUnreadable(err)
	}
	if sl, ok := t.db.seals.get(id); ok {
		sl.applyTo(&s)
	}
	return s, nil
}

// clone shares nothing with s.
func clone(s session.Session) session.Session {
	s.Note, s.Received, s.Dropped = slices.Clone(s.Note), slices.Clone(s.Received), slices.Clone(s.Dropped)
	return s
}

// Load implements session.Store.
func (st sessionStore) Load(ctx context.Context, id session.SessionID) (session.Session, error) {
	if err := st.db.enter(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	sl, _ := st.db.seals.get(id)
	v, err := st.db.views.atLeast(ctx, sl.seq)
	if err != nil {
		return session.Session{}, err
	}
	defer st.db.views.release(v)
	s, err := st.db.sessionAt(v, id, v.seq)
	if err != nil {
		return session.Session{}, st.db.reportUnreadable(err)
	}
	sl.applyTo(&s)
	return s, nil
}

// Record implements session.Store. If the length is known it takes no lock except the session's,
// unless rights change at the same time.
func (st sessionStore) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	if err := st.db.enterChange(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	s, err := st.record(ctx, st.db.begin(), id, gen, c)
	if err == errNeedsCatalog {
		s, err = st.record(ctx, st.db.beginCatalog(), id, gen, c)
	}
	return s, err
}

// errNeedsCatalog: the hook has to reserve, or what it has decided by has changed since. The
// catalog's lock is needed, which comes before the session's.
var errNeedsCatalog = errors.New("needs the catalog")

func (st sessionStore) record(
	ctx context.Context, t *txn, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	defer t.close()
	t.lockSession(id)
	before, err := t.current(id)
	if err != nil {
		return session.Session{}, t.endUnchanged(ctx, err)
	}
	after, err := session.Apply(before, gen, c)
	if err == nil {
		err = t.entries(id, c)
	}
	if err != nil {
		return session.Session{}, t.endUnchanged(ctx, err)
	}
	if before.BytesExpected < 0 && !t.catalog {
		return session.Session{}, errNeedsCatalog
	}
	if err := t.decide(ctx, after); err != nil {
		return session.Session{}, t.endUnchanged(ctx, err)
	}
	if before.BytesExpected < 0 {
		if err := t.reserve(&before, after); err != nil {
			return session.Session{}, t.endUnchanged(ctx, err)
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
func (st sessionStore) Move(ctx context.Context, id session.SessionID, step session.Step) (session.Session, error) {
	if err := st.db.enter(ctx); err != nil {
		return session.Session{}, err
	}
	defer st.db.calls.leave()
	t := st.db.begin()
	defer t.close()
	t.lockSession(id)
	before, err := t.current(id)
	if err != nil {
		return session.Session{}, t.endUnchanged(ctx, err)
	}
	after, changed, err := session.Transition(before, step)
	if err != nil || !changed {
		return after, t.endUnchanged(ctx, err)
	}
	if step.To == session.Sealed {
		st.db.applyMu.Lock()
		seq := st.db.applied
		st.db.applyMu.Unlock()
		st.db.seals.put(&after, step.Seen, seq)
		// The session is sealed. So success must be reported, even if the caller's context has
		// ended.
		return after, t.endUnchanged(context.WithoutCancel(ctx), nil)
	}
	if err := t.write(&before, &after); err != nil {
		return session.Session{}, err
	}
	return after, t.commit()
}

// write puts the row of after, with its indexes and its part of the totals. before is nil for a new
// session. A session that is Gone is removed.
func (t *txn) write(before, after *session.Session) error {
	t.changed = append(t.changed, *after)
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
		if err := t.deleteEntries(before); err != nil {
			return err
		}
	}
	if err := t.index(before, after); err != nil {
		return err
	}
	if after.State == session.Gone {
		t.noteWrite(sessionTable, cacheKey(after.ID), nil)
		return t.batch.Delete(sessionKey(after.ID), nil)
	}
	row, err := encodeSession(after)
	if err != nil {
		return err
	}
	var cached any
	if cacheable(after) {
		cached = readBack(*after)
	}
	t.noteWrite(sessionTable, cacheKey(after.ID), cached)
	return t.batch.Set(sessionKey(after.ID), row, nil)
}

// readBack is s as it will be read. It shares nothing with s.
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

// minRangeDelete is the number of a session's entries from which on they are deleted as a range.
// For fewer that costs all readers more than it saves.
const minRangeDelete = 4096

func (t *txn) deleteEntries(s *session.Session) error {
	if off, only := onlyEntry(s); only {
		return t.batch.Delete(entryKey(s.ID, off), nil)
	}
	prefix := entriesPrefix(s.ID)
	if s.EntryCount >= minRangeDelete {
		return t.batch.DeleteRange(prefix, prefixEnd(prefix), nil)
	}
	it, err := t.rows.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := t.batch.Delete(it.Key(), nil); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return markCorrupt(errors.Join(it.Error(), it.Close()))
}

// onlyEntry gives the offset of the entry of a session that has one alone: what small uploads have.
// It is found without an iterator.
func onlyEntry(s *session.Session) (off int64, only bool) {
	if s.EntryCount != 1 || len(s.Received) != 1 {
		return 0, false
	}
	return s.Received[0].Off, true
}

// index changes the session's index rows from those of before to those of after.
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

// indexKeys gives the keys of the session's index rows, by their kind. A sealed session is found as
// an open one.
func indexKeys(s *session.Session) map[byte][]byte {
	if s == nil || s.State == session.Gone {
		return nil
	}
	st := s.State
	if st == session.Sealed {
		st = session.Open
	}
	keys := map[byte][]byte{
		keyBegan: byBegan(s).appendTo(statePrefix(st)),
		keyOwner: byBegan(s).appendTo(ownerPrefix(s.Owner, st)),
		keySeen:  bySeen(s).appendTo(seenPrefix(st)),
	}
	if s.Idem != "" && holdsIdem(st) {
		keys[keyIdem] = idemKey(s)
	}
	return keys
}
