//go:build cgo

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/upload"
)

// sampled gives n zeros, and looks at the heap now and then while they are read.
type sampled struct {
	left, since int64
	peak        *atomic.Int64
}

func (s *sampled) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if s.since += int64(len(p)); s.since >= 4<<20 {
		s.since = 0
		if n := liveHeap(); n > s.peak.Load() {
			s.peak.Store(n)
		}
	}
	n := min(int64(len(p)), s.left)
	clear(p[:n])
	s.left -= n
	return int(n), nil
}

// liveHeap is the size of the live objects in Go's heap, in bytes.
func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// opened gives a server without its network, which ends with the test, and its admin.
func opened(t *testing.T) (*server, access.Caller) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	cmd := serveCmd{Data: data, SessionTTL: time.Hour, MaxOpenSessions: 1000, MaxBytes: 1 << 40, Durability: "process"}
	s, err := cmd.open(t.Context(), slog.New(slog.DiscardHandler), nil, func(err error) { panic(err) }, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, s.admin(t, data)
}

// A chunk of the largest size passes through buffers that are much smaller, and so do many of the
// smallest size.
func TestMemoryDoesNotDependOnTheSizeOfChunks(t *testing.T) {
	const streams = 4
	s, who := opened(t)
	limits := s.uploads.Limits()
	for name, c := range map[string]struct {
		size   int64
		chunks int64
	}{"the largest": {limits.ChunkSizeMax, streams}, "the smallest": {limits.ChunkSizeMin, 2000}} {
		t.Run(name, func(t *testing.T) {
			total := c.size * c.chunks
			up, err := s.uploads.Begin(t.Context(), who, upload.BeginRequest{
				Capsule: "default", Meta: catalog.Meta{Name: name}, Bytes: total, Chunks: c.chunks, ChunkSize: c.size,
			})
			if err != nil {
				t.Fatal(err)
			}
			before, peak := liveHeap(), atomic.Int64{}
			var wg sync.WaitGroup
			for k := range int64(streams) {
				wg.Go(func() {
					for i := k; i < c.chunks; i += streams {
						if err := s.uploads.PutChunk(
							t.Context(), who, up.ID, i, &sampled{left: c.size, peak: &peak}, upload.Put{Length: c.size},
						); err != nil {
							t.Errorf("chunk %d: %v", i, err)
							return
						}
					}
				})
			}
			wg.Wait()
			peak.Store(max(peak.Load(), liveHeap()))
			sum := sha256.New()
			_, _ = io.CopyN(sum, zero{}, total)
			if _, err := s.uploads.Finish(t.Context(), who, upload.FinishRequest{
				ID: up.ID, SHA256: [32]byte(sum.Sum(nil)), Length: total,
			}); err != nil {
				t.Error(err)
			}
			// Each stream has a buffer of 256 KiB, and the background hasher has another. The index
			// of received bytes and a little more come on top.
			bound := streams*2*(256<<10) + c.chunks*1024 + 2<<20
			t.Logf("the heap has grown by %d KiB at most, %d are the bound", (peak.Load()-before)>>10, bound>>10)
			if peak.Load()-before > bound {
				t.Errorf("the heap has grown by %d bytes, and %d are the bound", peak.Load()-before, bound)
			}
		})
	}
}

// Ranges of one byte are no entries of their own here: each would cost an entry.
func TestTheServerHasASmallestPiece(t *testing.T) {
	s, who := opened(t)
	up, err := s.uploads.Begin(t.Context(), who, upload.BeginRequest{
		Capsule: "default", Meta: catalog.Meta{Name: "pieces"}, Bytes: 1 << 20, Chunks: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.uploads.PutRange(
		t.Context(), who, up.ID, 1000, bytes.NewReader([]byte{1}), upload.Put{Length: 1},
	); !errors.Is(err, session.ErrLimit) {
		t.Errorf("a byte behind a gap: %v", err)
	}
}

// Contents that come whole in one request share files, whatever a buffer holds. Larger contents do
// not.
func TestSmallCreatesShareAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its time stands still, so that every content comes fast
		s, who := opened(t)
		create := func(n int64) {
			t.Helper()
			req := upload.CreateRequest{Meta: catalog.Meta{Name: "small"}, Put: upload.Put{Length: n}}
			if m, err := s.uploads.Create(t.Context(), who, req, io.LimitReader(
				rand.NewChaCha8([32]byte{byte(n >> 12), byte(n)}), n,
			)); err != nil || m.Bytes != n {
				t.Fatalf("%d bytes: %+v, %v", n, m, err)
			}
		}
		create(64 << 10)
		before := s.files(t)
		for _, n := range []int64{5 << 10, 32 << 10, 33 << 10, 100 << 10, 256 << 10, 257 << 10, 700_001, 1<<20 - 64} {
			create(n)
			if now := s.files(t); now != before {
				t.Errorf("a content of %d bytes has a file of its own", n)
				before = now
			}
		}
		create(1 << 20)
		if now := s.files(t); now != before+1 {
			t.Errorf("a larger one has %d files", now-before)
		}
	})
}

// files counts the files that hold the contents.
func (s *server) files(t *testing.T) int {
	t.Helper()
	places, err := s.blobs.Places(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]bool{}
	for _, p := range places {
		file, _ := localblob.Where(p.Name)
		in[file] = true
	}
	return len(in)
}

// zero gives zeros without end.
type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
