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
// order. Bytes after the end of the prefix hash must be read back to be hashed. That is a loss if
// the server is the bottleneck. So the put at the end of the prefix hash goes first. The puts after
// it wait a little before each Read, as long as the first put does not wait for its client:
//
//	hashed ─▶ put 0  ▓▓▓▓▓▓▓▓░░      reads as fast as the server takes it
//	          put 1            ▓░░   waits: its bytes stay in the client's and the kernel's buffers
//	          put 2                  waits
//
// On a slow link no put waits: there the first put waits for the network, which shows within a
// window. No put waits for longer than maxOrderWait. And no put waits if it shares the flow control
// of its connection with others (HTTP/2), where a stream that waits can stop the others.
const (
	maxOrderWait = time.Second
	// firstWindow is the time over which the first put is judged. It waits for the server, and not
	// for its client, if its Reads take less than a fifth of the window and bring at least
	// firstBytes.
	firstWindow = 100 * time.Millisecond
	firstBytes  = 1 << 20
	// maxFirstRead is how long a Read of the first put may take until the put counts as waiting for
	// its client.
	maxFirstRead = firstWindow / 2
)

// firstWaits counts how long the first puts have waited for their clients. activeSession.mu guards
// it.
type firstWaits struct {
	since   time.Time // when the counts began
	bytes   int64
	waited  time.Duration
	starved bool // in the last window the first put waited for its client
}

// read counts a Read of the first put.
func (w *firstWaits) read(n int, began, now time.Time) {
	w.waited, w.bytes = w.waited+now.Sub(began), w.bytes+int64(n)
	switch past := now.Sub(w.since); {
	case past >= 10*firstWindow: // nothing was read for a while
		*w = firstWaits{since: now, starved: w.starved}
	case past >= firstWindow:
		*w = firstWaits{since: now, starved: w.waited >= past/5 || w.bytes < firstBytes}
	}
}

// orderedBody is the body of a put, which waits for its turn in the order of the session's puts.
type orderedBody struct {
	body       io.Reader
	active     *activeSession // nil: the put has not joined yet
	at         session.Range  // the put's bytes
	neverWaits bool           // it never waits for the hash
	ended      bool           // the put has left the order
	waited     time.Duration
	woken      chan struct{} // closed when it must not wait any more
	once       sync.Once

	readSince time.Time // when the running Read began; zero: none runs. Under active.mu
}

// newBody makes the body of a put that has not joined the order yet.
func newBody(body io.Reader, p Put) *orderedBody {
	return &orderedBody{body: body, neverWaits: p.Multiplexed, woken: make(chan struct{})}
}

// join adds a put, whose bytes lie at r, to the order. The caller must call done.
func (a *activeSession) join(b *orderedBody, r session.Range) {
	b.active, b.at = a, r
	a.mu.Lock()
	defer a.mu.Unlock()
	a.puts = append(a.puts, b)
}

// done takes the put out of the order, and lets the next one be first.
func (b *orderedBody) done() {
	if b.ended || b.active == nil {
		return
	}
	b.ended = true
	b.active.mu.Lock()
	defer b.active.mu.Unlock()
	b.active.puts = slices.DeleteFunc(b.active.puts, func(o *orderedBody) bool { return o == b })
	b.active.notify()
}

// atHash reports whether the prefix hash ends within the put. active.mu is held.
func (b *orderedBody) atHash() bool {
	return b.active.loaded && b.at.Off <= b.active.hash.off && b.active.hash.off < b.at.End
}

// aheadOfHash reports whether the put's bytes lie ahead of the prefix hash, so that they will be
// read back.
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

// waitForHash waits while another put is first and that put waits for the server alone.
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

// mustWait reports whether the put must wait, and the event after which it looks again.
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
