package linear

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"sluice/catalog"
	"sluice/session"
)

// presence says whether a memory is visible, in the trash or purged.
type presence uint8

const (
	visible presence = iota
	trashed
	purged
)

// memory is a published memory. Its number in the order of events names it.
type memory struct {
	row
	presence presence
	size     int64
}

// up is a session. Its id is 0 while no answer has named it: its begin was lost.
type up struct {
	sid         uint64
	key         int
	fingerprint int64
	content     int
	state       session.State
	have        uint8
	memory      uint64 // the memory that it became
}

func (u up) complete() bool { return u.have == 1<<pieces-1 }

// idem is the upload that a key has finished.
type idem struct {
	key         int
	fingerprint int64
	memory, sid uint64
}

// state is a capsule at one moment. It is never changed in place.
type state struct {
	rights
	seq      uint64
	epoch    int
	ups      []up // sorted by key, and then by id
	memories []memory
	idems    []idem
}

func (s state) clone() state {
	s.ups, s.memories, s.idems = slices.Clone(s.ups), slices.Clone(s.memories), slices.Clone(s.idems)
	return s
}

func (s state) equal(o state) bool {
	return s.rights == o.rights && s.seq == o.seq && s.epoch == o.epoch &&
		slices.Equal(s.ups, o.ups) && slices.Equal(s.memories, o.memories) &&
		slices.Equal(s.idems, o.idems)
}

var hashSeed = maphash.MakeSeed()

func (s state) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	maphash.WriteComparable(&h, [2]uint64{s.seq, uint64(s.epoch)})
	maphash.WriteComparable(&h, s.rights)
	for _, u := range s.ups {
		maphash.WriteComparable(&h, u)
	}
	for _, m := range s.memories {
		maphash.WriteComparable(&h, [2]uint64{m.seq, uint64(m.presence)})
	}
	return h.Sum64()
}

func (s state) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seq %d, epoch %d, %+v\n", s.seq, s.epoch, s.rights)
	for _, u := range s.ups {
		fmt.Fprintf(&b, "s:%x of %s: %s, has %03b, became %d\n", u.sid, keyName(u.key), u.state, u.have, u.memory)
	}
	for _, m := range s.memories {
		fmt.Fprintf(&b, "%s, %s\n", m.row, [...]string{"visible", "in the trash", "purged"}[m.presence])
	}
	return b.String()
}

func (s state) counts() counts {
	c := counts{seq: s.seq}
	for _, m := range s.memories {
		if m.presence != purged {
			c.memories++
			c.bytes += m.size
		}
		if m.presence == trashed {
			c.trashed++
		}
	}
	for _, u := range s.ups {
		if u.state == session.Open {
			c.open++
			c.reserved += int64(len(contents[u.content]))
		}
	}
	return c
}

func (s *state) insert(u up) {
	i, _ := slices.BinarySearchFunc(s.ups, u, func(a, b up) int {
		if a.key != b.key {
			return a.key - b.key
		}
		if a.sid < b.sid {
			return -1
		}
		return 1
	})
	s.ups = slices.Insert(s.ups, i, u)
}

func (s *state) bySID(sid uint64) *up {
	for i := range s.ups {
		if s.ups[i].sid == sid && sid != 0 {
			return &s.ups[i]
		}
	}
	return nil
}

// openOf gives the one open session of a key.
func (s *state) openOf(key int) *up {
	for i := range s.ups {
		if s.ups[i].key == key && s.ups[i].state == session.Open {
			return &s.ups[i]
		}
	}
	return nil
}

// learn gives the session its id, if it is not known yet. It is false if the session has another
// id.
func (s *state) learn(u *up, sid uint64) bool {
	if u.sid != 0 || sid == 0 || s.bySID(sid) != nil {
		return u.sid == sid && sid != 0
	}
	named := *u
	named.sid = sid
	i := slices.Index(s.ups, *u)
	s.ups = slices.Delete(s.ups, i, i+1)
	s.insert(named)
	return true
}

func (s *state) byID(id catalog.MemoryID) *memory {
	for i := range s.memories {
		if s.memories[i].id == id {
			return &s.memories[i]
		}
	}
	return nil
}

func (s *state) bySeq(seq uint64) *memory {
	for i := range s.memories {
		if s.memories[i].seq == seq {
			return &s.memories[i]
		}
	}
	return nil
}

func (s *state) idemOf(key int) *idem {
	for i := range s.idems {
		if s.idems[i].key == key && key >= 0 {
			return &s.idems[i]
		}
	}
	return nil
}

// checker tries the operations of one history. Events never change and have no gaps. So each event
// that the end of the history shows must be that of the operation which gets its number. This
// refuses a wrong order early, and not only at its end.
type checker struct {
	start   uint64 // events before the history
	events  []event
	uploads int // that the ticket allows
}

// emit takes the next number for an event. It is false if another event has it.
func (c *checker) emit(s *state, what catalog.EventType) (event, bool) {
	i := s.seq - c.start
	if i >= uint64(len(c.events)) || c.events[i].what != what || c.events[i].seq != s.seq+1 {
		return event{}, false
	}
	s.seq++
	return c.events[i], true
}

// emitOf is emit for an event of a memory.
func (c *checker) emitOf(s *state, what catalog.EventType, m *memory) bool {
	e, ok := c.emit(s, what)
	want := m.row
	want.inTrash = false
	return ok && e.id == m.id && (e.row == row{} || e.row == want)
}

// publish adds a memory.
func (c *checker) publish(s *state, name string, content int, sid uint64, key int, fingerprint int64) (*memory, bool) {
	e, ok := c.emit(s, catalog.MemoryCreated)
	m := memory{row: row{id: e.id, seq: s.seq, content: content, by: sid}, size: int64(len(contents[content]))}
	if key >= 0 {
		m.idem = keyName(key)
		s.idems = append(s.idems, idem{key, fingerprint, m.seq, sid})
		slices.SortFunc(s.idems, func(a, b idem) int { return a.key - b.key })
	}
	if !ok || e.row != m.row || e.name != name || s.byID(e.id) != nil {
		return nil, false
	}
	s.memories = append(s.memories, m)
	return &s.memories[len(s.memories)-1], true
}

// publishUp finishes an open session.
func (c *checker) publishUp(s *state, u *up) (*memory, bool) {
	key := u.key
	if row := s.idemOf(key); row != nil {
		m := s.bySeq(row.memory)
		if m.presence == visible && row.fingerprint == u.fingerprint && m.content == u.content {
			u.state, u.memory = session.Finished, m.seq
			return m, true
		}
		key = -1 // it stays with its session
	}
	if s.exceeds(0) {
		return nil, false
	}
	m, ok := c.publish(s, keyName(u.key), u.content, u.sid, key, u.fingerprint)
	if ok {
		u.state, u.memory = session.Finished, m.seq
	}
	return m, ok
}

// step tries an operation on a state, which it may change. It is false if such a state does not
// give that answer. An operation without an answer happens or not; false then means that it can't
// happen.
func (c *checker) step(s *state, o *op) bool {
	switch o.kind {
	case crash:
		s.epoch++
		return true
	case begin:
		return c.begin(s, o)
	case create:
		return c.create(s, o)
	case revokeToken, revokeTicket, takeRole, giveRole, setQuota:
		return c.right(s, o)
	case expel:
		return c.expel(s, o)
	case put, finish, batch, echo, abort, status:
		return c.session(s, o)
	case trash, purge, restore, update, read:
		return c.memory(s, o)
	default:
		return c.look(s, o)
	}
}

// try is step for porcupine.
func (c *checker) try(st, in any) (bool, any) {
	before, o := st.(state), in.(*op)
	if o.lost && o.epoch != before.epoch && o.kind != expel {
		return true, before // it has not happened
	}
	after := before.clone()
	if c.step(&after, o) {
		return true, after
	}
	return o.lost, before
}
