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

// TickTTL lets the running time advance to now, or to where another Service of the Store has
// brought it. It advances by Config.MaxStep at most, so that a clock that jumps expires nothing.
// Then it ends the sessions whose time to live or longest life has passed, and removes what was
// kept of ended sessions for longer than Config.Keep. A session with a running put is touched
// instead, unless its longest life has passed. TickTTL returns the number of sessions that it
// expired. Its cost is that of the sessions that it ends.
//
// Call it every Config.MaxStep or more often, on every Service of a Store.
func (v *Service) TickTTL(ctx context.Context, now time.Time, release End) (int, error) {
	running, err := v.advance(ctx, now)
	if err != nil {
		return 0, err
	}
	var expired atomic.Int64
	due := running - v.cfg.TTL.Milliseconds()
	if due > 0 {
		err = v.forEach(ctx, Query{Due: due}, func(s Session) error {
			if v.busy(s.ID) {
				if after, err := v.Touch(ctx, s); err != nil || after.Seen >= due {
					return err
				}
			}
			done, err := v.endIncomplete(ctx, s.ID, Expired, release, func(s *Session) bool { return s.Seen < due })
			if done && err == nil {
				expired.Add(1)
			}
			return err
		})
	}
	if due = running - v.cfg.Keep.Milliseconds(); due > 0 && ctx.Err() == nil {
		err = errors.Join(err, v.forEach(ctx, Query{Due: due, State: Finished}, func(s Session) error {
			_, err := v.move(ctx, s, Gone)
			if errors.Is(err, ErrFenced) {
				return nil
			}
			return err
		}))
	}
	return int(expired.Load()), err
}

// errPanicked: the work on one session panicked.
var errPanicked = errors.New("panic")

// forEach runs do for all sessions that q selects, Config.AtOnce at a time, so that their commits
// share syncs. A failure with one session does not keep it from the others.
func (v *Service) forEach(ctx context.Context, q Query, do func(Session) error) error {
	var failed sessionErrors
	var wg sync.WaitGroup
	slots := make(chan struct{}, v.cfg.AtOnce)
	q.Limit = 100
	err := Page(ctx, v.store, q, func(s Session) (bool, error) {
		slots <- struct{}{}
		wg.Go(func() {
			err := errPanicked
			defer func() {
				if err == errPanicked {
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

// advance lets the running time go on to now, and stores it whenever Config.MaxStep has passed.
// So a server that restarts often still reaches every due time, in the caller's rows too.
// Services of one Store learn from it how far another one is.
func (v *Service) advance(ctx context.Context, now time.Time) (int64, error) {
	v.mu.Lock()
	step := min(max(now.Sub(v.lastTick), 0), v.cfg.MaxStep)
	v.lastTick = now
	running := v.running.Add(step.Milliseconds())
	due := running-v.storedTime >= v.cfg.MaxStep.Milliseconds()
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
	v.storedTime = max(v.storedTime, newest)
	v.running.Store(max(v.running.Load(), newest))
	return v.running.Load(), nil
}

// sessionErrors collects the errors of single sessions, so that one does not keep the others from
// being ended.
type sessionErrors struct {
	mu   sync.Mutex
	errs []error
	more int // that are not in errs
}

// add notes the result of one session's end. A session that another call has ended is no error. An
// error after the end of ctx is none either, since the caller knows of that.
func (f *sessionErrors) add(ctx context.Context, id SessionID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil || saysNotOpen(err) || errors.Is(err, ErrNotFound) || ctx.Err() != nil:
	case len(f.errs) < 10:
		f.errs = append(f.errs, fmt.Errorf("session %s: %w", id, err))
	default:
		f.more++
	}
}

func (f *sessionErrors) join() error {
	if f.more > 0 {
		return errors.Join(append(f.errs, fmt.Errorf("and %d sessions more", f.more))...)
	}
	return errors.Join(f.errs...)
}

// busy reports whether a put of this Service runs on the session.
func (v *Service) busy(id SessionID) bool {
	v.mu.Lock()
	a := v.active[id]
	v.mu.Unlock()
	return a != nil && len(a.running(All())) > 0
}

// ClearAll aborts every open session and gives their number.
func (v *Service) ClearAll(ctx context.Context, release End) (int, error) {
	var n atomic.Int64
	err := v.forEach(ctx, Query{State: Open}, func(s Session) error {
		done, err := v.endIncomplete(ctx, s.ID, Aborted, release, nil)
		if done && err == nil {
			n.Add(1)
		}
		return err
	})
	return int(n.Load()), err
}
