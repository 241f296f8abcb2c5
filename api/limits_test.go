package api_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/session"
)

// head sends a request's head alone. It returns the answer, which comes although no byte of the
// body does. With expects the server must say first that it reads the body, and that is taken for
// the answer.
func (w *world) head(head string, expects bool) *http.Response {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.check(err)
	w.t.Cleanup(func() { c.Close() })
	if expects {
		head += "\r\nExpect: 100-continue"
	}
	_, err = fmt.Fprintf(c, "%s\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", head, w.secret)
	w.check(err)
	w.check(c.SetReadDeadline(time.Now().Add(time.Minute)))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	w.check(err)
	w.check(res.Body.Close())
	return res
}

// Under overload, each limit answers before anything of the body is read, with a time to come
// again.
func TestALimitIsSaidBeforeTheBody(t *testing.T) {
	const large = 10 << 20
	for name, c := range map[string]struct {
		status int
		change func(*api.Config)
		meet   func(w *world) string // returns the head of the request that is one too many
	}{
		"open sessions": {http.StatusTooManyRequests, nil, func(w *world) string {
			for range maxSessions {
				w.begin(1)
			}
			return fmt.Sprintf("PUT /v1/memories_create/large HTTP/1.1\r\nContent-Length: %d", large)
		}},
		"running requests": {http.StatusServiceUnavailable, func(c *api.Config) { c.MaxRequests = 1 }, func(w *world) string {
			s := w.begin(2 * chunk)
			c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			w.check(err)
			w.t.Cleanup(func() { c.Close() })
			_, err = fmt.Fprintf(
				c,
				"PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
					"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n",
				chunkPath(s.SessionID, 0), w.secret, chunk,
			)
			w.check(err)
			_, err = bufio.NewReader(c).ReadString('\n') // 100 Continue: it runs
			w.check(err)
			return fmt.Sprintf("PUT %s HTTP/1.1\r\nContent-Length: %d", chunkPath(s.SessionID, 1), chunk)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.change)
			head := c.meet(w)
			// if the body is read, the server says so at once for the first
			for _, expects := range []bool{true, false} {
				if res := w.head(head, expects); res.StatusCode != c.status || res.Header.Get("Retry-After") == "" {
					t.Fatalf("%s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
				}
			}
		})
	}
}

// One-byte ranges, every second byte first, are refused if they would be entries of their own, with
// the gap that is to be closed. If they would not, the content is right in the end.
func TestOneByteRangesInTheWorstOrder(t *testing.T) {
	b := random(600)
	put := func(w *world, id string, i int) error {
		_, err := w.client.PutRange(t.Context(), id, int64(i), bytes.NewReader(b[i:i+1]), 1, api.PutOptions{})
		return err
	}
	t.Run("refused", func(t *testing.T) {
		w := openWorld(t, api.Config{}, session.Config{MinEntry: 4096})
		s := w.begin(int64(len(b)))
		for i := 1; i < len(b)-1; i += 2 {
			var said *api.Error
			if err := put(w, s.SessionID, i); !errors.As(err, &said) || said.Code != api.CodeResourceExhausted ||
				said.RetryAfterMS == 0 ||
				len(said.MissingBytes) != 1 || !strings.Contains(said.Detail, "below the smallest of 4096") {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		got, err := w.client.Status(t.Context(), s.SessionID, false)
		if err != nil || got.BytesReceived != 0 {
			t.Errorf("%d bytes are recorded, %v", got.BytesReceived, err)
		}
		w.check(w.put(s.SessionID, 0, b)) // as the message says
		_, err = w.client.Finish(t.Context(), finishOf(s.SessionID, b))
		w.check(err)
	})
	t.Run("taken", func(t *testing.T) {
		w := newWorld(t, nil)
		s := w.begin(int64(len(b)))
		for _, first := range []int{1, 0} {
			for i := first; i < len(b); i += 2 {
				w.check(put(w, s.SessionID, i))
			}
		}
		m, err := w.client.Finish(t.Context(), finishOf(s.SessionID, b))
		if err != nil || m.SHA256 != hexSum(b) {
			t.Errorf("%v, %v", m.SHA256, err)
		}
	})
}

// refusedTotal returns what /metrics counts of each bound.
func (w *world) refusedTotal() map[string]string {
	rec := httptest.NewRecorder()
	w.server.AdminHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	out := map[string]string{}
	row := regexp.MustCompile(`sluice_refused_total\{bound="(\w+)"\} (\d+)`)
	for _, m := range row.FindAllStringSubmatch(rec.Body.String(), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// The refusals of each bound are counted under a name of its own, and there are no other names.
func TestRefusalsAreCounted(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 1 })
	want := map[string]string{}
	for _, name := range []string{
		"connections", "idle_connections", "head", "framing", "requests", "principal", "json_bytes", "answer_bytes",
		"slow_body", "slow_answer", "request_rate", "failed_auth_rate",
	} {
		want[name] = "0"
	}
	if got := w.refusedTotal(); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	w.exchange("GET\r\n\r\n", 1)
	w.exchange("GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 1)
	id := w.begin(chunk).SessionID
	w.sendWith("PUT", chunkPath(id, 0), chunk, nil)
	w.until("it runs", func() bool { return w.server.Owned() == 1 })
	w.saysWhen(w.do("GET", "/v1/upload_config", ""), api.CodeUnavailable)
	for _, name := range []string{"head", "framing", "requests"} {
		want[name] = "1"
	}
	if got := w.refusedTotal(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A request that reads many records for one answer waits for a processor, although it has a slot.
// A put does not.
func TestLongAnswersTakeTurns(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.begin(2*chunk).SessionID, random(chunk)
	for name, ask := range map[string]func() error{
		"status":    func() error { _, err := w.client.Status(t.Context(), id, false); return err },
		"uploads":   func() error { _, err := w.client.Uploads(t.Context(), "", 0); return err },
		"memories":  func() error { _, err := w.client.ListMemories(t.Context(), api.MemoryQuery{}); return err },
		"ping":      func() error { _, err := w.client.Ping(t.Context(), nil); return err },
		"capsules":  func() error { _, err := w.client.ListCapsules(t.Context(), "", 0); return err },
		"of admins": func() error { _, err := w.client.AdminSessions(t.Context(), "", "", "", 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			free := w.server.Occupy()
			before := w.server.Computing()
			done := make(chan error, 1)
			go func() { done <- ask() }()
			w.until("it waits", func() bool { return w.server.Computing() == before+1 })
			w.check(w.put(id, 0, b))
			select {
			case err := <-done:
				t.Errorf("it did not wait: %v", err)
				free()
			default:
				free()
				w.check(<-done)
			}
			w.until("it gives the processor back", func() bool { return w.server.Computing() == 0 })
		})
	}
}
