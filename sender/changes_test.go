package sender_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/sender"
)

// atPut runs do at the n-th put of a chunk.
func (w *wire) atPut(n int, do func()) {
	var once sync.Once
	w.beforeAnswer = func(op string) {
		if op == "uploads_put_chunk" && len(w.puts) == n {
			once.Do(do)
		}
	}
}

const chunks = (large + chunk - 1) / chunk

func TestATouchedFileIsNotSentAgain(t *testing.T) {
	w, b := newWire(t), noise(large)
	f := file(t, b)
	w.atPut(3, func() {
		if err := errors.Join(
			os.Chtimes(f.Disk, time.Now(), time.Now().Add(-time.Hour)), os.Chmod(f.Disk, 0o400),
		); err != nil {
			t.Error(err)
		}
	})
	w.sendAndCompare(f, b)
	if len(w.puts) != chunks || len(w.sessions) != 1 {
		t.Errorf("%d puts for %d chunks, in %d sessions", len(w.puts), chunks, len(w.sessions))
	}
}

// If a part of a file is rewritten while the file is sent, the file is stored as it is at the end,
// and only that part is sent again.
func TestAPartThatIsWrittenAnewIsSentAgainAlone(t *testing.T) {
	w, b := newWire(t), noise(large)
	f := file(t, b)
	w.atPut(chunks, func() {
		later := bytes.Clone(b)
		copy(later[chunk+5:], "written anew")
		if err := os.WriteFile(f.Disk, later, 0o600); err != nil {
			t.Error(err)
		}
		b = later
	})
	m, err := w.sender().Send(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	w.holds(m, b)
	if len(w.puts) != chunks+1 {
		t.Errorf("%d puts for %d chunks of which one changed", len(w.puts), chunks)
	}
}

// A file that goes on changing, gets another length, or is replaced is never stored as a mixture.
func TestAFileThatGoesOnChangingIsNotStored(t *testing.T) {
	for name, change := range map[string]func(path string, b []byte) error{
		"on and on": func(path string, b []byte) error {
			b[7]++
			at := time.Unix(int64(b[7]), 0) // clocks of file systems go in steps
			return errors.Join(os.WriteFile(path, b, 0o600), os.Chtimes(path, at, at))
		},
		"grows":   func(path string, b []byte) error { return os.WriteFile(path, append(b, 1), 0o600) },
		"shrinks": func(path string, _ []byte) error { return os.Truncate(path, large-1) },
		"replaced": func(path string, b []byte) error {
			return errors.Join(os.WriteFile(path+".new", bytes.ToUpper(b), 0o600), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := noise(large)
			f := file(t, b)
			// The wire ends before the file is removed: a request that was given up may still be
			// changing the file.
			w := newWire(t)
			w.beforeAnswer = func(op string) {
				if op == "uploads_put_chunk" && len(w.puts) >= 3 {
					if err := change(f.Disk, b); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := w.sender().Send(t.Context(), f); !errors.Is(err, sender.ErrChanged) {
				t.Fatalf("got %v", err)
			}
			if len(w.memories) != 0 || w.sessions["1"].State != "aborted" {
				t.Errorf("%d memories, and the session is %s", len(w.memories), w.sessions["1"].State)
			}
		})
	}
}

// A file that is rewritten with its former length and time of modification is another file.
func TestARewrittenFileWithTheTimesOfTheOldOneIsStoredAnew(t *testing.T) {
	for _, n := range []int{10, large} {
		w, b := newWire(t), noise(n)
		f := file(t, b)
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(f.Disk, old, old); err != nil {
			t.Fatal(err)
		}
		w.sendAndCompare(f, b)
		b[0]++
		if err := errors.Join(os.WriteFile(f.Disk, b, 0o600), os.Chtimes(f.Disk, old, old)); err != nil {
			t.Fatal(err)
		}
		w.sendAndCompare(f, b)
		w.sendAndCompare(f, b)
		if len(w.memories) != 2 {
			t.Errorf("%d memories of two contents", len(w.memories))
		}
	}
}

// If the system says the same of a file as before, its digest decides.
func TestAMemoryWithOtherBytesIsNotTakenForTheFiles(t *testing.T) {
	for _, n := range []int{10, large} {
		w, b := newWire(t), noise(n)
		f := file(t, b)
		first := w.sendAndCompare(f, b)
		w.mu.Lock()
		// This is as if the bytes had been written within one step of the clock.
		w.memories[first.MemoryID].SHA256 = strings.Repeat("0", 64)
		w.mu.Unlock()
		second := w.sendAndCompare(f, b)
		if second.MemoryID == first.MemoryID {
			t.Error("the memory of other bytes was answered")
		}
		if third := w.sendAndCompare(f, b); third.MemoryID != second.MemoryID {
			t.Error("the memory that took its place was not found again")
		}
	}
}

// The bytes that reading a file brings count, not its reported length.
func TestASizeThatLiesIsNotBelieved(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	paths := []string{"/proc/cpuinfo", "/proc/version", "/proc/self/cmdline"}
	page, _ := filepath.Glob("/sys/kernel/mm/transparent_hugepage/enabled")
	more, _ := filepath.Glob("/sys/class/net/lo/mtu")
	for _, path := range append(append(paths, page...), more...) {
		want, err := os.ReadFile(path)
		if err != nil || len(want) == 0 {
			t.Errorf("%s: %d bytes, %v", path, len(want), err)
			continue
		}
		w := newWire(t)
		m, err := w.sender().Send(t.Context(), sender.File{Disk: path, Name: "it"})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := w.memories[m.MemoryID].data; path != "/proc/cpuinfo" && !bytes.Equal(got, want) || len(got) == 0 ||
			bytes.IndexByte(got, 0) >= 0 && bytes.IndexByte(want, 0) < 0 {
			t.Errorf("%s: %d bytes were stored of %d: %q", path, len(got), len(want), got[:min(len(got), 40)])
		}
	}
}

// Opening a pipe would wait for its other end.
func TestAPipeIsNotOpenedAsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWire(t)
	if _, err := w.sender().Send(
		t.Context(), sender.File{Disk: path, Name: "it"},
	); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}
