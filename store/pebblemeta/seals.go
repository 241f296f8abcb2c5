package pebblemeta

import (
	"maps"
	"sync"

	"sluice/session"
)

// seals are the sessions that are sealed, in memory alone. If a row and a seal differ, the one with
// the greater Rev is newer.
type seals struct {
	mu   sync.Mutex
	byID map[session.SessionID]seal
}

// seal is what a seal changes of a session.
type seal struct {
	gen, rev uint64
	seen     int64  // the running time when it was sealed
	seq      uint64 // the newest commit by then: an older view does not have the row that was sealed
}

func (ss *seals) get(id session.SessionID) (s seal, ok bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, ok = ss.byID[id]
	return s, ok
}

// all gives a copy of the seals, and the commit that a view must include to be read with them.
func (ss *seals) all() (of map[session.SessionID]seal, seq uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.byID {
		seq = max(seq, s.seq)
	}
	return maps.Clone(ss.byID), seq
}

// put seals s. Its row is as of commit seq or older.
func (ss *seals) put(s *session.Session, seen int64, seq uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.byID[s.ID] = seal{s.Gen, s.Rev, seen, seq}
}

// removeOlder forgets the seal of s if s is newer. The row of s is published by now.
func (ss *seals) removeOlder(s session.Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if old, ok := ss.byID[s.ID]; ok && old.rev < s.Rev {
		delete(ss.byID, s.ID)
	}
}

// applyTo shows s as sealed, if the seal is newer than its row.
func (sl seal) applyTo(s *session.Session) {
	if sl.rev > s.Rev {
		s.State, s.Gen, s.Rev = session.Sealed, sl.gen, sl.rev
	}
}
