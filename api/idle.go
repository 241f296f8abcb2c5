package api

import (
	"time"

	"sluice/internal/httpwire"
)

// idleTimeout is how long a connection may go without a request.
const idleTimeout = 2 * time.Minute

// setIdle notes whether the connection has no request. listener.mu is held.
//
// http.Server.IdleTimeout is not set. When an HTTP/2 connection ends that has streams, net/http
// starts its idle timer again. For the length of the timeout, the timer then keeps everything that
// the connection had, its unsent answers too.
func (c *conn) setIdle(yes bool) {
	if c.idleSince = (time.Time{}); !yes {
		return
	}
	c.idleSince, c.http2 = c.listener.machine.now(), c.flow.isHTTP2()
	if c.idleTimer == nil { // else expire starts it again
		c.idleTimer = time.AfterFunc(idleTimeout, c.expire)
	}
}

// expire closes the connection if it has been idle for idleTimeout. If it has not, expire runs
// again later.
func (c *conn) expire() {
	c.listener.mu.Lock()
	expired := false
	switch idle := c.listener.machine.since(c.idleSince); {
	case !c.counted:
	case c.idleSince.IsZero():
		c.idleTimer = nil
	case idle < idleTimeout:
		c.idleTimer.Reset(idleTimeout - idle)
	default:
		expired = true
		c.listener.uncount(c)
	}
	http2 := c.http2
	c.listener.mu.Unlock()
	if !expired {
		return
	}
	if http2 {
		_ = c.Conn.SetWriteDeadline(c.listener.machine.now().Add(time.Second))
		_, _ = c.Conn.Write(c.flow.streams.goAway())
	}
	c.Close()
}

// goAway makes a GOAWAY frame (RFC 9113, section 6.8). It names the newest stream that has come. So
// the client knows that it may repeat what it has sent on newer ones.
func (s *streams) goAway() []byte {
	s.takeNoMore()
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return httpwire.GoAway(s.newest)
}
