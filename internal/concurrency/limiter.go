// Package concurrency decides how many requests run at a time over a link that nobody has measured.
// It begins with few. It doubles their number if that moves more bytes, and goes back if it does
// not. It owns the limit and the measurement, not the requests.
//
//	4 ── measured ──▶ 8 ── a sixth more? ──▶ 16 ── no more ──▶ 8 ── cooldown ──▶ 16 …
//	                           refused, or cut: half as many
//
// A measurement counts the bytes that went by from the end of one request to the end of a later
// one, after as many requests have ended as may run. So the bytes that a new request puts into the
// system's own buffers at once do not count as speed. No request waits for a measurement: a wrong
// guess costs speed, never progress.
package concurrency

import (
	"context"
	"sync"
	"time"
)

const (
	// initial is the limit at the start. It is low, but the bytes of one request can go while
	// others wait for their answers, or have a slow connection.
	initial = 4
	// window is the shortest measurement.
	window = 250 * time.Millisecond
	// minGain is the factor by which the speed must grow for a doubled limit to be kept.
	minGain = 1.15
	// minCooldown and maxCooldown are how many measurements pass between a guess that brought
	// nothing and the next guess: twice as many each time.
	minCooldown, maxCooldown = 8, 64
)

// Limiter limits how many requests run. It is safe for concurrent use.
type Limiter struct {
	now func() time.Time

	mu      sync.Mutex
	running int
	freed   chan struct{} // closed when a request may begin
	est     estimator
}

// Fixed makes a Limiter of n ≥ 1 requests. now tells the time.
func Fixed(n int, now func() time.Time) *Limiter {
	return &Limiter{now: now, freed: make(chan struct{}), est: estimator{limit: n, max: n}}
}

// Adaptive makes a Limiter of as many requests as move the most bytes, 1 to max. now tells the
// time.
func Adaptive(max int, now func() time.Time) *Limiter {
	return &Limiter{
		now: now, freed: make(chan struct{}),
		est: estimator{limit: min(initial, max), max: max, nextCooldown: minCooldown},
	}
}

// Acquire waits until a request may begin. A nil error must be followed by one Release. Its other
// errors are ctx's cause.
func (l *Limiter) Acquire(ctx context.Context) error {
	for {
		l.mu.Lock()
		if ctx.Err() == nil && l.running < l.est.limit {
			l.running++
			l.mu.Unlock()
			return nil
		}
		l.est.wanted = true
		freed := l.freed
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Release ends a request, however it went.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.est.ended(l.now())
	close(l.freed)
	l.freed = make(chan struct{})
}

// Transferred counts n bytes that went by. With n below 0 it takes back bytes that have to go
// again.
func (l *Limiter) Transferred(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.est.moved += n
}

// BackOff notes that the other end refused a request for now, or that a connection was cut. It
// halves the limit, once for all requests that fail together. A fixed limit stays.
func (l *Limiter) BackOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.est.backOff()
}

// estimator is the rule, without clock and locks.
type estimator struct {
	limit, max int
	previous   int       // the limit before the running guess; 0: no guess runs
	base       float64   // bytes a second with that limit
	ends       int       // requests that ended since the limit changed or the measurement began
	since      time.Time // start of the measurement; zero: older requests are still ending
	moved      int64     // bytes in the measurement
	wanted     bool      // a request had to wait during the measurement

	cooldown, nextCooldown int // measurements before the next guess, and after the next one that fails
}

// ended counts the end of a request. It decides if a measurement ends with it.
func (e *estimator) ended(now time.Time) {
	if e.ends++; e.max == 1 || e.ends < e.limit {
		return
	}
	if e.since.IsZero() {
		e.measure(now)
		return
	}
	took := now.Sub(e.since)
	if took < window {
		return
	}
	rate := float64(e.moved) / took.Seconds()
	switch {
	case e.previous > 0 && e.wanted && rate >= minGain*e.base:
		e.previous, e.nextCooldown = 0, minCooldown
	case e.previous > 0:
		e.set(e.previous)
		e.previous, e.cooldown, e.nextCooldown = 0, e.nextCooldown, min(2*e.nextCooldown, maxCooldown)
		return
	case e.cooldown > 0:
		e.cooldown--
		e.measure(now)
		return
	}
	if e.limit == e.max || !e.wanted {
		e.measure(now)
		return
	}
	e.base, e.previous = rate, e.limit
	e.set(min(2*e.limit, e.max))
}

func (e *estimator) measure(now time.Time) { e.since, e.moved, e.ends, e.wanted = now, 0, 0, false }

func (e *estimator) set(limit int) { e.limit, e.since, e.ends = limit, time.Time{}, 0 }

func (e *estimator) backOff() {
	if e.nextCooldown == 0 || e.since.IsZero() {
		return
	}
	e.previous, e.cooldown = 0, minCooldown
	e.set(max(e.limit/2, 1))
}
