package api

import (
	"time"

	"sluice/internal/httpwire"
)

// idleFor is how long a connection may go without a request.
const idleFor = 2 * time.Minute

// idles notes that the connection has no request any more, or that it has one. of.mu is held.
//
// http.Server.IdleTimeout is not set. When an HTTP/2 connection ends that has streams, net/http
// starts its idle timer again. The timer then keeps all that the connection had, its unsent answers
// too, for as long as the timeout is.
func (c *conn) idles(yes bool) {
	if c.idleSince = (time.Time{}); !yes {
		return
	}
	c.idleSince, c.frames = c.of.machine.now(), c.meter.on()
	if c.expires == nil { // else it looks when it fires
		c.expires = time.AfterFunc(idleFor, c.expire)
	}
}

// expire closes the connection if it has been idle for idleFor. If it has not, it looks again
// later.
func (c *conn) expire() {
	c.of.mu.Lock()
	late := false
	switch idle := c.of.machine.since(c.idleSince); {
	case !c.counted:
	case c.idleSince.IsZero():
		c.expires = nil
	case idle < idleFor:
		c.expires.Reset(idleFor - idle)
	default:
		late = true
		c.of.drop(c)
	}
	frames := c.frames
	c.of.mu.Unlock()
	if !late {
		return
	}
	if frames {
		_ = c.Conn.SetWriteDeadline(c.of.machine.now().Add(time.Second))
		_, _ = c.Conn.Write(c.meter.streams.farewell())
	}
	c.Close()
}

// farewell gives a GOAWAY frame (RFC 9113, section 6.8). It names the newest stream that has come,
// so the client knows that it may repeat what it has sent on newer ones.
func (s *streams) farewell() []byte {
	s.leaves()
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return httpwire.GoAway(s.last)
}
