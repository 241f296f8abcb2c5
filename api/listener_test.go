package api_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sluice/api"
)

// What comes past the bound of connections is told to come again, and room is there as soon as one closes.
func TestConnectionsAreBounded(t *testing.T) {
	const most = 3
	w := newWorld(t, func(c *api.Config) { c.MaxConns = most })
	dial := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		w.check(err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	healthy := func(c net.Conn) int {
		_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		w.check(err)
		b := make([]byte, 4096)
		n, err := io.ReadAtLeast(c, b, len("HTTP/1.1 200"))
		w.check(err)
		res, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(b[:n]), c)), nil)
		w.check(err)
		body, err := io.ReadAll(res.Body)
		w.check(err)
		if res.StatusCode == http.StatusServiceUnavailable {
			var p api.Problem
			w.check(json.Unmarshal(body, &p))
			if p.Code != api.CodeUnavailable || p.RetryAfterMS == 0 || res.Header.Get("Retry-After") == "" {
				t.Errorf("%s", body)
			}
		}
		return res.StatusCode
	}
	var open []net.Conn
	for range most {
		c := dial()
		if got := healthy(c); got != http.StatusOK {
			t.Fatal(got)
		}
		open = append(open, c)
	}
	if got := healthy(dial()); got != http.StatusServiceUnavailable {
		t.Errorf("one too many got %d", got)
	}
	for _, c := range open { // those that are there go on
		if got := healthy(c); got != http.StatusOK {
			t.Error(got)
		}
	}
	open[0].Close()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); { // the server sees the closing a little later
		if healthy(dial()) == http.StatusOK {
			return
		}
	}
	t.Error("a closed connection is still counted")
}

// A server that drains lets clients go on with what they have begun, and says on /readyz that it is stopping.
func TestADrainingServerIsStillToBeSeen(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2 * chunk)
	s := w.begin(2 * chunk)
	body, pour := io.Pipe()
	put := make(chan error, 1)
	go func() { put <- w.client.PutChunk(t.Context(), s.SessionID, 0, body, chunk, api.PutOptions{}) }()
	const most = chunk - 1 // more than a client keeps back
	_, err := pour.Write(b[:most])
	w.check(err)
	for running := false; !running; { // until the put has come to the server
		rec := httptest.NewRecorder()
		w.server.AdminHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		running = strings.Contains(rec.Body.String(), "sluice_requests_running 2\n") // this one is another
	}
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	for until := time.Now().Add(10 * time.Second); ; {
		err := w.stranger.Ready(t.Context())
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeUnavailable {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("while it drains: %v", err)
		}
	}
	if err := w.put(s.SessionID, 1, b[chunk:]); err != nil {
		t.Errorf("a chunk of a session that was begun before: %v", err)
	}
	_, err = pour.Write(b[most:chunk])
	w.check(err)
	w.check(pour.Close())
	w.check(<-put)
	w.check(<-stopped)
}
