package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sluice/internal/httpwire"
)

// computing is how long a worker computes. If it is longer than computeSlice, it also waits for
// other things.
const computing = 50 * time.Millisecond

// worker asks to compute again and again.
func (q *fairQueue) worker(ctx context.Context, principal string, done *atomic.Int64) {
	for ctx.Err() == nil {
		leave, err := q.enter(ctx, principal)
		if err != nil {
			return
		}
		time.Sleep(computing)
		leave()
		done.Add(1)
	}
}

// isEmpty fails if anything is left of all requests.
func (q *fairQueue) isEmpty(t *testing.T) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running != 0 || len(q.byPrincipal) != 0 || len(q.ready) != 0 {
		t.Errorf("in the end %d run, %d are known, %d are ready", q.running, len(q.byPrincipal), len(q.ready))
	}
}

// A principal with many requests that compute has all processors while it is alone. Beside another
// one it has half of them, and the other one waits for nobody but itself.
func TestPrincipalsShareTheProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const processors, many, rounds = 4, 100, 50
		var others atomic.Bool
		q := newFairQueue(processors, func(string) bool { return !others.Load() })
		var first, second atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		for range many {
			go q.worker(ctx, "first", &first)
		}
		time.Sleep(rounds*computing + time.Millisecond)
		if got := first.Load(); got != processors*rounds {
			t.Errorf("alone it has computed %d times, %d times one after the other", got, rounds)
		}
		others.Store(true)
		time.Sleep(computing)
		first.Store(0)
		go q.worker(ctx, "second", &second)
		time.Sleep(rounds*computing + time.Millisecond)
		if a, b := first.Load(), second.Load(); a != processors/2*rounds || b != rounds {
			t.Errorf("the two have computed %d and %d times, %d times one after the other", a, b, rounds)
		}
		stop()
		time.Sleep(2 * computing)
		q.isEmpty(t)
	})
}

// Principals are served round robin, however many requests each of them has.
func TestPrincipalsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(1, func(string) bool { return false })
		ctx, stop := context.WithCancel(t.Context())
		var done [3]atomic.Int64
		for i, n := range []int{50, 5, 1} {
			for range n {
				go q.worker(ctx, string(rune('a'+i)), &done[i])
			}
		}
		time.Sleep(30*computing + time.Millisecond)
		stop()
		for i := range done {
			// one that has just ended waits for the two others, one of them perhaps twice
			if got := done[i].Load(); got < 7 {
				t.Errorf("principal %d has computed %d times of 30", i, got)
			}
		}
		time.Sleep(2 * time.Second)
	})
}

// A request does not wait for ever to compute, and learns whose requests are in its way.
func TestWaitingToComputeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(1, func(string) bool { return false })
		if err := q.wait(t.Context(), "first"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for principal, want := range map[string]error{"first": errOverShare, "second": errBusy} {
			if _, err := q.enter(t.Context(), principal); !errors.Is(err, want) {
				t.Errorf("%s: %v", principal, err)
			}
		}
		if took := time.Since(began); took != 2*computeWait {
			t.Errorf("it took %v", took)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := q.enter(ctx, "first"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that has gone: %v", err)
		}
		q.leave("first")
		q.isEmpty(t)
	})
}

// A request that computes for longer, or waits for something else, no longer keeps others from it.
func TestAProcessorIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(1, func(string) bool { return false })
		first, err := q.enter(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second, err := q.enter(t.Context(), "second")
		if took := time.Since(began); err != nil || took != computeSlice {
			t.Errorf("the second waited for %v: %v", took, err)
		}
		first()
		second()
		q.isEmpty(t)
	})
}

// endless is a body without an end, and counts what was read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}

// Refused bodies are read on at a rate that all of them share. One alone is read on at once.
func TestRefusedBodiesAreReadOnAtOneRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := hostile(t, 10)
		linger := func(e *endless) {
			r := httptest.NewRequest(http.MethodPut, "/", io.NopCloser(e))
			b := newBody(r, httptest.NewRecorder(), 1<<10, 30*time.Second, testMachine)
			b.linger(lingerTimeout, false, s.limits.lingerRate)
		}
		began := time.Now()
		var one endless
		if linger(&one); one.n.Load() != maxLinger || time.Since(began) > 0 {
			t.Errorf("of one body %d bytes were read on in %v", one.n.Load(), time.Since(began))
		}
		var all endless
		for range 200 {
			go linger(&all)
		}
		time.Sleep(2 * lingerTimeout)
		synctest.Wait()
		if got, most := all.n.Load(), int64(lingerRate*(1+lingerTimeout/time.Second)); got > most+200*64<<10 ||
			got < most/2 {
			t.Errorf("of 200 bodies %d MiB were read on, want about %d", got>>20, most>>20)
		}
	})
}

// Frames that cost more than they bring are read at a rate. Each connection has some units of its
// own, and all share the others. Frames that bring something are not held up.
func TestWhatCostsMoreThanItBringsIsReadAtARate(t *testing.T) {
	for name, one := range map[string]struct {
		frame func(f *http2.Framer) error
		cost  int
	}{
		"pings":     {func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) }, answerUnits},
		"settings":  {func(f *http2.Framer) error { return f.WriteSettings() }, answerUnits},
		"resets":    {func(f *http2.Framer) error { return f.WriteRSTStream(9, http2.ErrCodeCancel) }, 1},
		"credit":    {func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }, 1},
		"nothing":   {func(f *http2.Framer) error { return f.WriteData(1, false, nil) }, 1},
		"a byte":    {func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) }, 1},
		"the end":   {func(f *http2.Framer) error { return f.WriteData(1, true, nil) }, 0},
		"bytes":     {func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 1<<10)) }, 0},
		"lost":      {func(f *http2.Framer) error { return f.WriteData(9, false, make([]byte, 1<<10)) }, answerUnits},
		"heads":     {func(f *http2.Framer) error { return f.WriteContinuation(1, false, make([]byte, longHead)) }, 0},
		"long ones": {func(f *http2.Framer) error { return f.WriteContinuation(1, false, make([]byte, longHead+5<<10)) }, 5 * answerUnits},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b bytes.Buffer
				if err := one.frame(http2.NewFramer(&b, strings.NewReader(""))); err != nil {
					t.Fatal(err)
				}
				all := newPendingStreams(maxRefused, 100, time.Now)
				const seconds, conns, most = 3, 4, 1_000_000
				var n atomic.Int64
				end := time.Now().Add(seconds * time.Second)
				for range conns {
					s := &streams{shared: all, open: map[uint32]struct{}{1: {}}}
					go func() {
						var in httpwire.Frames
						for time.Now().Before(end) && n.Add(1) < most {
							s.waitToRead()
							in.Each(b.Bytes(), s.frameReceived, func(byte, uint32, []byte) {})
						}
					}()
				}
				time.Sleep(2 * seconds * time.Second)
				want := int64(most + conns)
				if one.cost > 0 {
					want = int64((1 + seconds) * (sharedUnits + conns*connUnits) / one.cost)
				}
				if got := n.Load(); got > want+want/20 || got < want-want/20 {
					t.Errorf("%d were read in %d seconds, want about %d", got, seconds, want)
				}
			})
		})
	}
}

// A client that takes much, and says so, is not held up. A flood of others holds it up for a moment
// only.
func TestCreditForWhatIsSentCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newPendingStreams(maxRefused, 100, time.Now)
		for all.units.AllowN(time.Now(), sharedUnits/100) { // the flood has had all of them
		}
		s := &streams{shared: all, open: map[uint32]struct{}{1: {}}}
		began := time.Now()
		for range 100_000 {
			s.dataSent(2 * bytesPerUnit)
			s.waitToRead()
			s.frameReceived(httpwire.FrameWindowUpdate, 0, 4, 0)
			s.frameReceived(httpwire.FrameWindowUpdate, 1, 4, 0)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it was held up for %v", took)
		}
		for all.units.ReserveN(began, sharedUnits).DelayFrom(began) < time.Hour { // a very long queue
		}
		s.credit = 0
		for range 20 {
			s.frameReceived(httpwire.FrameHeaders, 1, longHead+50<<10, 0)
			waits := time.Now()
			if s.waitToRead(); time.Since(waits) > maxPause {
				t.Errorf("it was held up for %v at once", time.Since(waits))
			}
		}
		if time.Since(began) < maxPause {
			t.Error("long heads were let in for nothing")
		}
		done := make(chan struct{})
		s.frameReceived(httpwire.FrameHeaders, 1, longHead+100<<10, 0)
		began = time.Now()
		go func() {
			s.waitToRead()
			close(done)
		}()
		synctest.Wait()
		s.close()
		if <-done; time.Since(began) > 0 {
			t.Error("a connection that is closed waits")
		}
	})
}
