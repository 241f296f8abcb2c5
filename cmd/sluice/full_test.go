//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

// smallDisk mounts a disk in memory for the test. It skips the test if that is not allowed.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	root := t.TempDir()
	smallDiskAt(t, root, options)
	return root
}

func smallDiskAt(t *testing.T, root, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, options); err != nil {
		t.Skipf("needs a small disk of its own, which only root may mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
}

// hog is a file of another program that takes all the space that it can get.
type hog struct {
	t *testing.T
	f *os.File
}

func newHog(t *testing.T, root string) *hog {
	t.Helper()
	f, err := os.Create(filepath.Join(root, "somebody-else"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &hog{t, f}
}

// eat takes all free space, to the last byte.
func (h *hog) eat() {
	h.t.Helper()
	for n := 1 << 20; n > 0; {
		m, err := h.f.Write(make([]byte, n))
		switch {
		case errors.Is(err, syscall.ENOSPC) && m == 0:
			n /= 16
		case err != nil && !errors.Is(err, syscall.ENOSPC):
			h.t.Fatal(err)
		}
	}
}

// during eats also while do runs. A server frees space whenever it has merged tables or removed
// garbage, and the hog may use any space that is free.
func (h *hog) during(do func()) {
	h.t.Helper()
	h.eat()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for block := make([]byte, 64<<10); ; {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
			for n := len(block); n > 0; {
				if m, err := h.f.Write(block[:n]); err != nil && m == 0 {
					n /= 16
				}
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	do()
}

// leave frees the space.
func (h *hog) leave() {
	h.t.Helper()
	if err := h.f.Truncate(0); err != nil {
		h.t.Fatal(err)
	}
}

// fullWorld is a server on a small disk, with uploads in every state.
type fullWorld struct {
	t       *testing.T
	srv     *child
	data    string
	content []byte
}

const fullChunk = 1 << 20

func (w *fullWorld) begin(name string, chunks int) string {
	w.t.Helper()
	size := int64(len(w.content))
	s, err := w.srv.client.Begin(w.t.Context(), api.BeginRequest{
		CapsuleID: "default", Meta: api.Meta{Name: name, Bytes: &size}, ChunkSize: fullChunk,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range chunks {
		w.must(w.put(s.SessionID, i))
	}
	return s.SessionID
}

func (w *fullWorld) put(id string, i int) error {
	part := w.content[i*fullChunk : (i+1)*fullChunk]
	return w.srv.client.PutChunk(w.t.Context(), id, int64(i), bytes.NewReader(part), fullChunk, api.PutOptions{})
}

func (w *fullWorld) finish(id string) (api.Memory, error) {
	sum := sha256.Sum256(w.content)
	return w.srv.client.Finish(w.t.Context(), api.FinishRequest{
		SessionID: id, SHA256: hex.EncodeToString(sum[:]), TotalLen: int64(len(w.content)),
	})
}

func (w *fullWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *fullWorld) parts() (n int) {
	names, err := filepath.Glob(filepath.Join(w.data, "meta", "RESERVE-*"))
	w.must(err)
	return len(names)
}

// refused wants 507 with advice.
func (w *fullWorld) refused(what string, err error) {
	w.t.Helper()
	var said *api.Error
	if !errors.As(err, &said) || said.Code != api.CodeStorageFull || said.RetryAfterMS == 0 ||
		!strings.Contains(said.Detail, "once there is room again") {
		w.t.Errorf("%s on a full disk: %v", what, err)
	}
}

// Other programs fill the disk of a server to its last byte, and take at once all space that it
// frees. New work is refused, and running work can end, also over a restart. When the space comes
// back everything goes on, with the reserve as it was.
func TestADiskThatOthersFill(t *testing.T) {
	root := smallDisk(t, "size=192m")
	w := &fullWorld{
		t: t, data: filepath.Join(root, "data"), content: bytes.Repeat([]byte("0123456789abcdef"), 3*fullChunk/16),
	}
	ctx := t.Context()
	w.srv = startServer(t, w.data)
	if got := w.parts(); got != 16 {
		t.Fatalf("%d parts of the reserve", got)
	}
	var whole, partial, given []string
	var stored []api.Memory
	for i := range 4 {
		n := strconv.Itoa(i)
		whole = append(whole, w.begin("whole "+n, 3))
		partial = append(partial, w.begin("partial "+n, 1))
		given = append(given, w.begin("to be aborted "+n, 1))
		m, err := w.srv.client.Create(
			ctx, api.CreateRequest{Name: "stored " + n}, strings.NewReader("stored "+n), int64(len("stored "+n)),
		)
		w.must(err)
		stored = append(stored, m)
	}
	others := newHog(t, root)
	ends := func(i int) {
		t.Helper()
		others.eat()
		if _, err := w.finish(whole[i]); err != nil {
			t.Fatalf("finish %d: %v", i, err)
		}
		others.eat()
		w.must(w.srv.client.Abort(ctx, given[i]))
		others.eat()
		w.must(w.srv.client.DeleteMemory(ctx, stored[i].MemoryID, false))
		others.during(func() {
			_, err := w.srv.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "new"}})
			w.refused("begin", err)
			w.refused("put", w.put(partial[i], 1))
			_, err = w.srv.client.Create(ctx, api.CreateRequest{Name: "new"}, strings.NewReader("small"), 5)
			w.refused("create", err)
		})
	}
	ends(0)
	ends(1)
	res, err := http.Get(w.srv.url + "/readyz")
	w.must(err)
	said, err := io.ReadAll(res.Body)
	w.must(errors.Join(err, res.Body.Close()))
	http.DefaultClient.CloseIdleConnections()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" ||
		!strings.Contains(string(said), "degraded: the disk is full") {
		t.Errorf("/readyz: %s: %s", res.Status, said)
	}

	w.srv.stop(t)
	others.eat()
	w.srv = startServer(t, w.data)
	ends(2)
	w.srv.kill()
	others.eat()
	w.srv = startServer(t, w.data)
	ends(3)
	if got := w.parts(); got == 16 || got == 0 { // a log has its space in advance; a start needs some
		t.Errorf("%d parts are left", got)
	}

	others.leave()
	// The server looks by itself every few seconds. A client that asks first need not wait for
	// that.
	for i, id := range partial {
		w.must(w.put(id, 1))
		w.must(w.put(id, 2))
		if m, err := w.finish(id); err != nil {
			t.Errorf("finish of partial %d: %v", i, err)
		} else if m.Bytes != int64(len(w.content)) {
			t.Errorf("%d bytes", m.Bytes)
		}
	}
	w.must(w.srv.client.Ready(ctx))
	if got := w.parts(); got != 16 {
		t.Errorf("%d parts are there again", got)
	}
	for i, m := range stored {
		_, err := w.srv.client.RestoreMemory(ctx, m.MemoryID)
		w.must(err)
		body, _, err := w.srv.client.Content(ctx, m.MemoryID, 0, -1)
		w.must(err)
		b, err := io.ReadAll(body)
		w.must(errors.Join(err, body.Close()))
		if string(b) != "stored "+strconv.Itoa(i) {
			t.Errorf("%q", b)
		}
	}
	w.srv.stop(t)
	if out, err := exec.Command("sluice", "check", "--data", w.data).CombinedOutput(); err != nil {
		t.Errorf("check: %v: %s", err, out)
	}
}

// A server without requests makes its reserve whole by itself.
func TestTheReserveComesBackByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	root := smallDisk(t, "size=192m")
	w := &fullWorld{t: t, data: filepath.Join(root, "data"), content: make([]byte, 3*fullChunk)}
	w.srv = startServer(t, w.data)
	id := w.begin("whole", 3)
	others := newHog(t, root)
	others.eat()
	w.srv.kill()
	others.eat()
	w.srv = startServer(t, w.data)
	if _, err := w.finish(id); err != nil {
		t.Fatal(err)
	}
	if got := w.parts(); got == 16 {
		t.Fatalf("nothing was given up")
	}
	others.leave()
	for until := time.Now().Add(time.Minute); w.parts() < 16; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d parts after a minute", w.parts())
		}
	}
	w.srv.stop(t)
}

// The metadata has its own disk, and that one is full. Nothing new is taken, although the content's
// disk has space.
func TestAFullDiskOfTheMetadataAlone(t *testing.T) {
	w := &fullWorld{t: t, data: filepath.Join(t.TempDir(), "data"), content: make([]byte, 2*fullChunk)}
	meta := filepath.Join(w.data, "meta")
	w.must(os.MkdirAll(meta, 0o700))
	smallDiskAt(t, meta, "size=192m")
	w.srv = startServer(t, w.data)
	whole, partial := w.begin("whole", 2), w.begin("partial", 1)
	others := newHog(t, meta)
	others.eat()
	w.srv.kill()
	others.eat()
	w.srv = startServer(t, w.data)
	if got := w.parts(); got == 16 { // a start needs space
		t.Fatal("nothing was given up")
	}
	others.during(func() {
		_, err := w.srv.client.Begin(t.Context(), api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "new"}})
		w.refused("begin", err)
		_, err = w.srv.client.Create(t.Context(), api.CreateRequest{Name: "new"}, strings.NewReader("small"), 5)
		w.refused("create", err)
		w.refused("put", w.put(partial, 1))
	})
	if _, err := w.finish(whole); err != nil {
		t.Errorf("finish: %v", err)
	}
	others.leave()
	w.must(w.put(partial, 1))
	if _, err := w.finish(partial); err != nil {
		t.Errorf("finish when there is room: %v", err)
	}
	w.srv.stop(t)
}
