package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// put is one running put of one Service.
type put struct {
	r      Range // under activeSession.mu
	whole  bool
	wake   func() // wakes a blocked Read; nil if the reader can't be woken
	buffer Buffer
	done   chan struct{}

	// sinkMu is held during each call of the sink. So its holder knows that nothing is being
	// written any more, once it has waited for buffer.
	sinkMu     sync.Mutex
	stopped    bool          // a newer put wants these bytes: record what may be kept, and end
	fenced     bool          // nothing of this put may reach the sink or the store any more
	committing chan struct{} // no takeover until this is closed; nil: it streams, and can be taken over

	protected bool // newer puts wait for it, since one had to before; under activeSession.mu
}

// takeover remembers that a put took these bytes over from another one.
type takeover struct {
	r  Range
	at time.Time
}

const (
	// The third takeover of the same bytes within takeoverWindow waits for the running put instead,
	// so that two clients that keep retrying do not stop each other for ever.
	takeoverWindow = 10 * time.Second
	maxTakeovers   = 2
	// wakeTimeout is how long a put that was woken has to end by itself.
	wakeTimeout = 5 * time.Second
)

func (v *Service) newPut(r Range, whole bool, body io.Reader) *put {
	p := &put{r: r, whole: whole, buffer: v.cfg.Buffers.New(), done: make(chan struct{})}
	if d, ok := body.(DeadlineReader); ok {
		p.wake = func() { _ = d.SetReadDeadline(time.Unix(1, 0)) }
	}
	return p
}

// claim makes p the only running put on its bytes, of which o has some. It takes over from puts
// that stream, and waits for those that are protected or commit: ErrBusy if that takes too long.
// The caller must unclaim.
func (v *Service) claim(ctx context.Context, a *activeSession, p, o *put, protected bool) error {
	if err := a.count(&a.waiting, v.cfg.Waiting); err != nil {
		return err
	}
	defer a.uncount(&a.waiting)
	return v.waitAtMost(ctx, func(ctx context.Context) error {
		for ; o != nil; o, protected = v.meet(a, p) {
			if !protected {
				if err := a.stop(ctx, o); err != nil {
					return err
				}
				continue
			}
			select {
			case <-o.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

// waitAtMost runs do, which waits for other calls of the session, for Config.Wait at most: ErrBusy
// if that is not enough.
func (v *Service) waitAtMost(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, v.cfg.Wait)
	defer cancel()
	err := do(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: an earlier request of the same session is still under way", ErrBusy)
	}
	return err
}

// meet claims p's bytes, or returns a running put that has some of them. The caller waits for a
// protected put, and may stop any other.
func (v *Service) meet(a *activeSession, p *put) (o *put, protected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.puts, func(o *put) bool { return o.r.Overlaps(p.r) })
	if i < 0 {
		a.puts = append(a.puts, p)
		return nil, false
	}
	now := v.cfg.Clock.Now()
	o = a.puts[i]
	both := p.r.Intersect(o.r)
	a.takeovers = slices.DeleteFunc(a.takeovers, func(t takeover) bool { return now.Sub(t.at) > takeoverWindow })
	n := 0
	for _, t := range a.takeovers {
		if t.r.Overlaps(both) {
			n++
		}
	}
	if o.protected = o.protected || n >= maxTakeovers; !o.protected {
		a.takeovers = append(a.takeovers, takeover{both, now})
	}
	return o, o.protected
}

// count adds one put to n, which is a counter of a's. ErrBusy if n has reached the limit. After a
// nil error the caller must uncount.
func (a *activeSession) count(n *int, most int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *n >= most {
		return fmt.Errorf("%w: %d requests are putting into this session, %d wait for others of the same bytes",
			ErrBusy, a.putting, a.waiting)
	}
	*n++
	return nil
}

func (a *activeSession) uncount(n *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n--
}

// narrow makes p's claim end at r's end. r begins where the claim does.
func (a *activeSession) narrow(p *put, r Range) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.r.End = min(p.r.End, r.End)
}

// leave waits until the sink writes nothing more. The next put may have these bytes after that.
func (p *put) leave() {
	p.sinkMu.Lock()
	defer p.sinkMu.Unlock()
	p.buffer.Wait()
}

// unclaim ends p's claim.
func (a *activeSession) unclaim(p *put) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(p)
	close(p.done)
}

func (a *activeSession) remove(p *put) {
	if i := slices.Index(a.puts, p); i >= 0 {
		a.puts = slices.Delete(a.puts, i, i+1)
	}
}

// stop makes o end. It waits for a commit that is under way. If o's reader can be woken, o has the
// time to record what it keeps; otherwise, and if that takes too long, o is fenced. stop never
// waits for a slow Read.
func (a *activeSession) stop(ctx context.Context, o *put) error {
	o.sinkMu.Lock()
	o.stopped = true
	o.sinkMu.Unlock()
	if o.wake != nil {
		o.wake()
		timeout := time.NewTimer(wakeTimeout)
		defer timeout.Stop()
		select {
		case <-o.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
		}
	}
	return a.fence(ctx, o)
}

// fence makes every further call of o's sink fail. It waits for a commit that is under way. Such
// a commit need not be o's end, since PutAt records as the body comes.
func (a *activeSession) fence(ctx context.Context, o *put) error {
	for {
		committing := o.tryFence()
		if committing == nil {
			break
		}
		select {
		case <-committing:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.mu.Lock()
	a.remove(o)
	a.mu.Unlock()
	if o.wake != nil {
		o.wake()
	}
	return nil
}

// tryFence fences the put, unless it is committing. Then it returns the channel that is closed at
// the end of the commit.
func (p *put) tryFence() (committing chan struct{}) {
	p.sinkMu.Lock()
	defer p.sinkMu.Unlock()
	p.stopped = true
	if p.committing == nil {
		p.fenced = true
		p.buffer.Wait()
	}
	return p.committing
}

// fenceAll fences the puts that overlap r: ErrBusy if one of their commits takes too long.
func (v *Service) fenceAll(ctx context.Context, a *activeSession, r Range) error {
	puts := a.running(r)
	if len(puts) == 0 {
		return nil
	}
	return v.waitAtMost(ctx, func(ctx context.Context) error {
		for _, p := range puts {
			if err := a.fence(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// running lists the puts that overlap r.
func (a *activeSession) running(r Range) []*put {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*put
	for _, p := range a.puts {
		if p.r.Overlaps(r) {
			out = append(out, p)
		}
	}
	return out
}

// lockSink takes sinkMu for one step of p's; the caller must unlock it. A put that was only told to
// stop may still take it to commit what it keeps.
func (p *put) lockSink(commit bool) error {
	p.sinkMu.Lock()
	if p.fenced || (p.stopped && (p.whole || !commit)) {
		p.sinkMu.Unlock()
		return ErrSuperseded
	}
	return nil
}
