package session

import (
	"context"
	"errors"
	"fmt"
)

// Drop forgets the received bytes of r: they were lost, or are to be replaced. Puts on them are
// fenced as by a takeover, and so are those that run through other Services. Entries that r cuts
// are replaced by what recut makes of their rest; without recut such a cut is ErrInvalid. A range
// without received bytes changes nothing. It gives the entries that were recorded and are no
// longer, those that were cut among them.
func (v *Service) Drop(ctx context.Context, id SessionID, r Range, recut SplitNote) (s Session, dropped []Entry, err error) {
	l := v.hold(id)
	defer v.release(id, l)
	for {
		if err := v.fenceAll(ctx, l, r); err != nil {
			return Session{}, nil, err
		}
		s, err := v.open(ctx, id)
		if err != nil || !Touches(s.Received, r) {
			return v.dated(s), nil, err
		}
		c := v.change()
		c.Drop = r
		if dropped, err = v.cut(ctx, id, r, recut, &c); err != nil {
			return s, nil, err
		}
		after, err := v.record(ctx, s, c) // with exactly these entries, or not at all
		if err == nil {
			l.notify()
			return v.dated(after), dropped, nil
		}
		if !moved(err) {
			return s, nil, err
		}
	}
}

// moved says of a store's refusal that the session is another by now: it is to be looked at again.
// An end that was under way is waited for then.
func moved(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrOverlap) || errors.Is(err, ErrSealed)
}

// DropEntry forgets one recorded piece, if it is still there exactly as given: what was recorded in
// its place meanwhile stays. Otherwise as Drop.
func (v *Service) DropEntry(ctx context.Context, id SessionID, e Entry) (Session, error) {
	l := v.hold(id)
	defer v.release(id, l)
	for {
		s, err := v.open(ctx, id)
		if err != nil {
			return v.dated(s), err
		}
		there, err := v.store.Entries(ctx, id, e.Range, 2)
		if err != nil || len(there) != 1 || !sameEntry(there[0], e) {
			return v.dated(s), err
		}
		if err := v.fenceAll(ctx, l, e.Range); err != nil {
			return s, err
		}
		c := v.change()
		c.Drop, c.Remove = e.Range, []Range{e.Range}
		after, err := v.record(ctx, s, c)
		if err == nil {
			l.notify()
			return v.dated(after), nil
		}
		if !moved(err) {
			return s, err
		}
	}
}

// cut puts into c what a Drop of r does to the entries, and gives those.
func (v *Service) cut(ctx context.Context, id SessionID, r Range, recut SplitNote, c *Change) ([]Entry, error) {
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
			if recut == nil {
				return nil, fmt.Errorf("%w: bytes %d to %d cut a recorded piece", ErrInvalid, r.Off, r.End-1)
			}
			note, err := recut(ctx, e, rest)
			if err != nil {
				return nil, err
			}
			c.Add = append(c.Add, Entry{rest, note})
		}
	}
	return entries, nil
}
