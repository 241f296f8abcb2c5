package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"sluice/access"
)

// watchEvery is how often the rights of requests with long bodies and long answers are looked at.
const watchEvery = 500 * time.Millisecond

// watcher ends requests that still take or give bytes when the rights of their callers have ended.
// What they would record is refused anyway, inside the commit. The watcher makes sure that they
// also end soon: within twice watchEvery. A round asks once for each caller, however many requests
// it has. It is safe for concurrent use, and has no goroutine while it watches nothing.
type watcher struct {
	check func(ctx context.Context, claims []access.Claim) ([]error, error)
	// enter and leave surround a round. enter returns false if the server has stopped.
	enter func() bool
	leave func()

	mu    sync.Mutex
	all   map[*watched]struct{}
	armed bool // a round is to come
}

// watched is a request that is watched.
type watched struct {
	claim access.Claim
	end   func(error)
}

// add watches a request until remove. end is called at most once, with the reason, by another
// goroutine, and must not wait for anything.
func (w *watcher) add(r *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*watched]struct{}{}
	}
	w.all[r] = struct{}{}
	w.arm()
}

// narrow exchanges what is asked for a request that is watched.
func (w *watcher) narrow(r *watched, claim access.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.claim = claim
}

func (w *watcher) remove(r *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, r)
}

// arm sets the timer of the next round. mu is held.
func (w *watcher) arm() {
	if !w.armed && len(w.all) > 0 {
		w.armed = true
		time.AfterFunc(watchEvery, w.round)
	}
}

func (w *watcher) round() {
	if !w.enter() {
		return
	}
	defer w.leave()
	claims := w.claims()
	if len(claims) > 0 {
		ctx, stop := context.WithTimeout(context.Background(), watchEvery)
		refused, err := w.check(ctx, claims)
		stop()
		if err == nil { // else nobody knows: the next round asks again
			w.end(claims, refused)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	w.arm()
}

// claims gives what the requests need, each once.
func (w *watcher) claims() (out []access.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[access.Claim]struct{}{}
	for r := range w.all {
		if _, ok := seen[r.claim]; !ok {
			seen[r.claim] = struct{}{}
			out = append(out, r.claim)
		}
	}
	return out
}

func (w *watcher) end(claims []access.Claim, refused []error) {
	reasons := map[access.Claim]error{}
	for i, claim := range claims {
		if refused[i] != nil {
			reasons[claim] = refused[i]
		}
	}
	if len(reasons) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.all {
		if reason := reasons[r.claim]; reason != nil {
			delete(w.all, r)
			r.end(reason)
		}
	}
}

// revocable is the part of a call that the watcher ends.
type revocable struct {
	watched *watched
	reason  atomic.Pointer[error] // why it was ended
	sending atomic.Bool           // content is being sent: the answer can only be cut off
	cancel  context.CancelCauseFunc
}

var errRightsEnded = errors.New("the caller's rights have ended")

// watch lets the call end soon after its caller's rights. The call's body and its answer fail then,
// and so does what waits for its context.
func (s *Server) watch(c *call) {
	ctx, cancel := context.WithCancelCause(c.req.Context())
	c.req = c.req.WithContext(ctx)
	c.revocable.cancel = cancel
	c.revocable.watched = &watched{claim: access.Claim{Caller: c.caller}, end: func(reason error) {
		c.revocable.reason.Store(&reason)
		cancel(errRightsEnded)
		c.body.refuse(reason)
		if c.revocable.sending.Load() {
			c.cutAnswer()
		}
	}}
	s.watcher.add(c.revocable.watched)
}

// cutAnswer makes a Write that is blocked fail, and those that follow. On HTTP/1.1 it goes past the
// connection's own account of deadlines, which belongs to the handler.
func (c *call) cutAnswer() {
	past := time.Unix(1, 0)
	if conn := connOf(c.req); conn != nil && c.req.ProtoMajor < 2 {
		_ = conn.Conn.SetWriteDeadline(past)
	} else {
		_ = c.body.rc.SetWriteDeadline(past)
	}
}

// unwatch ends watch. It may be called for a call that is not watched.
func (s *Server) unwatch(c *call) {
	if c.revocable.watched != nil {
		s.watcher.remove(c.revocable.watched)
		c.revocable.cancel(nil)
	}
}

// revoked returns why the call was ended, or nil.
func (c *call) revoked() error {
	if reason := c.revocable.reason.Load(); reason != nil {
		return *reason
	}
	return nil
}
