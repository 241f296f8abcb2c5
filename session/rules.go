package session

import (
	"context"
	"slices"
	"time"
)

// maxDropped bounds Session.Dropped.
const maxDropped = 64

// Apply is what every Store's Record does to the session's row. It checks c against s and returns
// the row after c; gen is the generation that the caller knows. It does not look at entries: the
// Store checks that those of c.Remove exist (ErrOverlap).
func Apply(s Session, gen uint64, c Change) (Session, error) {
	if err := s.State.Err(); err != nil {
		return s, err
	}
	if s.Gen != gen {
		return s, ErrFenced
	}
	received := s.Received
	for _, r := range c.Remove {
		if !Covers(received, r) {
			return s, ErrOverlap
		}
		received = Sub(received, r)
	}
	for _, e := range c.Add {
		if e.Empty() || e.Off < 0 || Touches(received, e.Range) {
			return s, ErrOverlap
		}
		received = Add(received, e.Range)
	}
	if c.Length >= 0 {
		if s.BytesExpected >= 0 && s.BytesExpected != c.Length {
			return s, ErrLength
		}
		s.BytesExpected = c.Length
	}
	if n := len(received); n > 0 && s.BytesExpected >= 0 && received[n-1].End > s.BytesExpected {
		return s, ErrLength
	}
	s.Received = received
	s.EntryCount += len(c.Add) - len(c.Remove)
	s.Rev++
	if !c.Drop.Empty() {
		s.Gen++
		s.Dropped = addDropped(s.Dropped, Dropped{s.Gen, c.Drop})
	}
	s.Seen = max(s.Seen, c.Seen)
	if s.Start == 0 {
		s.Start = c.Start
	}
	if c.Now > 0 {
		s.LastSeen = time.UnixMilli(c.Now).UTC()
	}
	return s, nil
}

// addDropped adds d. Past the bound it folds the two oldest into one that covers both and has the
// newer generation. So Stale may be true too often, never too rarely.
func addDropped(ds []Dropped, d Dropped) []Dropped {
	ds = append(slices.Clip(slices.Clone(ds)), d)
	if len(ds) > maxDropped {
		a, b := ds[0], ds[1]
		ds = ds[1:]
		ds[0] = Dropped{b.Gen, Range{min(a.Off, b.Off), max(a.End, b.End)}}
	}
	return ds
}

// Transition is what every Store's Move does to the session's row. changed is false for the repeat
// of a step that is done already.
func Transition(s Session, step Step) (after Session, changed bool, err error) {
	gen := s.Gen
	switch step.To {
	case Sealed, Open:
		if s.State == step.To && s.Gen == step.Next {
			return s, false, nil
		}
		if step.To == Sealed && s.State != Open {
			return s, false, s.State.Err()
		}
		if s.State.Ended() {
			return s, false, s.State.Err()
		}
		if s.State == step.To || s.Gen != step.Gen || step.Next <= step.Gen {
			return s, false, ErrFenced
		}
		gen = step.Next
	case Gone:
		if !s.State.Ended() || s.Gen != step.Gen {
			return s, false, ErrFenced
		}
	default:
		if s.State == step.To && s.Gen == step.Gen {
			return s, false, nil
		}
		if s.State.Ended() {
			return s, false, s.State.Err()
		}
		if s.Gen != step.Gen {
			return s, false, ErrFenced
		}
		s.Seen = max(s.Seen, step.Seen)
	}
	s.State, s.Gen = step.To, gen
	if s.State.Ended() {
		s.EntryCount = 0
	}
	s.Rev++
	return s, true, nil
}

// Err is the error of a put into a session of this state, nil for Open.
func (s State) Err() error {
	switch s {
	case Open:
		return nil
	case Sealed:
		return ErrSealed
	case Finished:
		return ErrFinished
	case Aborted:
		return ErrAborted
	case Expired:
		return ErrExpired
	}
	return ErrNotFound
}

// Page fetches all sessions that q selects, page by page, until visit returns false or an error.
func Page(ctx context.Context, st interface {
	List(ctx context.Context, q Query) (page []Session, next string, err error)
}, q Query, visit func(Session) (bool, error),
) error {
	for {
		page, next, err := st.List(ctx, q)
		if err != nil {
			return err
		}
		for _, s := range page {
			if more, err := visit(s); err != nil || !more {
				return err
			}
		}
		if next == "" {
			return nil
		}
		q.After = next
	}
}
