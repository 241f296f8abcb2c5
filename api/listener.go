package api

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// limitedListener is a listener that keeps at most max connections open. A connection beyond that
// takes the place of another one, the first of these:
//
//  1. the one that is idle longest, if that is a second at least;
//  2. the one that has longest been without a running request otherwise, for minWaiting at least:
//     its head does not end, say, or its refused body is read on;
//  3. one that is idle for less, if its principal has at least the average number of connections;
//  4. one that is without a running request for less, after a refusal, if its principal has as
//     many.
//
// So a flood does not close the connections that a client with few of them works on. If there is
// none, reserved more are taken, which may only ask for /healthz and /readyz. Each of them stays
// until its first bytes ask for something else, or until as many newer ones have come before it
// asks.
// All others are answered 503 and closed. So the stores never lack the descriptors that they need,
// and the client knows that it is to come again.
type limitedListener struct {
	net.Listener
	max      int64
	reserved int64 // how many may be open beyond max
	unread   *unreadBytes
	pending  *pendingStreams // of all connections
	maxHead  int64           // bytes that a head may have
	minRate  minRate         // of answers
	count    *counters
	machine  machine
	refusals chan struct{} // bounds the refusals under way
	wg       sync.WaitGroup

	mu             sync.Mutex
	open           int64            // connections within the bound
	openReserved   int64            // connections beyond it
	byPrincipal    map[string]int64 // of open, by the principal of the newest request; "": none is known
	idle           queue            // of connections between two requests
	waiting        queue            // of those that are not idle, and whose requests have no slot
	reservedSilent queue            // beyond the bound; no request has a slot
	reservedAsked  queue            // beyond the bound; a request has come, and no answer yet
}

const (
	// maxRefusals is how many refusals may be under way at one time. Each takes refuseTimeout at
	// most.
	maxRefusals   = 64
	refuseTimeout = time.Second
	// maxReserved is how many connections may be open beyond the bound. If the bound is small, it
	// is minReserved and a quarter of the bound. Even in a flood, a supervisor's request has come
	// and is answered before so many others come. Package budget counts these connections.
	maxReserved, minReserved = 32, 8
	// minIdle and minWaiting are how long a connection within the bound stays in any case: one that
	// is idle, and one that is not idle but has no running request.
	minIdle, minWaiting = time.Second, 100 * time.Millisecond
	// maxScan is how many connections of a queue are looked at for one whose principal has many.
	maxScan = 64
)

// limitListener makes conns of the connections that l accepts, as many as come if max is 0. unread
// counts the bytes that clients send and nobody reads. pending counts the streams of HTTP/2 that
// begin. Answers are held to the rate.
func limitListener(
	l net.Listener, max int64, unread *unreadBytes, pending *pendingStreams, rate minRate, count *counters, m machine,
) *limitedListener {
	return &limitedListener{
		Listener: l, max: max, reserved: min(max/4+minReserved, maxReserved), unread: unread, pending: pending,
		minRate: rate, count: count, machine: m,
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

// admit counts a connection, and evicts another for it if it must.
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

// toEvict returns the connection within the bound that makes way for a newcomer; nil: there is
// none. mu is held.
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

// firstOverShare returns a connection that has brought a request and whose principal has many
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

// setPrincipal sets the principal of a connection's newest request.
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

// toEvictReserved returns the oldest connection beyond the bound that has not asked yet. mu is
// held.
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
		l.reservedAsked.push(c) // net/http has not had the time to read it
	}
}

// noteAsked notes that a request has come on a connection beyond the bound.
func (l *limitedListener) noteAsked(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.counted && c.slots == 0 {
		l.reservedAsked.push(c)
	}
}

// reject refuses a connection beyond the bound that asks for something else than health. The
// goroutine that reads from the connection calls it, and closes it next.
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

// uncount takes a connection out of the counts. mu is held.
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

// addOpen adds a connection to the counts (1), or takes it out (-1). mu is held.
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

// enqueue puts a connection that has no running request into its queue: q, if it is within the
// bound. One beyond the bound keeps its position, and is the next to go once it has been answered.
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
	if c.slots > 0 {
		return
	}
	switch state {
	case http.StateActive:
		l.enqueue(c, &l.waiting)
	case http.StateIdle:
		l.enqueue(c, &l.idle)
	}
}

// addSlots notes that a request of a connection has got a slot (1), or has given it back (-1).
func (l *limitedListener) addSlots(c *conn, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.served = true
	if c.slots += n; !c.counted {
		return
	}
	if c.dequeue(); c.slots == 0 {
		l.enqueue(c, &l.waiting)
	}
}

// queue has connections that may be evicted, the oldest first.
type queue struct{ first, last *conn }

// push makes a connection the last, and takes it out of its former queue.
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

// pushFirst makes a connection the first, and takes it out of its former queue.
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

// oldest returns the first connection if it has waited for d.
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

// refuse answers 503 on a connection while others are accepted, and closes it by end. If too many
// refusals are under way, it only closes it.
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

// answerTooMany answers 503, and reads on for a moment: if a connection is closed with unread
// bytes, its answer is lost.
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
