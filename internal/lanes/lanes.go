// Package lanes decides how many requests run at a time over a link whose nature nobody knows: few at first, twice as many where that moves more
// bytes, and back where it does not. It owns the count and the measure; what the requests are is the caller's.
//
//	4 lanes ── measured ──▶ 8 ── a sixth more? ──▶ 16 ── no more ──▶ 8 ── some measures of rest ──▶ 16 …
//	                                        refused, or cut: half as many
//
// What is measured are bytes that went by, from one end of a request to a later one, after as many requests have ended as there are lanes: so what a
// new lane puts into the system's own buffers at once is not taken for speed. Nothing is ever held back for a measure, and nothing
// waits for one: a wrong guess costs speed, never progress.
package lanes

import (
	"context"
	"sync"
	"time"
)

const (
	// first is the number of lanes at the start: few, but enough that one's bytes go while others wait for their answers, or have a slow connection.
	first = 4
	// window is the shortest measure.
	window = 250 * time.Millisecond
	// worth is by what the speed must grow for twice as many lanes to be kept.
	worth = 1.15
	// shortRest and longRest are how many measures pass between a guess that brought nothing and the next: twice as many each time.
	shortRest, longRest = 8, 64
)

// Lanes hands out lanes, one for each running request. It is safe for concurrent use.
type Lanes struct {
	now func() time.Time

	mu    sync.Mutex
	in    int
	freed chan struct{} // closed when a lane may be free
	p     pilot
}

// Fixed gives n ≥ 1 lanes.
func Fixed(n int) *Lanes {
	return &Lanes{now: time.Now, freed: make(chan struct{}), p: pilot{width: n, most: n}}
}

// Adaptive gives as many lanes as bring the most, 1 to most; now tells the time.
func Adaptive(most int, now func() time.Time) *Lanes {
	return &Lanes{now: now, freed: make(chan struct{}), p: pilot{width: min(first, most), most: most, pause: shortRest}}
}

// Enter waits for a free lane. A nil error must be followed by one Leave. Its other errors are ctx's cause.
func (l *Lanes) Enter(ctx context.Context) error {
	for {
		l.mu.Lock()
		if ctx.Err() == nil && l.in < l.p.width {
			l.in++
			l.mu.Unlock()
			return nil
		}
		l.p.wanted = true
		freed := l.freed
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Leave frees a lane at the end of its request, however that ended.
func (l *Lanes) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in--
	l.p.ended(l.now())
	close(l.freed)
	l.freed = make(chan struct{})
}

// Moved counts n bytes that went by; less than 0 takes back what has to go again.
func (l *Lanes) Moved(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.p.moved += n
}

// Troubled says that the other end refused a request for now, or that a connection was cut: fewer may fare better.
func (l *Lanes) Troubled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.p.troubled()
}

// pilot is the rule, without clock and locks.
type pilot struct {
	width, most int
	before      int       // the lanes to go back to where the guess that is being measured brings nothing; 0: none is
	base        float64   // bytes a second with those
	ends        int       // requests, since the width changed or the measure began
	since       time.Time // of the measure; zero: requests from before are still ending
	moved       int64     // bytes, in the measure
	wanted      bool      // there was more to do than lanes, in the measure
	rest, pause int       // measures to wait before the next guess; and after the next one that fails
}

// ended counts the end of a request, and decides where a measure ends with it.
func (p *pilot) ended(now time.Time) {
	if p.ends++; p.most == 1 || p.ends < p.width {
		return
	}
	if p.since.IsZero() {
		p.measure(now)
		return
	}
	took := now.Sub(p.since)
	if took < window {
		return
	}
	rate := float64(p.moved) / took.Seconds()
	switch {
	case p.before > 0 && p.wanted && rate >= worth*p.base:
		p.before, p.pause = 0, shortRest
	case p.before > 0:
		p.set(p.before)
		p.before, p.rest, p.pause = 0, p.pause, min(2*p.pause, longRest)
		return
	case p.rest > 0:
		p.rest--
		p.measure(now)
		return
	}
	if p.width == p.most || !p.wanted {
		p.measure(now)
		return
	}
	p.base, p.before = rate, p.width
	p.set(min(2*p.width, p.most))
}

func (p *pilot) measure(now time.Time) { p.since, p.moved, p.ends, p.wanted = now, 0, 0, false }

func (p *pilot) set(width int) { p.width, p.since, p.ends = width, time.Time{}, 0 }

// troubled halves the lanes, once for all that fail together. Where their number is fixed it stays.
func (p *pilot) troubled() {
	if p.pause == 0 || p.since.IsZero() {
		return
	}
	p.before, p.rest = 0, shortRest
	p.set(max(p.width/2, 1))
}
