package backoff

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

const long = time.Hour

// front stands before a server. It takes so many requests in each window, and refuses the others
// until the next one.
type front struct {
	each   int
	window time.Duration
	tells  bool // the client when to come again

	mu    sync.Mutex
	since time.Time
	taken int
	asked int
}

func (f *front) serve() (Outcome, time.Duration) {
	f.mu.Lock()
	now := time.Now()
	if f.since.IsZero() || now.Sub(f.since) >= f.window {
		f.since, f.taken = now, 0
	}
	f.asked++
	f.taken++
	refused, left := f.taken > f.each, f.window-now.Sub(f.since)
	f.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
	switch {
	case !refused:
		return Answered, 0
	case f.tells:
		return Refused, left
	}
	return Refused, 0
}

func TestAFrontThatRefusesIsAskedAboutAsOftenAsItTakes(t *testing.T) {
	for name, c := range map[string]struct {
		tells bool
		asked int
		took  time.Duration
	}{"told": {true, 300, 11 * time.Second}, "not told": {false, 500, 15 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &front{each: 20, window: time.Second, tells: c.tells}
				s := New(time.Now, rand.Reader)
				var wg sync.WaitGroup
				began := time.Now()
				slots := make(chan struct{}, 16)
				for range 200 {
					slots <- struct{}{}
					wg.Go(func() {
						defer func() { <-slots }()
						for o := Refused; o != Answered; {
							if err := s.Enter(t.Context(), long); err != nil {
								t.Error(err)
								return
							}
							var retryAfter time.Duration
							o, retryAfter = f.serve()
							s.Exit(o, retryAfter)
						}
					})
				}
				wg.Wait()
				if took := time.Since(began); f.asked > c.asked || took > c.took {
					t.Errorf("200 requests took %d in %s", f.asked, took)
				}
			})
		})
	}
}

func TestAServerThatIsAwayIsAskedByOneAndThenByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(30 * time.Second)
		s := New(time.Now, rand.Reader)
		var wg sync.WaitGroup
		var mu sync.Mutex
		asked, most, now := 0, 0, 0
		for range 16 {
			wg.Go(func() {
				for o := Away; o == Away; {
					if s.Enter(t.Context(), long) != nil {
						return
					}
					mu.Lock()
					asked++
					now++
					there := time.Now().After(back)
					if there {
						most = max(most, now)
					}
					mu.Unlock()
					time.Sleep(time.Second / 10)
					if there {
						o = Answered
					}
					mu.Lock()
					now--
					mu.Unlock()
					s.Exit(o, 0)
				}
			})
		}
		wg.Wait()
		if asked > 16+16+15 || most < 15 {
			t.Errorf("%d requests, %d at a time when it was back", asked, most)
		}
	})
}

func TestAWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Now, rand.Reader)
		if err := s.Enter(t.Context(), long); err != nil {
			t.Fatal(err)
		}
		s.Exit(Refused, time.Minute)
		began := time.Now()
		if err := s.Enter(t.Context(), 3*time.Second); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := s.Enter(ctx, long); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a stopped wait: %v", err)
		}
		s.Exit(Unknown, 0)
		if err := s.Enter(t.Context(), long); err != nil || time.Since(began) < 59*time.Second {
			t.Errorf("%v after %s of a minute", err, time.Since(began))
		}
		s.Exit(Answered, 0)
	})
}

func TestIdleCountsFromTheLastMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Now, rand.Reader)
		began := time.Now()
		time.Sleep(time.Minute)
		if d := s.Idle(began); d != time.Minute {
			t.Errorf("%s", d)
		}
		s.Moved()
		time.Sleep(time.Second)
		if d := s.Idle(began); d != time.Second {
			t.Errorf("%s", d)
		}
		if d := s.Idle(time.Now()); d != 0 {
			t.Errorf("%s", d)
		}
	})
}
