package api

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// bounded is a listener that keeps at most max connections open. One that comes beyond takes the place of the one that is idle longest. Where none is, a few more
// are taken that may only ask for /healthz and /readyz; the others are answered 503 at once and closed, so that the stores never lack the descriptors
// that they need, and the client knows that it is to come again.
type bounded struct {
	net.Listener
	max    int64
	unread *backlog
	pace   pace // of answers
	count  *counters
	slots  chan struct{} // bounds the refusals that are under way
	wg     sync.WaitGroup

	mu    sync.Mutex
	open  int64
	idle  queue // between two requests
	fresh queue // beyond the bound, and nothing was asked yet
}

const (
	// refusing is how many refusals may be under way at one time, each for refuseFor at most.
	refusing  = 64
	refuseFor = time.Second
	// mostSpare is how many connections may be open beyond the bound.
	mostSpare = 16
	// freshFor is how long one of these that has not asked for anything is let alone.
	freshFor = 2 * time.Second
)

// bound makes conns of what l accepts; with max 0 as many as come. What they send and nobody reads is counted in unread, and what nobody takes is held to the pace.
func bound(l net.Listener, max int64, unread *backlog, p pace, count *counters) *bounded {
	return &bounded{Listener: l, max: max, unread: unread, pace: p, count: count, slots: make(chan struct{}, refusing)}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		raw, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, of: b, meter: meter{all: b.unread}}
		if b.admit(c) {
			return c, nil
		}
		b.count.connections.Add(1)
		select {
		case b.slots <- struct{}{}:
			b.wg.Go(func() {
				refuse(raw)
				<-b.slots
			})
		default:
			raw.Close()
		}
	}
}

// admit counts a connection, and closes another for it where that must be.
func (b *bounded) admit(c *conn) bool {
	b.mu.Lock()
	var out *conn
	if b.max > 0 && b.open >= b.max {
		if out = b.idle.first; out == nil && b.open >= b.max+mostSpare && b.fresh.first != nil && time.Since(b.fresh.first.since) >= freshFor {
			out = b.fresh.first
		}
	}
	if out != nil {
		b.drop(out)
	}
	c.spare = b.max > 0 && b.open >= b.max
	taken := !c.spare || b.open < b.max+mostSpare
	if taken {
		b.open++
		c.counted = true
		if c.spare {
			b.fresh.push(c)
		}
	}
	b.mu.Unlock()
	if out != nil {
		b.count.idle.Add(1)
		out.Close()
	}
	return taken
}

// drop takes a connection out of the count. mu is held.
func (b *bounded) drop(c *conn) {
	if c.counted {
		c.counted = false
		b.open--
		c.leave()
	}
}

// state is an http.Server's ConnState.
func (b *bounded) state(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	if state == http.StateIdle {
		c.serving.Store(false)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.counted {
		return
	}
	switch state {
	case http.StateActive:
		c.leave()
	case http.StateIdle:
		c.leave()
		b.idle.push(c)
	}
}

// queue has connections that may be closed for others, the longest first.
type queue struct{ first, last *conn }

func (q *queue) push(c *conn) {
	c.since, c.in, c.before, c.next = time.Now(), q, q.last, nil
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
}

// leave takes a connection out of its queue.
func (c *conn) leave() {
	q := c.in
	if q == nil {
		return
	}
	if c.before != nil {
		c.before.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.before = c.before
	} else {
		q.last = c.before
	}
	c.in, c.before, c.next = nil, nil, nil
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
	id := newRequestID()
	if _, err := c.Write(problemText(problemOf(errCrowded, id, nil), id)); err != nil {
		return
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}
