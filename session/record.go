package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// record makes the pending bytes safe and records them in one commit. During it no other put can
// take over. last is set at the end of the body. Before that, pending ranges too small for an entry
// wait for more bytes.
func (t *stream) record(ctx context.Context, last bool) error {
	// The end of a request must not cancel the record of bytes that had arrived.
	ctx = context.WithoutCancel(ctx)
	keep, tooSmall := t.splitPending()
	if !last && len(keep) == 0 {
		return nil
	}
	length := Unknown
	if last && t.mode.exact && t.s.BytesExpected < 0 && t.pos-t.r.Off < t.s.ChunkSize {
		length = t.pos
	}
	var add []Entry // nil until the sink has made them safe
	for range maxTries {
		err := t.commit(func() (err error) {
			if add == nil {
				if add, err = t.makeSafe(ctx, keep); err != nil {
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
			const below = "a piece of %d bytes is below the smallest of %d that is recorded alone"
			return &LimitError{
				Gap:   firstGap(t.s, tooSmall[0].Off),
				Limit: fmt.Sprintf(below, tooSmall[0].Len(), t.v.cfg.MinEntry),
			}
		case !errors.Is(err, ErrSealed):
			return err
		}
		// An end has come between. It may want to fence this put, so the put must not be committing
		// while it waits for the end's outcome.
		if _, err := t.v.loadOpen(ctx, t.s.ID); err != nil {
			return err
		}
	}
	return ErrSealed
}

// maxTries bounds how often a put loads a session again that others keep changing.
const maxTries = 100

// commit runs a step that no takeover interrupts. A call that wants to fence the put waits for it.
func (t *stream) commit(step func() error) error {
	if err := t.lockSink(true); err != nil {
		return err
	}
	done := make(chan struct{})
	t.committing = done
	t.sinkMu.Unlock()
	defer func() {
		t.sinkMu.Lock()
		t.committing = nil
		t.sinkMu.Unlock()
		close(done)
	}()
	return step()
}

// makeSafe lets the sink make the ranges safe, and returns the entries to record.
func (t *stream) makeSafe(ctx context.Context, keep []Range) ([]Entry, error) {
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

// recorded notes the result of a record: the session after it, and the pending ranges that wait for
// more bytes.
func (t *stream) recorded(after Session, rest []Range) {
	t.s, t.flushed = after, t.v.cfg.Clock.Now()
	t.pending, t.recordedTo = rest, t.pos
	if len(rest) > 0 {
		t.recordedTo = rest[0].Off
	}
	if c, ok := t.sink.(Committer); ok {
		c.Recorded(after)
	}
	t.active.notify()
}

// splitPending splits the pending ranges into those to record now and a rest. The rest is one range
// too small for an entry of its own. It waits only if all that the put has brought is small, and if
// it neither closes a gap, nor ends the session, nor joins an entry of its chunk.
func (t *stream) splitPending() (keep, rest []Range) {
	if t.mode.whole || len(t.pending) == 0 || t.pos-t.r.Off >= t.v.cfg.MinEntry {
		return t.pending, nil
	}
	p := t.pending[len(t.pending)-1]
	cs := t.s.ChunkSize
	left := p.Off%cs != 0 && Touches(t.s.Received, Range{p.Off - 1, p.Off})
	right := Touches(t.s.Received, Range{p.End, p.End + 1})
	last := p.End == t.s.BytesExpected
	if t.s.BytesExpected < 0 {
		// If the range begins at the end of all received bytes, it may be the end of the session.
		last = Total(t.s.Received) == p.Off && t.s.Prefix() == p.Off
	}
	if p.Len() >= t.v.cfg.MinEntry || left || right || last || p.Len() == cs {
		return t.pending, nil
	}
	n := len(t.pending) - 1
	return t.pending[:n:n], t.pending[n:]
}

// store records the entries, whatever generation the session has by now, unless bytes of the put
// were dropped since it began.
func (t *stream) store(ctx context.Context, add []Entry, length int64) (Session, error) {
	ownRange := Range{t.r.Off, t.pos}
	cur := t.s
	for range maxTries {
		if len(add) == 0 && length < 0 {
			// All bytes were recorded already. Were they still when the last one had been compared?
			after, err := t.v.loadAndTouch(ctx, cur.ID)
			if err == nil {
				err = after.State.Err()
			}
			if err == nil && !ownRange.Empty() {
				found := Range{ownRange.Off, t.keptEnd()}
				if after.Stale(t.since, ownRange) || !Covers(after.Received, found) {
					err = ErrSuperseded
				}
			}
			return after, err
		}
		c := t.v.change(cur)
		c.Length = length
		if err := t.v.join(ctx, cur, add, &c); err != nil {
			return cur, err
		}
		if err := t.v.checkBounds(cur, c); err != nil {
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
			if add, err = t.resolveOverlap(ctx, cur, add, c.Add); err != nil {
				return cur, err
			}
		}
	}
	return cur, fmt.Errorf("%w: the session keeps changing", ErrSuperseded)
}

// keptEnd is the end of the bytes that this put may report as found or recorded.
func (t *stream) keptEnd() int64 {
	if n := len(t.pending); n > 0 {
		if _, rest := t.splitPending(); len(rest) > 0 {
			return rest[0].Off
		}
	}
	return t.pos
}

// resolveOverlap finds out who recorded the ranges of our entries. If we did (an answer was lost),
// they are done. If another Service did, Config.Match compares its bytes with ours. It returns the
// entries that are still to be recorded.
func (t *stream) resolveOverlap(ctx context.Context, cur Session, add, asked []Entry) ([]Entry, error) {
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
		isOwn := func(a Entry) bool { return a.Contains(e.Range) && sameEntry(a, theirs[0]) }
		if len(theirs) == 1 && slices.ContainsFunc(asked, isOwn) {
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

// join puts the entries into c. It merges them with each other, and with their recorded neighbours
// in the same chunk, as far as Config.Merge can.
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

// checkBounds refuses a change with which the session would have too many entries or gaps.
func (v *Service) checkBounds(s Session, c Change) error {
	off := int64(0)
	if len(c.Add) > 0 {
		off = c.Add[0].Off
	}
	if s.EntryCount+len(c.Add)-len(c.Remove) > v.cfg.MaxEntries {
		return v.tooManyPieces(s, off)
	}
	received := s.Received
	for _, e := range c.Add {
		received = Add(received, e.Range)
	}
	if len(received)-1 > v.cfg.MaxGaps && len(received) > len(s.Received) {
		return v.tooManyGaps(s, off)
	}
	return nil
}

func (v *Service) tooManyPieces(s Session, off int64) error {
	limit := fmt.Sprintf("the session has %d pieces, and %d are the most", s.EntryCount, v.cfg.MaxEntries)
	return &LimitError{firstGap(s, off), limit, int64(v.cfg.MaxEntries)}
}

func (v *Service) tooManyGaps(s Session, off int64) error {
	limit := fmt.Sprintf("the session has %d gaps, and %d are the most", len(s.Received)-1, v.cfg.MaxGaps)
	return &LimitError{firstGap(s, off), limit, int64(v.cfg.MaxGaps)}
}
