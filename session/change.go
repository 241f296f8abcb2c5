package session

import (
	"context"
	"errors"
	"fmt"
)

// Drop forgets the received bytes of r: they were lost, or are to be replaced. It fences puts on
// these bytes, those that run through other Services too. split gives the notes for the parts of an
// entry that r leaves standing; without split an r that leaves such a part is ErrInvalid. A range
// without received bytes changes nothing. Drop returns the entries that were recorded and are not
// any more, split ones among them.
func (v *Service) Drop(
	ctx context.Context, id SessionID, r Range, split SplitNote,
) (s Session, dropped []Entry, err error) {
	a := v.acquire(id)
	defer v.release(id, a)
	for {
		if err := v.fenceAll(ctx, a, r); err != nil {
			return Session{}, nil, err
		}
		s, err := v.loadOpen(ctx, id)
		if err != nil || !Touches(s.Received, r) {
			return v.withEnds(s), nil, err
		}
		c := v.change(s)
		c.Drop = r
		if dropped, err = v.splitEntries(ctx, id, r, split, &c); err != nil {
			return s, nil, err
		}
		after, err := v.record(ctx, s, c) // it fails if these entries have changed
		if err == nil {
			a.notify()
			return v.withEnds(after), dropped, nil
		}
		if !changedMeanwhile(err) {
			return s, nil, err
		}
	}
}

// changedMeanwhile reports whether a store refused a change because the session has changed since
// it was loaded. The caller then loads it again, and waits for an end that is under way.
func changedMeanwhile(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrOverlap) || errors.Is(err, ErrSealed)
}

// DropEntry forgets one recorded entry, if it is still there exactly as given. An entry that was
// recorded in its place meanwhile stays. In all else it is as Drop.
func (v *Service) DropEntry(ctx context.Context, id SessionID, e Entry) (Session, error) {
	a := v.acquire(id)
	defer v.release(id, a)
	for {
		s, err := v.loadOpen(ctx, id)
		if err != nil {
			return v.withEnds(s), err
		}
		found, err := v.store.Entries(ctx, id, e.Range, 2)
		if err != nil || len(found) != 1 || !sameEntry(found[0], e) {
			return v.withEnds(s), err
		}
		if err := v.fenceAll(ctx, a, e.Range); err != nil {
			return s, err
		}
		c := v.change(s)
		c.Drop, c.Remove = e.Range, []Range{e.Range}
		after, err := v.record(ctx, s, c)
		if err == nil {
			a.notify()
			return v.withEnds(after), nil
		}
		if !changedMeanwhile(err) {
			return s, err
		}
	}
}

// splitEntries puts into c what a Drop of r does to the entries, and returns the entries that it
// removes.
func (v *Service) splitEntries(
	ctx context.Context, id SessionID, r Range, split SplitNote, c *Change,
) ([]Entry, error) {
	entries, err := v.store.Entries(ctx, id, r, 0)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		c.Remove = append(c.Remove, e.Range)
		for _, rest := range []Range{{e.Off, r.Off}, {r.End, e.End}} {
			if rest.Empty() {
				continue
			}
			if split == nil {
				return nil, fmt.Errorf("%w: bytes %d to %d split a recorded piece", ErrInvalid, r.Off, r.End-1)
			}
			note, err := split(ctx, e, rest)
			if err != nil {
				return nil, err
			}
			c.Add = append(c.Add, Entry{rest, note})
		}
	}
	return entries, nil
}
