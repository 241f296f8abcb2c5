package session

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"
)

// put is one running put of one Service.
type put struct {
	r     Range
	whole bool
	wake  func() // wakes a blocked Read; nil where the reader can't be woken
	quiet func() // Lender.Quiet, under the door; nil where the sink has none, and when the put has ended
	done  chan struct{}

	// door is held while the sink is called, so that whoever holds it knows that
	// nothing is being written, but for what quiet waits for.
	door       sync.Mutex
	stopped    bool          // a newer put wants these bytes: stop, and record what may be kept
	fenced     bool          // nothing of this put may reach the sink or the store any more
	committing chan struct{} // past the point where it can be taken over, until this is closed; nil while it streams
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

func newPut(r Range, whole bool, from io.Reader) *put {
	p := &put{r: r, whole: whole, done: make(chan struct{})}
	if d, ok := from.(DeadlineReader); ok {
		p.wake = func() { _ = d.SetReadDeadline(time.Unix(1, 0)) }
	}
	return p
}

// claim makes p the only running put on its bytes: it takes over from puts that
// stream, and waits for those that commit. The caller must unclaim.
func (v *Service) claim(ctx context.Context, l *live, p *put) error {
	for {
		l.mu.Lock()
		i := slices.IndexFunc(l.puts, func(o *put) bool { return o.r.Overlaps(p.r) })
		if i < 0 {
			l.puts = append(l.puts, p)
			l.mu.Unlock()
			return nil
		}
		o, now := l.puts[i], v.cfg.Clock.Now()
		l.takeovers = slices.DeleteFunc(l.takeovers, func(t takeover) bool { return now.Sub(t.at) > fairFor })
		n := 0
		for _, t := range l.takeovers {
			if t.r.Overlaps(p.r) {
				n++
			}
		}
		if n < fairTakeovers {
			l.takeovers = append(l.takeovers, takeover{p.r.Intersect(o.r), now})
		}
		l.mu.Unlock()
		if n >= fairTakeovers {
			select {
			case <-o.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := l.stop(ctx, o); err != nil {
			return err
		}
	}
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
	o.door.Lock()
	o.stopped = true
	o.door.Unlock()
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

// fence closes o's door for ever, after the commit that is under way where there is one: of a put that records as
// it goes that is not its end.
func (l *live) fence(ctx context.Context, o *put) error {
	for {
		o.door.Lock()
		o.stopped = true
		committing := o.committing
		if committing == nil {
			o.fenced = true
			o.hush()
		}
		o.door.Unlock()
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

// hush waits for what the sink is still writing. The door is held.
func (p *put) hush() {
	if p.quiet != nil {
		p.quiet()
	}
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

// enter opens the door for one step of p's; the caller must unlock it. A put that only has to stop may still enter to commit what it keeps.
func (p *put) enter(commit bool) error {
	p.door.Lock()
	if p.fenced || (p.stopped && (p.whole || !commit)) {
		p.door.Unlock()
		return ErrSuperseded
	}
	return nil
}
