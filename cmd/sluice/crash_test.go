package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
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

// child is a server in a process of its own.
type child struct {
	cmd    *exec.Cmd
	url    string
	client *api.Client
	said   *bytes.Buffer // on standard error; to be read when done is closed
	done   chan struct{}

	greeting string // the text that it wrote at first
}

// startServer runs `sluice serve` on a data folder.
func startServer(t *testing.T, data string, flags ...string) *child {
	t.Helper()
	c, err := launch(exec.Command(
		"sluice",
		append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data}, flags...)...,
	))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	c.client = api.NewClient(c.url, strings.TrimSpace(string(token)), nil)
	return c
}

// refused runs a command that the program must refuse, and that so must end by itself. A command
// that goes on, such as a server that starts all the same, is killed after a minute and fails the
// test.
func refused(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out, err := exec.CommandContext(ctx, "sluice", args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("sluice %q does not end: %s", args, out)
	}
	return string(out), err
}

// launch starts a server. It returns when the server has said where it is and what to try.
func launch(cmd *exec.Cmd) (*child, error) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, said: &bytes.Buffer{}, done: make(chan struct{})}
	lines := bufio.NewReader(stderr)
	for line := ""; err == nil && !strings.HasPrefix(line, "or a folder: "); {
		line, err = lines.ReadString('\n')
		c.said.WriteString(line)
		if at, ok := strings.CutPrefix(line, "listening on "); ok {
			c.url = strings.TrimSpace(at)
		}
	}
	if err != nil {
		_ = cmd.Wait()
		return nil, fmt.Errorf("the server did not start: %s", c.said)
	}
	c.greeting = c.said.String()
	go func() {
		defer close(c.done)
		io.Copy(c.said, lines)
	}()
	return c, nil
}

// kill is kill -9.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		<-c.done
		c.cmd.Wait()
	}
}

// stop is SIGTERM.
func (c *child) stop(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-c.done
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("the server ended with %v: %s", err, c.said)
	}
}

// facts are the promises of the server, which must hold after any death of it.
type facts struct {
	mu       sync.Mutex
	memories map[string]string   // id: sha256
	deleted  map[string]bool     // memories in the trash
	sessions map[string]*promise // open ones
	ended    map[string]string   // session: state
}

// promise is an open session and its acknowledged chunks.
type promise struct {
	name   string
	chunks [][]byte
	acked  map[int]bool
}

const crashChunk = 20_000 // no multiple of a block

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := rand.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

// load makes promises until the server is gone.
func (f *facts) load(ctx context.Context, c *api.Client, worker int) {
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		switch rand.IntN(6) {
		case 0, 1:
			err = f.create(ctx, c)
		case 5:
			err = f.remove(ctx, c)
		default:
			err = f.upload(ctx, c, fmt.Sprintf("%d-%d", worker, i))
		}
		if err != nil {
			return
		}
	}
}

func (f *facts) create(ctx context.Context, c *api.Client) error {
	b := noise(rand.IntN(3 * crashChunk))
	m, err := c.Create(ctx, api.CreateRequest{Name: "created"}, bytes.NewReader(b), int64(len(b)))
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.memories[m.MemoryID] = sum(b)
	}
	return err
}

func (f *facts) remove(ctx context.Context, c *api.Client) error {
	f.mu.Lock()
	var id string
	for id = range f.memories {
		break
	}
	delete(f.memories, id) // from now on it may be there or not, until the answer comes
	f.mu.Unlock()
	if id == "" {
		return nil
	}
	err := c.DeleteMemory(ctx, id, false)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.deleted[id] = true
	}
	return err
}

// upload begins a session, puts chunks in random order, and ends it in one of several ways or
// leaves it.
func (f *facts) upload(ctx context.Context, c *api.Client, name string) error {
	p := &promise{name: name, acked: map[int]bool{}}
	size := int64(0)
	for range 1 + rand.IntN(6) {
		p.chunks = append(p.chunks, noise(crashChunk))
		size += crashChunk
	}
	last := len(p.chunks) - 1
	less := rand.IntN(crashChunk - 1)
	p.chunks[last] = p.chunks[last][less:]
	size -= int64(less)
	s, err := c.Begin(ctx, api.BeginRequest{
		CapsuleID: "default", Meta: api.Meta{Name: name, Bytes: &size}, ChunkSize: crashChunk,
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.sessions[s.SessionID] = p
	f.mu.Unlock()
	for _, i := range rand.Perm(len(p.chunks)) {
		if err := f.put(ctx, c, s.SessionID, p, i); err != nil {
			return err
		}
	}
	switch rand.IntN(4) {
	case 0:
		return nil
	case 1:
		f.forget(s.SessionID)
		if err := c.Abort(ctx, s.SessionID); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended[s.SessionID] = "aborted"
		return nil
	}
	return f.finish(ctx, c, s.SessionID, p)
}

func (f *facts) put(ctx context.Context, c *api.Client, id string, p *promise, i int) error {
	err := c.PutChunk(ctx, id, int64(i), bytes.NewReader(p.chunks[i]), int64(len(p.chunks[i])), api.PutOptions{})
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		p.acked[i] = true
	}
	return err
}

func (f *facts) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, id)
}

func (f *facts) finish(ctx context.Context, c *api.Client, id string, p *promise) error {
	all := bytes.Join(p.chunks, nil)
	f.forget(id)
	m, err := c.Finish(ctx, api.FinishRequest{SessionID: id, SHA256: sum(all), TotalLen: int64(len(all))})
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.memories[m.MemoryID] = m.SHA256
		f.ended[id] = "finished"
		if m.SHA256 != sum(all) {
			return fmt.Errorf("finish answered another digest")
		}
	}
	return err
}

// check asks the server for everything that it has promised.
func (f *facts) check(t *testing.T, c *api.Client) {
	t.Helper()
	ctx := t.Context()
	listed := map[string]bool{}
	for cursor := ""; ; {
		page, err := c.ListMemories(ctx, api.MemoryQuery{Limit: 1000, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Memories {
			listed[m.MemoryID] = true
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	for id, want := range f.memories {
		body, _, err := c.Content(ctx, id, 0, -1)
		if err != nil {
			t.Fatalf("memory %s was acknowledged: %v", id, err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || sum(b) != want || !listed[id] {
			t.Fatalf("memory %s: %d bytes, listed %v, %v", id, len(b), listed[id], err)
		}
	}
	for id := range f.deleted {
		if listed[id] {
			t.Fatalf("memory %s was deleted", id)
		}
	}
	for id, p := range f.sessions {
		s, err := c.Status(ctx, id, true)
		if err != nil || s.State != "open" {
			t.Fatalf("session %s (%s): %s, %v", id, p.name, s.State, err)
		}
		for i := range p.acked {
			want := fmt.Sprintf("%08x", crc32.Checksum(p.chunks[i], crc32.MakeTable(crc32.Castagnoli)))
			if got := s.CRC32C[fmt.Sprint(i)]; got != want {
				t.Fatalf("session %s: chunk %d was acknowledged, and has CRC %q, not %s", id, i, got, want)
			}
		}
	}
	for id, state := range f.ended {
		if s, err := c.Status(ctx, id, false); err != nil || s.State != state {
			t.Fatalf("session %s is %s, not %s: %v", id, s.State, state, err)
		}
	}
}

// 12 rounds of kill -9 under load: no 204 and no 200 was a lie.
func TestKillNineUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	data := filepath.Join(t.TempDir(), "data")
	f := &facts{
		memories: map[string]string{}, deleted: map[string]bool{}, sessions: map[string]*promise{},
		ended: map[string]string{},
	}
	const rounds = 12
	for range rounds {
		srv := startServer(t, data)
		f.check(t, srv.client)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() { f.load(ctx, srv.client, w) })
		}
		select {
		case <-time.After(time.Duration(50+rand.IntN(300)) * time.Millisecond):
		case <-srv.done:
			t.Fatalf("the server ended by itself: %s", srv.said)
		}
		srv.kill()
		cancel()
		wg.Wait()
	}
	srv := startServer(t, data)
	f.check(t, srv.client)
	for id, p := range f.sessions {
		for i := range p.chunks {
			if !p.acked[i] {
				if err := f.put(t.Context(), srv.client, id, p, i); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := f.finish(t.Context(), srv.client, id, p); err != nil {
			t.Fatalf("going on with %s: %v", id, err)
		}
	}
	f.check(t, srv.client)
	t.Logf("%d memories, %d sessions ended, %d deleted", len(f.memories), len(f.ended), len(f.deleted))
	if len(f.memories) < rounds {
		t.Errorf("only %d memories: that was no load", len(f.memories))
	}
	srv.stop(t)
	srv = startServer(t, data)
	f.check(t, srv.client)
	srv.stop(t)
}
