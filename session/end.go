package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Finish ends complete sessions, one or many, all or none. It checks each, then seals each, then
// runs commit. When commit returns nil the sessions are Finished. If commit says that nothing was
// committed they are open again, and its error is returned.
//
// Errors: *EndError wrapping *IncompleteError (said before any seal), ErrGenMoved, ErrLength,
// ErrNotFound, the error of an ended session, or ErrSealed when another end takes too long;
// commit's own.
func (v *Service) Finish(ctx context.Context, commit End, verified ...Verified) error {
	verified = slices.Clone(verified)
	// All calls seal in one order. Otherwise two batches that share sessions could each hold a
	// session that the other one wants.
	slices.SortFunc(verified, func(a, b Verified) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	open := make([]Session, len(verified))
	for i, f := range verified {
		if i > 0 && verified[i-1].ID == f.ID {
			return &EndError{f.ID, fmt.Errorf("%w: named twice", ErrInvalid)}
		}
		s, err := v.loadVerified(ctx, f)
		if err != nil {
			return &EndError{f.ID, err}
		}
		open[i] = s
	}
	var sealed []Session
	for i, f := range verified {
		s, err := v.seal(ctx, open[i], f)
		if err != nil {
			return errors.Join(&EndError{f.ID, err}, v.reopen(ctx, sealed))
		}
		sealed = append(sealed, s)
	}
	return v.end(ctx, sealed, Finished, commit)
}

// check says whether the session is as the caller has verified it.
func (f Verified) check(s *Session) error {
	if err := s.State.Err(); err != nil {
		return err
	}
	if f.Gen != 0 && f.Gen != s.Gen {
		return ErrGenMoved
	}
	length := s.BytesExpected
	if f.Bytes >= 0 {
		if length >= 0 && length != f.Bytes {
			return fmt.Errorf("%w: %d bytes, not %d", ErrLength, length, f.Bytes)
		}
		length = f.Bytes
	}
	if length < 0 {
		return fmt.Errorf("%w: it is not known", ErrLength)
	}
	if n := len(s.Received); n > 0 && s.Received[n-1].End > length {
		return fmt.Errorf("%w: %d bytes, but %d were received", ErrLength, length, s.Received[n-1].End)
	}
	return s.Incomplete(length)
}

// Incomplete returns an *IncompleteError if the session lacks some of its first length bytes, else
// nil.
func (s *Session) Incomplete(length int64) error {
	const most = 1000
	if gaps := Gaps(s.Received, Range{0, length}, most+1); len(gaps) > 0 {
		return &IncompleteError{s.ID, gaps[:min(len(gaps), most)], len(gaps) > most}
	}
	return nil
}

// loadVerified loads the session, once no end is under way, and checks it against f.
func (v *Service) loadVerified(ctx context.Context, f Verified) (Session, error) {
	s, err := v.WaitUnsealed(ctx, f.ID)
	if err == nil {
		err = f.check(&s)
	}
	return s, err
}

// seal seals a session that was loaded as s, if it still is as f says.
func (v *Service) seal(ctx context.Context, s Session, f Verified) (Session, error) {
	for {
		var err error
		if s.BytesExpected < 0 {
			c := v.change(s)
			c.Length = f.Bytes
			s, err = v.record(ctx, s, c)
		}
		if err == nil {
			s, err = v.move(ctx, s, Sealed)
		}
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrSealed) {
			return s, err
		}
		if s, err = v.loadVerified(ctx, f); err != nil {
			return s, err
		}
	}
}

// move takes one step from s, under a generation drawn for it.
func (v *Service) move(ctx context.Context, s Session, to State) (Session, error) {
	var raw [4]byte
	if _, err := io.ReadFull(v.cfg.Rand, raw[:]); err != nil {
		return s, fmt.Errorf("session: drawing a generation: %w", err)
	}
	next := s.Gen + 1 + uint64(binary.BigEndian.Uint32(raw[:]))
	defer v.changes(s.ID).Add(1)
	return v.store.Move(ctx, s.ID, Step{Gen: s.Gen, To: to, Next: next, Seen: v.Running()})
}

// WaitUnsealed returns the session once no end is under way, or ErrSealed if that takes longer than
// Config.Wait. It does not count as activity.
func (v *Service) WaitUnsealed(ctx context.Context, id SessionID) (Session, error) {
	a := v.acquire(id)
	defer v.release(id, a)
	pause := time.Millisecond
	var timeout *time.Timer
	for {
		changed := a.watch()
		s, err := v.store.Load(ctx, id)
		if err != nil || s.State != Sealed {
			return s, err
		}
		if timeout == nil {
			timeout = time.NewTimer(v.cfg.Wait)
			defer timeout.Stop()
		}
		select {
		case <-timeout.C:
			return s, ErrSealed
		default:
		}
		if err := sleep(ctx, changed, &pause); err != nil {
			return s, err
		}
	}
}

// end runs the caller's part for sealed sessions. Then it moves them to their end, or opens them
// again.
func (v *Service) end(ctx context.Context, sealed []Session, to State, part End) error {
	// An end that has begun is carried through, although the caller may have stopped listening.
	ctx = context.WithoutCancel(ctx)
	ended := false
	if part != nil {
		returned := false
		defer func() {
			if !returned { // it panicked: a store that saw a commit keeps the session ended
				_ = v.reopen(ctx, sealed)
			}
		}()
		var err error
		ended, err = part(ctx, sealed)
		if returned = true; err != nil {
			if errors.Is(err, ErrUnknownOutcome) {
				return err
			}
			if again := v.reopen(ctx, sealed); again != nil {
				return errors.Join(err, again)
			}
			return err
		}
	}
	for _, s := range sealed {
		var err error
		if ended {
			v.changes(s.ID).Add(1)
		} else {
			_, err = v.move(ctx, s, to)
		}
		v.notify(s.ID)
		if err != nil {
			return fmt.Errorf("%w: session %s is committed, but could not be moved to %s: %w",
				ErrUnknownOutcome, s.ID, to, err)
		}
	}
	return nil
}

func (v *Service) reopen(ctx context.Context, sealed []Session) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, s := range sealed {
		_, err := v.move(ctx, s, Open)
		v.notify(s.ID)
		if err != nil {
			errs = append(errs, fmt.Errorf("session %s stays sealed: %w", s.ID, err))
		}
	}
	return errors.Join(errs...)
}

// Abort ends an open session, complete or not; running puts are fenced. Repeating it is fine.
// ErrFinished or ErrExpired if another end was first. After an error of release the session is open
// again.
func (v *Service) Abort(ctx context.Context, id SessionID, release End) error {
	_, err := v.endIncomplete(ctx, id, Aborted, release, nil)
	if errors.Is(err, ErrAborted) {
		return nil
	}
	return err
}

// endIncomplete ends one session, complete or not. If confirm is set it is asked once the session
// is sealed, and the session opens again if it says no. It reports whether it sealed the session
// for good.
func (v *Service) endIncomplete(
	ctx context.Context, id SessionID, to State, release End, confirm func(*Session) bool,
) (bool, error) {
	a := v.acquire(id)
	defer v.release(id, a)
	for {
		s, err := v.WaitUnsealed(ctx, id)
		if err == nil {
			err = s.State.Err()
		}
		if err != nil {
			return false, err
		}
		s, err = v.move(ctx, s, Sealed)
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrSealed) {
			continue
		}
		if err != nil {
			return false, err
		}
		if confirm != nil && !confirm(&s) {
			return false, v.reopen(ctx, []Session{s})
		}
		if err := v.fenceAll(ctx, a, All()); err != nil {
			return false, errors.Join(err, v.reopen(ctx, []Session{s}))
		}
		return true, v.end(ctx, []Session{s}, to, release)
	}
}

// Recover ends or opens sessions that are sealed although no end of theirs is under way. Call it
// after a restart of a store whose seals are durable, or after ErrUnknownOutcome. outcome says for
// each what became of its end: Open if certainly nothing was committed, else the state of its end.
func (v *Service) Recover(ctx context.Context, outcome func(context.Context, Session) (State, error)) error {
	return Page(ctx, v.store, Query{State: Sealed, Limit: 100}, func(s Session) (bool, error) {
		to, err := outcome(ctx, s)
		if err != nil {
			return false, err
		}
		_, err = v.move(ctx, s, to)
		v.notify(s.ID)
		return true, err
	})
}
