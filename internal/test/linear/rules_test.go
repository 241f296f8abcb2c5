package linear

import (
	"slices"

	"sluice/catalog"
	"sluice/session"
)

// fingerprintOf tells one request from another under the same key.
func fingerprintOf(content int, chunked bool) int64 {
	n := int64(len(contents[content])) << 1
	if chunked {
		n++
	}
	return n
}

// shows reports whether a session in this state is shown so.
func (s *state) shows(u *up, got shown) bool {
	if got.sid != u.sid {
		return false
	}
	switch u.state {
	case session.Open:
		return (got.state == session.Open || got.state == session.Sealed) && got.have == u.have
	case session.Finished:
		m := s.bySeq(u.memory)
		return got.state == session.Finished && got.memory == m.id && got.deleted == (m.presence != visible)
	default:
		return got.state == u.state
	}
}

func (c *checker) begin(s *state, o *op) bool {
	decided, explained, effect := c.bars(s, o, ownerOf(o.key))
	switch {
	case decided:
		return explained
	case o.answer == usedUp && !o.lost:
		return ownerOf(o.key) == ticket && c.usedUp(s)
	case o.answer == overQuota && !o.lost:
		return s.exceeds(1)
	}
	mark := fingerprintOf(o.content, o.chunked)
	row, u := s.idemOf(o.key), s.openOf(o.key)
	switch {
	case row != nil && o.lost, row == nil && u != nil && o.lost:
		return true
	case row != nil && row.fingerprint != mark, row == nil && u != nil && u.fingerprint != mark:
		return o.answer == otherIdem
	case o.answer != ok && !o.lost:
		return false
	case row != nil:
		got, m := o.shown[0], s.bySeq(row.memory)
		return got.sid == row.sid && got.state == session.Finished && got.memory == m.id &&
			got.deleted == (m.presence != visible)
	case u != nil:
		return s.learn(u, o.shown[0].sid) && s.shows(s.bySID(o.shown[0].sid), o.shown[0])
	}
	if !effect || s.exceeds(1) || ownerOf(o.key) == ticket && c.usedUp(s) {
		return false
	}
	fresh := up{key: o.key, fingerprint: mark, content: o.content, state: session.Open}
	if !o.lost {
		if fresh.sid = o.shown[0].sid; fresh.sid == 0 || s.bySID(fresh.sid) != nil || !s.shows(&fresh, o.shown[0]) {
			return false
		}
	}
	s.insert(fresh)
	return true
}

func (c *checker) create(s *state, o *op) bool {
	decided, explained, effect := c.bars(s, o, ownerOf(o.key))
	switch {
	case decided:
		return explained
	case o.answer == overQuota && !o.lost:
		return s.exceeds(o.pending)
	}
	mark := fingerprintOf(o.content, false)
	if row := s.idemOf(o.key); row != nil {
		m := s.bySeq(row.memory)
		switch {
		case o.lost:
			return true
		case row.fingerprint != mark:
			return o.answer == otherIdem
		case m.presence != visible:
			return o.answer == gone
		}
		return o.answer == ok && o.rows[0] == m.row
	}
	if o.answer != ok && !o.lost || !effect || s.exceeds(1) {
		return false
	}
	m, done := c.publish(s, o.name, o.content, 0, o.key, mark)
	return done && (o.lost || o.rows[0] == m.row)
}

func (c *checker) session(s *state, o *op) bool {
	u := s.bySID(o.sids[0])
	if u == nil {
		return false // an answer has named its id
	}
	decided, explained, effect := c.bars(s, o, ownerOf(u.key))
	if decided && o.kind != echo {
		return explained
	}
	switch o.kind {
	case put:
		switch {
		case u.state != session.Open:
			return o.lost ||
				o.answer == map[session.State]answer{session.Finished: finished, session.Aborted: aborted}[u.state]
		case o.answer == superseded && !o.lost:
			return true
		case !effect && u.have&(1<<o.piece) == 0:
			return false
		}
		u.have |= 1 << o.piece
		return o.lost || o.answer == ok
	case abort:
		switch {
		case u.state == session.Aborted:
			return o.lost || o.answer == ok
		case u.state == session.Finished:
			return o.lost || o.answer == finished
		}
		u.state, u.have = session.Aborted, 0
		e, done := c.emit(s, catalog.SessionAborted)
		return done && e.session == u.sid && (o.lost || o.answer == ok)
	case status:
		return o.answer == ok && s.shows(u, o.shown[0])
	case echo:
		m := s.bySeq(u.memory)
		return u.state == session.Finished && m.presence == visible && o.rows[0] == m.row
	case batch:
		return c.finishBatch(s, o, effect)
	}
	return c.finish(s, u, o, effect)
}

func (c *checker) finish(s *state, u *up, o *op, effect bool) bool {
	switch {
	case u.state == session.Aborted:
		return o.lost || o.answer == aborted
	case o.lost && (!u.complete() || u.state == session.Finished || o.only):
		return true
	case u.state == session.Open && !u.complete():
		return o.answer == incomplete
	case o.only:
		return o.answer == mismatch
	case u.state == session.Finished:
		m := s.bySeq(u.memory)
		if m.presence != visible {
			return o.answer == gone
		}
		return o.answer == ok && o.rows[0] == m.row
	case o.answer == overQuota && !o.lost:
		return s.exceeds(0) // it was lowered since the begin
	case o.answer != ok && !o.lost || !effect:
		return false
	}
	m, done := c.publishUp(s, u)
	return done && (o.lost || o.rows[0] == m.row)
}

// finishBatch is a batch that was not refused: all of it at one moment. Uploads that were finished
// before must have been visible too, each when it was looked at (echo).
func (c *checker) finishBatch(s *state, o *op, effect bool) bool {
	for i, sid := range o.sids {
		u := s.bySID(sid)
		if u == nil || u.state == session.Aborted || !u.complete() {
			return false
		}
		m, done := s.bySeq(u.memory), true
		if u.state == session.Open && !effect {
			return false
		}
		if u.state == session.Open {
			m, done = c.publishUp(s, u)
		}
		if !done || !o.lost && (o.rows[i].id != m.id || o.rows[i].seq != m.seq) {
			return false
		}
	}
	return true
}

func (c *checker) memory(s *state, o *op) bool {
	m := s.byID(o.id)
	if m == nil {
		return false
	}
	there := m.presence == visible || m.presence == trashed && (o.kind == purge || o.kind == restore)
	if !there || o.answer != ok && !o.lost {
		return !there && (o.answer == notFound || o.lost)
	}
	done := true
	switch {
	case o.kind == trash:
		m.presence, m.inTrash = trashed, true
		done = c.emitOf(s, catalog.MemoryDeleted, m)
	case o.kind == purge:
		m.presence = purged
		done = c.emitOf(s, catalog.MemoryPurged, m)
	case o.kind == restore && m.presence == trashed:
		m.presence, m.inTrash = visible, false
		done = c.emitOf(s, catalog.MemoryRestored, m)
	case o.kind == update:
		m.version = o.version
		done = c.emitOf(s, catalog.MemoryUpdated, m)
	}
	return done && (o.lost || len(o.rows) == 0 || o.rows[0] == m.row)
}

// look is an operation that reads the whole capsule.
func (c *checker) look(s *state, o *op) bool {
	switch o.kind {
	case counters:
		return o.counts == s.counts()
	case feed:
		return s.seq >= o.from &&
			slices.Equal(o.events, c.events[min(o.from-c.start, uint64(len(c.events))):s.seq-c.start])
	case ping:
		for i, id := range o.ids {
			if m := s.byID(id); m == nil || o.present[i] != (m.presence == visible) {
				return false
			}
		}
		return true
	case sessions:
		return c.sessions(s, o)
	}
	want, more := []row(nil), false
	for i := len(s.memories) - 1; i >= 0; i-- {
		m := s.memories[i]
		if m.presence == purged || (m.presence == trashed) != o.inTrash || m.seq >= o.from ||
			o.only && m.content != o.content {
			continue
		}
		if more = len(want) == o.limit; more {
			break
		}
		want = append(want, m.row)
	}
	return more == o.more && slices.Equal(want, o.rows)
}

// sessions: all open sessions are listed, except perhaps those that are just being ended. Each is
// compared by itself (status).
func (c *checker) sessions(s *state, o *op) bool {
	listed := map[uint64]bool{}
	for _, got := range o.shown {
		u := s.bySID(got.sid)
		if u == nil {
			// No answer has named it: the session with this key whose begin was lost.
			if u = s.openOf(got.key); u == nil || !s.learn(u, got.sid) {
				return false
			}
			u = s.bySID(got.sid)
		}
		if u.state != session.Open || listed[got.sid] {
			return false
		}
		listed[got.sid] = true
	}
	for _, u := range s.ups {
		if u.state == session.Open && ownerOf(u.key) == me && !listed[u.sid] && !slices.Contains(o.ending, u.sid) {
			return false
		}
	}
	return true
}
