package api

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A request for health that has come is not forgotten for newcomers, however long it takes until
// somebody reads it. But there are no more of these than of others, and a connection that has only
// begun to ask makes way.
func TestAQuestionThatHasComeIsKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := limitListener(
		l, 1, newUnreadBytes(maxUnread), newPendingStreams(maxRefused, 100, time.Now), newMinRate(1<<10, time.Second),
		&counters{}, testMachine,
	)
	defer b.Close()
	dial := func(said string) *conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		got, err := b.Listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s := b.conn(got)
		t.Cleanup(func() { s.Close() })
		b.admit(s)
		return s
	}
	busy := dial("")
	b.addSlots(busy, 1)
	const question = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	begun, unread, read := dial(question[:20]), dial(question), dial(question)
	if _, err := read.Read(make([]byte, 14)); err != nil {
		t.Fatal(err)
	}
	b.connState(read, http.StateActive)
	for range 2 * minReserved {
		dial("")
	}
	for range 2 * minReserved {
		dial(question[:20])
	}
	for c, want := range map[*conn]bool{busy: true, begun: false, unread: true, read: true} {
		b.mu.Lock()
		if c.counted != want {
			t.Errorf(
				"one is kept: %v, want %v (busy %v, begun %v, unread %v)", c.counted, want, c == busy, c == begun,
				c == unread,
			)
		}
		b.mu.Unlock()
	}
	for range 2 * minReserved {
		dial(question)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openReserved != minReserved || b.open != 1 {
		t.Errorf("%d connections, and %d beyond the bound", b.open, b.openReserved)
	}
}

// The system keeps little unsent, until the client has shown that it reads.
func TestTheSystemKeepsLittleForWhoReadsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := limitListener(
		l, 10, newUnreadBytes(maxUnread), newPendingStreams(maxRefused, 100, time.Now), newMinRate(1<<10, time.Second),
		&counters{}, testMachine,
	)
	defer b.Close()
	small, large := make(chan *conn, 1), make(chan *conn, 1)
	go func() {
		for _, to := range []chan *conn{small, large} {
			if c, err := b.Accept(); err == nil {
				to <- c.(*conn)
			}
		}
	}()
	fill := func(c *conn) (n int) {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			k, err := c.Conn.Write(make([]byte, 64<<10))
			if n += k; err != nil {
				return n
			}
		}
	}
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
	}
	one, two := <-small, <-large
	defer one.Close()
	defer two.Close()
	(&call{req: httptest.NewRequest("GET", "/", nil).WithContext(withConn(t.Context(), two))}).noteReads()
	kept, more := fill(one), fill(two)
	if kept > 3*unsentBytes || more < 2*kept {
		t.Errorf("%d bytes are kept for one who reads nothing, and %d for one who does", kept, more)
	}
}
