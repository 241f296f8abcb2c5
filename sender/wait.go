package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"sluice/api"
)

// waiter decides what is worth trying again, and for how long.
type waiter struct {
	s *Sender

	mu     sync.Mutex
	moved  time.Time // when something was acknowledged last
	silent bool      // that the server is away was said
}

func newWaiter(s *Sender) *waiter { return &waiter{s: s, moved: time.Now()} }

// progress notes that something was acknowledged.
func (w *waiter) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved, w.silent = time.Now(), false
}

// kind says what an error means for the request.
type kind uint8

const (
	final kind = iota // of no use to try again
	later             // the same request, later
	cut               // the connection broke, or somebody between refused: perhaps a smaller request gets through
)

func classify(err error) kind {
	var refused *api.Error
	if !errors.As(err, &refused) {
		if errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) {
			return final
		}
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return later // nobody is there: smaller requests are no help
		}
		return cut // the transport's
	}
	switch {
	case refused.Foreign && (refused.Status == 401 || refused.Status == 403 || refused.Status == 404 || refused.Status == 407):
		return final
	case refused.Foreign:
		return cut
	case refused.Code == api.CodeSuperseded, refused.Status == 429, refused.Status == 503, refused.Status == 500:
		return later
	}
	return final
}

// pause waits before the next attempt, longer each time, or as long as the server asks. ErrPatience when nothing has moved for too long.
func (w *waiter) pause(ctx context.Context, attempt int, why error) error {
	w.mu.Lock()
	idle, said := time.Since(w.moved), w.silent
	w.silent = true
	w.mu.Unlock()
	if idle > w.s.Patience {
		return fmt.Errorf("%w: %w", ErrPatience, why)
	}
	var refused *api.Error
	switch superseded := errors.As(why, &refused) && refused.Code == api.CodeSuperseded; {
	case said:
	case superseded:
		w.s.Log.Info("somebody else sends the same bytes: looking at what is there")
	default:
		w.s.Log.Info("waiting for the server", "because", brief(why))
	}
	d := min(100*time.Millisecond<<min(attempt, 10), 5*time.Second)
	d = d/2 + rand.N(d/2+1)
	if refused != nil {
		d = max(d, min(refused.RetryAfter, time.Minute))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// try repeats a request without a body of its own until it is answered for good.
func (w *waiter) try(ctx context.Context, request func() error) error {
	for attempt := 0; ; attempt++ {
		err := request()
		if err == nil || classify(err) == final {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.pause(ctx, attempt, err); err != nil {
			return err
		}
	}
}

// A request whose body stands still for stallFor is cancelled; once the body is sent, the server has answerFor to answer.
const (
	stallFor  = 30 * time.Second
	answerFor = 2 * time.Minute
)

var errStalled = errors.New("the connection stands still")

// moving is a body that is watched: when nothing of it moves for stallFor its request is cancelled. It can be sent again.
type moving struct {
	r     *io.SectionReader
	moved func(n int64) // told of bytes that were taken; less than 0 when the body starts over
	file  *os.File      // whose bytes they are, from off on; nil: they are in memory
	off   int64

	mu   sync.Mutex
	at   int64
	kick func(time.Duration)
}

func newBytes(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// watch gives the context for the request; stop must be called when it is over.
func (m *moving) watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(stallFor, func() { cancel(errStalled) })
	m.mu.Lock()
	m.kick = func(d time.Duration) { t.Reset(d) }
	m.mu.Unlock()
	return ctx, func() {
		m.mu.Lock()
		m.kick = nil
		m.mu.Unlock()
		t.Stop()
		cancel(nil)
	}
}

// ReadAt and Seek let the transport send it again over another connection.
func (m *moving) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.r.ReadAt(p, off)
	m.note(off + int64(n))
	return n, err
}

func (m *moving) Seek(off int64, whence int) (int64, error) { return m.r.Seek(off, whence) }

// File and Taken let them go out without passing through here.
func (m *moving) File() (*os.File, int64) { return m.file, m.off }

// Taken is how far the body is gone.
func (m *moving) Taken(to int64) { m.note(to) }

func (m *moving) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	at, _ := m.r.Seek(0, io.SeekCurrent)
	m.note(at)
	return n, err
}

// note says how far the body has been taken.
func (m *moving) note(at int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved(at - m.at)
	m.at = at
	if m.kick == nil {
		return
	}
	if at >= m.r.Size() {
		m.kick(answerFor)
	} else {
		m.kick(stallFor)
	}
}
