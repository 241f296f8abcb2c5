package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// get sends a request on a connection. It returns the answer's status and whether the connection
// goes on.
func (w *world) get(c net.Conn, path string) (status int, stays bool) {
	w.t.Helper()
	w.check(c.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, w.secret)
	w.check(err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	w.check(err)
	if a := w.read(res); a.StatusCode == http.StatusServiceUnavailable {
		w.saysWhen(a, api.CodeUnavailable)
	}
	return res.StatusCode, !res.Close
}

func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.check(err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// While every connection is at work, one too many is told to come again, and may only ask for
// health. The others go on, and one that closes makes way.
func TestConnectionsAreBounded(t *testing.T) {
	const most = 3
	w := newWorld(t, func(c *api.Config) { c.MaxConns = most })
	id := w.begin(most * chunk).SessionID
	w.transport.CloseIdleConnections()
	var busy []wire
	for i := range most {
		busy = append(busy, w.sendWith("PUT", chunkPath(id, i), chunk, nil))
		w.until("it runs", func() bool { return w.server.Owned() == int64(i+1) })
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got, _ := w.get(w.dial(), path); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
	}
	for i := range 40 {
		path := []string{"/v1/upload_config", "/healthz_of_another"}[i%2]
		if got, stays := w.get(w.dial(), path); got != http.StatusServiceUnavailable || stays {
			t.Fatalf("one too many got %d, and may go on: %v", got, stays)
		}
	}
	_, err := busy[0].Write(random(chunk))
	w.check(err)
	if a := busy[0].answer(); a.StatusCode != http.StatusNoContent {
		t.Errorf("one that was there: %d", a.StatusCode)
	}
	busy[1].Close()
	w.until("a connection that has closed makes way", func() bool {
		got, _ := w.get(w.dial(), "/v1/upload_config")
		return got == http.StatusOK
	})
}

// A server that drains lets clients go on with what they have begun. /readyz says that it is
// stopping.
func TestADrainingServerIsStillToBeSeen(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2 * chunk)
	s := w.begin(2 * chunk)
	body, pipe := io.Pipe()
	put := make(chan error, 1)
	go func() { put <- w.client.PutChunk(t.Context(), s.SessionID, 0, body, chunk, api.PutOptions{}) }()
	const most = chunk - 1 // more than a client keeps back
	_, err := pipe.Write(b[:most])
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
	_, err = pipe.Write(b[most:chunk])
	w.check(err)
	w.check(pipe.Close())
	w.check(<-put)
	w.check(<-stopped)
}
