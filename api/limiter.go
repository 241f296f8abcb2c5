package api

import (
	"errors"
	"net/http"
	"runtime"
	"sync"

	"golang.org/x/time/rate"
)

// limiter bounds what all requests hold together, places or bytes, and what those of one principal
// do.
type limiter struct {
	most  int64 // of all
	share int64 // of one principal
	// unknown is the share of the requests whose principal is not known (yet).
	unknown int64

	mu   sync.Mutex
	used int64
	by   map[string]int64 // by principal; those that hold nothing are not in it
}

func newLimiter(most, share, unknown int64) *limiter {
	return &limiter{most: most, share: max(share, 1), unknown: max(unknown, 1), by: map[string]int64{}}
}

// acquire takes n for a principal, "" where it is not known. It never waits: it gives errBusy where
// all have too much, and errShare where the principal has.
func (l *limiter) acquire(principal string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used+n > l.most {
		return errBusy
	}
	if err := l.fits(principal, n); err != nil {
		return err
	}
	l.used += n
	l.by[principal] += n
	return nil
}

// move gives what nobody known holds to a principal, or an error, and then it stays where it was.
func (l *limiter) move(principal string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fits(principal, n); err != nil {
		return err
	}
	l.drop("", n)
	l.by[principal] += n
	return nil
}

// release gives n back.
func (l *limiter) release(principal string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used -= n
	l.drop(principal, n)
}

// fits compares with the principal's share. mu is held.
func (l *limiter) fits(principal string, n int64) error {
	share, err := l.share, errShare
	if principal == "" {
		share, err = l.unknown, errBusy
	}
	if l.by[principal]+n > share {
		return err
	}
	return nil
}

// drop takes n from a principal's part. mu is held.
func (l *limiter) drop(principal string, n int64) {
	if l.by[principal] -= n; l.by[principal] == 0 {
		delete(l.by, principal)
	}
}

// alone reports whether no other known principal holds anything.
func (l *limiter) alone(principal string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used-l.by[""] == l.by[principal]
}

// held is what is used now.
func (l *limiter) held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// Bounds of what all requests hold together.
const (
	// mostHeld is, unless Config.JSON and Config.Held say less, for each of three: the bodies of
	// JSON requests that are under way, each byte of which counts jsonCost times; JSON answers that
	// are made and not yet taken; and the pieces of contents that are being sent, which are smaller
	// past it, and none is refused for it.
	mostHeld = 64 << 20
	// mostProbes is how many requests for /healthz and /readyz may run at one time, beside all
	// others.
	mostProbes = 64
	// mostRefused is, unless Config.Refused says less, how many refused requests may be read on at
	// one time, or wait on HTTP/2 for a window to be answered in, so that their clients see the
	// answer; and how many streams may be unsettled. Of others the connection is closed at once,
	// and on HTTP/2 the answer is a head alone.
	mostRefused = 256
	// readOn is how many bytes a second of all refused bodies together are read on, beyond a
	// second's worth at once: who sends them without end costs no more than that.
	readOn = 64 << 20
	// smallAnswer is the longest answer that does not count: it waits in net/http's own buffers.
	smallAnswer = 4 << 10
	// longAnswer is what an answer counts for before its length is known: a page ends at about half
	// of that.
	longAnswer = 512 << 10
)

// limits are the server's. One principal has at most half of the requests, and three quarters of
// the bytes; requests whose principal is not known have a quarter.
type limits struct {
	places, probes, lingers *limiter // requests
	text, pieces, answers   *limiter // bytes
	computing               *fairQueue
	refusedBodies           *rate.Limiter // bytes that are read on
}

func newLimits(requests, text, held, refused int64) limits {
	places := newLimiter(requests, requests/2, requests/4)
	return limits{
		places:  places,
		probes:  newLimiter(mostProbes, 0, mostProbes),
		lingers: newLimiter(refused, 0, refused),
		text:    newLimiter(text, text/4*3, 0),
		pieces:  newLimiter(held, held/4*3, 0),
		answers: newLimiter(held, held/4*3, held/4),

		computing:     newFairQueue(runtime.GOMAXPROCS(0), places.alone),
		refusedBodies: rate.NewLimiter(readOn, readOn),
	}
}

// holds is what one request has of the limits.
type holds struct {
	place   *limiter // nil: none
	holder  string   // the principal that it counts for
	conn    *conn    // that has the place; nil: none
	text    int64
	answer  int64
	compute func() // ends that it computes; nil: it does not
	waits   bool   // it has a place among those that wait for their clients, which is counted for conn
}

// probe reports whether a request asks how the server is. It has a place when no other request gets
// one.
func probe(r *http.Request) bool { return r.URL.Path == "/healthz" || r.URL.Path == "/readyz" }

// enter gives the request a place, or an error at once.
func (s *Server) enter(c *call) error {
	place := s.limits.places
	conn := connOf(c.req)
	if conn != nil && conn.spare {
		c.Header().Set("Connection", "close") // one that has been answered makes room, over HTTP/2 too
	}
	if probe(c.req) {
		place = s.limits.probes
	} else if conn != nil && conn.spare {
		return errCrowded
	}
	if err := place.acquire("", 1); err != nil {
		s.refused.requests.Add(1)
		return err
	}
	c.holds.place = place
	if c.holds.conn = conn; conn != nil {
		conn.works(1)
	}
	return nil
}

// own makes the request's place its principal's.
func (s *Server) own(c *call) error {
	if err := s.limits.places.move(c.caller.Principal, 1); err != nil {
		s.refused.principal.Add(1)
		return err
	}
	c.holds.holder = c.caller.Principal
	if c.holds.conn != nil {
		c.holds.conn.of.owned(c.holds.conn, c.holds.holder)
	}
	return nil
}

// chargeJSON gives the charge for the body of a request.
func (s *Server) chargeJSON(c *call) func(n int64) error {
	return func(n int64) error {
		if err := s.limits.text.acquire(c.holds.holder, n); err != nil {
			s.refused.text.Add(1)
			return err
		}
		c.holds.text += n
		return nil
	}
}

// compute waits until the caller's request may compute. It ends with computed, at the latest when
// the request leaves.
func (s *Server) compute(c *call) error {
	leave, err := s.limits.computing.enter(c.req.Context(), c.holds.holder)
	switch {
	case errors.Is(err, errShare):
		s.refused.principal.Add(1)
	case errors.Is(err, errBusy):
		s.refused.requests.Add(1)
	}
	if err != nil {
		return err
	}
	c.holds.compute = leave
	return nil
}

// computed lets others compute.
func computed(c *call) {
	if c.holds.compute != nil {
		c.holds.compute()
		c.holds.compute = nil
	}
}

// reserve counts n bytes of an answer before they are made.
func (s *Server) reserve(c *call, n int64) error {
	if err := s.limits.answers.acquire(c.holds.holder, n); err != nil {
		s.refused.answers.Add(1)
		return err
	}
	c.holds.answer += n
	return nil
}

// made counts an answer for what it has become. It is sent also where it is longer than was
// thought: what it tells of is done.
func (s *Server) made(c *call, n int) {
	more := int64(n) - c.holds.answer
	if n <= smallAnswer {
		more = -c.holds.answer
	}
	if more < 0 {
		s.limits.answers.release(c.holds.holder, -more)
	} else if more == 0 || s.limits.answers.acquire(c.holds.holder, more) != nil {
		return
	}
	c.holds.answer += more
}

// leave gives back what the request holds. It may be called again.
func (s *Server) leave(c *call) {
	computed(c)
	if c.holds.place != nil {
		c.holds.place.release(c.holds.holder, 1)
	}
	switch {
	case c.holds.conn != nil && c.holds.waits:
		c.holds.conn.meter.streams.placed(-1)
	case c.holds.conn != nil:
		c.holds.conn.works(-1)
	}
	if c.holds.text > 0 {
		s.limits.text.release(c.holds.holder, c.holds.text)
	}
	if c.holds.answer > 0 {
		s.limits.answers.release(c.holds.holder, c.holds.answer)
	}
	c.holds = holds{}
}

// linger gives up the place of a request for one among those that wait for their clients: to take
// the answer, or to end the body. Past so many the answer of a request on HTTP/2, where it is not
// made yet, is a head alone, which needs no window.
func (s *Server) linger(c *call) {
	s.leave(c)
	if s.limits.lingers.acquire("", 1) != nil {
		c.short = c.req.ProtoMajor >= 2
		return
	}
	c.holds.place, c.holds.waits = s.limits.lingers, true
	if conn := connOf(c.req); conn != nil && conn.meter.on() {
		c.holds.conn = conn
		conn.meter.streams.placed(1)
	}
}
