package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/session"
)

// hostile is the whole server, without stores, on connections without buffers. /long answers a long
// JSON document.
func hostile(t *testing.T, conns int64) (s *Server, dial func() net.Conn) {
	long := Problem{Title: strings.Repeat("x", longAnswer)}
	return hostileWith(t, conns, func(s *Server) http.Handler {
		return s.guard(s.serve(func(c *call) error {
			if c.req.URL.Path == "/refused" {
				return errNotFound
			}
			if err := s.reserveAnswer(c, longAnswer); err != nil {
				return err
			}
			s.answer(c, http.StatusOK, "application/json", long)
			return nil
		}))
	})
}

// hostileWith is hostile with another handler.
func hostileWith(t *testing.T, conns int64, handler func(*Server) http.Handler) (s *Server, dial func() net.Conn) {
	s = &Server{
		machine: testMachine, cfg: Config{MinRate: 1 << 10, RateWindow: 30 * time.Second},
		log: slog.New(slog.DiscardHandler), unread: newUnreadBytes(maxUnread),
		limits: newLimits(1<<10, maxHeld, maxHeld, maxRefused), pending: newPendingStreams(maxRefused, 100, time.Now),
	}
	h := handler(s)
	in := &pipes{conns: make(chan net.Conn)}
	in.closed, in.close = context.WithCancel(context.Background())
	l := limitListener(
		in, conns, s.unread, s.pending, newMinRate(s.cfg.MinRate, s.cfg.RateWindow), &s.refused, testMachine,
	)
	server := s.httpServer(context.Background(), h, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s, func() net.Conn {
		client, conn := net.Pipe()
		in.conns <- conn
		t.Cleanup(func() { client.Close() })
		return client
	}
}

// ended reads a connection until the server closes it, and returns how long that took.
func ended(c net.Conn) time.Duration {
	began := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

// An answer that nobody reads is cut off, also one of net/http's own. An answer that is taken at
// the minimum rate is not.
func TestAnAnswerThatNobodyReadsIsCut(t *testing.T) {
	const allowed = 30*time.Second + answerBlock/(1<<10)*time.Second
	for name, request := range map[string]string{
		"JSON":              "GET /long HTTP/1.1\r\nHost: x\r\n\r\n",
		"of a bad head":     "GET\r\n\r\n",
		"of an expectation": "GET /long HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := hostile(t, 1000)
				c := dial()
				_, err := io.WriteString(c, request)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(allowed + time.Second)
				synctest.Wait()
				if n, err := c.Read(make([]byte, 1)); err == nil {
					t.Errorf("%d bytes are still to be had after %v", n, allowed)
				}
				if s.limits.slots.inUse() != 0 || s.limits.answers.inUse() != 0 {
					t.Errorf("%d slots and %d bytes are held", s.limits.slots.inUse(), s.limits.answers.inUse())
				}
			})
		})
	}
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := hostile(t, 1000)
			c := dial()
			_, err := io.WriteString(c, "GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			for n := 0; err == nil; {
				var k int
				k, err = c.Read(make([]byte, 1<<10))
				n += k
				time.Sleep(time.Second)
				if err == io.EOF && n < longAnswer {
					t.Errorf("cut after %d bytes", n)
				}
			}
		})
	})
}

// framed is an HTTP/2 client that lets the server send nothing but heads.
type framed struct {
	*http2.Framer
	net.Conn
	fields bytes.Buffer
	enc    *hpack.Encoder
}

func speakHTTP2(t *testing.T, c net.Conn) *framed {
	t.Helper()
	f := &framed{Framer: http2.NewFramer(c, c), Conn: c}
	f.enc = hpack.NewEncoder(&f.fields)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	return f
}

// get begins a request; whole says whether its head ends.
func (f *framed) get(stream uint32, whole bool) error { return f.ask("GET", stream, whole) }

func (f *framed) ask(method string, stream uint32, whole bool) error {
	f.fields.Reset()
	for _, field := range [][2]string{
		{":method", method}, {":scheme", "http"}, {":authority", "x"}, {":path", "/long"},
	} {
		if err := f.enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: f.fields.Bytes(), EndHeaders: whole, EndStream: true,
	})
}

// However many streams let nothing through, the memory that is kept for them is bounded, and they
// are cut. Health is answered meanwhile.
func TestClosedWindowsHoldLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := hostile(t, 1000)
		const conns, streams = 4, 60
		for range conns {
			f := speakHTTP2(t, dial())
			go func() {
				for {
					if _, err := f.ReadFrame(); err != nil {
						return
					}
				}
			}()
			for i := range streams {
				if err := f.get(uint32(2*i+1), true); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if held := s.limits.answers.inUse(); held > maxHeld || held < 16*longAnswer {
			t.Errorf("%d bytes of answers are held", held)
		}
		if s.refused.answers.Load() == 0 {
			t.Error("no answer was refused")
		}
		time.Sleep(30*time.Second + answerBlock/(1<<10)*time.Second + time.Second)
		synctest.Wait()
		if s.limits.slots.inUse() != 0 || s.limits.answers.inUse() != 0 || s.refused.slowAnswers.Load() == 0 {
			t.Errorf(
				"%d slots and %d bytes are held, %d answers were slow", s.limits.slots.inUse(),
				s.limits.answers.inUse(), s.refused.slowAnswers.Load(),
			)
		}
	})
}

// Everything that is begun on HTTP/2, except the body of a request, ends within ten seconds,
// however it is cut. An idle connection may stay.
func TestAHeadThatNeverEndsIsCut(t *testing.T) {
	for name, send := range map[string]func(f *framed) error{
		"without an end": func(f *framed) error { return f.get(1, false) },
		"in ever more frames": func(f *framed) error {
			err := f.get(1, false)
			for err == nil {
				time.Sleep(time.Second)
				f.fields.Reset()
				if err = f.enc.WriteField(hpack.HeaderField{
					Name: "x", Value: fmt.Sprint(time.Now().Unix()),
				}); err == nil {
					err = f.WriteContinuation(1, false, f.fields.Bytes())
				}
			}
			return nil
		},
		"half of a frame's head": func(f *framed) error { _, err := f.Conn.Write([]byte{0, 0, 9}); return err },
		"half of a frame":        func(f *framed) error { _, err := f.Conn.Write([]byte{0, 0, 9, 1, 5, 0, 0, 0, 1, 0x82}); return err },
		"half of settings":       func(f *framed) error { _, err := f.Conn.Write([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, dial := hostile(t, 1000)
				f := speakHTTP2(t, dial())
				took := make(chan time.Duration, 1)
				go func() { took <- ended(f.Conn) }()
				time.Sleep(time.Minute) // an idle connection stays
				began := time.Now()
				if err := send(f); err != nil {
					t.Fatal(err)
				}
				<-took
				if d := time.Since(began); d > headTimeout+2*time.Second {
					t.Errorf("it ended after %v", d)
				}
			})
		})
	}
	t.Run("half of a preface", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := hostile(t, 1000)
			c := dial()
			if _, err := io.WriteString(c, http2.ClientPreface[:20]); err != nil {
				t.Fatal(err)
			}
			if d := ended(c); d > headTimeout+2*time.Second {
				t.Errorf("it ended after %v", d)
			}
		})
	})
}

// At the bound the connection that is idle longest makes way for a newcomer, over HTTP/1.1 and
// HTTP/2.
func TestTheLongestIdleConnectionMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := hostile(t, 3)
		begin := func() (net.Conn, *bool) {
			c, ended := dial(), new(bool)
			go func() {
				_, _ = io.Copy(io.Discard, c)
				*ended = true
			}()
			return c, ended
		}
		ask := func(c net.Conn) {
			t.Helper()
			if _, err := io.WriteString(c, "HEAD /long HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(time.Second)
		}
		first, firstEnded := begin()
		ask(first)
		second, secondEnded := begin()
		f := speakHTTP2(t, second)
		if err := f.ask("HEAD", 1, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		third, thirdEnded := begin()
		ask(third)
		ask(first) // now the second is idle longest
		for i, want := range [][3]bool{{false, true, false}, {false, true, true}, {true, true, true}} {
			c, ended := begin()
			ask(c)
			if got := [3]bool{*firstEnded, *secondEnded, *thirdEnded}; got != want || *ended {
				t.Errorf("newcomer %d: closed are %v, want %v; itself %v", i, got, want, *ended)
			}
		}
		if n := s.refused.idle.Load(); n != 3 || s.refused.connections.Load() != 0 {
			t.Errorf("%d connections made way, %d were refused", n, s.refused.connections.Load())
		}
	})
}

// At the bound a newcomer takes the place of a connection that rests, or whose principal has many.
// The one that a client with few works on is kept.
func TestAFloodLeavesWorkingConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &pipes{}
		b := limitListener(
			in, 5, newUnreadBytes(maxUnread), newPendingStreams(maxRefused, 100, time.Now),
			newMinRate(1<<10, time.Second), &counters{}, testMachine,
		)
		b.reserved = 0
		open := func() *conn {
			_, raw := net.Pipe()
			return b.conn(raw)
		}
		works := func(c *conn, principal string) {
			b.connState(c, http.StateActive)
			b.addSlots(c, 1)
			b.setPrincipal(c, principal)
		}
		rests := func(c *conn) {
			b.addSlots(c, -1)
			b.connState(c, http.StateIdle)
		}
		newcomer := func(out *conn) (c *conn) {
			t.Helper()
			if c = open(); b.admit(c) != (out != nil) || out != nil && out.counted {
				t.Errorf("a newcomer is taken: %v; the other is kept: %v", c.counted, out != nil && out.counted)
			}
			return c
		}
		var many []*conn
		for range 4 {
			c := open()
			b.admit(c)
			works(c, "many")
			many = append(many, c)
		}
		few := open()
		b.admit(few)
		works(few, "few")
		rests(few)
		newcomer(nil)
		rests(many[0])
		rests(many[1])
		one := newcomer(many[0])
		two := newcomer(many[1])
		newcomer(nil)
		b.addSlots(many[2], -1) // its request was refused, and it is not idle yet
		newcomer(many[2])
		newcomer(nil)
		time.Sleep(minWaiting)
		newcomer(one)
		works(two, "few")
		rests(two)
		time.Sleep(minIdle)
		newcomer(few)
		newcomer(two)
		if b.open != 5 || b.byPrincipal["many"] != 1 || b.byPrincipal["few"] != 0 || b.byPrincipal[""] != 4 ||
			len(b.byPrincipal) != 2 {
			t.Errorf("%d are open, by principal %v", b.open, b.byPrincipal)
		}
	})
}

// A client that asks for too much is told so a little later, and holds nothing meanwhile.
func TestWhoAsksForTooMuchWaits(t *testing.T) {
	for name, err := range map[string]error{"all": errBusy, "a principal": errOverShare, "a session": session.ErrBusy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := hostileWith(t, 10, func(s *Server) http.Handler {
					return s.guard(s.serve(func(*call) error { return err }))
				})
				began := time.Now()
				c := dial()
				if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if s.running.Load() != 1 || s.limits.slots.inUse() != 0 || s.limits.waiting.inUse() != 1 {
					t.Errorf(
						"%d requests run, %d have slots, %d wait for their clients", s.running.Load(),
						s.limits.slots.inUse(), s.limits.waiting.inUse(),
					)
				}
				_, err := http.ReadResponse(bufio.NewReader(c), nil)
				if took := time.Since(began); err != nil || took != refuseDelay {
					t.Errorf("it was answered after %v: %v", took, err)
				}
			})
		})
	}
}

// The answer to a panic holds nothing when it is out.
func TestAPanicHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := hostileWith(t, 10, func(s *Server) http.Handler {
			return s.guard(s.serve(func(*call) error { panic("at the right moment") }))
		})
		c := dial()
		f := speakHTTP2(t, c)
		for i := range 3 {
			if err := f.ask("GET", uint32(2*i+1), true); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		synctest.Wait()
		if s.limits.slots.inUse() != 0 || s.limits.waiting.inUse() != 0 || s.running.Load() != 0 {
			t.Errorf(
				"%d slots and %d refused ones are held, %d run", s.limits.slots.inUse(), s.limits.waiting.inUse(),
				s.running.Load(),
			)
		}
	})
}

// Health is answered while every connection is at work and newcomers come without end: some say
// nothing, some ask for something else, and some pretend to ask for it. All except a few of them
// are gone a moment later.
func TestHealthIsToldInAFloodOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy, newcomers, each = 2, 600, 20
		s, dial := hostile(t, busy)
		for range busy {
			if _, err := io.WriteString(dial(), "GET /long HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		var told, left atomic.Int64
		for i := range newcomers {
			time.Sleep(20 * time.Millisecond)
			c := dial()
			go func() {
				_, _ = io.WriteString(c, []string{
					"", "GET", "GET /long HTTP/1.1\r\nHost: x\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: ",
					http2.ClientPreface, "\n",
				}[i%6])
			}()
			left.Add(1)
			go func() {
				got, _ := io.ReadAll(c)
				left.Add(-1)
				if bytes.HasPrefix(got, []byte("HTTP/1.1 503 ")) &&
					bytes.Contains(got, []byte("\r\nRetry-After: 1\r\n")) {
					told.Add(1)
				}
			}()
			if i%each != 0 {
				continue
			}
			supervisor := dial()
			for _, part := range []string{"HEA", "D /rea", "dyz HTTP/1.1\r\nHost: x\r\n\r\n"} {
				if _, err := io.WriteString(supervisor, part); err != nil {
					t.Fatalf("newcomer %d: %v", i, err)
				}
				synctest.Wait()
			}
			res, err := http.ReadResponse(bufio.NewReader(supervisor), &http.Request{Method: "HEAD"})
			if err != nil || res.StatusCode != http.StatusOK || !res.Close {
				t.Fatalf("newcomer %d: %v, %v", i, res, err)
			}
		}
		time.Sleep(refuseTimeout)
		synctest.Wait()
		if n := left.Load(); n > minReserved {
			t.Errorf("%d newcomers are there, and %d may be", n, minReserved)
		}
		// Some are beyond what is answered at one time, and some speak HTTP/2.
		if n := told.Load(); n < newcomers/2 || s.refused.connections.Load() < n {
			t.Errorf("%d of %d were told to come again, %d are counted", n, newcomers, s.refused.connections.Load())
		}
	})
}

// An answer that is made computes no more, however long its client takes to read it.
func TestAnAnswerThatNobodyTakesComputesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := hostileWith(t, 10, func(s *Server) http.Handler {
			return s.guard(s.serve(func(c *call) error {
				if err := s.beginCompute(c); err != nil {
					return err
				}
				s.answer(c, http.StatusOK, "application/json", Problem{Title: strings.Repeat("x", longAnswer)})
				return nil
			}))
		})
		if _, err := io.WriteString(dial(), "GET /long HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.limits.slots.inUse() != 1 {
			t.Error("the request has ended")
		}
		s.limits.computing.isEmpty(t)
	})
}

// The body of a refused request is read on over HTTP/2 too: if a stream is reset behind its answer,
// some clients lose the answer (curl 7.88).
func TestARefusedBodyIsReadOnOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := hostile(t, 10)
		conn := dial()
		defer conn.Close()
		frames := http2.NewFramer(conn, conn)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = io.WriteString(conn, http2.ClientPreface)
			_ = frames.WriteSettings()
			var head bytes.Buffer
			e := hpack.NewEncoder(&head)
			for _, f := range [][2]string{
				{":method", "PUT"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/refused"},
			} {
				_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			_ = frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true})
		}()
		answered := false
		for {
			f, err := frames.ReadFrame()
			must(err)
			if f.Header().StreamID != 1 {
				continue
			}
			switch f := f.(type) {
			case *http2.RSTStreamFrame:
				t.Fatalf("the stream is reset: %v", f.ErrCode)
			case *http2.DataFrame:
				if f.StreamEnded() {
					if !answered {
						t.Error("the answer ends before the request")
					}
					return
				}
				if !answered {
					go func() {
						<-asked
						time.Sleep(lingerTimeout / 2) // the server has had the time to cut it
						_ = frames.WriteData(1, true, make([]byte, 1000))
					}()
				}
				answered = true
			}
		}
	})
}

// If all connections are taken, and none is idle, the one that has longest been without a running
// request makes way.
func TestAHeadThatDoesNotEndKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 3
		_, dial := hostile(t, most)
		ask := func(c net.Conn) (status int) {
			go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }()
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			return res.StatusCode
		}
		var slow []net.Conn
		for range most {
			c := dial()
			_, _ = io.WriteString(c, "GET / HT")
			slow = append(slow, c)
		}
		if got := ask(dial()); got != http.StatusServiceUnavailable {
			t.Errorf("at once: %d", got)
		}
		time.Sleep(minWaiting)
		if got := ask(dial()); got != http.StatusOK {
			t.Errorf("after %v: %d", minWaiting, got)
		}
		if _, err := slow[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the eldest head: %v", err)
		}
	})
}

// A flood of refusals is a few lines of the log. The next of these lines says how many were left
// out.
func TestAFloodDoesNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, dial := hostile(t, 1000)
		s.log = slog.New(slog.NewTextHandler(&log, nil))
		s.limits = newLimits(0, maxHeld, maxHeld, maxRefused)
		ask := func(n int) {
			for range n {
				c := dial()
				if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = io.Copy(io.Discard, c) }()
			}
			time.Sleep(refuseDelay)
			synctest.Wait()
		}
		ask(50)
		if n := strings.Count(log.String(), "\n"); n != maxLines || strings.Contains(log.String(), "left_out") {
			t.Errorf("%d lines: %s", n, log.String())
		}
		log.Reset()
		time.Sleep(time.Second)
		ask(1)
		if !strings.Contains(log.String(), "left_out=40") {
			t.Errorf("the next line: %q", log.String())
		}
	})
}
