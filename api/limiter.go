package api

import (
	"errors"
	"net/http"
	"net/netip"
	"runtime"
	"sync"

	"golang.org/x/time/rate"
)

// limiter bounds what all requests hold together, and what those of one principal hold: slots, or
// bytes.
type limiter struct {
	max   int64 // of all
	share int64 // of one principal
	// unknownShare is the share of the requests whose principal is not known (yet).
	unknownShare int64

	mu          sync.Mutex
	used        int64
	byPrincipal map[string]int64 // principals that hold nothing are not in it
}

func newLimiter(most, share, unknown int64) *limiter {
	return &limiter{max: most, share: max(share, 1), unknownShare: max(unknown, 1), byPrincipal: map[string]int64{}}
}

// acquire takes n for a principal, or for "" if it is not known. It never waits. It returns errBusy
// if all requests hold too much, and errOverShare if the principal's do.
func (l *limiter) acquire(principal string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used+n > l.max {
		return errBusy
	}
	if err := l.checkShare(principal, n); err != nil {
		return err
	}
	l.used += n
	l.byPrincipal[principal] += n
	return nil
}

// reassign moves n from the unknown principal to a known one. With an error nothing has moved.
func (l *limiter) reassign(principal string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.checkShare(principal, n); err != nil {
		return err
	}
	l.subtract("", n)
	l.byPrincipal[principal] += n
	return nil
}

// release gives n back.
func (l *limiter) release(principal string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used -= n
	l.subtract(principal, n)
}

// checkShare returns an error if n more exceed the principal's share. mu is held.
func (l *limiter) checkShare(principal string, n int64) error {
	share, err := l.share, errOverShare
	if principal == "" {
		share, err = l.unknownShare, errBusy
	}
	if l.byPrincipal[principal]+n > share {
		return err
	}
	return nil
}

// subtract takes n from a principal's part. mu is held.
func (l *limiter) subtract(principal string, n int64) {
	if l.byPrincipal[principal] -= n; l.byPrincipal[principal] == 0 {
		delete(l.byPrincipal, principal)
	}
}

// alone reports whether no other known principal holds anything.
func (l *limiter) alone(principal string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used-l.byPrincipal[""] == l.byPrincipal[principal]
}

// inUse returns what all requests hold now.
func (l *limiter) inUse() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// Bounds of what all requests hold together.
const (
	// maxHeld is, unless Config.JSON and Config.AnswerBytes say less, the bound of each of three:
	// the bodies of JSON requests that are under way, whose bytes count jsonCost times; JSON
	// answers that are made and not yet taken; and the blocks of contents that are being sent.
	// Beyond the bound these blocks are smaller, and no read is refused for it.
	maxHeld = 64 << 20
	// maxProbes is how many requests for /healthz and /readyz may run at one time, beside all
	// others.
	maxProbes = 64
	// maxRefused is, unless Config.Refused says less, how many refused requests may wait for their
	// clients at one time: their bodies are read on, or on HTTP/2 their answers wait for a window,
	// so that their clients see the answer. It is also how many streams may be pending. For others
	// the connection is closed at once, and on HTTP/2 the answer is a head alone.
	maxRefused = 256
	// lingerRate is how many bytes a second of all refused bodies together are read on, with a
	// burst of one second's worth. A client that sends without end costs no more than that.
	lingerRate = 64 << 20
	// smallAnswer is the longest answer in bytes that does not count: it waits in net/http's own
	// buffers.
	smallAnswer = 4 << 10
	// longAnswer is how many bytes an answer counts for before its length is known: a page ends at
	// about half of that.
	longAnswer = 512 << 10
)

// limits are the server's. One principal has at most half of the requests, and three quarters of
// the bytes. Requests whose principal is not known have a quarter of the slots and of the answers.
type limits struct {
	slots, probes, waiting *limiter // requests
	json, blocks, answers  *limiter // bytes
	computing              *fairQueue
	lingerRate             *rate.Limiter      // bytes of refused bodies
	requestRate            *rates[string]     // by principal
	failures               *rates[netip.Addr] // by the address that network returns
}

func newLimits(requests, json, held, refused int64) limits {
	slots := newLimiter(requests, requests/2, requests/4)
	return limits{
		slots:   slots,
		probes:  newLimiter(maxProbes, 0, maxProbes),
		waiting: newLimiter(refused, 0, refused),
		json:    newLimiter(json, json/4*3, 0),
		blocks:  newLimiter(held, held/4*3, 0),
		answers: newLimiter(held, held/4*3, held/4),

		computing:  newFairQueue(runtime.GOMAXPROCS(0), slots.alone),
		lingerRate: rate.NewLimiter(lingerRate, lingerRate),
	}
}

// usage is what one request holds of the limits.
type usage struct {
	slots      *limiter // the limiter that has its slot; nil: it has no slot
	principal  string   // for which it counts
	conn       *conn    // for which its slot is counted; nil: none, or one that waits on HTTP/1
	json       int64
	answer     int64
	endCompute func() // ends its computing; nil: it does not compute
	waiting    bool   // its slot is among those that wait for their clients
}

// isProbe reports whether a request asks for the server's health. Such requests have slots of
// their own.
func isProbe(r *http.Request) bool { return r.URL.Path == "/healthz" || r.URL.Path == "/readyz" }

// acquireSlot gives the request a slot, or returns an error at once.
func (s *Server) acquireSlot(c *call) error {
	slot := s.limits.slots
	conn := connOf(c.req)
	if conn != nil && conn.healthOnly {
		c.Header().Set("Connection", "close") // after its answer it leaves its slot to others, over HTTP/2 too
	}
	if isProbe(c.req) {
		slot = s.limits.probes
	} else if conn != nil && conn.healthOnly {
		return errTooManyConns
	}
	if err := slot.acquire("", 1); err != nil {
		s.refused.requests.Add(1)
		return err
	}
	c.usage.slots = slot
	if c.usage.conn = conn; conn != nil {
		conn.addSlots(1)
	}
	return nil
}

// assignSlot makes the request's slot count for its principal.
func (s *Server) assignSlot(c *call) error {
	if err := s.limits.slots.reassign(c.caller.Principal, 1); err != nil {
		s.refused.principal.Add(1)
		return err
	}
	c.usage.principal = c.caller.Principal
	if c.usage.conn != nil {
		c.usage.conn.listener.setPrincipal(c.usage.conn, c.usage.principal)
	}
	return nil
}

// chargeJSON returns the function that charges for the request's body.
func (s *Server) chargeJSON(c *call) func(n int64) error {
	return func(n int64) error {
		if err := s.limits.json.acquire(c.usage.principal, n); err != nil {
			s.refused.json.Add(1)
			return err
		}
		c.usage.json += n
		return nil
	}
}

// beginCompute waits until the caller's request may compute. endCompute ends that, at the latest
// when the request is over.
func (s *Server) beginCompute(c *call) error {
	leave, err := s.limits.computing.enter(c.req.Context(), c.usage.principal)
	switch {
	case errors.Is(err, errOverShare):
		s.refused.principal.Add(1)
	case errors.Is(err, errBusy):
		s.refused.requests.Add(1)
	}
	if err != nil {
		return err
	}
	c.usage.endCompute = leave
	return nil
}

// endCompute lets others compute.
func endCompute(c *call) {
	if c.usage.endCompute != nil {
		c.usage.endCompute()
		c.usage.endCompute = nil
	}
}

// reserveAnswer counts n bytes of an answer before they are made.
func (s *Server) reserveAnswer(c *call, n int64) error {
	if err := s.limits.answers.acquire(c.usage.principal, n); err != nil {
		s.refused.answers.Add(1)
		return err
	}
	c.usage.answer += n
	return nil
}

// countAnswer counts an answer by its true length. A longer answer than was reserved is sent too,
// since its operation is done.
func (s *Server) countAnswer(c *call, n int) {
	more := int64(n) - c.usage.answer
	if n <= smallAnswer {
		more = -c.usage.answer
	}
	if more < 0 {
		s.limits.answers.release(c.usage.principal, -more)
	} else if more == 0 || s.limits.answers.acquire(c.usage.principal, more) != nil {
		return
	}
	c.usage.answer += more
}

// releaseAll gives back what the request holds. It may be called again.
func (s *Server) releaseAll(c *call) {
	endCompute(c)
	if c.usage.slots != nil {
		c.usage.slots.release(c.usage.principal, 1)
	}
	switch {
	case c.usage.conn != nil && c.usage.waiting:
		c.usage.conn.flow.streams.addSlots(-1)
	case c.usage.conn != nil:
		c.usage.conn.addSlots(-1)
	}
	if c.usage.json > 0 {
		s.limits.json.release(c.usage.principal, c.usage.json)
	}
	if c.usage.answer > 0 {
		s.limits.answers.release(c.usage.principal, c.usage.answer)
	}
	c.usage = usage{}
}

// waitForClient exchanges the slot of a request for one among those that wait for their clients:
// to take the answer, or to end the body. If these are all taken, an answer on HTTP/2 that is not
// made yet becomes a head alone, which needs no window.
func (s *Server) waitForClient(c *call) {
	s.releaseAll(c)
	if s.limits.waiting.acquire("", 1) != nil {
		c.headOnly = c.req.ProtoMajor >= 2
		return
	}
	c.usage.slots, c.usage.waiting = s.limits.waiting, true
	if conn := connOf(c.req); conn != nil && conn.flow.isHTTP2() {
		c.usage.conn = conn
		conn.flow.streams.addSlots(1)
	}
}
