package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/session"
)

const (
	// lingerFor and lingerBytes bound how long, and for how much, a refused body is still read, so
	// that the client sees the answer before it sees the connection closing.
	lingerFor   = 5 * time.Second
	lingerBytes = 16 << 20
)

// body is a request's body. It tells a clean end (io.EOF) from every cut (*cutError), holds the
// client to the minimum rate, and can be woken: a deadline in the past, which is how a newer put
// takes over, stays whatever the rate allows. It knows when the request is over, so that a late
// wake-up doesn't hit the connection's next request.
//
// One goroutine reads; SetReadDeadline may be called by any.
type body struct {
	r        io.Reader
	request  *http.Request
	promises promises
	rc       *http.ResponseController
	length   int64 // as announced, or -1
	n        int64 // read so far
	pace     pace
	machine  machine
	end      error // what Read answers from now on
	read     bool  // to its end

	mu    sync.Mutex
	armed time.Time // the deadline that is set, if any
	wake  time.Time // the deadline that was asked for, if any
	over  bool      // nothing may touch the connection's deadline any more
}

var _ session.DeadlineReader = (*body)(nil)

// pace is the minimum rate: per bytes every window.
type pace struct {
	window time.Duration
	per    int64

	due  time.Time // when the running window must be full
	got  int64     // in the running window
	left time.Time // when the last Read returned
}

func paceOf(rate int64, window time.Duration) pace {
	return pace{window: window, per: int64(float64(rate) * window.Seconds())}
}

func newBody(r *http.Request, w http.ResponseWriter, rate int64, window time.Duration, m machine) *body {
	b := &body{
		r: r.Body, request: r, rc: http.NewResponseController(w), length: r.ContentLength,
		pace: paceOf(rate, window), machine: m,
	}
	if b.length == 0 {
		b.end, b.read, b.over = io.EOF, true, true
	}
	return b
}

// Read gives io.EOF only where the client has ended its body.
func (b *body) Read(p []byte) (int, error) {
	if b.end != nil {
		return 0, b.end
	}
	if err := b.arm(); err != nil {
		return 0, b.fail(err)
	}
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.promises.saw(p[:n])
	b.pace.read(int64(n), b.machine.now())
	if err == nil {
		return n, nil
	}
	if err == io.EOF && b.length >= 0 && b.n != b.length {
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		b.read = true
		err = cmp.Or(b.promises.kept(b.request.Trailer), err)
	}
	return n, b.fail(err)
}

// fail settles how the body ended.
func (b *body) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.read:
		b.end = err
	case errors.Is(err, os.ErrDeadlineExceeded) && b.wake.IsZero():
		b.end = errSlow
	default:
		b.end = &cutError{err}
	}
	if b.read {
		b.release()
	}
	return b.end
}

// arm sets the deadline of the next Read: when the running window ends, or earlier where somebody
// asked for it.
func (b *body) arm() error {
	now := b.machine.now()
	due := b.pace.start(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.wake.IsZero() {
		if !b.wake.After(now) {
			return os.ErrDeadlineExceeded
		}
		if b.wake.Before(due) {
			due = b.wake
		}
	}
	// Not at every Read: a deadline that is a little early costs a client nothing that sends at
	// all.
	if d := due.Sub(b.armed); b.over || (!b.armed.IsZero() && d >= 0 && d < b.pace.window/16) {
		return nil
	}
	b.armed = due
	return b.set(due)
}

// set is SetReadDeadline where the connection has it.
func (b *body) set(t time.Time) error {
	if err := b.rc.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// SetReadDeadline wakes a Read that is blocked at t. It does not end the minimum rate, and once the
// body or its request is over it does nothing.
func (b *body) SetReadDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return nil
	}
	if b.wake.IsZero() || t.Before(b.wake) {
		b.wake = t
	}
	if !b.armed.IsZero() && b.armed.Before(b.wake) {
		return nil
	}
	b.armed = b.wake
	return b.set(b.wake)
}

// release gives the connection's deadline back. mu is held.
func (b *body) release() {
	if !b.over {
		b.over = true
		_ = b.set(time.Time{})
	}
}

// unread reports whether the client may still be sending.
func (b *body) unread() bool { return !b.read && b.length != 0 }

// close ends the body with its request: it waits for nothing, and from now on nothing touches the
// connection.
func (b *body) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release()
}

// linger reads on for a while after a refusal was sent on a connection that closes, at the rate
// that all of them have. A client that reads the answer stops sending.
func (b *body) linger(d time.Duration, expects bool, all *rate.Limiter) {
	b.mu.Lock()
	b.over = true
	err := b.set(b.machine.now().Add(d))
	b.mu.Unlock()
	// A client that waits for "100 Continue" and has not been told to go on sends nothing.
	if err != nil || expects && b.n == 0 {
		return
	}
	until, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	const piece = 64 << 10
	for range lingerBytes / piece {
		n, err := io.CopyN(io.Discard, b.r, piece)
		if all.WaitN(until, int(n)) != nil || err != nil {
			return
		}
	}
}

// allowed is how long n bytes of an answer may take.
func (p *pace) allowed(n int64) time.Duration {
	return p.window + time.Duration(float64(n)/float64(p.per)*float64(p.window))
}

// start begins a Read: time that was spent elsewhere (a slow disk) is not the client's.
func (p *pace) start(now time.Time) (due time.Time) {
	switch {
	case p.due.IsZero():
		p.due = now.Add(p.window)
	case !p.left.IsZero():
		p.due = p.due.Add(now.Sub(p.left))
	}
	return p.due
}

// read counts what came. A full window starts the next one.
func (p *pace) read(n int64, now time.Time) {
	p.left = now
	if p.got += n; p.got >= p.per {
		p.got, p.due = 0, now.Add(p.window)
	}
}
