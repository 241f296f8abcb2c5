//go:build linux

package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

var tricklers = flag.Int(
	"tricklers", 900,
	"connections that trickle in TestTricklingConnections; with more than 5000 it also waits until they are cut off",
)

const (
	// perConnection is how many bytes one connection may cost the server: the put's first buffer,
	// those of net/http, and the stacks of its goroutines.
	perConnection = 32<<10 + 2*(4<<10) + 3*(8<<10)
	// baseMemory is how many bytes the server needs itself: the cache and the tables of the
	// metadata, the program, and the pooled buffers of the good client.
	baseMemory = 96 << 20
	// baseHeap is the part of baseMemory in Go's heap, with the large buffers of puts that seem to
	// be fast.
	baseHeap = 8<<20 + 64*(256<<10)
	// perGoroutine and baseGoroutines: one goroutine serves a connection, one watches whether its
	// client has left; the others run anyhow.
	perGoroutine, baseGoroutines = 2, 60
)

// Many connections that bring a byte now and then cost bounded memory, goroutines and descriptors.
// A connection beyond the bound is refused for now. A client that sends its bytes is served in the
// midst of them.
func TestTricklingConnections(t *testing.T) {
	if withRace {
		t.Skip("the race detector takes memory of its own: go test ./cmd/sluice -run Trickling")
	}
	// The server closes connections that bring too little for half a minute. A machine that can't
	// open and inspect so many in that time gets as many as it can.
	for n := *tricklers; ; n /= 2 {
		if n < 10 {
			t.Skip("needs a machine that opens 10 connections within half a minute")
		}
		w := newTrickle(t, n)
		wrong := w.run()
		late := w.n <= 5000 && (w.late || w.ended() > 0)
		w.close()
		if late {
			t.Logf("the first of %d connections were cut off before all was measured, trying half as many", w.n)
			continue
		}
		for _, what := range wrong {
			t.Error(what)
		}
		return
	}
}

// trickle is a server and the connections that trickle.
type trickle struct {
	t           *testing.T
	n, most     int // tricklers, and connections that the server may have
	descriptors int
	srv         *child
	admin       string
	secret      string
	all         []*trickler
	transport   *http.Transport
	late        bool // the server may have closed connections that had to be open
}

// trickler is a connection. All of its answers are read, and are complete when done is closed.
type trickler struct {
	net.Conn
	said bytes.Buffer
	done chan struct{}
}

func newTrickle(t *testing.T, n int) *trickle {
	t.Helper()
	own := uint64(n + n/4 + 500)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < own {
		if limit.Max < own {
			t.Skipf("needs %d descriptors for the clients, and may have %d", own, limit.Max)
		}
		old := limit
		limit.Cur = own
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Skipf("needs %d descriptors for the clients: %v", own, err)
		}
		t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	}
	w := &trickle{t: t, transport: &http.Transport{MaxConnsPerHost: 4}}
	w.descriptors = 2*(n+n/20) + 1024 // enough for n + n/20 connections
	if uint64(w.descriptors) > limit.Max {
		w.descriptors = int(limit.Max)
	}
	w.most = (w.descriptors - 1024) / 2
	w.most = max(w.most, w.descriptors/4)
	w.n = min(n, w.most-w.most/20)
	data := filepath.Join(t.TempDir(), "data")
	srv, err := launch(exec.Command("/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, w.descriptors),
		"sluice", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data", data))
	if err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	t.Cleanup(srv.kill)
	for line := range strings.Lines(srv.greeting) {
		if at, ok := strings.CutPrefix(line, "admin listening on "); ok {
			w.admin = strings.TrimSpace(at)
		}
	}
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	w.secret = strings.TrimSpace(string(token))
	return w
}

func (w *trickle) close() {
	for _, c := range w.all {
		c.Close()
		<-c.done
	}
	w.transport.CloseIdleConnections()
	w.srv.kill()
}

func (w *trickle) dial() *trickler {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.srv.url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	c := &trickler{Conn: conn, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_, _ = io.Copy(&c.said, conn)
	}()
	w.all = append(w.all, c)
	return c
}

// ended is how many of the tricklers have ended.
func (w *trickle) ended() (n int) {
	for _, c := range w.all[:w.n] {
		select {
		case <-c.done:
			n++
		default:
		}
	}
	return n
}

// run opens the connections and gives everything that is wrong.
func (w *trickle) run() (wrong []string) {
	t, n := w.t, w.n
	t.Helper()
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	good := api.NewClient(w.srv.url, w.secret, &http.Client{Transport: w.transport})
	const chunk, each = 1 << 20, 1000 // of a session's puts
	var id string
	alone := w.goodSpeed(good, bad)
	before := rss(t, w.srv.cmd.Process.Pid)
	for i := range n {
		if size := int64(each * chunk); i%each == 0 {
			s, err := good.Begin(t.Context(), api.BeginRequest{
				CapsuleID: "default", Meta: api.Meta{Name: "trickled", Bytes: &size}, ChunkSize: chunk,
			})
			if err != nil {
				t.Fatal(err)
			}
			id = s.SessionID
		}
		first := "x"
		if i%10 == 0 {
			first = strings.Repeat("x", 100<<10) // it begins as if it were fast
		}
		_, err := fmt.Fprintf(
			w.dial(),
			"PUT /v1/uploads_put_chunk/%s/%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: "+
				"%d\r\n\r\n%s",
			id, i%each, w.secret, chunk, first,
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // bytes now and then
		for _, c := range w.all {
			_, _ = c.Write([]byte("y"))
		}
	}
	// A good client in the midst of them.
	among := w.goodSpeed(good, bad)
	t.Logf(
		"a good client's 20 MiB, five times: %.0f MiB/s (%.0f to %.0f) before the others came, %.0f (%.0f to %.0f) "+
			"among them",
		alone[2], alone[0], alone[4], among[2], among[0], among[4],
	)
	after := rss(t, w.srv.cmd.Process.Pid)
	if bound := int64(n)*perConnection + baseMemory; after > bound {
		bad("%d connections: %d bytes resident, and %d are the bound", n, after, bound)
	}
	heap := w.figure("heap?gc=1&debug=1", "# HeapAlloc = %d")
	if bound := int64(n)*perConnection + baseHeap; heap > bound {
		bad("%d connections: %d bytes in the heap, and %d are the bound", n, heap, bound)
	}
	goroutines := w.figure("goroutine?debug=1", "goroutine profile: total %d")
	if bound := int64(n)*perGoroutine + baseGoroutines; goroutines > bound {
		bad("%d connections: %d goroutines, and %d are the bound", n, goroutines, bound)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.srv.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if most := n + n/20 + 300; len(fds) > most { // one for each, and those of the stores
		bad("%d connections: %d descriptors, and %d are the bound", n, len(fds), most)
	}
	t.Logf("%d connections: resident set from %d to %d KiB, %.1f KiB for each; heap %d KiB, %d goroutines, %d "+
		"descriptors",
		n, before>>10, after>>10, float64(after-before)/1024/float64(n), heap>>10, goroutines, len(fds))
	if w.n > 5000 { // the first are closed before the last have come
		w.disconnected(bad)
		return wrong
	}
	w.refusals(bad)
	return wrong
}

// goodSpeed lets a good client create five memories, and gives how fast that was in MiB/s, the
// slowest first.
func (w *trickle) goodSpeed(good *api.Client, bad func(string, ...any)) (speeds []float64) {
	body := make([]byte, 20<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	for i := range 5 {
		began := time.Now()
		m, err := good.Create(
			w.t.Context(), api.CreateRequest{Name: fmt.Sprint("good ", i)}, bytes.NewReader(body), int64(len(body)),
		)
		if err != nil || m.Bytes != int64(len(body)) {
			bad("a good client: %d bytes, %v", m.Bytes, err)
		}
		speeds = append(speeds, float64(len(body)>>20)/time.Since(began).Seconds())
	}
	slices.Sort(speeds)
	return speeds
}

// figure reads a number of a profile.
func (w *trickle) figure(profile, line string) (n int64) {
	w.t.Helper()
	res, err := http.Get(w.admin + "/debug/pprof/" + profile)
	if err != nil {
		w.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), line, &n); err == nil {
			return n
		}
	}
	w.t.Fatalf("no %q in %s", line, profile)
	return 0
}

// refusals opens more connections than there may be. Those beyond the bound get 503, and the server
// waits for no byte of their requests.
func (w *trickle) refusals(bad func(string, ...any)) {
	const past, headFor = 20, 10 * time.Second // how long the server waits for a request's head
	const healthConns = 32                     // connections that may ask how the server is
	began := time.Now()
	var more []*trickler
	for range w.most - w.n + healthConns + past {
		more = append(more, w.dial())
	}
	w.late = time.Since(began) > headFor/2
	answered := make(chan *trickler, len(more))
	for _, c := range more {
		go func() {
			<-c.done
			answered <- c
		}()
	}
	refused := 0
	for range more { // those that are not refused end when no head has come
		c := <-answered
		if c.said.Len() == 0 {
			continue
		}
		res, err := http.ReadResponse(bufio.NewReader(&c.said), nil)
		if err != nil {
			bad("past the bound: %v", err)
			continue
		}
		res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			bad("past the bound: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		}
		if refused++; refused == past {
			return
		}
	}
	bad("%d connections were refused past the bound of %d, and %d came", refused, w.most, len(more)+w.n)
}

// disconnected waits until the server has answered 408 to all and closed.
func (w *trickle) disconnected(bad func(string, ...any)) {
	limit := time.After(2 * time.Minute)
	ended := 0
	for _, c := range w.all {
		select {
		case <-c.done:
			if bytes.HasPrefix(c.said.Bytes(), []byte("HTTP/1.1 408 ")) {
				ended++
			}
		case <-limit:
			bad("only %d of %d were cut off by the minimum rate in two minutes", ended, len(w.all))
			return
		}
	}
	w.t.Logf("%d of %d were cut off", ended, len(w.all))
	if ended != len(w.all) {
		bad("only %d of %d were cut off by the minimum rate", ended, len(w.all))
	}
}

// rss is the resident set of a process, in bytes.
func rss(t *testing.T, pid int) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &n); err == nil {
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
