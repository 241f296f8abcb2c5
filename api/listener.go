package api

import (
	"cmp"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// bounded is a listener that keeps at most max connections open. What comes beyond is answered 503 at once and closed, so that the stores never lack
// the descriptors that they need, and the client knows that it is to come again.
type bounded struct {
	net.Listener
	max    int64
	unread *backlog
	open   atomic.Int64
	slots  chan struct{} // bounds the refusals that are under way
	wg     sync.WaitGroup
}

// refusing is how many refusals may be under way at one time, each for refuseFor at most.
const (
	refusing  = 64
	refuseFor = time.Second
)

// full is the answer: to a client that speaks another protocol the closing says enough.
const full = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 154\r\n\r\n" +
	`{"type":"/problems/unavailable","title":"Temporarily unavailable","status":503,"code":"Unavailable","detail":"too many connections","retry_after_ms":1000}`

// bound makes conns of what l accepts; with max 0 as many as come. What they send and nobody reads is counted in unread.
func bound(l net.Listener, max int64, unread *backlog) net.Listener {
	return &bounded{Listener: l, max: max, unread: unread, slots: make(chan struct{}, refusing)}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.open.Add(1) <= b.max || b.max <= 0 {
			return &conn{Conn: c, meter: meter{all: b.unread}, done: sync.OnceFunc(func() { b.open.Add(-1) })}, nil
		}
		b.open.Add(-1)
		select {
		case b.slots <- struct{}{}:
			b.wg.Go(func() {
				refuse(c)
				<-b.slots
			})
		default:
			c.Close()
		}
	}
}

// Close implements net.Listener. It waits for the refusals that are under way.
func (b *bounded) Close() error {
	defer b.wg.Wait()
	return b.Listener.Close()
}

// refuse answers, and reads on for a moment: a connection that is closed with unread bytes takes its answer along.
func refuse(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refuseFor))
	if _, err := io.WriteString(c, full); err != nil {
		return
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}

// conn is a connection that is counted until it is closed, and whose requests' framing and backlog are looked at.
type conn struct {
	net.Conn
	done    func()
	framing framing
	meter   meter
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	c.meter.wait()
	n, err := c.Conn.Read(p)
	if !c.meter.on() {
		c.framing.saw(p[:n])
	}
	return n, cmp.Or(c.meter.came(p[:n]), err)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.meter.writes(p) // before the client has it, and sends more
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.done()
	defer c.meter.close()
	return c.Conn.Close()
}

// CloseWrite lets net/http end its side first: what closes with unread bytes takes its answer along.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
