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
	r      Range // under live.mu
	whole  bool
	wake   func() // wakes a blocked Read; nil where the reader can't be woken
	buffer Buffer
	done   chan struct{}

	// sinkMu is held while the sink is called, so that whoever holds it knows that
	// nothing is being written any more once buffer has been waited for.
	sinkMu     sync.Mutex
	stopped    bool          // a newer put wants these bytes: stop, and record what may be kept
	fenced     bool          // nothing of this put may reach the sink or the store any more
	committing chan struct{} // past the point where it can be taken over, until this is closed; nil while it streams

	firm bool // a newer put has had to wait for it, and so have all after that; under live.mu
}

// takeover remembers that somebody took these bytes over from a running put.
type takeover struct {
	r  Range
	at time.Time
}

const (
	// fairFor and fairTakeovers: the third takeover of the same bytes within
	// this time waits for the running put, so that two eager clients do not starve each other.
	fairFor       = 10 * time.Second
	fairTakeovers = 2
	// wakeFor is how long a put that was woken has to leave by itself.
	wakeFor = 5 * time.Second
)

func (v *Service) newPut(r Range, whole bool, from io.Reader) *put {
	p := &put{r: r, whole: whole, buffer: v.cfg.Buffers.New(), done: make(chan struct{})}
	if d, ok := from.(DeadlineReader); ok {
		p.wake = func() { _ = d.SetReadDeadline(time.Unix(1, 0)) }
	}
	return p
}

// claim makes p the only running put on its bytes, of which o has some: it takes over from puts
// that stream, and waits for those that are firm or commit. ErrBusy if that takes too long. The
// caller must unclaim.
func (v *Service) claim(ctx context.Context, l *live, p, o *put, firm bool) error {
	if err := l.count(&l.waiting, v.cfg.Waiting); err != nil {
		return err
	}
	defer l.uncount(&l.waiting)
	return v.within(ctx, func(ctx context.Context) error {
		for ; o != nil; o, firm = v.meet(l, p) {
			if !firm {
				if err := l.stop(ctx, o); err != nil {
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

// within does something that waits for other calls of the session, for Config.Wait at most: ErrBusy
// where that is not enough.
func (v *Service) within(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, v.cfg.Wait)
	defer cancel()
	err := do(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: an earlier request for the same bytes is still under way", ErrBusy)
	}
	return err
}

// meet claims p's bytes, or gives a running put that has some of them. A firm one is to be waited
// for, others may be stopped.
func (v *Service) meet(l *live, p *put) (o *put, firm bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.puts, func(o *put) bool { return o.r.Overlaps(p.r) })
	if i < 0 {
		l.puts = append(l.puts, p)
		return nil, false
	}
	now := v.cfg.Clock.Now()
	o = l.puts[i]
	both := p.r.Intersect(o.r)
	l.takeovers = slices.DeleteFunc(l.takeovers, func(t takeover) bool { return now.Sub(t.at) > fairFor })
	n := 0
	for _, t := range l.takeovers {
		if t.r.Overlaps(both) {
			n++
		}
	}
	if o.firm = o.firm || n >= fairTakeovers; !o.firm {
		l.takeovers = append(l.takeovers, takeover{both, now})
	}
	return o, o.firm
}

// count counts one more put in n, which is one of l's; uncount must follow a nil error.
func (l *live) count(n *int, most int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *n >= most {
		return fmt.Errorf("%w: %d requests are putting into this session, %d wait for others of the same bytes", ErrBusy, l.open, l.waiting)
	}
	*n++
	return nil
}

func (l *live) uncount(n *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n--
}

// narrow makes p's claim end where r does, which begins as it does.
func (l *live) narrow(p *put, r Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.r.End = min(p.r.End, r.End)
}

// leave waits for what the sink is still writing: the next put may have these bytes afterwards.
func (p *put) leave() {
	p.sinkMu.Lock()
	defer p.sinkMu.Unlock()
	p.buffer.Wait()
}

// unclaim ends p's claim.
func (l *live) unclaim(p *put) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(p)
	close(p.done)
}

func (l *live) remove(p *put) {
	if i := slices.Index(l.puts, p); i >= 0 {
		l.puts = slices.Delete(l.puts, i, i+1)
	}
}

// stop makes o leave: it waits for a commit that is under way, gives a put
// whose reader can be woken the time to record what it keeps, and fences it
// otherwise. It never waits for a slow Read.
func (l *live) stop(ctx context.Context, o *put) error {
	o.sinkMu.Lock()
	o.stopped = true
	o.sinkMu.Unlock()
	if o.wake != nil {
		o.wake()
		late := time.NewTimer(wakeFor)
		defer late.Stop()
		select {
		case <-o.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
		}
	}
	return l.fence(ctx, o)
}

// fence lets no call of o's reach its sink any more, after the commit that is under way where there
// is one: of a put that records as it goes that is not its end.
func (l *live) fence(ctx context.Context, o *put) error {
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
	l.mu.Lock()
	l.remove(o)
	l.mu.Unlock()
	if o.wake != nil {
		o.wake()
	}
	return nil
}

// tryFence fences the put, unless it is committing: then it gives what is closed when that is over.
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

// fenceAll fences the puts that overlap r. ErrBusy where a commit of theirs takes too long.
func (v *Service) fenceAll(ctx context.Context, l *live, r Range) error {
	puts := l.running(r)
	if len(puts) == 0 {
		return nil
	}
	return v.within(ctx, func(ctx context.Context) error {
		for _, p := range puts {
			if err := l.fence(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// running lists the puts that overlap r.
func (l *live) running(r Range) []*put {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*put
	for _, p := range l.puts {
		if p.r.Overlaps(r) {
			out = append(out, p)
		}
	}
	return out
}

// lockSink takes sinkMu for one step of p's; the caller must unlock it. A put that only has to stop
// may still take it to commit what it keeps.
func (p *put) lockSink(commit bool) error {
	p.sinkMu.Lock()
	if p.fenced || (p.stopped && (p.whole || !commit)) {
		p.sinkMu.Unlock()
		return ErrSuperseded
	}
	return nil
}
