package api_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
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
