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

// attempt is one request, repeated until it is answered for good. It decides which failures are
// worth a retry (the classes of package api), and for how long.
//
//	class      what is done
//	Permanent  it ends; if it concerns the whole server, all other requests end too
//	Later      all requests wait together, as long as they are told to, and go on a few at a time
//	Gateway    so too; if that comes again and again a body is sent in ranges
//	TooLarge   the body is sent in ranges, as are later ones of its length
//	Cut        the same again, after a pause of its own; after two cuts a body is sent in ranges
type attempt struct {
	s        *Sender
	began    time.Time
	failures int // times in a row
}

func (s *Sender) attempt() *attempt { return &attempt{s: s, began: s.opts.Clock.Now()} }

// left is how long this attempt may still go on if nothing moves.
func (a *attempt) left() time.Duration { return a.s.opts.Patience - a.s.backOff.Idle(a.began) }

// once makes the request when the back-off allows it.
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

// classOf is api.ClassOf, for errors of this package too.
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

// again waits before the next attempt, unless all requests wait anyway. It is ErrPatience if
// nothing has moved for too long.
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

// retry repeats a request without a body of its own until it is answered for good. Each repeat may
// take as long as patience lasts.
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
			return err // there is no body that could be shorter
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// stallLimit is how long a request may stand still: as long as patience lasts, but at least a
// second, so that an answer can come.
func (s *Sender) stallLimit(d time.Duration) time.Duration {
	return max(min(d, s.opts.Patience), time.Second)
}

// reportWaiting logs that the server is waited for: once, until something moves again.
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

// noteProgress notes that something was acknowledged.
func (s *Sender) noteProgress() {
	s.backOff.Moved()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitReported = false
}

// brief returns an error as one line for users.
func brief(err error) string {
	var unanswered *url.Error
	if errors.As(err, &unanswered) {
		err = unanswered.Err // without the request's whole address
	}
	s := err.Error()
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// A request whose body stands still for stallTimeout is cancelled. After the body was sent, the
// server has answerTimeout to answer. Neither lasts longer than patience.
const (
	stallTimeout  = 30 * time.Second
	answerTimeout = 2 * time.Minute
)

var errStalled = errors.New("the connection stands still")

// watchedBody is a request's body that is watched: if nothing of it moves for stallTimeout the
// request is cancelled. It can be sent again.
type watchedBody struct {
	r        *io.SectionReader
	sent     func(n int64) // counts bytes that were sent; less than 0 when the body starts over
	file     *os.File      // which has the bytes, from off on; nil: they are in memory
	off      int64
	maxStall time.Duration // how long it may stand still

	mu         sync.Mutex
	at         int64
	resetTimer func(time.Duration)
}

func newBytes(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// watch returns the context for the request. stop must be called at the end of the request.
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

// ReadAt and Seek let the transport send the body again over another connection.
func (b *watchedBody) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.r.ReadAt(p, off)
	b.advance(off + int64(n))
	return n, err
}

func (b *watchedBody) Seek(off int64, whence int) (int64, error) { return b.r.Seek(off, whence) }

// File and Taken let the transport send the file without reading it through the body.
func (b *watchedBody) File() (*os.File, int64) { return b.file, b.off }

// Taken is told how far the body was sent.
func (b *watchedBody) Taken(to int64) { b.advance(to) }

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	at, _ := b.r.Seek(0, io.SeekCurrent)
	b.advance(at)
	return n, err
}

// advance notes how far the body was sent.
func (b *watchedBody) advance(at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent(at - b.at)
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
