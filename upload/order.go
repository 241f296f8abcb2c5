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
	// paceWindow is what the first one is judged by: the server is what it waits for if less than a
	// fifth of it goes by in its Reads, and paceBytes have come.
	paceWindow = 100 * time.Millisecond
	paceBytes  = 1 << 20
	// maxFirstRead is how long one of its Reads may take until it is known to wait for its client.
	maxFirstRead = paceWindow / 2
)

// pace is what the puts that were first have waited for. track.mu guards it.
type pace struct {
	since   time.Time // bytes and waited count
	bytes   int64
	waited  time.Duration
	starved bool // in the last window they waited for their client
}

// read counts a Read of the first.
func (p *pace) read(n int, began, now time.Time) {
	p.waited, p.bytes = p.waited+now.Sub(began), p.bytes+int64(n)
	switch past := now.Sub(p.since); {
	case past >= 10*paceWindow: // nothing was read for a while
		*p = pace{since: now, starved: p.starved}
	case past >= paceWindow:
		*p = pace{since: now, starved: p.waited >= past/5 || p.bytes < paceBytes}
	}
}

// orderedBody is a put's body, in the order that the session's puts take.
type orderedBody struct {
	body       io.Reader
	t          *track        // nil: it is in no order yet
	at         session.Range // where the put's bytes lie
	neverWaits bool          // it is never held
	left       bool          // it is in order no more
	waited     time.Duration
	woken      chan struct{} // closed when it is to be held no more
	once       sync.Once

	readSince time.Time // since when the Read runs that is running; zero: none is. Under track.mu
}

// newBody is the body of a put that is not in order yet.
func newBody(body io.Reader, p Put) *orderedBody {
	return &orderedBody{body: body, neverWaits: p.Multiplexed, woken: make(chan struct{})}
}

// order puts a body, whose bytes lie at r, in order. done must follow.
func (t *track) order(n *orderedBody, r session.Range) {
	n.t, n.at = t, r
	t.mu.Lock()
	defer t.mu.Unlock()
	t.puts = append(t.puts, n)
}

// done lets the next one be first.
func (n *orderedBody) done() {
	if n.left {
		return
	}
	n.left = true
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	n.t.puts = slices.DeleteFunc(n.t.puts, func(o *orderedBody) bool { return o == n })
	n.t.notify()
}

// atHash reports whether the prefix hash ends within the put. t.mu is held.
func (n *orderedBody) atHash() bool {
	return n.t.loaded && n.at.Off <= n.t.hash.off && n.t.hash.off < n.at.End
}

// aheadOfHash reports whether the put's bytes lie behind the put where the prefix hash ends, and so
// will have to be read back.
func (n *orderedBody) aheadOfHash() bool {
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	return !n.atHash()
}

// SetReadDeadline implements session.DeadlineReader.
func (n *orderedBody) SetReadDeadline(at time.Time) error {
	n.once.Do(func() { close(n.woken) })
	if d, ok := n.body.(session.DeadlineReader); ok {
		return d.SetReadDeadline(at)
	}
	return errors.ErrUnsupported
}

// Read implements io.Reader.
func (n *orderedBody) Read(p []byte) (int, error) {
	n.waitForHash()
	began := n.t.now()
	n.t.mu.Lock()
	n.readSince = began
	n.t.mu.Unlock()
	k, err := n.body.Read(p)
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	if n.readSince = (time.Time{}); n.atHash() {
		n.t.pace.read(k, began, n.t.now())
	}
	return k, err
}

// waitForHash holds the put while another is first that waits for the server alone.
func (n *orderedBody) waitForHash() {
	for !n.neverWaits && n.waited < maxOrderWait {
		changed, hold := n.mustWait()
		if !hold {
			return
		}
		began := n.t.now()
		look := time.NewTimer(paceWindow / 10)
		select {
		case <-changed:
		case <-look.C:
		case <-n.woken:
			n.neverWaits = true
		}
		look.Stop()
		n.waited += n.t.now().Sub(began)
	}
}

// mustWait reports whether the put is to wait, and for what to look again.
func (n *orderedBody) mustWait() (changed <-chan struct{}, hold bool) {
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	if n.t.pace.starved || n.atHash() {
		return nil, false
	}
	for _, o := range n.t.puts {
		if o.atHash() && o.at.Off < n.at.Off {
			return n.t.changed, o.readSince.IsZero() || n.t.now().Sub(o.readSince) < maxFirstRead
		}
	}
	return nil, false
}

var _ session.DeadlineReader = (*orderedBody)(nil)
