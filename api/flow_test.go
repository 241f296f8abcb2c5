package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pipes is a listener of connections without buffers: the server reads what a client writes.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  func()
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p *pipes) Close() error   { p.close(); return nil }

// wire is an HTTP/2 server. Its handler reads a body at /read at once, and one at /wait when the
// test lets it.
type wire struct {
	t      *testing.T
	in     *pipes
	unread *unreadBytes
	server *http.Server
	letGo  func()
}

func (w *wire) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newWire(t *testing.T, most int64) *wire {
	w := &wire{t: t, in: &pipes{conns: make(chan net.Conn)}, unread: newUnreadBytes(most)}
	w.in.closed, w.in.close = context.WithCancel(context.Background())
	ctx, letGo := context.WithCancel(context.Background())
	w.letGo = letGo
	s := &Server{machine: testMachine, cfg: Config{RateWindow: 30 * time.Second}, log: slog.New(slog.DiscardHandler)}
	l := limitListener(
		w.in, 0, w.unread, newPendingStreams(maxRefused, 100, time.Now), newMinRate(1<<10, 30*time.Second),
		new(counters), testMachine,
	)
	w.server = s.httpServer(context.Background(), http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			select {
			case <-ctx.Done():
			case <-r.Context().Done():
			}
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}), l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.server.Serve(l)
	}()
	t.Cleanup(func() {
		letGo()
		_ = w.server.Close()
		<-done
	})
	return w
}

// peer is a client that sends as fast as it may.
type peer struct {
	t       *testing.T
	conn    net.Conn
	frames  *http2.Framer
	window  int64 // of a new stream
	longest uint32

	mu     sync.Mutex
	more   *sync.Cond
	credit map[uint32]int64 // by stream; 0 is the connection
	status map[uint32]string
	ended  bool
}

func (w *wire) dial() *peer {
	w.t.Helper()
	conn, server := net.Pipe()
	w.in.conns <- server
	p := &peer{
		t: w.t, conn: conn, frames: http2.NewFramer(conn, conn), window: 65535, longest: 16384,
		credit: map[uint32]int64{0: 65535}, status: map[uint32]string{},
	}
	p.more = sync.NewCond(&p.mu)
	p.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.t.Cleanup(func() { conn.Close() })
	_, err := io.WriteString(conn, http2.ClientPreface)
	w.check(err)
	w.check(p.frames.WriteSettings())
	for set, widened := false, false; !set || !widened; {
		f, err := p.frames.ReadFrame()
		p.check(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				p.window = int64(v)
			}
			if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
				p.longest = v
			}
			set = true
			p.check(p.frames.WriteSettingsAck())
		case *http2.WindowUpdateFrame:
			p.credit[f.StreamID] += int64(f.Increment)
			widened = true
		}
	}
	go p.listen()
	return p
}

func (p *peer) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) listen() {
	for {
		f, err := p.frames.ReadFrame()
		p.mu.Lock()
		switch f := f.(type) {
		case *http2.WindowUpdateFrame:
			p.credit[f.StreamID] += int64(f.Increment)
		case *http2.MetaHeadersFrame:
			p.status[f.StreamID] = f.PseudoValue("status")
		}
		p.ended = err != nil
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// begin begins a request with a body.
func (p *peer) begin(stream uint32, path string) {
	p.t.Helper()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "PUT"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}} {
		p.check(enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	p.mu.Lock()
	p.credit[stream] += p.window
	p.mu.Unlock()
	p.check(
		p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true}),
	)
}

// send sends n bytes as the server gives credit, and reports whether all of them went.
func (p *peer) send(stream uint32, n int64, end bool) bool {
	body := make([]byte, 16384)
	for n > 0 {
		p.mu.Lock()
		for min(p.credit[0], p.credit[stream]) <= 0 && !p.ended {
			p.more.Wait()
		}
		k := min(n, int64(len(body)), p.credit[0], p.credit[stream])
		if p.ended {
			p.mu.Unlock()
			return false
		}
		p.credit[0], p.credit[stream] = p.credit[0]-k, p.credit[stream]-k
		p.mu.Unlock()
		if n -= k; p.frames.WriteData(stream, end && n == 0, body[:k]) != nil {
			return false
		}
	}
	return true
}

func (p *peer) answer(stream uint32) string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status[stream]
}

// One upload may have as many bytes under way as 1 Gbit/s brings in 100 ms, even if no credit comes
// back. A frame is no longer than the memory that is kept for each connection.
func TestOneStreamFillsALongWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gigabit, there, back = 1_000_000_000 / 8, 50 * time.Millisecond, 50 * time.Millisecond
		underWay := int64((there + back).Seconds() * gigabit)
		w := newWire(t, maxUnread)
		p := w.dial()
		if p.longest > 16<<10 {
			t.Errorf("frames of up to %d bytes", p.longest)
		}
		p.begin(1, "/wait")
		if got := min(p.credit[0], p.credit[1]); got < underWay {
			t.Fatalf(
				"a client may send %d bytes before the first credit comes back, and %d are under way", got, underWay,
			)
		}
		if !p.send(1, underWay, true) {
			t.Fatal("the connection ended")
		}
		if got := p.answer(1); w.unread.size() != underWay || got != "" {
			t.Errorf("%d of %d bytes have come and are not read; answer %q", w.unread.size(), underWay, got)
		}
		w.letGo()
		if got := p.answer(1); w.unread.size() != 0 || got != "200" {
			t.Errorf("%d bytes are still unread; answer %q", w.unread.size(), got)
		}
	})
}

// If handlers read nothing of three streams and their windows are used up, a fourth stream is as
// fast as ever.
func TestAStreamThatIsNotReadHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, maxUnread)
		p := w.dial()
		began := time.Now()
		for _, stream := range []uint32{1, 3, 5} {
			p.begin(stream, "/wait")
			if !p.send(stream, p.window, false) {
				t.Fatal("the connection ended")
			}
		}
		p.begin(7, "/read")
		sent := make(chan bool, 1)
		go func() { sent <- p.send(7, 2*p.window, true) }()
		if got := p.answer(7); got != "200" {
			p.conn.Close()
			t.Fatalf("answer %q, sent all: %v", got, <-sent)
		}
		if !<-sent {
			t.Error("the connection ended")
		}
		if took := time.Since(began); took > 0 { // no stream had to end for it
			t.Errorf("it took %v", took)
		}
	})
}

// The bytes that all connections have sent and nobody has read are bounded, whatever the windows. A
// connection with few of them goes on. When they are read, all goes through.
func TestWhatIsNotReadIsBounded(t *testing.T) {
	const most, conns, size = 1 << 20, 6, 4 << 20
	start := func(t *testing.T) (w *wire, peers []*peer, sent chan bool) {
		w, sent = newWire(t, most), make(chan bool, conns)
		for range conns {
			p := w.dial()
			p.begin(1, "/wait")
			go func() { sent <- p.send(1, size, true) }()
			peers = append(peers, p)
		}
		synctest.Wait()
		return w, peers, sent
	}
	t.Run("held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, peers, sent := start(t)
			if got, bound := w.unread.size(), int64(most+conns*(maxUnreadEach+maxFrame)); got <= most || got > bound {
				t.Errorf("%d bytes are unread; more than %d and at most %d are the bound", got, most, bound)
			}
			p := w.dial()
			p.begin(1, "/read")
			if !p.send(1, size, true) || p.answer(1) != "200" {
				t.Errorf("beside them: answer %q", p.answer(1))
			}
			w.letGo()
			for range peers {
				if !<-sent {
					t.Error("a connection ended")
				}
			}
			for i, p := range peers {
				if got := p.answer(1); got != "200" {
					t.Errorf("connection %d: answer %q", i, got)
				}
			}
			if got := w.unread.size(); got != 0 {
				t.Errorf("%d bytes are unread in the end", got)
			}
		})
	})
	t.Run("closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, peers, sent := start(t)
			w.check(w.server.Close())
			for range peers {
				if <-sent {
					t.Error("all went through although nobody read it")
				}
			}
			synctest.Wait()
			if got := w.unread.size(); got != 0 {
				t.Errorf("%d bytes of connections that have ended", got)
			}
		})
	})
}

// However the bytes of both directions are split, the same is counted. Bytes that are not HTTP/2
// count nothing. A client that sends more than it may is refused.
func TestTheMeterReadsTheWire(t *testing.T) {
	var in, out bytes.Buffer
	in.WriteString(http2.ClientPreface)
	client, server := http2.NewFramer(&in, nil), http2.NewFramer(&out, nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(server.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame}))
	must(server.WriteWindowUpdate(0, connWindow-65535))
	must(client.WriteSettings())
	must(client.WriteData(1, false, make([]byte, 1000)))
	must(client.WriteDataPadded(1, false, make([]byte, 100), make([]byte, 9))) // this byte says how many are padding
	must(client.WritePing(false, [8]byte{}))
	must(client.WriteWindowUpdate(0, 1<<20)) // the client's credit is of no account
	must(client.WriteData(3, true, nil))
	must(server.WriteWindowUpdate(1, 700)) // nor a stream's
	must(server.WriteWindowUpdate(0, 700))
	must(server.WriteData(1, true, []byte{0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0}))
	must(server.WriteWindowUpdate(0, 10))
	for _, by := range []int{1, 2, 3, 5, 7, 13, 1 << 20} {
		m := flowMeter{shared: newUnreadBytes(1), streams: streams{shared: newPendingStreams(1, 100, time.Now)}}
		feed := func(p []byte, to func([]byte)) {
			for len(p) > 0 {
				n := min(by, len(p))
				to(p[:n])
				p = p[n:]
			}
		}
		feed(in.Bytes(), func(p []byte) { must(m.received(p)) })
		feed(out.Bytes(), m.sending)
		if got := m.shared.size(); got != 1000+110-710 {
			t.Errorf("by %d: %d bytes", by, got)
		}
	}

	plain := flowMeter{shared: newUnreadBytes(1), streams: streams{shared: newPendingStreams(1, 100, time.Now)}}
	must(plain.received([]byte("PRIX")))
	must(plain.received(in.Bytes()))
	plain.sending(out.Bytes())
	if got := plain.shared.size(); got != 0 || plain.isHTTP2() {
		t.Errorf("HTTP/1.1: %d bytes", got)
	}

	m := flowMeter{shared: newUnreadBytes(1), streams: streams{shared: newPendingStreams(1, 100, time.Now)}}
	must(m.received([]byte(http2.ClientPreface)))
	frame := binary.BigEndian.AppendUint32(nil, maxFrame<<8)
	frame = append(frame, make([]byte, 5+maxFrame)...)
	for range connWindow / maxFrame {
		must(m.received(frame))
	}
	if err := m.received(frame); err != errFlow {
		t.Errorf("past the connection's window: %v", err)
	}
}
