package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/net/http2"
)

// A connection is closed when it has been without a request for two minutes, and not before. A
// client of HTTP/2 learns which streams the server has seen.
func TestAnIdleConnectionEnds(t *testing.T) {
	const step = idleTimeout - time.Second
	t.Run("HTTP/1.1", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := hostile(t, 1000)
			c := dial()
			var end time.Duration
			go func() { end = ended(c) }()
			for range 2 {
				if _, err := io.WriteString(c, "HEAD /long HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(step)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if end != idleTimeout+step {
				t.Errorf("it ended after %v", end)
			}
		})
	})
	t.Run("HTTP/2", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := hostile(t, 1000)
			f := speakHTTP2(t, dial())
			var left []*http2.GoAwayFrame
			var end time.Duration
			go func() {
				began := time.Now()
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						end = time.Since(began)
						return
					}
					if away, ok := frame.(*http2.GoAwayFrame); ok {
						left = append(left, away)
					}
				}
			}()
			for _, stream := range []uint32{1, 3} {
				if err := f.ask("HEAD", stream, true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(step)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if end != idleTimeout+step {
				t.Errorf("it ended after %v", end)
			}
			if len(left) != 1 || left[0].LastStreamID != 3 || left[0].ErrCode != http2.ErrCodeNo {
				t.Errorf("the client was told %v", left)
			}
		})
	})
	t.Run("with a request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			_, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
				return s.guard(s.serve(func(*call) error {
					<-let
					return errNotFound
				}))
			})
			f := speakHTTP2(t, dial())
			over := false
			go func() {
				ended(f.Conn)
				over = true
			}()
			time.Sleep(time.Minute)
			if err := f.get(1, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * idleTimeout)
			synctest.Wait()
			if over {
				t.Error("it ended")
			}
			close(let)
			time.Sleep(2 * idleTimeout) // the answer waits for a window first
			synctest.Wait()
			if !over {
				t.Error("it has not ended")
			}
		})
	})
}

// Nothing of a connection is kept if it ends while it has requests.
func TestAConnectionThatEndsInTheMidstKeepsNothing(t *testing.T) {
	for name, ask := range map[string]func(c net.Conn) error{
		"HTTP/1.1": func(c net.Conn) error {
			_, err := io.WriteString(c, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
			return err
		},
		"HTTP/2": func(c net.Conn) error { return speakHTTP2(t, c).get(1, true) },
	} {
		t.Run(name, func(t *testing.T) {
			was := make(chan weak.Pointer[conn], 1)
			_, dial := hostileWith(t, 1000, func(s *Server) http.Handler {
				return s.guard(s.serve(func(c *call) error {
					was <- weak.Make(connOf(c.req))
					<-c.req.Context().Done()
					return context.Cause(c.req.Context())
				}))
			})
			client := dial()
			go func() { _, _ = io.Copy(io.Discard, client) }()
			if err := ask(client); err != nil {
				t.Fatal(err)
			}
			c := <-was
			client.Close()
			for end := time.Now().Add(20 * time.Second); c.Value() != nil; time.Sleep(10 * time.Millisecond) {
				if runtime.GC(); time.Now().After(end) {
					t.Fatal("the connection is still in memory")
				}
			}
		})
	}
}
