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
	// lingerTimeout and maxLinger bound how long, and for how many bytes, the server still reads a
	// refused body. So the client sees the answer before it sees the connection closing.
	lingerTimeout = 5 * time.Second
	maxLinger     = 16 << 20
)

// body is a request's body. It tells a clean end (io.EOF) from every cut (*cutError), and holds the
// client to the minimum rate. It can be woken: a newer put takes over by a deadline in the past,
// which the minimum rate never replaces. It knows when the request is over, so that a late wake-up
// does not hit the connection's next request.
//
// One goroutine reads. Any goroutine may call SetReadDeadline.
type body struct {
	r        io.Reader
	request  *http.Request
	digests  digestCheck
	rc       *http.ResponseController
	length   int64 // as announced, or -1
	received int64 // read so far
	minRate  minRate
	machine  machine
	err      error // what Read returns from now on
	ended    bool  // the client has ended it

	mu       sync.Mutex
	deadline time.Time // the one that is set, if any
	wake     time.Time // the one that SetReadDeadline asked for, if any
	released bool      // nothing may change the connection's deadline any more
	refused  error     // why nothing more is read of it
}

var _ session.DeadlineReader = (*body)(nil)

// minRate is the minimum rate: this many bytes in every window.
type minRate struct {
	window time.Duration
	bytes  int64

	due      time.Time // when the running window must have its bytes
	received int64     // in the running window
	lastRead time.Time // when the last Read returned
}

func newMinRate(rate int64, window time.Duration) minRate {
	return minRate{window: window, bytes: int64(float64(rate) * window.Seconds())}
}

func newBody(r *http.Request, w http.ResponseWriter, rate int64, window time.Duration, m machine) *body {
	b := &body{
		r: r.Body, request: r, rc: http.NewResponseController(w), length: r.ContentLength,
		minRate: newMinRate(rate, window), machine: m,
	}
	if b.length == 0 {
		b.err, b.ended, b.released = io.EOF, true, true
	}
	return b
}

// Read returns io.EOF only if the client has ended its body.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if err := b.armDeadline(); err != nil {
		return 0, b.endWith(err)
	}
	n, err := b.r.Read(p)
	b.received += int64(n)
	b.digests.add(p[:n])
	b.minRate.endRead(int64(n), b.machine.now())
	if err == nil {
		return n, nil
	}
	if err == io.EOF && b.length >= 0 && b.received != b.length {
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		b.ended = true
		err = cmp.Or(b.digests.verify(b.request.Trailer), err)
	}
	return n, b.endWith(err)
}

// endWith decides how the body has ended.
func (b *body) endWith(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		b.err = err
	case b.refused != nil:
		b.err = b.refused
	case errors.Is(err, os.ErrDeadlineExceeded) && b.wake.IsZero():
		b.err = errSlow
	default:
		b.err = &cutError{err}
	}
	if b.ended {
		b.release()
	}
	return b.err
}

// armDeadline sets the deadline of the next Read: the end of the running window, or an earlier one
// that SetReadDeadline asked for.
func (b *body) armDeadline() error {
	now := b.machine.now()
	due := b.minRate.beginRead(now)
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
	// It is not set at every Read: a deadline that is a little early costs nothing to a client that
	// sends at all.
	if d := due.Sub(b.deadline); b.released || (!b.deadline.IsZero() && d >= 0 && d < b.minRate.window/16) {
		return nil
	}
	b.deadline = due
	return b.setConnDeadline(due)
}

// setConnDeadline is SetReadDeadline, if the connection has it.
func (b *body) setConnDeadline(t time.Time) error {
	if err := b.rc.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// SetReadDeadline wakes, at t, a Read that is blocked. It does not end the minimum rate. Once the
// body or its request is over it does nothing.
func (b *body) SetReadDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return nil
	}
	if b.wake.IsZero() || t.Before(b.wake) {
		b.wake = t
	}
	if !b.deadline.IsZero() && b.deadline.Before(b.wake) {
		return nil
	}
	b.deadline = b.wake
	return b.setConnDeadline(b.wake)
}

// refuse ends the body: a Read that is blocked, or the next one, returns the reason. A body that
// has ended stays as it is.
func (b *body) refuse(reason error) {
	b.mu.Lock()
	if b.refused == nil {
		b.refused = reason
	}
	b.mu.Unlock()
	_ = b.SetReadDeadline(time.Unix(1, 0))
}

// release gives the connection's deadline back. mu is held.
func (b *body) release() {
	if !b.released {
		b.released = true
		_ = b.setConnDeadline(time.Time{})
	}
}

// unread reports whether the client may still be sending.
func (b *body) unread() bool { return !b.ended && b.length != 0 }

// close ends the body with its request. It waits for nothing. From now on nothing changes the
// connection's deadline.
func (b *body) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release()
}

// linger reads on for a while after a refusal was sent on a connection that closes, at the rate
// that all of them share. A client that reads the answer stops sending.
func (b *body) linger(d time.Duration, expects bool, limiter *rate.Limiter) {
	b.mu.Lock()
	b.released = true
	err := b.setConnDeadline(b.machine.now().Add(d))
	b.mu.Unlock()
	// A client that waits for "100 Continue" sends nothing until it is told to go on.
	if err != nil || expects && b.received == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	const block = 64 << 10
	for range maxLinger / block {
		n, err := io.CopyN(io.Discard, b.r, block)
		if limiter.WaitN(ctx, int(n)) != nil || err != nil {
			return
		}
	}
}

// timeFor returns how long n bytes of an answer may take.
func (m *minRate) timeFor(n int64) time.Duration {
	return m.window + time.Duration(float64(n)/float64(m.bytes)*float64(m.window))
}

// beginRead begins a Read. Time that was spent elsewhere (a slow disk) does not count for the
// client.
func (m *minRate) beginRead(now time.Time) (due time.Time) {
	switch {
	case m.due.IsZero():
		m.due = now.Add(m.window)
	case !m.lastRead.IsZero():
		m.due = m.due.Add(now.Sub(m.lastRead))
	}
	return m.due
}

// endRead counts the bytes that came. With enough of them the next window begins.
func (m *minRate) endRead(n int64, now time.Time) {
	m.lastRead = now
	if m.received += n; m.received >= m.bytes {
		m.received, m.due = 0, now.Add(m.window)
	}
}
