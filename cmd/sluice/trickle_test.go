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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

var tricklers = flag.Int("tricklers", 900, "connections that trickle in TestTricklingConnections; with more than 5000 it also waits until they are cut off")

const (
	// perConnection is what one may cost the server: the put's first buffer, those of net/http, and the stacks of its goroutines.
	perConnection = 32<<10 + 2*(4<<10) + 3*(8<<10)
	// baseMemory is what the server needs itself: the cache and the tables of the metadata, the program, and the pooled buffers of the good client.
	baseMemory = 96 << 20
)

// Many connections that bring a byte now and then cost bounded memory and descriptors; what comes past the bound is told to come again; and who
// brings his bytes is served in the midst of them.
func TestTricklingConnections(t *testing.T) {
	n := *tricklers
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
		defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()
	}
	descriptors := 2*(n+n/20) + 1024 // so many that there may be n + n/20 connections
	if uint64(descriptors) > limit.Max {
		descriptors = int(limit.Max)
	}
	most := (descriptors - 1024) / 2
	n = min(n, most-most/20)
	data := filepath.Join(t.TempDir(), "data")
	srv, err := launch(exec.Command("/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, descriptors),
		"sluice", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.kill)
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(token))
	transport := &http.Transport{MaxConnsPerHost: 4}
	defer transport.CloseIdleConnections()
	good := api.NewClient(srv.url, secret, &http.Client{Transport: transport})
	const chunk = 1 << 20
	size := int64(n) * chunk
	s, err := good.Begin(t.Context(), api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "trickled", Bytes: &size}, ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	before := rss(t, srv.cmd.Process.Pid)
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(srv.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		return c
	}
	for i := range n {
		_, err := fmt.Fprintf(dial(), "PUT /v1/uploads_put_chunk/%s/%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\nx", s.SessionID, i, secret, chunk)
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // bytes now and then
		for _, c := range all {
			_, _ = c.Write([]byte("y"))
		}
	}
	// A good client in the midst of them.
	body := make([]byte, 20<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	if m, err := good.Create(t.Context(), api.CreateRequest{Name: "good"}, bytes.NewReader(body), int64(len(body))); err != nil || m.Bytes != int64(len(body)) {
		t.Errorf("a good client among %d: %d bytes, %v", n, m.Bytes, err)
	}
	after := rss(t, srv.cmd.Process.Pid)
	if bound := int64(n)*perConnection + baseMemory; after > bound {
		t.Errorf("%d connections: %d bytes resident, and %d are the bound", n, after, bound)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", srv.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if len(fds) > descriptors {
		t.Errorf("%d descriptors of %d", len(fds), descriptors)
	}
	t.Logf("%d connections: resident set from %d to %d KiB, %.1f KiB for each; %d descriptors", n, before>>10, after>>10, float64(after-before)/1024/float64(n), len(fds))

	// Beyond the bound: 503, at once, and nothing of the request is read.
	refused := 0
	for range most - n + 400 {
		if refused >= 5 {
			break
		}
		c := dial()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // one that is taken waits for a request
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("past the bound: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		}
		refused++
	}
	if refused < 5 && *tricklers <= 5000 { // where there are many, the first are cut off before the last have come
		t.Errorf("%d connections were refused past the bound of %d", refused, most)
	}
	if *tricklers > 5000 {
		cutOff(t, all[:n])
	}
}

// cutOff waits until the server has answered 408 to all and closed.
func cutOff(t *testing.T, conns []net.Conn) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	cut := 0
	for _, c := range conns {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
			b, _ := io.ReadAll(c)
			mu.Lock()
			defer mu.Unlock()
			if bytes.HasPrefix(b, []byte("HTTP/1.1 408 ")) {
				cut++
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d were cut off", cut, len(conns))
	if cut != len(conns) {
		t.Errorf("only %d of %d were cut off by the minimum rate", cut, len(conns))
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
