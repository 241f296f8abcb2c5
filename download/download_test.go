package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/backoff"
	"sluice/internal/system"
	"sluice/internal/test/leak"
	"sluice/session"
	"sluice/session/journal"
)

func TestMain(m *testing.M) {
	if dest := os.Getenv(childDest); dest != "" {
		os.Exit(child(dest))
	}
	os.Exit(leak.Check(m).Run())
}

// memSource is a Source in memory. open, if set, decides what goes wrong.
type memSource struct {
	b      []byte
	digest [32]byte
	asked  atomic.Int64 // bytes
	open   func(ctx context.Context, off int64, b []byte) (io.ReadCloser, error)
}

func newSource(n int) *memSource {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return &memSource{b: b, digest: sha256.Sum256(b)}
}

func (c *memSource) Size() int64      { return int64(len(c.b)) }
func (c *memSource) SHA256() [32]byte { return c.digest }

func (c *memSource) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	c.asked.Add(n)
	b := c.b[off : off+n]
	if c.open != nil {
		return c.open(ctx, off, b)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

var errCut = errors.New("connection reset")

// cutAfter returns the first n bytes of b, and then err.
func cutAfter(b []byte, n int, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(b[:min(n, len(b))]), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func dest(t testing.TB) string { return filepath.Join(t.TempDir(), "a file") }

// whole checks that the file is there, and nothing beside it.
func whole(t testing.TB, dest string, c *memSource) {
	t.Helper()
	got, err := os.ReadFile(dest)
	if err != nil || !bytes.Equal(got, c.b) {
		t.Errorf("the file has %d bytes of %d, or wrong ones: %v", len(got), len(c.b), err)
	}
	left, err := os.ReadDir(filepath.Dir(dest))
	if err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func get(t testing.TB, dest string, c *memSource) error {
	t.Helper()
	return Get(t.Context(), Request{Source: c, Dest: dest})
}

// interrupted downloads until limit bytes have been given out. Then it stops for good.
func interrupted(t testing.TB, dest string, c *memSource, limit int) {
	t.Helper()
	var given atomic.Int64
	c.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
		n := limit - int(given.Add(int64(len(b)))-int64(len(b)))
		if n >= len(b) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		return cutAfter(b, max(n, 0), fmt.Errorf("%w: %w", ErrPermanent, errCut)), nil
	}
	if err := get(t, dest, c); !errors.Is(err, errCut) {
		t.Fatalf("interrupted: %v", err)
	}
	c.open = nil
	c.asked.Store(0)
	if _, err := os.Stat(dest); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("half a file has the name: %v", err)
	}
}

func TestEverySizeArrivesWhole(t *testing.T) {
	const c = chunkSize
	for _, n := range []int{0, 1, c - 1, c, c + 1, 3*c + 5, requestSize, 2*requestSize + c + 1} {
		for _, parallel := range []int{1, 3, 16} {
			src, to := newSource(n), dest(t)
			var last, total int64
			err := Get(t.Context(), Request{Source: src, Dest: to, Parallel: parallel, Progress: func(d, all int64) {
				if d < last || d > all {
					t.Errorf("progress goes from %d to %d of %d", last, d, all)
				}
				last, total = d, all
			}})
			if err != nil {
				t.Fatalf("%d bytes by %d: %v", n, parallel, err)
			}
			whole(t, to, src)
			if last != int64(n) || total != int64(n) || src.asked.Load() != int64(n) {
				t.Errorf(
					"%d bytes by %d: progress ended at %d of %d, %d were asked for", n, parallel, last, total,
					src.asked.Load(),
				)
			}
		}
	}
}

func TestAnInterruptedDownloadGoesOn(t *testing.T) {
	src, to := newSource(20<<20), dest(t)
	interrupted(t, to, src, 9<<20)
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	// 9 MiB were given out. At most one chunk of them may not have been recorded.
	if most := int64(20-9+2) << 20; src.asked.Load() > most {
		t.Errorf("%d bytes were asked for again, at most %d are missing", src.asked.Load(), most)
	}
}

func TestWhatThePowerCutTookIsFetchedAgain(t *testing.T) {
	for name, harm := range map[string]func(part string) error{
		"zeros for a page": func(part string) error {
			f, err := os.OpenFile(part, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(make([]byte, 4096), chunkSize+8192)
			return errors.Join(err, f.Close())
		},
		"a shorter file": func(part string) error { return os.Truncate(part, chunkSize+1) },
		"a longer file":  func(part string) error { return os.Truncate(part, 50<<20) },
		"no file":        os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			src, to := newSource(12<<20), dest(t)
			interrupted(t, to, src, 8<<20)
			if err := harm(to + ".sluice-part"); err != nil {
				t.Fatal(err)
			}
			if err := get(t, to, src); err != nil {
				t.Fatal(err)
			}
			whole(t, to, src)
			if name == "zeros for a page" && src.asked.Load() > 6<<20 {
				t.Errorf("%d bytes were asked for to replace one piece of %d", src.asked.Load(), chunkSize)
			}
		})
	}
}

func TestAnotherContentStartsOver(t *testing.T) {
	for name, n := range map[string]int{
		"shorter": 9 << 20, "of equal length": 20 << 20, "longer": 23 << 20, "empty": 0,
	} {
		t.Run(name, func(t *testing.T) {
			old, to := newSource(20<<20), dest(t)
			interrupted(t, to, old, 16<<20)
			src := newSource(n)
			if n == len(old.b) {
				src.b[5]++
				src.digest = sha256.Sum256(src.b)
			}
			if err := get(t, to, src); err != nil {
				t.Fatal(err)
			}
			whole(t, to, src)
			if src.asked.Load() != int64(n) {
				t.Errorf("%d bytes were asked for, of %d", src.asked.Load(), n)
			}
		})
	}
}

func TestAWrongContentNeverGetsTheName(t *testing.T) {
	src, to := newSource(7<<20), dest(t)
	src.digest[0]++
	if err := os.WriteFile(to, []byte("former"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := get(t, to, src); !errors.Is(err, ErrDigest) {
		t.Fatalf("error is %v", err)
	}
	whole(t, to, &memSource{b: []byte("former")})
	src.digest = sha256.Sum256(src.b)
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
}

// A file that changes between the arrival of a chunk and its hashing costs that chunk, not the
// download.
func TestARottenPieceIsFoundAndReplaced(t *testing.T) {
	const size = 2*requestSize + chunkSize
	src, to := newSource(size), dest(t)
	corrupted := make(chan struct{})
	src.open = func(ctx context.Context, off int64, b []byte) (io.ReadCloser, error) {
		switch {
		case off == 0 && len(b) == requestSize:
			// Nothing is hashed before the first byte is here.
			select {
			case <-corrupted:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case off == 2*requestSize:
			// The second request has ended, since the third is made while the first waits.
			f, err := os.OpenFile(to+".sluice-part", os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{^src.b[requestSize]}, requestSize); err != nil {
				return nil, err
			}
			close(corrupted)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if err := Get(t.Context(), Request{Source: src, Dest: to, Parallel: 2}); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	if got := src.asked.Load(); got != size+chunkSize {
		t.Errorf("%d bytes were asked for, of %d", got, size)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The next Get recovers from a crash between any two steps of an end. The test ends the session as
// Get does, up to that step.
func TestACrashInTheEndIsSettled(t *testing.T) {
	crash := fmt.Errorf("%w: killed", session.ErrUnknownOutcome)
	for name, c := range map[string]struct {
		end     func(j *job) error
		refetch bool // must the bytes be fetched again?
	}{
		"sealed": {func(j *job) error {
			return j.engine.Finish(
				context.Background(), func(context.Context, []session.Session) (bool, error) { return false, crash },
				session.Verified{ID: j.id, Bytes: j.size},
			)
		}, false},
		"renamed": {func(j *job) error {
			return j.engine.Finish(context.Background(), func(ctx context.Context, s []session.Session) (bool, error) {
				_, err := j.publish(ctx, s)
				return false, errors.Join(err, crash)
			}, session.Verified{ID: j.id, Bytes: j.size})
		}, false},
		"renamed, then another file took the name": {func(j *job) error {
			return j.engine.Finish(context.Background(), func(ctx context.Context, s []session.Session) (bool, error) {
				_, err := j.publish(ctx, s)
				return false, errors.Join(err, os.WriteFile(j.req.Dest, []byte("mine"), 0o600), crash)
			}, session.Verified{ID: j.id, Bytes: j.size})
		}, true},
		"finished": {func(j *job) error {
			return j.engine.Finish(context.Background(), j.publish, session.Verified{ID: j.id, Bytes: j.size})
		}, false},
		"finished, then the file was removed": {func(j *job) error {
			err := j.engine.Finish(context.Background(), j.publish, session.Verified{ID: j.id, Bytes: j.size})
			return errors.Join(err, os.Remove(j.req.Dest))
		}, true},
		"aborting": {func(j *job) error {
			discard := func(ctx context.Context, s []session.Session) (bool, error) {
				_, err := j.discard(ctx, s)
				return false, errors.Join(err, crash)
			}
			return j.engine.Abort(context.Background(), j.id, discard)
		}, true},
		"aborting, nothing removed yet": {func(j *job) error {
			return j.engine.Abort(
				context.Background(), j.id,
				func(context.Context, []session.Session) (bool, error) { return false, crash },
			)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			src, to := newSource(5<<20), dest(t)
			j := &job{req: Request{
				Source: src, Dest: to, Parallel: 2, Patience: time.Minute, Pace: backoff.New(time.Now, system.Random{}),
				Log: discardLog(), Clock: system.Clock{},
			}, lastRecord: time.Now(), size: src.Size(), digest: src.SHA256(), limiter: newLimiter(2, time.Now)}
			if err := j.open(); err != nil {
				t.Fatal(err)
			}
			s, _, err := j.begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			j.id = s.ID
			if j.part, err = os.Create(j.req.partPath()); err != nil {
				t.Fatal(err)
			}
			if _, sum, err := j.fetch(t.Context()); err != nil || sum != j.digest {
				t.Fatal(err)
			}
			if err := c.end(j); err != nil && !errors.Is(err, crash) && !errors.Is(err, session.ErrUnknownOutcome) {
				t.Fatal(err)
			}
			if err := errors.Join(j.part.Close(), j.journal.Close()); err != nil {
				t.Fatal(err)
			}
			src.asked.Store(0)
			if err := get(t, to, src); err != nil {
				t.Fatal(err)
			}
			whole(t, to, src)
			want := int64(0)
			if c.refetch {
				want = src.Size()
			}
			if got := src.asked.Load(); got != want {
				t.Errorf("%d bytes were asked for, not %d", got, want)
			}
		})
	}
}

func TestOneGetOfAFileAtATime(t *testing.T) {
	for _, n := range [][2]int{{3 << 20, 3 << 20}, {1 << 20, 1 << 20}, {1 << 20, 3 << 20}, {3 << 20, 1 << 20}} {
		src, to := newSource(n[0]), dest(t)
		src.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
			if err := get(t, to, newSource(n[1])); !errors.Is(err, ErrBusy) {
				t.Errorf("a second Get, %v bytes: %v", n, err)
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		if err := get(t, to, src); err != nil {
			t.Fatal(err)
		}
		// The second Get may have left an empty journal behind. The next Get of the same content
		// removes it.
		if err := get(t, to, src); err != nil {
			t.Fatal(err)
		}
		whole(t, to, src)
	}
}

// A small content needs no journal, and uses no bytes of an earlier Get.
func TestASmallContentIsFetchedThroughMemory(t *testing.T) {
	src, to := newSource(1<<20), dest(t)
	src.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
		if _, err := os.Stat(to + ".sluice-journal"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a journal: %v", err)
		}
		return cutAfter(b, 600_000, errCut), nil
	}
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	if want := int64(1<<20 + 1<<20 - 600_000); src.asked.Load() != want {
		t.Errorf("%d bytes were asked for, and %d suffice", src.asked.Load(), want)
	}
	wrong, other := newSource(1<<20), dest(t)
	wrong.digest[0] ^= 1
	if err := get(t, other, wrong); !errors.Is(err, ErrDigest) {
		t.Errorf("with another SHA-256: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(other)); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// The first progress of a Get says what an earlier one has left: of a new download nothing.
func TestTheFirstProgressIsWhatWasThere(t *testing.T) {
	for _, n := range []int{1, 300_000, 3 << 20} {
		first := int64(-1)
		err := Get(t.Context(), Request{Source: newSource(n), Dest: dest(t), Progress: func(done, _ int64) {
			if first < 0 {
				first = done
			}
		}})
		if err != nil || first != 0 {
			t.Errorf("%d bytes: %d are there already: %v", n, first, err)
		}
	}
}

func TestGetsOfDifferentFilesRunAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			src, to := newSource(i<<20+i), filepath.Join(dir, fmt.Sprint(i))
			if err := get(t, to, src); err != nil {
				t.Error(err)
			}
			if got, _ := os.ReadFile(to); !bytes.Equal(got, src.b) {
				t.Errorf("file %d is wrong", i)
			}
		})
	}
	wg.Wait()
	left, _ := os.ReadDir(dir)
	names := slices.Collect(func(yield func(string) bool) {
		for _, e := range left {
			if !yield(e.Name()) {
				return
			}
		}
	})
	if !slices.Equal(names, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("the folder has %v", names)
	}
}

func TestADamagedJournalStartsOver(t *testing.T) {
	src, to := newSource(6<<20), dest(t)
	interrupted(t, to, src, 4<<20)
	b, err := os.ReadFile(to + ".sluice-journal")
	if err != nil {
		t.Fatal(err)
	}
	b[40] ^= 1
	if err := os.WriteFile(to+".sluice-journal", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(to + ".sluice-journal"); !errors.Is(err, journal.ErrDamaged) {
		t.Fatalf("the journal is not damaged: %v", err)
	}
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
}
