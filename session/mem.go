package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Mem is a Store in memory. It is the reference for the conformance suite, and the base of a store
// that keeps its operations in a file. Its lists sort all sessions on each call: it is meant for
// few sessions.
type Mem struct {
	mu        sync.Mutex
	observers MemObservers
	sessions  map[SessionID]*memRow
	idem      map[[2]string]SessionID
	stats     Stats // the totals and Newest only
}

// MemObservers let others take part in Mem's commits. Both are called under its lock, before the
// change shows. Their errors refuse the call, and are returned as they are.
type MemObservers struct {
	// Changed sees each Create (before is nil) and each Record. ctx is that of the call.
	Changed func(ctx context.Context, before *Session, after Session) error
	// Log sees each operation that changes something, once it is certain to succeed.
	Log func(Op) error
}

type memRow struct {
	s       Session
	entries []Entry // sorted
}

// Op is one operation of a Store as data, so that it can be written down and repeated.
type Op struct {
	Kind    OpKind
	Session Session   // OpCreate, OpRow
	Entries []Entry   // OpRow
	ID      SessionID // the others
	Gen     uint64    // OpRecord
	Change  Change    // OpRecord
	Step    Step      // OpMove
	Totals  Stats     // OpTotals: Begun, Finished, Aborted, Expired and Newest (which KeepTime changes)
}

// OpKind names the method.
type OpKind uint8

// The kinds of Op. Two are no methods: OpRow puts a session as it is, with its entries; OpTotals
// sets what Stats counts since the store was made.
const (
	OpCreate OpKind = iota + 1
	OpRecord
	OpMove
	OpRow
	OpTotals
)

// NewMem makes an empty store.
func NewMem() *Mem { return NewMemWith(MemObservers{}) }

// NewMemWith makes an empty store in whose commits others take part.
func NewMemWith(observers MemObservers) *Mem {
	return &Mem{observers: observers, sessions: map[SessionID]*memRow{}, idem: map[[2]string]SessionID{}}
}

// Do does op as its method would, but calls no observers.
func (m *Mem) Do(op Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	switch op.Kind {
	case OpCreate:
		_, _, err = m.create(context.Background(), op.Session, MemObservers{})
	case OpRecord:
		_, err = m.record(context.Background(), op.ID, op.Gen, op.Change, MemObservers{})
	case OpMove:
		_, err = m.move(op.ID, op.Step, MemObservers{})
	case OpRow:
		m.put(&memRow{copied(op.Session), slices.Clone(op.Entries)})
		m.stats.Newest = max(m.stats.Newest, op.Session.Seen)
	case OpTotals:
		m.stats = op.Totals
	default:
		err = fmt.Errorf("unknown operation %d", op.Kind)
	}
	return err
}

// Rows returns operations that bring an empty store to the state of this one.
func (m *Mem) Rows() []Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	ops := make([]Op, 0, 1+len(m.sessions))
	ops = append(ops, Op{Kind: OpTotals, Totals: m.stats})
	for _, row := range m.sessions {
		ops = append(ops, Op{Kind: OpRow, Session: copied(row.s), Entries: copiedEntries(row.entries)})
	}
	return ops
}

// put stores the row and keeps the index of (Owner, Idem) in step.
func (m *Mem) put(row *memRow) {
	m.sessions[row.s.ID] = row
	if row.s.Idem == "" {
		return
	}
	key := [2]string{row.s.Owner, row.s.Idem}
	switch row.s.State {
	case Open, Sealed, Finished:
		m.idem[key] = row.s.ID
	default:
		if m.idem[key] == row.s.ID {
			delete(m.idem, key)
		}
	}
}

// Create implements Store.
func (m *Mem) Create(ctx context.Context, s Session) (Session, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.create(ctx, s, m.observers)
}

func (m *Mem) create(ctx context.Context, s Session, observers MemObservers) (Session, bool, error) {
	if s.Idem != "" {
		if id, ok := m.idem[[2]string{s.Owner, s.Idem}]; ok {
			return copied(m.sessions[id].s), false, nil
		}
	}
	if _, ok := m.sessions[s.ID]; ok {
		return Session{}, false, ErrTaken
	}
	s.State, s.Gen, s.Rev = Open, 1, 1
	s = copied(s)
	if err := observers.run(ctx, nil, s, Op{Kind: OpCreate, Session: s}); err != nil {
		return Session{}, false, err
	}
	m.put(&memRow{s: s})
	m.stats.Begun++
	m.stats.Newest = max(m.stats.Newest, s.Seen)
	return copied(s), true, nil
}

// Load implements Store.
func (m *Mem) Load(_ context.Context, id SessionID) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.sessions[id]
	if !ok {
		return Session{}, ErrNotFound
	}
	return copied(row.s), nil
}

// Record implements Store.
func (m *Mem) Record(ctx context.Context, id SessionID, gen uint64, c Change) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record(ctx, id, gen, c, m.observers)
}

func (m *Mem) record(
	ctx context.Context, id SessionID, gen uint64, c Change, observers MemObservers,
) (Session, error) {
	row, ok := m.sessions[id]
	if !ok {
		return Session{}, ErrNotFound
	}
	after, err := Apply(row.s, gen, c)
	if err != nil {
		return Session{}, err
	}
	entries := slices.Clone(row.entries)
	byOff := func(e Entry, off int64) int { return cmp.Compare(e.Off, off) }
	for _, r := range c.Remove {
		i, ok := slices.BinarySearchFunc(entries, r.Off, byOff)
		if !ok || entries[i].Range != r {
			return Session{}, ErrOverlap
		}
		entries = slices.Delete(entries, i, i+1)
	}
	for _, e := range copiedEntries(c.Add) {
		i, _ := slices.BinarySearchFunc(entries, e.Off, byOff)
		entries = slices.Insert(entries, i, e)
	}
	if err := observers.run(ctx, &row.s, after, Op{Kind: OpRecord, ID: id, Gen: gen, Change: c}); err != nil {
		return Session{}, err
	}
	m.put(&memRow{after, entries})
	m.stats.Newest = max(m.stats.Newest, after.Seen)
	return copied(after), nil
}

// Move implements Store.
func (m *Mem) Move(_ context.Context, id SessionID, step Step) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.move(id, step, m.observers)
}

func (m *Mem) move(id SessionID, step Step, observers MemObservers) (Session, error) {
	row, ok := m.sessions[id]
	if !ok {
		return Session{}, ErrNotFound
	}
	after, changed, err := Transition(row.s, step)
	if err != nil || !changed {
		return copied(after), err
	}
	if observers.Log != nil {
		if err := observers.Log(Op{Kind: OpMove, ID: id, Step: step}); err != nil {
			return Session{}, err
		}
	}
	next := &memRow{after, row.entries}
	if step.To.Ended() {
		next.entries = nil
	}
	m.put(next)
	switch step.To {
	case Finished:
		m.stats.Finished++
	case Aborted:
		m.stats.Aborted++
	case Expired:
		m.stats.Expired++
	case Gone:
		delete(m.sessions, id)
	}
	m.stats.Newest = max(m.stats.Newest, after.Seen)
	return copied(after), nil
}

// Entries implements Store.
func (m *Mem) Entries(_ context.Context, id SessionID, r Range, n int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.sessions[id]
	if !ok {
		return nil, ErrNotFound
	}
	var out []Entry
	for _, e := range row.entries {
		if e.Overlaps(r) && (n == 0 || len(out) < n) {
			out = append(out, e)
		}
	}
	return copiedEntries(out), nil
}

// List implements Store.
func (m *Mem) List(_ context.Context, q Query) ([]Session, string, error) {
	var after memCursor
	if q.After != "" {
		if _, err := fmt.Sscanf(q.After, "%d.%d.%d", &after.group, &after.order, &after.id); err != nil {
			return nil, "", fmt.Errorf("%w: cursor %.64q", ErrInvalid, q.After)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var at []memCursor
	for id, row := range m.sessions {
		c, ok := q.position(&row.s)
		c.id = id
		if ok && (q.After == "" || c.compare(after) > 0) {
			at = append(at, c)
		}
	}
	slices.SortFunc(at, memCursor.compare)
	var (
		page []Session
		next string
		size int
	)
	for i, c := range at {
		if i == q.Limit || size >= PageBytes {
			last := at[i-1]
			next = fmt.Sprintf("%d.%d.%d", last.group, last.order, last.id)
			break
		}
		page = append(page, copied(m.sessions[c.id].s))
		size += page[i].Size()
	}
	return page, next, nil
}

// memCursor is a session's position in a list.
type memCursor struct {
	group State
	order int64
	id    SessionID
}

func (c memCursor) compare(o memCursor) int {
	return cmp.Or(cmp.Compare(c.group, o.group), cmp.Compare(c.order, o.order), cmp.Compare(c.id, o.id))
}

// position returns the cursor of s in the list that q asks for, and whether s is in it.
func (q Query) position(s *Session) (memCursor, bool) {
	if q.Idem != "" {
		return memCursor{}, s.Owner == *q.Owner && s.Idem == q.Idem && s.State <= Finished
	}
	if q.Due != 0 {
		in := s.State == Open
		if q.State.Ended() {
			in = s.State.Ended()
		}
		return memCursor{order: s.Seen}, in && s.Seen < q.Due
	}
	in := (q.Owner == nil || *q.Owner == s.Owner) && (q.State == 0 || q.State == s.State)
	return memCursor{group: s.State, order: -s.Began.UnixMilli()}, in
}

// KeepTime implements Store.
func (m *Mem) KeepTime(_ context.Context, running int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := m.stats
	after.Newest = max(after.Newest, running)
	if after == m.stats {
		return after.Newest, nil
	}
	if m.observers.Log != nil {
		if err := m.observers.Log(Op{Kind: OpTotals, Totals: after}); err != nil {
			return 0, err
		}
	}
	m.stats = after
	return after.Newest, nil
}

// Stats implements Store.
func (m *Mem) Stats(context.Context) (Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	for _, row := range m.sessions {
		switch row.s.State {
		case Open:
			st.Open++
			if seen := row.s.LastSeen.UnixMilli(); st.OldestSeen == 0 || seen < st.OldestSeen {
				st.OldestSeen = seen
			}
		case Sealed:
			st.Sealed++
		default:
			continue
		}
		st.BytesExpected += max(row.s.BytesExpected, 0)
		st.BytesReceived += row.s.Bytes()
	}
	return st, nil
}

// run calls the observers of a change to a session's row.
func (h MemObservers) run(ctx context.Context, before *Session, after Session, op Op) error {
	if h.Changed != nil {
		if before != nil {
			b := copied(*before)
			before = &b
		}
		if err := h.Changed(ctx, before, copied(after)); err != nil {
			return err
		}
	}
	if h.Log != nil {
		return h.Log(op)
	}
	return nil
}

// copied returns a copy that shares nothing with s. A store keeps times to the millisecond, and no
// Ends: neither does the copy.
func copied(s Session) Session {
	s.Note = slices.Clone(s.Note)
	s.Received = slices.Clone(s.Received)
	s.Dropped = slices.Clone(s.Dropped)
	s.Began = s.Began.UTC().Truncate(time.Millisecond)
	s.LastSeen = s.LastSeen.UTC().Truncate(time.Millisecond)
	s.Ends = time.Time{}
	return s
}

func copiedEntries(es []Entry) []Entry {
	out := slices.Clone(es)
	for i := range out {
		out[i].Note = slices.Clone(out[i].Note)
	}
	return out
}
