package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// linkShape says what a simulated link gives.
type linkShape struct {
	bits  float64       // a second each way, of all connections together
	delay time.Duration // there and back
	slow  float64       // of its second connection, in bits a second; 0: as the others
}

func (s linkShape) String() string {
	rate := fmt.Sprintf("%g Mbit/s", s.bits/1e6)
	if s.bits >= 1e9 {
		rate = fmt.Sprintf("%g Gbit/s", s.bits/1e9)
	}
	if s.slow > 0 {
		return fmt.Sprintf("%s, %d ms, one connection with %g", rate, s.delay.Milliseconds(), s.slow/1e6)
	}
	return fmt.Sprintf("%s, %d ms", rate, s.delay.Milliseconds())
}

// link is a relay before a server, as slow and as far as its shape says. It takes bytes from a
// client at the rate, keeps them for the delay, and passes them on. The bytes under way are bounded
// by rate × delay and a little, so that a client waits for it as for a real link. It has no loss,
// and no slow start of TCP over a long way.
type link struct {
	linkShape
	to string
	l  net.Listener
	wg sync.WaitGroup

	up, down wire

	mu    sync.Mutex
	conns []net.Conn
	shut  bool
}

// wire is one way of the link.
type wire struct {
	mu   sync.Mutex
	next time.Time // when it is free
}

func newLink(s linkShape, to string) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{linkShape: s, to: to, l: l}
	k.wg.Go(k.accept)
	return k, nil
}

func (k *link) addr() string { return k.l.Addr().String() }

// close ends the link and all of its connections, and returns when they have.
func (k *link) close() {
	_ = k.l.Close()
	k.mu.Lock()
	k.shut = true
	for _, c := range k.conns {
		_ = c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
}

func (k *link) accept() {
	for n := 0; ; n++ {
		near, err := k.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", k.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		k.mu.Lock()
		if k.conns = append(k.conns, near, far); k.shut {
			_ = near.Close()
			_ = far.Close()
		}
		k.mu.Unlock()
		// The link's own buffers must not swallow bytes that the link can't carry.
		for _, c := range []net.Conn{near, far} {
			_ = c.(*net.TCPConn).SetReadBuffer(256 << 10)
		}
		own := k.bits
		if k.slow > 0 && n == 1 {
			own = k.slow
		}
		k.wg.Go(func() { k.carry(far, near, &k.up, own) })
		k.wg.Go(func() { k.carry(near, far, &k.down, own) })
	}
}

const (
	// piece is how many bytes are taken at a time. It is small, so that connections share the wire
	// fairly.
	piece = 16 << 10
	// ahead is how far ahead of the time the wire may be given away before a taker waits. Timers
	// are late by some of it.
	ahead = 3 * time.Millisecond
)

type packet struct {
	b  []byte
	at time.Time // when it arrives
}

// carry takes bytes one way until they end; own is the connection's rate.
func (k *link) carry(to, from net.Conn, w *wire, own float64) {
	way := make(chan packet, 64+int(k.bits/8*k.delay.Seconds()/2/piece))
	k.wg.Go(func() {
		var failed error
		for p := range way {
			time.Sleep(time.Until(p.at))
			if failed == nil {
				_, failed = to.Write(p.b)
			}
		}
		if c, ok := to.(*net.TCPConn); ok {
			_ = c.CloseWrite()
		}
		if failed != nil {
			_ = from.Close()
		}
	})
	defer close(way)
	var ownFree time.Time
	for {
		b := make([]byte, piece)
		n, err := from.Read(b)
		if n > 0 {
			leaves := w.slot(n, k.bits, own, &ownFree)
			way <- packet{b[:n], leaves.Add(k.delay / 2)}
			time.Sleep(time.Until(leaves) - ahead)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			return
		}
	}
}

// slot gives the time at which n bytes have left: after those before them on the wire, and on their
// connection.
func (w *wire) slot(n int, bits, own float64, ownFree *time.Time) time.Time {
	at := func(free time.Time, rate float64) time.Time {
		if now := time.Now(); free.Before(now) {
			free = now
		}
		return free.Add(time.Duration(float64(n) * 8 / rate * 1e9))
	}
	*ownFree = at(*ownFree, own)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = at(w.next, bits)
	if ownFree.After(w.next) {
		return *ownFree
	}
	return w.next
}
