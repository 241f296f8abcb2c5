package download

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAPoorConnectionGetsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, to := newSource(13<<20), dest(t)
		var calls atomic.Int64
		src.open = func(ctx context.Context, off int64, b []byte) (io.ReadCloser, error) {
			switch calls.Add(1) % 5 {
			case 0:
				return nil, errCut
			case 1:
				return cutAfter(b, 100, errCut), nil
			case 2:
				return cutAfter(b, chunkSize+7, errCut), nil
			case 3:
				return cutAfter(b, chunkSize-1, io.EOF), nil // this cut looks like an end
			}
			return cutAfter(b, len(b), errCut), nil // an error behind the last byte does not count
		}
		if err := get(t, to, src); err != nil {
			t.Fatal(err)
		}
		whole(t, to, src)
	})
}

func TestARequestThatStandsStillIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, to := newSource(3<<20), dest(t)
		var calls atomic.Int64
		src.open = func(ctx context.Context, _ int64, b []byte) (io.ReadCloser, error) {
			switch calls.Add(1) {
			case 1:
				<-ctx.Done()
				return nil, ctx.Err()
			case 2:
				stall := readerFunc(func([]byte) (int, error) {
					<-ctx.Done()
					return 0, ctx.Err()
				})
				return io.NopCloser(io.MultiReader(bytes.NewReader(b[:chunkSize+9]), stall)), nil
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		if err := get(t, to, src); err != nil {
			t.Fatal(err)
		}
		whole(t, to, src)
		if calls.Load() != 3 {
			t.Errorf("%d requests", calls.Load())
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, to := newSource(3<<20), dest(t)
		src.open = func(context.Context, int64, []byte) (io.ReadCloser, error) { return nil, errCut }
		began := time.Now()
		err := Get(t.Context(), Request{Source: src, Dest: to, Patience: 2 * time.Minute})
		if waited := time.Since(began); !errors.Is(err, errCut) || !errors.Is(err, ErrPatience) ||
			waited < 2*time.Minute || waited > 3*time.Minute {
			t.Errorf("after %s: %v", waited, err)
		}
	})
}

func TestAPermanentErrorEndsItAtOnce(t *testing.T) {
	src, to := newSource(30<<20), dest(t)
	gone := fmt.Errorf("%w: 404", ErrPermanent)
	var calls atomic.Int64
	src.open = func(context.Context, int64, []byte) (io.ReadCloser, error) { calls.Add(1); return nil, gone }
	if err := get(t, to, src); !errors.Is(err, gone) || calls.Load() > maxRequests {
		t.Errorf("after %d requests: %v", calls.Load(), err)
	}
}

func TestStoppingIsImmediateAndKeepsWhatArrived(t *testing.T) {
	src, to := newSource(12<<20), dest(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	src.open = func(ctx context.Context, off int64, b []byte) (io.ReadCloser, error) {
		if off < requestSize {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		stop()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := Get(ctx, Request{Source: src, Dest: to, Parallel: 1}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	src.open = nil
	src.asked.Store(0)
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	if got := src.asked.Load(); got != 4<<20 {
		t.Errorf("%d bytes were asked for again", got)
	}
}

func TestAnErrorOfTheDiskIsNotTriedAgain(t *testing.T) {
	src, to := newSource(3<<20), dest(t)
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	// A folder can't be replaced by a file: the rename fails, for certain.
	if err := get(t, to, src); err == nil {
		t.Fatal("a folder was replaced")
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	src.asked.Store(0)
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	if src.asked.Load() != 0 {
		t.Errorf("%d bytes were asked for again", src.asked.Load())
	}
}

// These variables make this test binary a download that can be killed.
const childDest, childURL = "DOWNLOAD_TEST_DEST", "DOWNLOAD_TEST_URL"

const childSize = 24<<20 + 3

// remote is a Source over HTTP, as a command has one.
type remote struct {
	*memSource
	url string
}

func (r remote) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func child(dest string) int {
	src := remote{newSource(childSize), os.Getenv(childURL)}
	err := Get(
		context.Background(), Request{Source: src, Dest: dest, Progress: func(done, _ int64) { fmt.Println(done) }},
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A download that is killed with -9 again and again, at any moment, completes in the end, and never
// leaves a wrong file.
func TestKillNine(t *testing.T) {
	src, to := newSource(childSize), dest(t)
	var given atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given.Add(requestSize)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(src.b))
	}))
	defer server.Close()
	for round := 1; ; round++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDest+"="+to, childURL+"="+server.URL)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// Later in each round, so that it ends, and at odd places.
		lines := bufio.NewScanner(out)
		for n := 0; n < 20+round*round*5 && lines.Scan(); n++ {
		}
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		err = cmd.Wait()
		if got, readErr := os.ReadFile(to); readErr == nil && sha256.Sum256(got) != src.digest {
			t.Fatalf("round %d left a wrong file", round)
		}
		if err == nil {
			break
		}
		if round == 40 {
			t.Fatal("it does not get there")
		}
	}
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
	t.Logf("%d bytes were asked for, for %d", given.Load(), childSize)
}
