//go:build linux && cgo

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/session"
	"sluice/upload"
)

var (
	openSessions = flag.Int(
		"opensessions", 12_000,
		"open sessions at which TestOpenSessionsAreNotInMemory first looks at the memory. They must fill the cache of "+
			"rows, which has 8,192. Four times as many are begun in all.",
	)
	beginFor = flag.Duration(
		"begin-for", 0,
		"begin no more in TestOpenSessionsAreNotInMemory after this time, and then also end some, for a twelfth of "+
			"it (0: all are begun, none is ended)",
	)
)

// Open sessions lie in the store and not in memory: four times as many cost hardly more. The first
// ones fill the cache of rows, which is bounded. So what the rest adds is theirs alone.
func TestOpenSessionsAreNotInMemory(t *testing.T) {
	if withRace {
		t.Skip("the race detector takes memory of its own: go test ./cmd/sluice -run OpenSessions")
	}
	n := *openSessions
	data := filepath.Join(t.TempDir(), "data")
	cmd := serveCmd{
		Data: data, SessionTTL: time.Hour, MaxOpenSessions: 1 << 40, MaxBytes: 1 << 40, Durability: "process",
	}
	open := func() *server {
		began := time.Now()
		s, err := cmd.open(t.Context(), slog.New(slog.DiscardHandler), nil, func(err error) { panic(err) }, func() {})
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
	begin := func(n int, most time.Duration) int64 {
		var wg sync.WaitGroup
		var failed, begun atomic.Int64
		left := atomic.Int64{}
		left.Store(int64(n))
		began := time.Now()
		for range 256 {
			wg.Go(func() {
				for (most == 0 || time.Since(began) < most) && left.Add(-1) >= 0 {
					begun.Add(1)
					_, err := s.uploads.Begin(context.Background(), who, upload.BeginRequest{
						Capsule: "default", Meta: catalog.Meta{Name: rand.Text()}, Bytes: 1, Chunks: -1,
					})
					if err != nil && failed.Add(1) == 1 {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(began)
		t.Logf(
			"%d sessions begun in %s, %.0f a second", begun.Load(), took.Round(time.Millisecond),
			float64(begun.Load())/took.Seconds(),
		)
		return begun.Load()
	}
	all := begin(n, *beginFor/4)
	some, first := all, liveHeap()
	all += begin(3*n, *beginFor-*beginFor/4)
	second := liveHeap()
	began := time.Now()
	ended, err := s.keeper.Tick(t.Context())
	if err != nil || ended != 0 {
		t.Errorf("a tick ended %d sessions: %v", ended, err)
	}
	tick := time.Since(began)
	t.Logf("heap with %d sessions: %d KiB, with %d: %d KiB; resident %d KiB; a tick with nothing due: %s; %d KiB on "+
		"the disk",
		some, first>>10, all, second>>10, rss(t, os.Getpid())>>10, tick.Round(time.Microsecond), onDisk(t, data)>>10)
	// The metadata's cache and its tables in memory lie outside of Go's heap. They are bounded too.
	bound := int64(1 << 20)
	if second-first > bound {
		t.Errorf("the heap has grown by %d bytes, and %d are the bound", second-first, bound)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s = open()
	if st, err := s.meta.Sessions().Stats(t.Context()); err != nil || st.Open != all {
		t.Errorf("%d sessions are open: %v", st.Open, err)
	}
	if after := liveHeap(); after-first > bound {
		t.Errorf("after a start the heap has grown by %d bytes, and %d are the bound", after-first, bound)
	} else {
		t.Logf("after a start: heap %d KiB, resident %d KiB", after>>10, rss(t, os.Getpid())>>10)
	}
	if *beginFor > 0 {
		s.expireSome(t, *beginFor/12)
	}
}

// expireSome lets the time to live of all sessions pass, and ends sessions for the given time.
func (s *server) expireSome(t *testing.T, most time.Duration) {
	engine, err := session.New(t.Context(), s.meta.Sessions(), session.Config{TTL: time.Hour, MaxStep: 2 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), most)
	defer stop()
	began := time.Now()
	ended, err := engine.TickTTL(ctx, time.Now().Add(2*time.Hour), s.uploads.Expire)
	took := time.Since(began)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) || ended == 0 {
		t.Errorf("%d ended: %v", ended, err)
	}
	t.Logf(
		"with all due a tick ended %d in %s, %.0f a second; heap %d KiB", ended, took.Round(time.Millisecond),
		float64(ended)/took.Seconds(), liveHeap()>>10,
	)
}

// onDisk is how many bytes of the disk a folder takes.
func onDisk(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
			n += st.Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// admin is the first principal of a data folder.
func (s *server) admin(t *testing.T, data string) access.Caller {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	who, err := access.New(
		s.meta.Catalog(), system.Clock{}, func() int64 { return 0 }, nil,
	).Authenticate(t.Context(), strings.TrimSpace(string(token)))
	if err != nil {
		t.Fatal(err)
	}
	return who
}
