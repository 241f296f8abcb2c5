package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"time"

	"sluice/api"
	"sluice/internal/backoff"
)

// attempt is one request that is made until it is answered for good: it decides what is worth
// trying again (the classes of package api), and for how long.
//
//	class      what is done
//	Permanent  it ends; where the whole server is meant, every other request does too
//	Later      all requests wait together, as long as they are told to, and go on a few at a time
//	Gateway    so too; a body is sent in pieces where that comes again and again
//	TooLarge   the body is sent in pieces, as are later ones of its length
//	Cut        the same again, after a pause of its own; a body that was cut twice is sent in pieces
type attempt struct {
	s        *Sender
	began    time.Time
	failures int // times in a row
}

func (s *Sender) attempt() *attempt { return &attempt{s: s, began: s.opts.Clock.Now()} }

// left is for how long this may still go on with nothing moving.
func (a *attempt) left() time.Duration { return a.s.opts.Patience - a.s.backOff.Idle(a.began) }

// once makes the request when it is its turn.
func (a *attempt) once(ctx context.Context, request func() error) error {
	if err := a.s.unusable(); err != nil {
		return err
	}
	if err := a.s.backOff.Enter(ctx, a.left()); err != nil {
		return err
	}
	err := request()
	outcome, retryAfter := OutcomeOf(err)
	a.s.backOff.Exit(outcome, retryAfter)
	if err != nil && api.NoServer(err) {
		a.s.markUnusable(err)
		return a.s.unusable()
	}
	return err
}

// classOf is api's, of errors that have not been settled yet.
func classOf(err error) api.Class {
	if errors.Is(err, ErrServer) {
		return api.Permanent
	}
	return api.ClassOf(err)
}

// OutcomeOf says what an error means for all other requests.
func OutcomeOf(err error) (backoff.Outcome, time.Duration) {
	if err == nil {
		return backoff.Answered, 0
	}
	var refused *api.Error
	answered := errors.As(err, &refused)
	switch class := classOf(err); {
	case answered && (class == api.Later || class == api.Gateway) && api.Everywhere(err):
		return backoff.Refused, refused.RetryAfter
	case class == api.Later && !answered:
		return backoff.Away, 0
	case answered:
		return backoff.Answered, 0
	}
	return backoff.Unknown, 0
}

// again waits before the next attempt, unless all wait anyway. ErrPatience when nothing has moved
// for too long.
func (a *attempt) again(ctx context.Context, why error) error {
	left := a.left()
	if left <= 0 {
		return fmt.Errorf("%w: %w", ErrPatience, why)
	}
	a.s.reportWaiting(why)
	d := a.s.backOff.Pause(a.failures)
	a.failures++
	var refused *api.Error
	if errors.As(why, &refused) {
		d = max(d, refused.RetryAfter)
	}
	if outcome, _ := OutcomeOf(why); outcome == backoff.Refused || outcome == backoff.Away {
		return ctx.Err()
	}
	t := time.NewTimer(min(d, left))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask repeats a request without a body of its own until it is answered for good. Each has so long
// to be answered as nothing may move.
func (s *Sender) retry(ctx context.Context, request func(context.Context) error) error {
	for a := s.attempt(); ; {
		err := a.once(ctx, func() error {
			limited, stop := context.WithTimeoutCause(ctx, s.stallLimit(a.left()), errStalled)
			defer stop()
			return request(limited)
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if class := classOf(err); class == api.Permanent || class == api.TooLarge {
			return err // there is nothing that could be made shorter
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// allowed is how long a request may stand still: no longer than patience lasts, but so long that an
// answer can come.
func (s *Sender) stallLimit(d time.Duration) time.Duration {
	return max(min(d, s.opts.Patience), time.Second)
}

// waiting says once, until something moves again, that the server is waited for.
func (s *Sender) reportWaiting(why error) {
	s.mu.Lock()
	said := s.waitReported
	s.waitReported = true
	s.mu.Unlock()
	var refused *api.Error
	switch superseded := errors.As(why, &refused) && refused.Code == api.CodeSuperseded; {
	case said:
	case superseded:
		s.opts.Log.Info("somebody else sends the same bytes: looking at what is there")
	default:
		s.opts.Log.Info("waiting for the server", "because", brief(why))
	}
}

// moved notes that something was acknowledged.
func (s *Sender) moved() {
	s.backOff.Moved()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitReported = false
}

// brief is an error in one line that a user can read.
func brief(err error) string {
	var unanswered *url.Error
	if errors.As(err, &unanswered) {
		err = unanswered.Err // and not the request's whole address
	}
	s := err.Error()
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// A request whose body stands still for stallFor is cancelled; once the body is sent, the server
// has answerFor to answer. Neither lasts longer than patience.
const (
	stallTimeout  = 30 * time.Second
	answerTimeout = 2 * time.Minute
)

var errStalled = errors.New("the connection stands still")

// moving is a body that is watched: when nothing of it moves for stallFor its request is cancelled.
// It can be sent again.
type watchedBody struct {
	r        *io.SectionReader
	moved    func(n int64) // told of bytes that were taken; less than 0 when the body starts over
	file     *os.File      // whose bytes they are, from off on; nil: they are in memory
	off      int64
	maxStall time.Duration // that it may stand still

	mu         sync.Mutex
	at         int64
	resetTimer func(time.Duration)
}

func newBytes(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// watch gives the context for the request; stop must be called when it is over.
func (b *watchedBody) watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(min(stallTimeout, b.maxStall), func() { cancel(errStalled) })
	b.mu.Lock()
	b.resetTimer = func(d time.Duration) { t.Reset(d) }
	b.mu.Unlock()
	return ctx, func() {
		b.mu.Lock()
		b.resetTimer = nil
		b.mu.Unlock()
		t.Stop()
		cancel(nil)
	}
}

// ReadAt and Seek let the transport send it again over another connection.
func (b *watchedBody) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.r.ReadAt(p, off)
	b.advance(off + int64(n))
	return n, err
}

func (b *watchedBody) Seek(off int64, whence int) (int64, error) { return b.r.Seek(off, whence) }

// File and Taken let them go out without passing through here.
func (b *watchedBody) File() (*os.File, int64) { return b.file, b.off }

// Taken is how far the body is gone.
func (b *watchedBody) Taken(to int64) { b.advance(to) }

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	at, _ := b.r.Seek(0, io.SeekCurrent)
	b.advance(at)
	return n, err
}

// note says how far the body has been taken.
func (b *watchedBody) advance(at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved(at - b.at)
	b.at = at
	if b.resetTimer == nil {
		return
	}
	if at >= b.r.Size() {
		b.resetTimer(min(answerTimeout, b.maxStall))
	} else {
		b.resetTimer(min(stallTimeout, b.maxStall))
	}
}
