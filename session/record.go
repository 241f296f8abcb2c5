package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// record makes the pending bytes safe and records them in one commit. From here on the put can't be
// taken over. last is set at the end of the body; before it, pieces too small to be worth an entry
// wait for more.
func (t *stream) record(ctx context.Context, last bool) error {
	// A request that was cut must not take along what had arrived.
	ctx = context.WithoutCancel(ctx)
	keep, tooSmall := t.worthwhile()
	if !last && len(keep) == 0 {
		return nil
	}
	length := Unknown
	if last && t.mode.exact && t.s.BytesExpected < 0 && t.pos-t.r.Off < t.s.ChunkSize {
		length = t.pos
	}
	var add []Entry // nil until the sink has made them safe
	for range tries {
		err := t.commit(func() (err error) {
			if add == nil {
				if add, err = t.safe(ctx, keep); err != nil {
					return err
				}
			}
			after, err := t.store(ctx, add, length)
			if err == nil {
				t.recorded(after, tooSmall)
			}
			return err
		})
		switch {
		case err == nil && last && len(tooSmall) > 0:
			return &LimitError{firstGap(t.s, tooSmall[0].Off), fmt.Sprintf("a piece of %d bytes is below the smallest of %d that is recorded alone", tooSmall[0].Len(), t.v.cfg.MinEntry)}
		case !errors.Is(err, ErrSealed):
			return err
		}
		// An end has come between. It may fence this put, which must not be committing while it
		// waits for what becomes of that.
		if _, err := t.v.open(ctx, t.s.ID); err != nil {
			return err
		}
	}
	return ErrSealed
}

// tries bounds how often a put looks again at a session that others keep changing.
const tries = 100

// commit does a step that nothing interrupts: who wants to fence the put waits for it.
func (t *stream) commit(step func() error) error {
	if err := t.lockSink(true); err != nil {
		return err
	}
	over := make(chan struct{})
	t.committing = over
	t.sinkMu.Unlock()
	defer func() {
		t.sinkMu.Lock()
		t.committing = nil
		t.sinkMu.Unlock()
		close(over)
	}()
	return step()
}

// safe lets the sink make the ranges safe, and gives the entries to record.
func (t *stream) safe(ctx context.Context, keep []Range) ([]Entry, error) {
	add := make([]Entry, 0, len(keep))
	for _, r := range keep {
		e := Entry{Range: r}
		if c, ok := t.sink.(Committer); ok {
			note, err := c.Commit(ctx, r)
			if err != nil {
				return nil, err
			}
			if len(note) > MaxEntryNote {
				return nil, fmt.Errorf("%w: note of %d bytes", ErrInvalid, len(note))
			}
			e.Note = note
		}
		add = append(add, e)
	}
	return add, nil
}

// recorded notes what a record has left: the session as it is after it, and pieces that wait for
// more.
func (t *stream) recorded(after Session, rest []Range) {
	t.s, t.flushed = after, t.v.cfg.Clock.Now()
	t.pending, t.kept = rest, t.pos
	if len(rest) > 0 {
		t.kept = rest[0].Off
	}
	if c, ok := t.sink.(Committer); ok {
		c.Recorded(after)
	}
	t.l.notify()
}

// worthwhile splits what is pending into what is recorded now and a rest that is too small for an
// entry of its own: all that the put has brought is small, and neither closes a gap, nor ends the
// session, nor joins a piece of its chunk.
func (t *stream) worthwhile() (keep, rest []Range) {
	if t.mode.whole || len(t.pending) == 0 || t.pos-t.r.Off >= t.v.cfg.MinEntry {
		return t.pending, nil
	}
	p := t.pending[len(t.pending)-1]
	cs := t.s.ChunkSize
	left := p.Off%cs != 0 && Touches(t.s.Received, Range{p.Off - 1, p.Off})
	right := Touches(t.s.Received, Range{p.End, p.End + 1})
	last := p.End == t.s.BytesExpected
	if t.s.BytesExpected < 0 {
		// What goes on where everything so far ends may be the end.
		last = Total(t.s.Received) == p.Off && t.s.Prefix() == p.Off
	}
	if p.Len() >= t.v.cfg.MinEntry || left || right || last || p.Len() == cs {
		return t.pending, nil
	}
	n := len(t.pending) - 1
	return t.pending[:n:n], t.pending[n:]
}

// store records the entries under whatever generation the session has by now, as long as none of
// the put's own bytes were dropped since it began.
func (t *stream) store(ctx context.Context, add []Entry, length int64) (Session, error) {
	ownRange := Range{t.r.Off, t.pos}
	cur := t.s
	for range tries {
		if len(add) == 0 && length < 0 {
			// Everything was there already. Was it still, when the last byte had been compared?
			after, err := t.v.touched(ctx, cur.ID)
			if err == nil {
				err = after.State.Err()
			}
			if err == nil && !ownRange.Empty() && (after.Stale(t.since, ownRange) || !Covers(after.Received, Range{ownRange.Off, t.keptEnd()})) {
				err = ErrSuperseded
			}
			return after, err
		}
		c := t.v.change()
		c.Length = length
		if err := t.v.join(ctx, cur, add, &c); err != nil {
			return cur, err
		}
		if err := t.v.bounded(cur, c); err != nil {
			return cur, err
		}
		after, err := t.v.record(ctx, cur, c)
		if err == nil {
			return after, nil
		}
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrOverlap) {
			return cur, err
		}
		overlap := errors.Is(err, ErrOverlap)
		if cur, err = t.v.store.Load(ctx, cur.ID); err == nil {
			err = cur.State.Err()
		}
		if err != nil {
			return cur, err
		}
		if cur.Stale(t.since, ownRange) {
			return cur, ErrSuperseded
		}
		if overlap {
			if add, err = t.settle(ctx, cur, add, c.Add); err != nil {
				return cur, err
			}
		}
	}
	return cur, fmt.Errorf("%w: the session keeps changing", ErrSuperseded)
}

// keptEnd is the end of what this put may claim to have found or recorded.
func (t *stream) keptEnd() int64 {
	if n := len(t.pending); n > 0 {
		if _, rest := t.worthwhile(); len(rest) > 0 {
			return rest[0].Off
		}
	}
	return t.pos
}

// settle finds out who recorded where our entries should go: we ourselves (an answer was lost), or
// another Service, whose bytes the sink then compares with ours. It gives the entries that are
// still to be recorded.
func (t *stream) settle(ctx context.Context, cur Session, add, asked []Entry) ([]Entry, error) {
	left := add[:0:0]
	for _, e := range add {
		if !Touches(cur.Received, e.Range) {
			left = append(left, e)
			continue
		}
		theirs, err := t.v.store.Entries(ctx, cur.ID, e.Range, 2)
		if err != nil {
			return nil, err
		}
		if len(theirs) == 1 && slices.ContainsFunc(asked, func(a Entry) bool { return a.Contains(e.Range) && sameEntry(a, theirs[0]) }) {
			continue
		}
		if t.v.cfg.Match == nil || len(theirs) != 1 || theirs[0].Range != e.Range {
			return nil, ErrSuperseded
		}
		if err := t.v.cfg.Match(e, theirs[0]); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// join puts the entries into c, merged with each other and with their recorded neighbours of the
// same chunk where Config.Merge can.
func (v *Service) join(ctx context.Context, s Session, add []Entry, c *Change) error {
	c.Add, c.Remove = nil, nil
	if v.cfg.Merge == nil {
		c.Add = add
		return nil
	}
	neighbour := func(r Range) (Entry, bool, error) {
		if r.Off < 0 || !Touches(s.Received, r) {
			return Entry{}, false, nil
		}
		es, err := v.store.Entries(ctx, s.ID, r, 1)
		if err != nil || len(es) == 0 {
			return Entry{}, false, err
		}
		return es[0], true, nil
	}
	merge := func(a, b Entry) (Entry, bool) {
		if a.End != b.Off || b.Off%s.ChunkSize == 0 {
			return Entry{}, false
		}
		note, ok := v.cfg.Merge(a, b)
		return Entry{Range{a.Off, b.End}, note}, ok && len(note) <= MaxEntryNote
	}
	for _, e := range add {
		if n := len(c.Add); n > 0 {
			if m, ok := merge(c.Add[n-1], e); ok {
				c.Add[n-1] = m
				e = Entry{}
			}
		}
		if !e.Empty() {
			left, ok, err := neighbour(Range{e.Off - 1, e.Off})
			if err != nil {
				return err
			}
			if m, joined := merge(left, e); ok && joined && !slices.Contains(c.Remove, left.Range) {
				e, c.Remove = m, append(c.Remove, left.Range)
			}
			c.Add = append(c.Add, e)
		}
		last := &c.Add[len(c.Add)-1]
		right, ok, err := neighbour(Range{last.End, last.End + 1})
		if err != nil {
			return err
		}
		if m, joined := merge(*last, right); ok && joined {
			*last, c.Remove = m, append(c.Remove, right.Range)
		}
	}
	return nil
}

// bounded refuses a change that would grow the book-keeping past its bounds.
func (v *Service) bounded(s Session, c Change) error {
	off := int64(0)
	if len(c.Add) > 0 {
		off = c.Add[0].Off
	}
	if s.EntryCount+len(c.Add)-len(c.Remove) > v.cfg.MaxEntries {
		return &LimitError{firstGap(s, off), fmt.Sprintf("the session has %d pieces", s.EntryCount)}
	}
	received := s.Received
	for _, e := range c.Add {
		received = Add(received, e.Range)
	}
	if len(received)-1 > v.cfg.MaxGaps && len(received) > len(s.Received) {
		return &LimitError{firstGap(s, off), fmt.Sprintf("the session has %d gaps", len(s.Received)-1)}
	}
	return nil
}
