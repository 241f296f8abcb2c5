package api

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sluice/internal/httpwire"
)

// conn is a connection that is counted until it is closed. It follows the framing of its requests
// and its unread bytes. No answer waits on it for ever: each block has the time that the minimum
// rate gives it.
type conn struct {
	net.Conn
	listener    *limitedListener
	healthOnly  bool        // it is beyond the bound, and may only ask for health
	firstBytes  []byte      // healthOnly: the first that have come
	clientReads atomic.Bool // the client reads what it is sent
	rejected    atomic.Bool // healthOnly: it asks for something else, and nothing more is read or written
	serving     atomic.Bool // a request has come to a handler; until then net/http itself writes
	framing     httpwire.Framing
	flow        flowMeter
	frameBegan  time.Time // HTTP/2: when the frame or head began that must end in time; zero: there is none

	handlerDeadline bool      // a handler has set the deadline of writes
	deadline        time.Time // the deadline of writes that is set

	// listener.mu guards these.
	counted     bool
	principal   string        // of its newest request; "": none is known
	served      bool          // one of its requests has had a slot
	refusalSent chan struct{} // healthOnly: it was evicted; closed when the client has its answer. nil: it was not
	slots       int           // that its requests hold
	queuedAt    time.Time     // when it entered its queue
	idleSince   time.Time     // zero: it has a request
	idleTimer   *time.Timer   // fires when it may have been idle for too long; nil: it does not run
	http2       bool          // it speaks HTTP/2; set when it becomes idle
	queue       *queue
	prev, next  *conn
}

const (
	// headTimeout is how long a head may take from its first byte to its last.
	headTimeout = 10 * time.Second
	// answerBlock is how many bytes are written under one deadline.
	answerBlock = 64 << 10
)

// healthStarts lists first bytes. A connection beyond the bound must begin with one of them. The
// whole request is looked at again when it has come.
var healthStarts = [...]string{"GET /healthz", "GET /readyz", "HEAD /healthz", "HEAD /readyz", httpwire.PrefaceLine}

const (
	// maxStart is the length of the longest of healthStarts.
	maxStart = len(httpwire.PrefaceLine)
	// maxHealthRequest is how many bytes a supervisor's whole request has at most.
	maxHealthRequest = 512
)

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.flow.isHTTP2() {
		return c.readFrames(p)
	}
	if n := c.framing.Next(p); n > 0 {
		return n, nil
	}
	if c.rejected.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:c.framing.Want(len(p))])
	if c.healthOnly && !c.mayBeHealth(p[:n]) {
		c.rejected.Store(true)
		c.listener.reject(c)
		return 0, io.EOF
	}
	if flowErr := c.flow.received(p[:n]); flowErr != nil {
		return 0, flowErr
	}
	return c.framing.Take(p[:n]), err
}

// mayBeHealth reports whether the first bytes, of which p is new, may begin a request for health.
func (c *conn) mayBeHealth(p []byte) bool {
	c.firstBytes = append(c.firstBytes, p[:min(len(p), maxStart-len(c.firstBytes))]...)
	start := slices.IndexFunc(healthStarts[:], func(start string) bool {
		n := min(len(start), len(c.firstBytes))
		return string(c.firstBytes[:n]) == start[:n]
	})
	if start < 0 {
		return false
	}
	var end [maxHealthRequest]byte
	n := copy(end[:], p[max(0, len(p)-len(httpwire.EndOfHead)):])
	if n += peek(c.Conn, end[n:]); healthStarts[start] != httpwire.PrefaceLine &&
		len(c.firstBytes) >= len(healthStarts[start]) && bytes.HasSuffix(end[:n], []byte(httpwire.EndOfHead)) {
		c.listener.noteAsked(c) // net/http reads few bytes first
	}
	return true
}

// isHealthRequest reports whether p is a whole request for /healthz or /readyz.
func isHealthRequest(p []byte) bool {
	return bytes.HasSuffix(p, []byte(httpwire.EndOfHead)) &&
		slices.ContainsFunc(healthStarts[:], func(start string) bool {
			return start != httpwire.PrefaceLine && bytes.HasPrefix(p, []byte(start))
		})
}

// readFrames is Read on HTTP/2. net/http sets no deadline for a head that is split into many
// frames, nor for a frame of which a part has come. DATA has the deadline of its body.
func (c *conn) readFrames(p []byte) (int, error) {
	c.flow.waitToRead()
	switch partial := c.flow.in.Open(); {
	case partial && c.frameBegan.IsZero():
		c.frameBegan = c.listener.machine.now()
		_ = c.Conn.SetReadDeadline(c.frameBegan.Add(headTimeout))
	case !partial && !c.frameBegan.IsZero():
		c.frameBegan = time.Time{}
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
	n, err := c.Conn.Read(p)
	if flowErr := c.flow.received(p[:n]); flowErr != nil {
		return 0, flowErr
	}
	return n, err
}

// Write implements net.Conn. On HTTP/2 net/http has deadlines of its own.
func (c *conn) Write(p []byte) (n int, err error) {
	if c.rejected.Load() {
		return 0, net.ErrClosed // the client has its answer
	}
	if c.flow.isHTTP2() {
		c.flow.sending(p) // before the client gets the credit, and sends more
		c.flow.streams.setWriting(true)
		defer c.flow.streams.setWriting(false)
		return c.Conn.Write(p)
	}
	out := p
	if !c.serving.Load() {
		out = c.ownRefusal(p)
	}
	for len(out) > 0 && err == nil {
		block := out
		if !c.handlerDeadline { // a handler writes blocks of its own
			block = out[:min(len(out), answerBlock)]
			c.armDeadline(len(block))
		}
		var k int
		k, err = c.Conn.Write(block)
		n, out = n+k, out[k:]
	}
	if err == nil {
		return len(p), nil
	}
	return min(n, len(p)), err
}

// armDeadline sets the deadline for n bytes, unless the one that is set is good enough.
func (c *conn) armDeadline(n int) {
	allowed := c.listener.minRate.timeFor(int64(n))
	if left := c.listener.machine.until(c.deadline); left < allowed/2 || left > allowed {
		c.deadline = c.listener.machine.now().Add(allowed)
		_ = c.Conn.SetWriteDeadline(c.deadline)
	}
}

// SetWriteDeadline implements net.Conn. Without a deadline, that of the minimum rate holds.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if !c.serving.Load() && !c.flow.isHTTP2() {
		return nil // net/http's own answers have a deadline in any case
	}
	if t.IsZero() && !c.flow.isHTTP2() {
		if c.handlerDeadline {
			c.handlerDeadline, c.deadline = false, time.Time{}
		}
		return nil
	}
	c.handlerDeadline = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

// ownRefusal replaces the answer that net/http gives to a head that it can't read by an answer of
// Sluice's form.
func (c *conn) ownRefusal(p []byte) []byte {
	status := httpwire.Refusal(p)
	if status == 0 {
		return p
	}
	f := Fault{Status: status, Code: CodeInvalidArgument, Detail: "the head of the request is malformed"}
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		f.Code, f.Detail = CodeTooLarge, fmt.Sprintf(
			"the head of the request has more than %d bytes", c.listener.maxHead,
		)
	case http.StatusExpectationFailed:
		f.Detail = "Expect may be 100-continue alone"
	}
	c.listener.count.heads.Add(1)
	// net/http would wait for the body without an end.
	_ = c.Conn.SetReadDeadline(c.listener.machine.now().Add(refuseTimeout))
	return problemText(
		Problem{Type: "/problems/" + slug(f.Code), Title: http.StatusText(status), Fault: f},
		c.listener.machine.requestID(),
	)
}

// problemText makes a whole answer that closes its connection.
func problemText(p Problem, id string) []byte {
	body, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	retry := ""
	if p.RetryAfterMS > 0 {
		retry = fmt.Sprintf("Retry-After: %d\r\n", (p.RetryAfterMS+999)/1000)
	}
	return fmt.Appendf(nil,
		"HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\n"+
			"Cache-Control: no-store\r\nX-Request-Id: %s\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), id, retry, len(body), body)
}

// addSlots notes that a request has got a slot (1), or has given it back (-1).
func (c *conn) addSlots(n int) {
	c.listener.addSlots(c, n)
	if c.flow.isHTTP2() {
		c.flow.streams.addSlots(n)
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer func() {
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		c.listener.uncount(c)
	}()
	defer c.flow.close()
	return c.Conn.Close()
}

// CloseWrite lets net/http end its side first. If a connection is closed with unread bytes, its
// answer is lost.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
