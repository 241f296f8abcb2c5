package api

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// limitedListener is a listener that keeps at most max connections open. One that comes beyond
// takes the place of another one:
//
//  1. that is idle longest, a second at least;
//  2. or has longest been without a running request otherwise, minWaiting at least: its head does
//     not end, say, or its refused body is read on;
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
type limitedListener struct {
	net.Listener
	max      int64
	reserved int64 // may be open beyond max
	unread   *unreadBytes
	pending  *pendingStreams // streams
	maxHead  int64           // how many bytes a head may have
	minRate  minRate         // of answers
	count    *counters
	machine  machine
	refusals chan struct{} // bounds the refusals that are under way
	wg       sync.WaitGroup

	mu             sync.Mutex
	open           int64            // of the bound
	openReserved   int64            // beyond it
	byPrincipal    map[string]int64 // of the bound, by the principal of the newest request; "": none is known
	idle           queue            // between two requests
	waiting        queue            // no request of theirs has a place, and they are not idle
	reservedSilent queue            // beyond the bound, and no request of theirs has a place
	reservedAsked  queue            // beyond the bound, and have asked, but not been answered
}

const (
	// maxRefusals is how many refusals may be under way at one time, each for refuseTimeout at
	// most.
	maxRefusals   = 64
	refuseTimeout = time.Second
	// maxReserved is how many connections may be open beyond the bound, and where that is small
	// minReserved and a quarter of it. A supervisor's question has come and is answered before so
	// many others come, also in a flood. Package budget counts them.
	maxReserved, minReserved = 32, 8
	// minIdle and minWaiting are how long a connection of the bound is let alone that is idle, or
	// has no running request although it is not idle.
	minIdle, minWaiting = time.Second, 100 * time.Millisecond
	// maxScan is how many of a queue's first connections are looked at for one whose principal has
	// many.
	maxScan = 64
)

// limitListener makes conns of what l accepts; with max 0 as many as come. What they send and
// nobody reads is counted in unread, the streams of HTTP/2 that begin in begun, and what nobody
// takes is held to the pace.
func limitListener(l net.Listener, max int64, unread *unreadBytes, pending *pendingStreams, rate minRate, count *counters, m machine) *limitedListener {
	return &limitedListener{
		Listener: l, max: max, reserved: min(max/4+minReserved, maxReserved), unread: unread, pending: pending, minRate: rate, count: count, machine: m,
		refusals: make(chan struct{}, maxRefusals), byPrincipal: map[string]int64{},
	}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := l.conn(raw)
		if l.admit(c) {
			limitUnsent(raw, unsentBytes)
			return c, nil
		}
		l.refuse(raw, func() { raw.Close() })
	}
}

func (l *limitedListener) conn(raw net.Conn) *conn {
	return &conn{Conn: raw, listener: l, flow: flowMeter{shared: l.unread, streams: streams{shared: l.pending}}}
}

// admit counts a connection, and closes another for it where that must be.
func (l *limitedListener) admit(c *conn) bool {
	l.mu.Lock()
	var evicted *conn
	if l.max > 0 && l.open >= l.max {
		evicted = l.toEvict()
		if c.healthOnly = evicted == nil; c.healthOnly && l.openReserved >= l.reserved {
			evicted = l.toEvictReserved()
		}
	}
	if evicted != nil {
		l.uncount(evicted)
		if evicted.healthOnly {
			evicted.refusalSent = make(chan struct{})
		}
	}
	admitted := !c.healthOnly || l.openReserved < l.reserved
	if admitted {
		c.counted = true
		l.addOpen(c, 1)
		l.enqueue(c, &l.waiting)
	}
	l.mu.Unlock()
	switch {
	case evicted == nil:
	case evicted.healthOnly:
		l.refuse(evicted.Conn, func() {
			evicted.Close()
			close(evicted.refusalSent)
		})
	default:
		l.count.idle.Add(1)
		evicted.Close()
	}
	return admitted
}

// toEvict gives the connection of the bound that makes way for a newcomer; nil: there is none. mu
// is held.
func (l *limitedListener) toEvict() *conn {
	if c := l.idle.oldest(minIdle); c != nil {
		return c
	}
	if c := l.waiting.oldest(minWaiting); c != nil {
		return c
	}
	if c := l.firstOverShare(&l.idle); c != nil {
		return c
	}
	return l.firstOverShare(&l.waiting)
}

// firstOverShare gives a connection that has brought a request, and whose principal has many
// connections; nil: there is none among the first of the queue. mu is held.
func (l *limitedListener) firstOverShare(q *queue) *conn {
	c := q.first
	for i := 0; i < maxScan && c != nil; i++ {
		if c.served && l.byPrincipal[c.principal]*int64(len(l.byPrincipal)) >= l.open {
			return c
		}
		c = c.next
	}
	return nil
}

// setPrincipal notes whose request a connection has.
func (l *limitedListener) setPrincipal(c *conn, principal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.counted || c.principal == principal {
		return
	}
	l.addOpen(c, -1)
	c.principal = principal
	l.addOpen(c, 1)
}

// toEvictReserved gives the connection beyond the bound that came first and has not asked yet. mu
// is held.
func (l *limitedListener) toEvictReserved() *conn {
	for {
		c := l.reservedSilent.first
		if c == nil {
			return l.reservedAsked.oldest(minIdle)
		}
		var head [maxHealthRequest]byte
		if !isHealthRequest(head[:peek(c.Conn, head[:])]) {
			return c
		}
		l.reservedAsked.push(c) // nobody has had the time to read it
	}
}

// noteAsked notes that a connection beyond the bound has asked.
func (l *limitedListener) noteAsked(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.counted && c.places == 0 {
		l.reservedAsked.push(c)
	}
}

// reject refuses a connection beyond the bound that asks for something else than it may. Whoever
// reads from the connection calls it, and closes it next.
func (l *limitedListener) reject(c *conn) {
	l.mu.Lock()
	evicted := c.refusalSent
	l.uncount(c)
	l.mu.Unlock()
	if evicted != nil {
		<-evicted
		return
	}
	l.count.connections.Add(1)
	select {
	case l.refusals <- struct{}{}:
		answerTooMany(c.Conn, l.machine.requestID())
		<-l.refusals
	default:
	}
}

// uncount takes a connection out of the count. mu is held.
func (l *limitedListener) uncount(c *conn) {
	if c.counted {
		c.counted = false
		l.addOpen(c, -1)
		c.dequeue()
		if c.idleTimer != nil {
			c.idleTimer.Stop()
		}
	}
}

// addOpen counts a connection (1), or no longer (-1). mu is held.
func (l *limitedListener) addOpen(c *conn, n int64) {
	if c.healthOnly {
		l.openReserved += n
		return
	}
	l.open += n
	if l.byPrincipal[c.principal] += n; l.byPrincipal[c.principal] == 0 {
		delete(l.byPrincipal, c.principal)
	}
}

// enqueue puts a connection that has no running request into its queue: q, where it is within the
// bound. One beyond it keeps the turn that it has, and is the next to go once it has been answered.
// mu is held.
func (l *limitedListener) enqueue(c *conn, q *queue) {
	switch {
	case !c.healthOnly:
		q.push(c)
	case c.served:
		l.reservedSilent.pushFirst(c)
	case c.queue == nil:
		l.reservedSilent.push(c)
	}
}

// connState is an http.Server's ConnState.
func (l *limitedListener) connState(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	if state == http.StateIdle {
		c.serving.Store(false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.counted {
		return
	}
	c.setIdle(state == http.StateIdle)
	if c.places > 0 {
		return
	}
	switch state {
	case http.StateActive:
		l.enqueue(c, &l.waiting)
	case http.StateIdle:
		l.enqueue(c, &l.idle)
	}
}

// addPlaces notes that a request of a connection has a place (1), or has given it back (-1).
func (l *limitedListener) addPlaces(c *conn, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.served = true
	if c.places += n; !c.counted {
		return
	}
	if c.dequeue(); c.places == 0 {
		l.enqueue(c, &l.waiting)
	}
}

// queue has connections that may be closed for others, the longest first.
type queue struct{ first, last *conn }

// push makes a connection the last, and takes it out of the queue that it is in.
func (q *queue) push(c *conn) {
	c.dequeue()
	c.queuedAt, c.queue, c.prev, c.next = c.listener.machine.now(), q, q.last, nil
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
}

// pushFirst makes a connection the first.
func (q *queue) pushFirst(c *conn) {
	c.dequeue()
	c.queuedAt, c.queue, c.prev, c.next = c.listener.machine.now(), q, nil, q.first
	if q.first != nil {
		q.first.prev = c
	} else {
		q.last = c
	}
	q.first = c
}

// oldest gives the first where it has waited for d.
func (q *queue) oldest(d time.Duration) *conn {
	if q.first == nil || q.first.listener.machine.since(q.first.queuedAt) < d {
		return nil
	}
	return q.first
}

// dequeue takes a connection out of its queue.
func (c *conn) dequeue() {
	q := c.queue
	if q == nil {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.last = c.prev
	}
	c.queue, c.prev, c.next = nil, nil, nil
}

// Close implements net.Listener. It waits for the refusals that are under way.
func (l *limitedListener) Close() error {
	defer l.wg.Wait()
	return l.Listener.Close()
}

// refuse answers 503 on a connection while others are let in, and closes it by end. Where too many
// are refused already it is only closed.
func (l *limitedListener) refuse(c net.Conn, end func()) {
	l.count.connections.Add(1)
	select {
	case l.refusals <- struct{}{}:
		l.wg.Go(func() {
			answerTooMany(c, l.machine.requestID())
			end()
			<-l.refusals
		})
	default:
		end()
	}
}

// answerTooMany says so, and reads on for a moment: a connection that is closed with unread bytes
// takes its answer along.
func answerTooMany(c net.Conn, id string) {
	late := time.AfterFunc(refuseTimeout, func() { c.Close() }) // others may set its deadlines
	defer late.Stop()
	if _, err := c.Write(problemText(problemOf(errTooManyConns, id, nil), id)); err != nil {
		return
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}
