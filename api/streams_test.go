package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/access"
)

// listener is an HTTP/2 client that lets the server send nothing but heads, and notes how each
// stream has ended.
type listener struct {
	*framed
	mu     sync.Mutex
	status map[uint32]string // of streams that have ended
}

func listen(t *testing.T, c net.Conn) *listener {
	l := &listener{framed: speakHTTP2(t, c), status: map[uint32]string{}}
	l.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	go func() {
		for {
			f, err := l.ReadFrame()
			if err != nil {
				return
			}
			l.mu.Lock()
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if f.StreamEnded() {
					l.status[f.StreamID] = f.PseudoValue("status")
				}
			case *http2.DataFrame:
				if f.StreamEnded() {
					l.status[f.StreamID] = "with a body"
				}
			case *http2.RSTStreamFrame:
				if l.status[f.StreamID] == "" {
					l.status[f.StreamID] = f.ErrCode.String()
				}
			}
			l.mu.Unlock()
		}
	}()
	return l
}

// ended returns the number of streams that have ended in that way.
func (l *listener) ended(as string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, how := range l.status {
		if how == as {
			n++
		}
	}
	return n
}

// waiting returns a Server whose requests return when the test lets them. None of them asks for a
// slot.
func waiting(t *testing.T, refused int) (running func() int64, dial func() net.Conn, letGo func()) {
	s, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
		ctx, cancel := context.WithCancel(context.Background())
		letGo = cancel
		t.Cleanup(cancel)
		s.pending = newPendingStreams(refused, 100, time.Now)
		return s.counted(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ctx.Done() }))
	})
	return s.running.Load, dial, letGo
}

// The next head waits while the handlers have not got to those before it, on one connection and on
// all. Then it goes on.
func TestHeadsComeAsHandlersGetToThem(t *testing.T) {
	for _, c := range []struct{ conns, streams, refused, want int }{
		{1, 50, 1000, maxPending},
		{20, 5, 10, 10 + 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			running, dial, letGo := waiting(t, c.refused)
			var all []*listener
			var sent sync.WaitGroup
			for range c.conns {
				l := listen(t, dial())
				all = append(all, l)
				sent.Go(func() {
					for i := range c.streams {
						if err := l.get(uint32(2*i+1), true); err != nil {
							t.Error(err)
						}
					}
				})
			}
			synctest.Wait()
			if n := running(); n > int64(c.want) || n < int64(c.want)/2 {
				t.Errorf("of %d connections %d requests were begun, and not %d", c.conns, n, c.want)
			}
			letGo()
			sent.Wait()
			synctest.Wait()
			for _, l := range all {
				if n := l.ended("200"); n != c.streams {
					t.Errorf("%d of %d streams were answered", n, c.streams)
				}
			}
		})
	}
}

// Streams that are reset at once are not begun beyond what a connection may have, while the
// handlers of earlier ones run.
func TestResetStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, letGo := context.WithCancel(context.Background())
		s, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
			s.pending = newPendingStreams(1000, 100, time.Now)
			return s.guard(s.serve(func(*call) error { // it has a slot
				<-ctx.Done()
				return nil
			}))
		})
		running := s.running.Load
		f := speakHTTP2(t, dial())
		go func() { _, _ = io.Copy(io.Discard, f.Conn) }()
		begun := 0
		next, done := make(chan uint32), make(chan struct{})
		go func() {
			defer close(done)
			for stream := range next {
				if f.get(stream, true) != nil || f.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
					t.Error("the connection ended")
					return
				}
				begun++
			}
		}()
		for i := range uint32(1000) {
			synctest.Wait() // the handler has begun, or the server does not read
			select {
			case next <- 2*i + 1:
			default:
			}
		}
		if n := running(); n > 100 || begun > 101 {
			t.Errorf("%d requests run of %d that were begun", n, begun)
		}
		close(next)
		letGo()
		<-done
	})
}

// A connection that waits is let go when it ends.
func TestAHeldConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, dial, letGo := waiting(t, 1000)
		c := dial()
		f := speakHTTP2(t, c)
		gone := make(chan error)
		go func() {
			var err error
			for i := 0; err == nil; i++ {
				err = f.get(uint32(2*i+1), true)
			}
			gone <- err
		}()
		// Nothing is read, so that the server closes it.
		<-gone
		letGo()
		synctest.Wait()
		if n := running(); n != 0 {
			t.Errorf("%d requests run", n)
		}
	})
}

// If the slots are taken, and those of refusals that wait for their clients too, a refusal needs
// no window.
func TestARefusalNeedsNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const refused, slots, streams = 4, 2, 60
		s, dial := hostile(t, 1000)
		s.limits = newLimits(4*slots, maxHeld, maxHeld, refused)
		l := listen(t, dial())
		for i := range streams {
			if err := l.get(uint32(2*i+1), true); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(streams * refuseDelay)
		if n := l.ended("503"); n != streams-slots-refused {
			t.Errorf("%d of %d streams are refused without a body: %v", n, streams, l.status)
		}
		if n := s.running.Load(); n != slots+refused {
			t.Errorf("%d requests still run, and not %d", n, slots+refused)
		}
	})
}

// A client that is not known keeps nobody out by not taking an answer: it waits among the refused.
func TestAnAnswerToNobodyKnownHasNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
			return s.guard(s.serve(func(*call) error { return access.ErrUnauthenticated }))
		})
		l := listen(t, dial())
		for i := range 50 {
			if err := l.get(uint32(2*i+1), true); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := s.limits.slots.inUse(); n != 0 || s.limits.waiting.inUse() != 50 {
			t.Errorf("%d requests have slots, %d wait", n, s.limits.waiting.inUse())
		}
	})
}

// An answer that waits for a window holds up no head: the frame that widens the window may come
// behind it.
func TestAWindowIsWidenedBehindTheNextHead(t *testing.T) {
	for name, slots := range map[string]int64{"answered": 1000, "refused": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
					return s.guard(s.serve(func(c *call) error {
						s.answer(c, http.StatusOK, "application/json", Problem{})
						return nil
					}))
				})
				s.limits = newLimits(slots, maxHeld, maxHeld, maxRefused)
				l := listen(t, dial())
				const streams = 4 * maxPending
				began := time.Now()
				for i := range streams {
					if err := l.get(uint32(2*i+1), true); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				for i := range streams {
					if err := l.WriteWindowUpdate(uint32(2*i+1), 1<<16); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if d, most := time.Since(began), streams/maxPending*refuseDelay; d > most || d > 0 && slots > 0 {
					t.Errorf("it took %v", d)
				}
				time.Sleep(refuseDelay)
				synctest.Wait()
				if n := l.ended("with a body"); n != streams {
					t.Errorf("%d of %d streams have ended", n, streams)
				}
			})
		})
	}
}

// An answer of net/http's own has a deadline, although it comes from none of the handlers.
func TestNetHTTPsOwnAnswersHaveADeadline(t *testing.T) {
	for name, field := range map[string]hpack.HeaderField{
		"a head that is too long":   {Name: "x", Value: strings.Repeat("x", maxHead)},
		"a field that is not valid": {Name: "connection", Value: "close"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := hostile(t, 1000)
				l := listen(t, dial())
				l.fields.Reset()
				for _, f := range []hpack.HeaderField{
					{Name: ":method", Value: "GET"},
					{Name: ":scheme", Value: "http"},
					{Name: ":authority", Value: "x"},
					{Name: ":path", Value: "/"},
					field,
				} {
					if err := l.enc.WriteField(f); err != nil {
						t.Fatal(err)
					}
				}
				block := l.fields.Bytes()
				n := min(len(block), maxFrame)
				err := l.WriteHeaders(http2.HeadersFrameParam{
					StreamID: 1, BlockFragment: block[:n], EndHeaders: n == len(block), EndStream: true,
				})
				for block = block[n:]; err == nil && len(block) > 0; block = block[n:] {
					n = min(len(block), maxFrame)
					err = l.WriteContinuation(1, n == len(block), block[:n])
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(s.cfg.RateWindow + time.Second)
				synctest.Wait()
				if s.pending.count != 0 {
					t.Errorf("%d streams still wait: %v", s.pending.count, l.status)
				}
			})
		})
	}
}

// Nothing of a connection is kept when it has ended, although a handler has answered a stream that
// was reset before.
func TestAnAnswerToAResetStreamKeepsNothing(t *testing.T) {
	was, asked, let := make(chan weak.Pointer[conn], 1), make(chan context.Context, 1), make(chan struct{})
	s, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
		return s.guard(s.serve(func(c *call) error {
			was <- weak.Make(connOf(c.req))
			asked <- c.req.Context()
			<-let
			s.answer(c, http.StatusOK, "application/json", Problem{})
			return nil
		}))
	})
	l := listen(t, dial())
	if err := l.get(1, true); err != nil {
		t.Fatal(err)
	}
	c, ctx := <-was, <-asked
	if err := l.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	ctx = nil
	close(let)
	for s.running.Load() > 0 {
		runtime.Gosched()
	}
	l.Conn.Close()
	for end := time.Now().Add(10 * time.Second); c.Value() != nil; time.Sleep(10 * time.Millisecond) {
		if runtime.GC(); time.Now().After(end) {
			t.Fatal("the connection is still in memory")
		}
	}
}

// If a client reads nothing, no more than a few frames are read of it: the answers to them would
// wait in memory.
func TestFramesAreNotReadAheadOfTheirAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := hostile(t, 1000)
		f := speakHTTP2(t, dial())
		synctest.Wait() // the first write stands still
		sent := make(chan int)
		go func() {
			n := 0
			for f.WritePing(false, [8]byte{}) == nil {
				n++
			}
			sent <- n
		}()
		if n := <-sent; n > 2*maxFrames {
			t.Errorf("%d pings were taken", n)
		}
	})
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := hostile(t, 1000)
			l := listen(t, dial())
			for range 20 * maxFrames {
				if err := l.WritePing(false, [8]byte{}); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// A server that ends its connections begins no stream, and waits for none. Streams that go on are
// read.
func TestWhatIsBegunGoesOnWhileTheServerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, maxUnread)
		p := w.dial()
		p.begin(1, "/read")
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- w.server.Shutdown(context.Background()) }()
		time.Sleep(5 * time.Second) // net/http has said twice that it leaves
		for i := range 4 * maxPending {
			p.begin(uint32(2*i+3), "/read")
		}
		if !p.send(1, 1<<20, true) || p.answer(1) != strconv.Itoa(http.StatusOK) {
			t.Errorf("answer %q", p.answer(1))
		}
		p.conn.Close()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
