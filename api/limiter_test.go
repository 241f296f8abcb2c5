package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// onBothProtocols runs a test over HTTP/1.1 and over HTTP/2.
func (w *world) onBothProtocols(protocols func(w *world)) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		w.t.Run(version, func(t *testing.T) {
			w := newWorld(t, nil)
			if version == "HTTP/2" {
				w.transport.Protocols = new(http.Protocols)
				w.transport.Protocols.SetUnencryptedHTTP2(true)
			}
			protocols(w)
		})
	}
}

// stall posts a body that stops after n bytes and does not end, until the test or stop does.
func (w *world) stall(path, secret string, n int) (stop func()) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	body, pipe := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+path, body)
	w.check(err)
	req.Header.Set("Authorization", "Bearer "+secret)
	go func() {
		if res, err := w.transport.RoundTrip(req); err == nil {
			res.Body.Close()
		}
		pipe.CloseWithError(io.ErrClosedPipe)
	}()
	go io.WriteString(pipe, strings.Repeat(" ", n))
	w.t.Cleanup(func() { pipe.CloseWithError(io.ErrClosedPipe) })
	return stop
}

// until waits until is holds, which the server brings about soon.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// saysWhen fails if a refusal does not say when to come again.
func (w *world) saysWhen(a answer, code api.Code) {
	w.t.Helper()
	w.problem(a, code)
	if a.Header.Get("Retry-After") == "" || a.problem.RetryAfterMS == 0 {
		w.t.Errorf("%s does not say when to come again", code)
	}
}

// Bodies of JSON that do not end count together. One principal has three quarters of the bound for
// all, and an announced length alone counts nothing.
func TestJSONBodiesAreBoundedTogether(t *testing.T) {
	(&world{t: t}).onBothProtocols(func(w *world) {
		const mib = 1 << 20
		_, third := w.join("third", false)
		text := func(n int64) func() bool {
			return func() bool { _, got := w.server.Held(); return got == n }
		}
		var stops []func()
		stall := func(secret string, n int) { stops = append(stops, w.stall(batches, secret, n)) }
		stall(w.secret, 8*mib)
		stall(w.secret, 4*mib)
		w.until("the admin's share is full", text(48*mib))
		w.saysWhen(w.do("POST", begins, beginBody("a", 1, "")), api.CodeResourceExhausted)
		auth := []string{"Authorization", "Bearer " + w.foreign}
		w.refused(api.CodeNotFound, "POST", begins, beginBody("a", 1, ""), auth...)
		stall(w.foreign, 4*mib-1024)
		w.until("nearly all is full", text(64*mib-4*1024))
		w.refused(api.CodeNotFound, "POST", aborts, `{"session_id":"1"}`, "Authorization", "Bearer "+third)
		stall(w.foreign, 1024)
		w.until("all is full", text(64*mib))
		w.saysWhen(w.do("POST", aborts, `{"session_id":"1"}`, "Authorization", "Bearer "+third), api.CodeUnavailable)
		for _, path := range []string{"/healthz", "/readyz", "/v1/upload_config", "/v1/memories_list"} {
			if a := w.do("GET", path, ""); a.StatusCode != 200 {
				w.t.Errorf("%s: %d", path, a.StatusCode)
			}
		}
		for _, stop := range stops {
			stop()
		}
		w.until("all is given back", text(0))
		w.begin(1)
	})
}

// One principal has at most half of the slots. A request that gets none learns when to come again.
func TestOnePrincipalHasAShareOfTheSlots(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 8 })
	id := w.begin(64 * chunk).SessionID
	for i := range 4 {
		w.sendWith("PUT", chunkPath(id, i), chunk, nil)
		w.until("it runs", func() bool { return w.server.Owned() == int64(i+1) })
	}
	w.saysWhen(w.do("GET", "/v1/upload_config", ""), api.CodeResourceExhausted)
	if a := w.do("GET", "/v1/upload_config", "", "Authorization", "Bearer "+w.foreign); a.StatusCode != 200 {
		t.Errorf("another principal: %d %s", a.StatusCode, a.body)
	}
}

// A refused request whose body is still read has no slot that another needs. Without a token, the
// server asks for no byte of the body.
func TestWhoHasNoTokenHoldsNoSlot(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 4 })
	for range 20 {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		w.check(err)
		t.Cleanup(func() { c.Close() })
		_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", begins)
		w.check(err)
		b := make([]byte, 12)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 401" {
			t.Fatalf("%s, %v", b, err)
		}
	}
	if _, text := w.server.Held(); text != 0 {
		t.Errorf("%d bytes of their bodies count", text)
	}
	w.until("no slot is held", func() bool { got, _ := w.server.Held(); return got == 0 })
	w.begin(1)
}

// Health has slots of its own.
func TestHealthIsToldWhenAllSlotsAreTaken(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 2 })
	id := w.begin(64 * chunk).SessionID
	w.sendWith("PUT", chunkPath(id, 0), chunk, nil)
	w.until("the first slot is taken", func() bool { return w.server.Owned() == 1 })
	theirs, err := w.stranger.CreateCapsule(t.Context(), api.CreateCapsuleRequest{})
	w.check(err)
	body, pipe := io.Pipe()
	defer pipe.Close()
	go w.stranger.Create(t.Context(), api.CreateRequest{CapsuleID: theirs.CapsuleID, Name: "a"}, body, 1<<20)
	w.until("both slots are taken", func() bool { return w.server.Owned() == 2 })
	for range 3 {
		w.saysWhen(w.do("GET", "/v1/upload_config", ""), api.CodeUnavailable)
		for _, path := range []string{"/healthz", "/readyz"} {
			if a := w.do("GET", path, ""); a.StatusCode != 200 {
				t.Errorf("%s: %d", path, a.StatusCode)
			}
		}
	}
}

// OPTIONS for the whole server is answered as other requests are: with an id, and without waiting
// for a body.
func TestOptionsForTheServer(t *testing.T) {
	w := newWorld(t, nil)
	for text, closes := range map[string]bool{
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                               false,
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{":      true,
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n": true,
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		w.check(err)
		_, err = io.WriteString(c, text)
		w.check(err)
		a := wire{c.(*net.TCPConn), bufio.NewReader(c), w}.answer()
		c.Close()
		if a.StatusCode != http.StatusNoContent || a.Header.Get("X-Request-Id") == "" || a.Header.Get("Allow") == "" ||
			a.Close != closes {
			t.Errorf("%q: %d, %v", text, a.StatusCode, a.Header)
		}
	}
}
