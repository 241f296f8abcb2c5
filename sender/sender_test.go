package sender_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/api"
	"sluice/internal/test/leak"
	"sluice/sender"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// large is the size of a file that goes through a session, in several chunks. The last one is
// short.
const large = 1<<20 + chunk + 123

func noise(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n)})
	src.Read(b)
	return b
}

// file makes a file on the disk.
func file(t *testing.T, b []byte) sender.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return sender.File{Disk: path, Name: "a file"}
}

func (w *wire) sender() *sender.Sender { return sender.New(w.client, sender.Options{}) }

// sendAndCompare sends f and compares the memory at the other end.
func (w *wire) sendAndCompare(f sender.File, want []byte) api.Memory {
	w.t.Helper()
	m, err := w.sender().Send(w.t.Context(), f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.holds(m, want)
	return m
}

func (w *wire) holds(m api.Memory, want []byte) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.memories[m.MemoryID]; got == nil || !bytes.Equal(got.data, want) {
		w.t.Fatalf("memory %q does not have the %d bytes that were sent", m.MemoryID, len(want))
	}
}

func isPut(r *http.Request) bool { return strings.Contains(r.URL.Path, "/uploads_put_") }

// hasBody reports whether the request is a put or a create.
func hasBody(r *http.Request) bool {
	return isPut(r) || strings.HasSuffix(r.URL.Path, "/memories_create")
}

// cutOff ends the connection without an answer.
func cutOff() bool { panic(http.ErrAbortHandler) }

func TestEverySizeArrivesAndIsSentOnce(t *testing.T) {
	for _, n := range []int{
		0, 1, chunk - 1, chunk, chunk + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5*chunk - 1, 5 * chunk, 5*chunk + 1,
	} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			w, b := newWire(t), noise(n)
			f := file(t, b)
			first := w.sendAndCompare(f, b)
			puts, finishes := len(w.puts), w.count("uploads_finish")
			if again := w.sendAndCompare(f, b); again.MemoryID != first.MemoryID {
				t.Errorf("the unchanged file became %s, and then %s", first.MemoryID, again.MemoryID)
			}
			if len(w.puts) != puts || w.count("uploads_finish") != finishes {
				t.Error("bytes of the unchanged file were put again")
			}
		})
	}
}

func TestATouchedFileAndADeletedMemoryAreStoredAnew(t *testing.T) {
	for _, n := range []int{10, large} {
		w, b := newWire(t), noise(n)
		f := file(t, b)
		first := w.sendAndCompare(f, b)
		w.memories[first.MemoryID].deleted = true
		second := w.sendAndCompare(f, b)
		if second.MemoryID == first.MemoryID {
			t.Error("a deleted memory was answered")
		}
		if third := w.sendAndCompare(f, b); third.MemoryID != second.MemoryID {
			t.Error("the memory that took the deleted one's place was not found again")
		}
		later := time.Now().Add(time.Hour)
		if err := os.Chtimes(f.Disk, later, later); err != nil {
			t.Fatal(err)
		}
		if w.sendAndCompare(f, b).MemoryID == second.MemoryID {
			t.Error("a file with another time of modification was taken for the same")
		}
	}
}

// The bytes arrive, whatever happens to some of the requests.
func TestMishaps(t *testing.T) {
	type mishap = func(http.ResponseWriter, *http.Request) bool
	every := func(n int64, which func(*http.Request) bool, do mishap) mishap {
		var seen atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) bool {
			return which(r) && seen.Add(1)%n == 1 && do(w, r)
		}
	}
	any := func(*http.Request) bool { return true }
	cases := map[string]mishap{
		"cut in the middle of the body": every(3, isPut, func(_ http.ResponseWriter, r *http.Request) bool {
			io.CopyN(io.Discard, r.Body, r.ContentLength/2)
			return cutOff()
		}),
		"cut at once": every(2, any, func(http.ResponseWriter, *http.Request) bool { return cutOff() }),
		"503 of ours": every(3, any, func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(503)
			io.WriteString(w, `{"status":503,"code":"Unavailable","detail":"draining","retry_after_ms":20}`)
			return true
		}),
		"503 of a proxy": every(3, any, func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(503)
			io.WriteString(w, "<html>busy</html>")
			return true
		}),
		"502 of a proxy for bodies": every(2, hasBody, func(w http.ResponseWriter, r *http.Request) bool {
			io.Copy(io.Discard, r.Body)
			http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
			return true
		}),
	}
	for name, mishap := range cases {
		for _, n := range []int{1000, large} {
			t.Run(name+" "+strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				w, b := newWire(t), noise(n)
				w.mishap = mishap
				w.sendAndCompare(file(t, b), b)
				if len(w.memories) != 1 {
					t.Errorf("%d memories were made of one file", len(w.memories))
				}
			})
		}
	}
}

// Through a proxy with a limit of size every file goes, in one request or in ranges.
func TestAProxyThatRefusesLargeBodies(t *testing.T) {
	for _, limit := range []int64{100_000, 5000} {
		for _, n := range []int{200_000, large} {
			t.Run(strconv.Itoa(n)+" through "+strconv.FormatInt(limit, 10), func(t *testing.T) {
				t.Parallel()
				w, b := newWire(t), noise(n)
				w.mishap = func(rw http.ResponseWriter, r *http.Request) bool {
					if r.ContentLength <= limit || !hasBody(r) {
						return false
					}
					io.Copy(io.Discard, r.Body)
					rw.Header().Set("Content-Type", "text/html")
					rw.WriteHeader(413)
					io.WriteString(rw, "<html>413 Request Entity Too Large</html>")
					return true
				}
				w.sendAndCompare(file(t, b), b)
			})
		}
	}
}

// The server acts, and its answer is lost: the repeat has no second effect.
func TestLostAnswers(t *testing.T) {
	for _, name := range []string{
		"memories_create", "uploads_begin", "uploads_put_chunk", "uploads_finish", "uploads_begin of a pipe",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op, pipe := strings.CutSuffix(name, " of a pipe")
			n := large
			if op == "memories_create" {
				n = 1000
			}
			w, b := newWire(t), noise(n)
			lost := false
			w.beforeAnswer = func(o string) {
				if o == op && !lost {
					lost = true
					cutOff()
				}
			}
			if pipe {
				m, err := w.sender().SendPipe(t.Context(), sender.File{Name: "pipe"}, bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				w.holds(m, b)
			} else {
				w.sendAndCompare(file(t, b), b)
			}
			if !lost {
				t.Fatalf("%s was never asked for", op)
			}
			if len(w.memories) != 1 || len(w.sessions) > 1 {
				t.Errorf("%d sessions and %d memories were made of one file", len(w.sessions), len(w.memories))
			}
		})
	}
}

func TestDamagedAndMissingChunksAreSentAgainAlone(t *testing.T) {
	for name, harm := range map[string]func(*upload){
		"damaged": func(u *upload) { u.data[2*chunk+7] ^= 1 },
		"missing": func(u *upload) { clear(u.have[2*chunk : 3*chunk]) },
	} {
		t.Run(name, func(t *testing.T) {
			w, b := newWire(t), noise(large)
			whole := (large + chunk - 1) / chunk
			harmed := false
			w.beforeAnswer = func(op string) {
				if op == "uploads_put_chunk" && !harmed && len(w.puts) == whole {
					harmed = true
					harm(w.sessions["1"])
				}
			}
			w.sendAndCompare(file(t, b), b)
			if !harmed || len(w.puts) != whole+1 {
				t.Errorf("%d puts for %d chunks of which one was %s", len(w.puts), whole, name)
			}
		})
	}
}

func TestAStoppedSendGoesOn(t *testing.T) {
	w, b := newWire(t), noise(large)
	f := file(t, b)
	ctx, stop := context.WithCancel(t.Context())
	w.beforeAnswer = func(op string) {
		if op == "uploads_put_chunk" && len(w.puts) == 3 {
			stop()
		}
	}
	if _, err := w.sender().Send(ctx, f); !errors.Is(err, context.Canceled) {
		t.Fatalf("a stopped Send returned %v", err)
	}
	w.mu.Lock()
	there := len(w.puts)
	w.beforeAnswer = nil
	w.mu.Unlock()
	w.sendAndCompare(f, b)
	if whole := (large + chunk - 1) / chunk; len(w.puts) > whole+4 || there < 3 || len(w.sessions) != 1 {
		t.Errorf("%d puts, %d of them before the stop, in %d sessions", len(w.puts), there, len(w.sessions))
	}
}

// A file that was moved goes on with its upload, which is found by its received bytes.
func TestAMovedFileGoesOn(t *testing.T) {
	for _, same := range []bool{true, false} {
		w, b := newWire(t), noise(large)
		other := b
		if !same {
			other = noise(large + 1)[:large]
		}
		size := int64(large)
		old, err := w.client.Begin(t.Context(), api.BeginRequest{
			CapsuleID: "default", Meta: api.Meta{Name: "a file", Bytes: &size}, Idem: "elsewhere",
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.client.PutChunk(
			t.Context(), old.SessionID, 1, bytes.NewReader(other[chunk:2*chunk]), chunk, api.PutOptions{},
		); err != nil {
			t.Fatal(err)
		}
		w.sessions[old.SessionID].LastSeen = api.Time{Time: time.Now().Add(-time.Hour)}
		w.sendAndCompare(file(t, b), b)
		if adopted := w.sessions[old.SessionID].State == "finished"; adopted != same {
			t.Errorf("with the same content %v: adopted %v", same, adopted)
		}
	}
}

func TestAFileThatChangesIsNotStored(t *testing.T) {
	w, b := newWire(t), noise(large)
	f := file(t, b)
	var once sync.Once
	w.beforeAnswer = func(op string) {
		if op == "uploads_put_chunk" {
			once.Do(func() {
				if err := os.WriteFile(f.Disk, noise(large+chunk), 0o600); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if _, err := w.sender().Send(t.Context(), f); !errors.Is(err, sender.ErrChanged) {
		t.Fatalf("got %v", err)
	}
	if len(w.memories) != 0 || w.sessions["1"].State != "aborted" {
		t.Errorf("%d memories, and the session is %s", len(w.memories), w.sessions["1"].State)
	}
}

func TestASessionThatIsEndedElsewhereIsBegunAgain(t *testing.T) {
	w, b := newWire(t), noise(large)
	w.beforeAnswer = func(op string) {
		if op == "uploads_put_chunk" && len(w.puts) == 2 && len(w.sessions) == 1 {
			w.sessions["1"].State = "aborted"
		}
	}
	w.sendAndCompare(file(t, b), b)
	if len(w.sessions) != 2 {
		t.Errorf("%d sessions", len(w.sessions))
	}
}

func TestAPipeOfUnknownLength(t *testing.T) {
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 4 * chunk, large} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			w, b := newWire(t), noise(n)
			var puts atomic.Int64
			w.mishap = func(_ http.ResponseWriter, r *http.Request) bool {
				return isPut(r) && puts.Add(1)%4 == 2 && cutOff()
			}
			m, err := w.sender().SendPipe(
				t.Context(), sender.File{Disk: "-", Name: "pipe"}, io.MultiReader(bytes.NewReader(b)),
			)
			if err != nil {
				t.Fatal(err)
			}
			w.holds(m, b)
		})
	}
}

func TestPatienceEnds(t *testing.T) {
	w := newWire(t)
	w.mishap = func(http.ResponseWriter, *http.Request) bool { return cutOff() }
	s := sender.New(w.client, sender.Options{Patience: time.Millisecond})
	if _, err := s.Send(t.Context(), file(t, noise(10))); !errors.Is(err, sender.ErrPatience) {
		t.Errorf("got %v", err)
	}
}

// Progress never goes past the end, and reaches it.
func TestProgressEndsAtTheEnd(t *testing.T) {
	w, b := newWire(t), noise(large)
	var cuts, most atomic.Int64
	w.mishap = func(_ http.ResponseWriter, r *http.Request) bool {
		if !isPut(r) || cuts.Add(1)%3 != 1 {
			return false
		}
		io.CopyN(io.Discard, r.Body, chunk/2)
		return cutOff()
	}
	s := sender.New(w.client, sender.Options{Progress: func(_ sender.File, done, total int64) {
		if done < 0 || done > total || total != large {
			t.Errorf("%d of %d bytes", done, total)
		}
		most.Store(max(most.Load(), done))
	}})
	if _, err := s.Send(t.Context(), file(t, b)); err != nil {
		t.Fatal(err)
	}
	if most.Load() != large {
		t.Errorf("it ended at %d of %d bytes", most.Load(), large)
	}
}
