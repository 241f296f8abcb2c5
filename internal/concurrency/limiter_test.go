package concurrency

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// clock is a fake clock.
type clock struct{ at time.Time }

func newClock() *clock                { return &clock{time.Unix(1e9, 0)} }
func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// limit is how many requests may run now.
func limit(l *Limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.est.limit
}

// link is a fake link. all and each are its bytes a second, for all connections together and for
// each one. An answer takes its delay on top.
type link struct {
	all, each float64
	delay     time.Duration
}

// simulate sends requests of n bytes over a link, as many at a time as the limit lets, and returns
// the limits that it saw.
func (c *clock) simulate(t *testing.T, l *Limiter, linkNow func() link, n float64, requests int) (limits []int) {
	t.Helper()
	type request struct{ left, wait float64 }
	const step = 5 * time.Millisecond
	var running []*request
	limits = append(limits, limit(l))
	for requests > 0 || len(running) > 0 {
		for len(running) < limit(l) && requests > 0 {
			if err := l.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			k := linkNow()
			running = append(running, &request{n, k.delay.Seconds()})
			requests--
		}
		l.mu.Lock()
		l.est.wanted = l.est.wanted || requests > 0 // as if one more Acquire waited
		l.mu.Unlock()
		k, sending := linkNow(), 0
		for _, r := range running {
			if r.left > 0 {
				sending++
			}
		}
		c.pass(step)
		kept := running[:0]
		for _, r := range running {
			if r.left > 0 {
				go1 := min(r.left, k.each*step.Seconds(), k.all*step.Seconds()/float64(sending))
				r.left -= go1
				l.Transferred(int64(go1))
			} else {
				r.wait -= step.Seconds()
			}
			if r.left > 0 || r.wait > 0 {
				kept = append(kept, r)
				continue
			}
			l.Release()
			if w := limit(l); w != limits[len(limits)-1] {
				limits = append(limits, w)
			}
		}
		running = kept
	}
	return limits
}

const mega = 1 << 20

func most(limits []int) (m int) {
	for _, w := range limits {
		m = max(m, w)
	}
	return m
}

func TestTheLimitFollowsTheLink(t *testing.T) {
	for name, like := range map[string]struct {
		link
		want int // limit at the end
		most int // largest limit that was tried
	}{
		"one connection fills it":                    {link{10 * mega, 1000 * mega, time.Millisecond}, 4, 8},
		"each connection gets a quarter":             {link{40 * mega, 10 * mega, time.Millisecond}, 4, 8},
		"each connection gets a fifteenth":           {link{150 * mega, 10 * mega, time.Millisecond}, 16, 16},
		"the answers take as long as three requests": {link{1000 * mega, 100 * mega, 240 * time.Millisecond}, 16, 16},
		"slow and far":                               {link{mega, mega, 100 * time.Millisecond}, 4, 8},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			l := Adaptive(16, c.now)
			got := c.simulate(t, l, func() link { return like.link }, 8*mega, 80)
			if got[0] != 4 || most(got) > like.most || !within(got, like.want) {
				t.Errorf("the limits were %v, to end at %d, with %d at most", got, like.want, like.most)
			}
		})
	}
}

// within reports whether the last limit that was kept is the wanted one. A guess may be running at
// the end.
func within(limits []int, want int) bool {
	n := len(limits)
	return limits[n-1] == want || n > 1 && limits[n-2] == want
}

func TestALinkThatGrowsIsFoundOutLater(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	start := c.at
	c.simulate(t, l, func() link {
		if c.at.Sub(start) < time.Minute {
			return link{10 * mega, 10 * mega, 0}
		}
		return link{200 * mega, 10 * mega, 0}
	}, mega, 20000)
	if w := limit(l); w != 16 {
		t.Errorf("a limit of %d on a link that could take 20", w)
	}
}

// A guess that brings nothing costs a bounded part of the time.
func TestGuessesThatBringNothingGetRare(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	limits := c.simulate(t, l, func() link { return link{100 * mega, 100 * mega, 0} }, mega, 20000)
	if len(limits) < 3 || len(limits) > 40 || most(limits) != 8 {
		t.Errorf("%d changes in 200 s, to at most 8: %v", len(limits), limits)
	}
}

func TestWithoutMoreToDoThanTheLimitNothingIsGuessed(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	for range 1000 {
		if err := l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Second)
		l.Transferred(mega)
		l.Release()
	}
	if w := limit(l); w != 4 {
		t.Errorf("one request after the other, and a limit of %d", w)
	}
}

func TestTroubleHalvesTheLimitOnceForAll(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	fast := func() link { return link{1000 * mega, 10 * mega, 0} }
	c.simulate(t, l, fast, mega, 500)
	if w := limit(l); w != 16 {
		t.Fatalf("the limit is %d", w)
	}
	for range 16 {
		l.BackOff()
	}
	if w := limit(l); w != 8 {
		t.Errorf("16 refusals at once leave a limit of %d", w)
	}
	for limit(l) > 1 {
		c.simulate(t, l, fast, mega, 2*limit(l))
		l.BackOff()
	}
	c.simulate(t, l, fast, mega, 5)
	l.BackOff()
	if w := limit(l); w != 1 {
		t.Errorf("the limit is %d, and one must stay", w)
	}
	c.simulate(t, l, fast, mega, 2000)
	if w := limit(l); w != 16 {
		t.Errorf("the trouble is over, and the limit is %d", w)
	}
}

func TestAFixedNumberStays(t *testing.T) {
	c := newClock()
	for _, n := range []int{1, 5} {
		l := Fixed(n, time.Now)
		limits := c.simulate(t, l, func() link { return link{1000 * mega, 10 * mega, 0} }, mega, 500)
		l.BackOff()
		if len(limits) != 1 || limits[0] != n || limit(l) != n {
			t.Errorf("%v, then %d", limits, limit(l))
		}
	}
}

func TestAcquireWaitsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Fixed(1, time.Now)
		if err := l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		why := errors.New("over")
		ctx, stop := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Acquire(ctx) }()
		synctest.Wait()
		stop(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		if err := l.Acquire(ctx); !errors.Is(err, why) {
			t.Errorf("with a context that is over: %v", err)
		}
		go func() { ended <- l.Acquire(t.Context()) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("two run, and one may")
		default:
		}
		l.Release()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.Release()
	})
}
