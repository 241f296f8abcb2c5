package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Finish ends complete sessions, one or many, all or none: each is checked, then each is sealed,
// then commit runs, and the sessions are Finished when it returns nil. Where commit says that
// nothing was committed they are open again, and its error is returned.
//
// Errors: *EndError wrapping *IncompleteError (said before any seal), ErrGenMoved, ErrLength,
// ErrNotFound, the error of an ended session, or ErrSealed when another end takes too long;
// commit's own.
func (v *Service) Finish(ctx context.Context, commit End, wants ...Want) error {
	wants = slices.Clone(wants)
	// One order for all, so that two batches that share sessions do not each hold what the other
	// wants.
	slices.SortFunc(wants, func(a, b Want) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	for i, w := range wants {
		if i > 0 && wants[i-1].ID == w.ID {
			return &EndError{w.ID, fmt.Errorf("%w: named twice", ErrInvalid)}
		}
		s, err := v.Settled(ctx, w.ID)
		if err == nil {
			err = w.check(&s)
		}
		if err != nil {
			return &EndError{w.ID, err}
		}
	}
	var sealed []Session
	for _, w := range wants {
		s, err := v.seal(ctx, w)
		if err != nil {
			return errors.Join(&EndError{w.ID, err}, v.reopen(ctx, sealed))
		}
		sealed = append(sealed, s)
	}
	return v.end(ctx, sealed, Finished, commit)
}

// check says whether the session is what the caller wants to finish.
func (w Want) check(s *Session) error {
	if err := s.State.Err(); err != nil {
		return err
	}
	if w.Gen != 0 && w.Gen != s.Gen {
		return ErrGenMoved
	}
	length := s.BytesExpected
	if w.Bytes >= 0 {
		if length >= 0 && length != w.Bytes {
			return fmt.Errorf("%w: %d bytes, not %d", ErrLength, length, w.Bytes)
		}
		length = w.Bytes
	}
	if length < 0 {
		return fmt.Errorf("%w: it is not known", ErrLength)
	}
	if n := len(s.Received); n > 0 && s.Received[n-1].End > length {
		return fmt.Errorf("%w: %d bytes, but %d were received", ErrLength, length, s.Received[n-1].End)
	}
	return s.Incomplete(length)
}

// Incomplete gives an *IncompleteError where the session lacks some of its first length bytes, else
// nil.
func (s *Session) Incomplete(length int64) error {
	const most = 1000
	if gaps := Gaps(s.Received, Range{0, length}, most+1); len(gaps) > 0 {
		return &IncompleteError{s.ID, gaps[:min(len(gaps), most)], len(gaps) > most}
	}
	return nil
}

// seal seals the session as w wants it.
func (v *Service) seal(ctx context.Context, w Want) (Session, error) {
	for {
		s, err := v.Settled(ctx, w.ID)
		if err == nil {
			err = w.check(&s)
		}
		if err != nil {
			return s, err
		}
		if s.BytesExpected < 0 {
			c := v.change()
			c.Length = w.Bytes
			if s, err = v.store.Record(ctx, s.ID, s.Gen, c); errors.Is(err, ErrFenced) || errors.Is(err, ErrSealed) {
				continue
			}
			if err != nil {
				return s, err
			}
		}
		s, err = v.move(ctx, s, Sealed)
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrSealed) {
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
	return v.store.Move(ctx, s.ID, Step{Gen: s.Gen, To: to, Next: next, Seen: v.Running()})
}

// Settled gives the session once no end is under way, or ErrSealed when that takes longer than
// Config.Wait. It does not count as activity.
func (v *Service) Settled(ctx context.Context, id SessionID) (Session, error) {
	l := v.hold(id)
	defer v.release(id, l)
	pause, deadline := time.Millisecond, time.Now().Add(v.cfg.Wait)
	for {
		changed := l.watch()
		s, err := v.store.Load(ctx, id)
		if err != nil || s.State != Sealed {
			return s, err
		}
		if time.Now().After(deadline) {
			return s, ErrSealed
		}
		if err := sleep(ctx, changed, &pause); err != nil {
			return s, err
		}
	}
}

// end runs the caller's part for sealed sessions and moves them to their end, or opens them again.
func (v *Service) end(ctx context.Context, sealed []Session, to State, part End) error {
	// Once begun, an end is carried through, whoever has stopped listening.
	ctx = context.WithoutCancel(ctx)
	if part != nil {
		returned := false
		defer func() {
			if !returned { // but panicked: a store that saw a commit keeps the session ended
				_ = v.reopen(ctx, sealed)
			}
		}()
		err := part(ctx, sealed)
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
		_, err := v.move(ctx, s, to)
		v.notify(s.ID)
		if err != nil {
			return fmt.Errorf("%w: session %s is committed, but could not be moved to %s: %w", ErrUnknownOutcome, s.ID, to, err)
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
// ErrFinished and ErrExpired where another end was first; an error of release, and the session is
// open again.
func (v *Service) Abort(ctx context.Context, id SessionID, release End) error {
	_, err := v.drop(ctx, id, Aborted, release, nil)
	if errors.Is(err, ErrAborted) {
		return nil
	}
	return err
}

// drop ends one session without its being complete; still, if set, is asked again once nothing can
// change any more.
func (v *Service) drop(ctx context.Context, id SessionID, to State, release End, still func(*Session) bool) (bool, error) {
	l := v.hold(id)
	defer v.release(id, l)
	for {
		s, err := v.Settled(ctx, id)
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
		if still != nil && !still(&s) {
			return false, v.reopen(ctx, []Session{s})
		}
		if err := v.fenceAll(ctx, l, All()); err != nil {
			return false, errors.Join(err, v.reopen(ctx, []Session{s}))
		}
		return true, v.end(ctx, []Session{s}, to, release)
	}
}

// TickTTL lets the running time advance to now, by one Config.Tick at most (so that a clock that
// jumps expires nobody), or to where another Service of the Store has brought it, ends the sessions
// whose time to live is over, and removes what was kept of ended ones longer than Config.Keep. It
// gives the number of sessions it expired; its cost is that of what it ends. A session with a
// running put is left alone. Call it every Config.Tick or more often, on every Service of a Store.
func (v *Service) TickTTL(ctx context.Context, now time.Time, release End) (int, error) {
	running, err := v.advance(ctx, now)
	if err != nil {
		return 0, err
	}
	var expired atomic.Int64
	due := running - v.cfg.TTL.Milliseconds()
	if due > 0 {
		err = v.each(ctx, Query{Due: due}, func(s Session) error {
			if v.busy(s.ID) {
				_, err := v.Touch(ctx, s.ID)
				return err
			}
			done, err := v.drop(ctx, s.ID, Expired, release, func(s *Session) bool { return s.Seen < due })
			if done && err == nil {
				expired.Add(1)
			}
			return err
		})
	}
	if due = running - v.cfg.Keep.Milliseconds(); due > 0 && ctx.Err() == nil {
		err = errors.Join(err, v.each(ctx, Query{Due: due, State: Finished}, func(s Session) error {
			_, err := v.move(ctx, s, Gone)
			if errors.Is(err, ErrFenced) {
				return nil
			}
			return err
		}))
	}
	return int(expired.Load()), err
}

// errBroken: what was to be done to one session panicked.
var errBroken = errors.New("panic")

// each does something to all sessions that q selects, Config.AtOnce at a time, so that their
// commits share syncs. What fails with one keeps no other from it.
func (v *Service) each(ctx context.Context, q Query, do func(Session) error) error {
	var failed failures
	var wg sync.WaitGroup
	slots := make(chan struct{}, v.cfg.AtOnce)
	q.Limit = 100
	err := Page(ctx, v.store, q, func(s Session) (bool, error) {
		slots <- struct{}{}
		wg.Go(func() {
			err := errBroken
			defer func() {
				if err == errBroken {
					err = fmt.Errorf("%w: %v\n%s", err, recover(), debug.Stack())
				}
				failed.add(ctx, s.ID, err)
				<-slots
			}()
			err = do(s)
		})
		return true, ctx.Err()
	})
	wg.Wait()
	return errors.Join(err, failed.join())
}

// advance lets the running time go on to now, and keeps it with every Config.Tick that has passed:
// what counts by it, in the caller's books too, must end in time on a server that is often
// restarted and seldom used. Services of one Store learn from it how far another is.
func (v *Service) advance(ctx context.Context, now time.Time) (int64, error) {
	v.mu.Lock()
	step := min(max(now.Sub(v.lastTick), 0), v.cfg.Tick)
	v.lastTick = now
	running := v.running.Add(step.Milliseconds())
	due := running-v.kept >= v.cfg.Tick.Milliseconds()
	v.mu.Unlock()
	if !due {
		return running, nil
	}
	newest, err := v.store.KeepTime(ctx, running)
	if err != nil {
		return 0, fmt.Errorf("session: keeping the running time: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = max(v.kept, newest)
	v.running.Store(max(v.running.Load(), newest))
	return v.running.Load(), nil
}

// failures collects what went wrong with single sessions of many, so that one does not keep the
// others from being ended.
type failures struct {
	mu   sync.Mutex
	errs []error
	more int
}

// add notes what the end of one session came to. That somebody else has ended it is as good, and
// that the caller has given up he knows.
func (f *failures) add(ctx context.Context, id SessionID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil || isState(err) || errors.Is(err, ErrNotFound) || ctx.Err() != nil:
	case len(f.errs) < 10:
		f.errs = append(f.errs, fmt.Errorf("session %s: %w", id, err))
	default:
		f.more++
	}
}

func (f *failures) join() error {
	if f.more > 0 {
		return errors.Join(append(f.errs, fmt.Errorf("and %d sessions more", f.more))...)
	}
	return errors.Join(f.errs...)
}

// busy reports whether a put of this Service runs on the session.
func (v *Service) busy(id SessionID) bool {
	v.mu.Lock()
	l := v.live[id]
	v.mu.Unlock()
	return l != nil && len(l.running(All())) > 0
}

// ClearAll aborts every open session and gives their number.
func (v *Service) ClearAll(ctx context.Context, release End) (int, error) {
	var n atomic.Int64
	err := v.each(ctx, Query{State: Open}, func(s Session) error {
		done, err := v.drop(ctx, s.ID, Aborted, release, nil)
		if done && err == nil {
			n.Add(1)
		}
		return err
	})
	return int(n.Load()), err
}

// Recover settles sessions that are sealed although no end of theirs is under way: after a restart
// of a store whose seals are durable, or after ErrUnknownOutcome. outcome says what became of each:
// Open (certainly nothing was committed), or the state of its end.
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
