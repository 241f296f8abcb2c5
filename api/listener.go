package api

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// bounded is a listener that keeps at most max connections open. One that comes beyond takes the
// place of another one:
//
//  1. that is idle longest, a second at least;
//  2. or has longest been without a running request otherwise, waitsFor at least: its head does not
//     end, say, or its refused body is read on;
//  3. or is idle for less, and its principal has as many connections as principals have on an
//     average;
//  4. or is without a running request for less, since one was refused, and its principal has as
//     many.
//
// So a flood does not close the connections that a client with few of them works on. Where there is
// none, a few more are taken that may only ask for /healthz and /readyz, each until its first bytes
// ask for something else, or until as many have come after it and it has not asked. All others are
// answered 503 and closed, so that the stores never lack the descriptors that they need, and the
// client knows that it is to come again.
type bounded struct {
	net.Listener
	max     int64
	spare   int64 // may be open beyond max
	unread  *backlog
	begun   *unsettled // streams
	head    int64      // how many bytes a head may have
	pace    pace       // of answers
	count   *counters
	machine machine
	slots   chan struct{} // bounds the refusals that are under way
	wg      sync.WaitGroup

	mu    sync.Mutex
	open  int64            // of the bound
	over  int64            // beyond it
	by    map[string]int64 // of the bound, by the principal of the newest request; "": none is known
	idle  queue            // between two requests
	waits queue            // no request of theirs has a place, and they are not idle
	fresh queue            // beyond the bound, and no request of theirs has a place
	asks  queue            // beyond the bound, and have asked, but not been answered
}

const (
	// refusing is how many refusals may be under way at one time, each for refuseFor at most.
	refusing  = 64
	refuseFor = time.Second
	// mostSpare is how many connections may be open beyond the bound, and where that is small
	// leastSpare and a quarter of it. A supervisor's question has come and is answered before so
	// many others come, also in a flood. Package budget counts them.
	mostSpare, leastSpare = 32, 8
	// restsFor and waitsFor are how long a connection of the bound is let alone that is idle, or
	// has no running request although it is not idle.
	restsFor, waitsFor = time.Second, 100 * time.Millisecond
	// looksAt is how many of a queue's first connections are looked at for one whose principal has
	// many.
	looksAt = 64
)

// bound makes conns of what l accepts; with max 0 as many as come. What they send and nobody reads
// is counted in unread, the streams of HTTP/2 that begin in begun, and what nobody takes is held to
// the pace.
func bound(l net.Listener, max int64, unread *backlog, begun *unsettled, p pace, count *counters, m machine) *bounded {
	return &bounded{
		Listener: l, max: max, spare: min(max/4+leastSpare, mostSpare), unread: unread, begun: begun, pace: p, count: count, machine: m,
		slots: make(chan struct{}, refusing), by: map[string]int64{},
	}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		raw, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := b.conn(raw)
		if b.admit(c) {
			limitUnsent(raw, unsentBytes)
			return c, nil
		}
		b.refuse(raw, func() { raw.Close() })
	}
}

func (b *bounded) conn(raw net.Conn) *conn {
	return &conn{Conn: raw, of: b, meter: meter{all: b.unread, streams: streams{all: b.begun}}}
}

// admit counts a connection, and closes another for it where that must be.
func (b *bounded) admit(c *conn) bool {
	b.mu.Lock()
	var out *conn
	if b.max > 0 && b.open >= b.max {
		out = b.restful()
		if c.spare = out == nil; c.spare && b.over >= b.spare {
			out = b.silent()
		}
	}
	if out != nil {
		b.drop(out)
		if out.spare {
			out.refused = make(chan struct{})
		}
	}
	taken := !c.spare || b.over < b.spare
	if taken {
		c.counted = true
		b.tally(c, 1)
		b.rest(c, &b.waits)
	}
	b.mu.Unlock()
	switch {
	case out == nil:
	case out.spare:
		b.refuse(out.Conn, func() {
			out.Close()
			close(out.refused)
		})
	default:
		b.count.idle.Add(1)
		out.Close()
	}
	return taken
}

// restful gives the connection of the bound that makes way for a newcomer; nil: there is none. mu
// is held.
func (b *bounded) restful() *conn {
	if c := b.idle.eldest(restsFor); c != nil {
		return c
	}
	if c := b.waits.eldest(waitsFor); c != nil {
		return c
	}
	if c := b.manys(&b.idle); c != nil {
		return c
	}
	return b.manys(&b.waits)
}

// manys gives a connection that has brought a request, and whose principal has many connections;
// nil: there is none among the first of the queue. mu is held.
func (b *bounded) manys(q *queue) *conn {
	c := q.first
	for i := 0; i < looksAt && c != nil; i++ {
		if c.served && b.by[c.principal]*int64(len(b.by)) >= b.open {
			return c
		}
		c = c.next
	}
	return nil
}

// owned notes whose request a connection has.
func (b *bounded) owned(c *conn, principal string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.counted || c.principal == principal {
		return
	}
	b.tally(c, -1)
	c.principal = principal
	b.tally(c, 1)
}

// silent gives the connection beyond the bound that came first and has not asked yet. mu is held.
func (b *bounded) silent() *conn {
	for {
		c := b.fresh.first
		if c == nil {
			return b.asks.eldest(restsFor)
		}
		var said [longestQuestion]byte
		if !question(said[:peek(c.Conn, said[:])]) {
			return c
		}
		b.asks.push(c) // nobody has had the time to read it
	}
}

// asked notes that a connection beyond the bound has asked.
func (b *bounded) asked(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.counted && c.places == 0 {
		b.asks.push(c)
	}
}

// dismiss refuses a connection beyond the bound that asks for something else than it may. Whoever
// reads from the connection calls it, and closes it next.
func (b *bounded) dismiss(c *conn) {
	b.mu.Lock()
	evicted := c.refused
	b.drop(c)
	b.mu.Unlock()
	if evicted != nil {
		<-evicted
		return
	}
	b.count.connections.Add(1)
	select {
	case b.slots <- struct{}{}:
		crowded(c.Conn, b.machine.requestID())
		<-b.slots
	default:
	}
}

// drop takes a connection out of the count. mu is held.
func (b *bounded) drop(c *conn) {
	if c.counted {
		c.counted = false
		b.tally(c, -1)
		c.leave()
		if c.expires != nil {
			c.expires.Stop()
		}
	}
}

// tally counts a connection (1), or no longer (-1). mu is held.
func (b *bounded) tally(c *conn, n int64) {
	if c.spare {
		b.over += n
		return
	}
	b.open += n
	if b.by[c.principal] += n; b.by[c.principal] == 0 {
		delete(b.by, c.principal)
	}
}

// rest puts a connection that has no running request into its queue: q, where it is within the
// bound. One beyond it keeps the turn that it has, and is the next to go once it has been answered.
// mu is held.
func (b *bounded) rest(c *conn, q *queue) {
	switch {
	case !c.spare:
		q.push(c)
	case c.served:
		b.fresh.pushFirst(c)
	case c.in == nil:
		b.fresh.push(c)
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
	c.idles(state == http.StateIdle)
	if c.places > 0 {
		return
	}
	switch state {
	case http.StateActive:
		b.rest(c, &b.waits)
	case http.StateIdle:
		b.rest(c, &b.idle)
	}
}

// works notes that a request of a connection has a place (1), or has given it back (-1).
func (b *bounded) works(c *conn, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.served = true
	if c.places += n; !c.counted {
		return
	}
	if c.leave(); c.places == 0 {
		b.rest(c, &b.waits)
	}
}

// queue has connections that may be closed for others, the longest first.
type queue struct{ first, last *conn }

// push makes a connection the last, and takes it out of the queue that it is in.
func (q *queue) push(c *conn) {
	c.leave()
	c.since, c.in, c.before, c.next = c.of.machine.now(), q, q.last, nil
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
}

// pushFirst makes a connection the first.
func (q *queue) pushFirst(c *conn) {
	c.leave()
	c.since, c.in, c.before, c.next = c.of.machine.now(), q, nil, q.first
	if q.first != nil {
		q.first.before = c
	} else {
		q.last = c
	}
	q.first = c
}

// eldest gives the first where it has waited for d.
func (q *queue) eldest(d time.Duration) *conn {
	if q.first == nil || q.first.of.machine.since(q.first.since) < d {
		return nil
	}
	return q.first
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

// refuse answers 503 on a connection while others are let in, and closes it by end. Where too many
// are refused already it is only closed.
func (b *bounded) refuse(c net.Conn, end func()) {
	b.count.connections.Add(1)
	select {
	case b.slots <- struct{}{}:
		b.wg.Go(func() {
			crowded(c, b.machine.requestID())
			end()
			<-b.slots
		})
	default:
		end()
	}
}

// crowded says so, and reads on for a moment: a connection that is closed with unread bytes takes
// its answer along.
func crowded(c net.Conn, id string) {
	late := time.AfterFunc(refuseFor, func() { c.Close() }) // others may set its deadlines
	defer late.Stop()
	if _, err := c.Write(problemText(problemOf(errCrowded, id, nil), id)); err != nil {
		return
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}
