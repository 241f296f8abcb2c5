package upload

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"sluice/session"
)

// Several puts of one session at a time bring its bytes out of order, while SHA-256 takes them in
// order: what comes ahead must be read back to be hashed. Where the server is what all wait for,
// that is a loss. So the put at the end of the prefix hash goes first, and those ahead of it are
// held back a little, each before it reads on, for as long as the first one is not waiting for its
// client:
//
//	hashed ─▶ put 0  ▓▓▓▓▓▓▓▓░░      reads as fast as the server takes it
//	          put 1            ▓░░   held: its bytes wait in the client's and the kernel's buffers
//	          put 2                  held
//
// On a slow link nobody is held: there the first one waits for the network, and that is seen within
// a window. Nor where the puts share the flow control of one connection (HTTP/2), where a stream
// that is held can keep the others from moving at all; nor for longer than maxOrderWait.
const (
	maxOrderWait = time.Second
	// firstWindow is what the first one is judged by: the server is what it waits for if less than
	// a fifth of it goes by in its Reads, and paceBytes have come.
	firstWindow = 100 * time.Millisecond
	firstBytes  = 1 << 20
	// maxFirstRead is how long one of its Reads may take until it is known to wait for its client.
	maxFirstRead = firstWindow / 2
)

// firstWaits is what the puts that were first have waited for. track.mu guards it.
type firstWaits struct {
	since   time.Time // bytes and waited count
	bytes   int64
	waited  time.Duration
	starved bool // in the last window they waited for their client
}

// read counts a Read of the first.
func (w *firstWaits) read(n int, began, now time.Time) {
	w.waited, w.bytes = w.waited+now.Sub(began), w.bytes+int64(n)
	switch past := now.Sub(w.since); {
	case past >= 10*firstWindow: // nothing was read for a while
		*w = firstWaits{since: now, starved: w.starved}
	case past >= firstWindow:
		*w = firstWaits{since: now, starved: w.waited >= past/5 || w.bytes < firstBytes}
	}
}

// orderedBody is a put's body, in the order that the session's puts take.
type orderedBody struct {
	body       io.Reader
	active     *activeSession // nil: it is in no order yet
	at         session.Range  // where the put's bytes lie
	neverWaits bool           // it is never held
	ended      bool           // it is in order no more
	waited     time.Duration
	woken      chan struct{} // closed when it is to be held no more
	once       sync.Once

	readSince time.Time // since when the Read runs that is running; zero: none is. Under track.mu
}

// newBody is the body of a put that is not in order yet.
func newBody(body io.Reader, p Put) *orderedBody {
	return &orderedBody{body: body, neverWaits: p.Multiplexed, woken: make(chan struct{})}
}

// join puts a body, whose bytes lie at r, in join. done must follow.
func (a *activeSession) join(b *orderedBody, r session.Range) {
	b.active, b.at = a, r
	a.mu.Lock()
	defer a.mu.Unlock()
	a.puts = append(a.puts, b)
}

// done lets the next one be first.
func (b *orderedBody) done() {
	if b.ended {
		return
	}
	b.ended = true
	b.active.mu.Lock()
	defer b.active.mu.Unlock()
	b.active.puts = slices.DeleteFunc(b.active.puts, func(o *orderedBody) bool { return o == b })
	b.active.notify()
}

// atHash reports whether the prefix hash ends within the put. t.mu is held.
func (b *orderedBody) atHash() bool {
	return b.active.loaded && b.at.Off <= b.active.hash.off && b.active.hash.off < b.at.End
}

// aheadOfHash reports whether the put's bytes lie behind the put where the prefix hash ends, and so
// will have to be read back.
func (b *orderedBody) aheadOfHash() bool {
	b.active.mu.Lock()
	defer b.active.mu.Unlock()
	return !b.atHash()
}

// SetReadDeadline implements session.DeadlineReader.
func (b *orderedBody) SetReadDeadline(at time.Time) error {
	b.once.Do(func() { close(b.woken) })
	if d, ok := b.body.(session.DeadlineReader); ok {
		return d.SetReadDeadline(at)
	}
	return errors.ErrUnsupported
}

// Read implements io.Reader.
func (b *orderedBody) Read(p []byte) (int, error) {
	b.waitForHash()
	began := b.active.now()
	b.active.mu.Lock()
	b.readSince = began
	b.active.mu.Unlock()
	n, err := b.body.Read(p)
	b.active.mu.Lock()
	defer b.active.mu.Unlock()
	if b.readSince = (time.Time{}); b.atHash() {
		b.active.firstWaits.read(n, began, b.active.now())
	}
	return n, err
}

// waitForHash holds the put while another is first that waits for the server alone.
func (b *orderedBody) waitForHash() {
	for !b.neverWaits && b.waited < maxOrderWait {
		changed, wait := b.mustWait()
		if !wait {
			return
		}
		began := b.active.now()
		retry := time.NewTimer(firstWindow / 10)
		select {
		case <-changed:
		case <-retry.C:
		case <-b.woken:
			b.neverWaits = true
		}
		retry.Stop()
		b.waited += b.active.now().Sub(began)
	}
}

// mustWait reports whether the put is to wait, and for what to look again.
func (b *orderedBody) mustWait() (changed <-chan struct{}, wait bool) {
	b.active.mu.Lock()
	defer b.active.mu.Unlock()
	if b.active.firstWaits.starved || b.atHash() {
		return nil, false
	}
	for _, o := range b.active.puts {
		if o.atHash() && o.at.Off < b.at.Off {
			return b.active.changed, o.readSince.IsZero() || b.active.now().Sub(o.readSince) < maxFirstRead
		}
	}
	return nil, false
}

var _ session.DeadlineReader = (*orderedBody)(nil)
