//go:build cgo

package main

import (
	"context"
	"crypto/rand"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/upload"
)

var openSessions = flag.Int("opensessions", 3000, "open sessions in TestOpenSessionsAreNotInMemory; four times as many are begun in all")

// Open sessions lie in the store and not in memory: four times as many cost hardly more.
func TestOpenSessionsAreNotInMemory(t *testing.T) {
	n := *openSessions
	data := filepath.Join(t.TempDir(), "data")
	cmd := serveCmd{Data: data, SessionTTL: time.Hour, MaxOpenSessions: 1 << 40, MaxBytes: 1 << 40, Durability: "process"}
	open := func() *server {
		began := time.Now()
		s, err := cmd.open(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("opened in %s", time.Since(began).Round(time.Millisecond))
		return s
	}
	s := open()
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	who := s.admin(t, data)
	begin := func(n int) {
		var wg sync.WaitGroup
		var failed atomic.Int64
		left := atomic.Int64{}
		left.Store(int64(n))
		began := time.Now()
		for range 64 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					_, err := s.uploads.Begin(context.Background(), who, upload.BeginRequest{Capsule: "default", Meta: catalog.Meta{Name: rand.Text()}, Bytes: 1, Chunks: -1})
					if err != nil && failed.Add(1) == 1 {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(began)
		t.Logf("%d sessions begun in %s, %.0f a second", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	}
	begin(n)
	first := liveHeap()
	begin(3 * n)
	second := liveHeap()
	began := time.Now()
	ended, err := s.keeper.Tick(t.Context())
	if err != nil || ended != 0 {
		t.Errorf("a tick ended %d sessions: %v", ended, err)
	}
	tick := time.Since(began)
	t.Logf("heap with %d sessions: %d KiB, with %d: %d KiB; a tick with nothing due: %s", n, first>>10, 4*n, second>>10, tick.Round(time.Microsecond))
	// The metadata's cache and its tables in memory, which are bounded too, lie outside of Go's heap.
	if bound := int64(2 << 20); second-first > bound {
		t.Errorf("the heap has grown by %d bytes, and %d are the bound", second-first, bound)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s = open()
	if st, err := s.meta.Sessions().Stats(t.Context()); err != nil || st.Open != int64(4*n) {
		t.Errorf("%d sessions are open: %v", st.Open, err)
	}
	t.Logf("heap after a start: %d KiB", liveHeap()>>10)
}

// admin is the first principal of a data folder.
func (s *server) admin(t *testing.T, data string) access.Caller {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	who, err := access.New(s.meta.Catalog(), systemClock{}, func() int64 { return 0 }, nil).Authenticate(t.Context(), strings.TrimSpace(string(token)))
	if err != nil {
		t.Fatal(err)
	}
	return who
}
