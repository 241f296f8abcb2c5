package session

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

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
				_, err := v.Touch(ctx, s)
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
