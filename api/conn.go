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

// conn is a connection that is counted until it is closed, whose requests' framing and backlog are
// looked at, and on which no answer waits for ever: each piece has the time that the minimum rate
// gives it.
type conn struct {
	net.Conn
	of      *bounded
	spare   bool        // it is one beyond the bound, and may only ask how the server is
	first   []byte      // spare: its first bytes
	takes   atomic.Bool // the client reads what it is sent
	over    atomic.Bool // spare: they ask for something else, and nothing more is read or written
	serving atomic.Bool // a request has come to a handler; until then what is written is net/http's own
	framing httpwire.Framing
	meter   meter
	begun   time.Time // HTTP/2: when what can't wait for its end began; zero: nothing is under way

	held  bool      // a handler has set the deadline of writes
	armed time.Time // the deadline of writes that is set

	// of.mu guards these.
	counted      bool
	principal    string        // of its newest request; "": none is known
	served       bool          // a request of its has had a place
	refused      chan struct{} // spare: it makes way for another; ends when the client has been told. nil: it does not
	places       int           // that its requests have
	since        time.Time     // it is in its queue
	idleSince    time.Time     // zero: it has a request
	expires      *time.Timer   // looks whether it has been idle for too long; nil: nobody does
	frames       bool          // it speaks HTTP/2, as was seen when it became idle
	in           *queue
	before, next *conn
}

const (
	// headFor is how long a head may take from its first byte to its last.
	headFor = 10 * time.Second
	// answerPiece is how much is written under one deadline.
	answerPiece = 64 << 10
)

// starts are the first bytes of which a connection beyond the bound must have one. What they ask
// for is looked at again when the whole request has come.
var starts = [...]string{"GET /healthz", "GET /readyz", "HEAD /healthz", "HEAD /readyz", httpwire.PrefaceLine}

const (
	// longestStart is the length of the longest of them.
	longestStart = len(httpwire.PrefaceLine)
	// longestQuestion is how long a supervisor's whole request is at most.
	longestQuestion = 512
)

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.meter.on() {
		return c.readFrames(p)
	}
	if n := c.framing.Next(p); n > 0 {
		return n, nil
	}
	if c.over.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:c.framing.Want(len(p))])
	if c.spare && !c.mayAsk(p[:n]) {
		c.over.Store(true)
		c.of.dismiss(c)
		return 0, io.EOF
	}
	if flow := c.meter.came(p[:n]); flow != nil {
		return 0, flow
	}
	return c.framing.Take(p[:n]), err
}

// mayAsk reports whether what has come first, of which p is new, may be the start of a question for
// health.
func (c *conn) mayAsk(p []byte) bool {
	c.first = append(c.first, p[:min(len(p), longestStart-len(c.first))]...)
	start := slices.IndexFunc(starts[:], func(start string) bool {
		n := min(len(start), len(c.first))
		return string(c.first[:n]) == start[:n]
	})
	if start < 0 {
		return false
	}
	var end [longestQuestion]byte
	n := copy(end[:], p[max(0, len(p)-len(httpwire.EndOfHead)):])
	if n += peek(c.Conn, end[n:]); starts[start] != httpwire.PrefaceLine && len(c.first) >= len(starts[start]) && bytes.HasSuffix(end[:n], []byte(httpwire.EndOfHead)) {
		c.of.asked(c) // net/http reads few bytes first
	}
	return true
}

// question reports whether p is a whole request for /healthz or /readyz.
func question(p []byte) bool {
	return bytes.HasSuffix(p, []byte(httpwire.EndOfHead)) && slices.ContainsFunc(starts[:], func(start string) bool {
		return start != httpwire.PrefaceLine && bytes.HasPrefix(p, []byte(start))
	})
}

// readFrames is Read on HTTP/2. net/http puts no end to a head that is split into many frames, nor
// to a frame of which a part has come; what is DATA has the deadline of its body.
func (c *conn) readFrames(p []byte) (int, error) {
	c.meter.wait()
	switch open := c.meter.in.Open(); {
	case open && c.begun.IsZero():
		c.begun = c.of.machine.now()
		_ = c.Conn.SetReadDeadline(c.begun.Add(headFor))
	case !open && !c.begun.IsZero():
		c.begun = time.Time{}
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
	n, err := c.Conn.Read(p)
	if flow := c.meter.came(p[:n]); flow != nil {
		return 0, flow
	}
	return n, err
}

// Write implements net.Conn. On HTTP/2 net/http has deadlines of its own.
func (c *conn) Write(p []byte) (n int, err error) {
	if c.over.Load() {
		return 0, net.ErrClosed // the client has its answer
	}
	if c.meter.on() {
		c.meter.writes(p) // before the client has it, and sends more
		c.meter.streams.writes(true)
		defer c.meter.streams.writes(false)
		return c.Conn.Write(p)
	}
	said := p
	if !c.serving.Load() {
		said = c.own(p)
	}
	for len(said) > 0 && err == nil {
		piece := said
		if !c.held { // a handler writes in pieces of its own
			piece = said[:min(len(said), answerPiece)]
			c.arm(len(piece))
		}
		var k int
		k, err = c.Conn.Write(piece)
		n, said = n+k, said[k:]
	}
	if err == nil {
		return len(p), nil
	}
	return min(n, len(p)), err
}

// arm sets the deadline of n bytes, unless there is one that is good enough.
func (c *conn) arm(n int) {
	allowed := c.of.pace.allowed(int64(n))
	if left := c.of.machine.until(c.armed); left < allowed/2 || left > allowed {
		c.armed = c.of.machine.now().Add(allowed)
		_ = c.Conn.SetWriteDeadline(c.armed)
	}
}

// SetWriteDeadline implements net.Conn. To have none is to have that of the minimum rate.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if !c.serving.Load() && !c.meter.on() {
		return nil // net/http's own, for what has a deadline in any case
	}
	if t.IsZero() && !c.meter.on() {
		if c.held {
			c.held, c.armed = false, time.Time{}
		}
		return nil
	}
	c.held = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

// own makes an answer of ours of one that net/http gives itself, to a head that it can't read.
func (c *conn) own(p []byte) []byte {
	status := httpwire.Refusal(p)
	if status == 0 {
		return p
	}
	f := Fault{Status: status, Code: CodeInvalidArgument, Detail: "the head of the request is malformed"}
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		f.Code, f.Detail = CodeTooLarge, fmt.Sprintf("the head of the request has more than %d bytes", c.of.head)
	case http.StatusExpectationFailed:
		f.Detail = "Expect may be 100-continue alone"
	}
	c.of.count.heads.Add(1)
	_ = c.Conn.SetReadDeadline(c.of.machine.now().Add(refuseFor)) // net/http would wait for the body without an end
	return problemText(Problem{Type: "/problems/" + slug(f.Code), Title: http.StatusText(status), Fault: f}, c.of.machine.requestID())
}

// problemText is a whole answer that closes its connection.
func problemText(p Problem, id string) []byte {
	body, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	retry := ""
	if p.RetryAfterMS > 0 {
		retry = fmt.Sprintf("Retry-After: %d\r\n", (p.RetryAfterMS+999)/1000)
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nX-Request-Id: %s\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), id, retry, len(body), body)
}

// works notes that a request has a place (1), or has given it back (-1).
func (c *conn) works(n int) {
	c.of.works(c, n)
	if c.meter.on() {
		c.meter.streams.placed(n)
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.of.drop(c)
	}()
	defer c.meter.close()
	return c.Conn.Close()
}

// CloseWrite lets net/http end its side first: what closes with unread bytes takes its answer
// along.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
