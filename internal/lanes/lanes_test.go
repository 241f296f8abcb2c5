package lanes

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

// clock is a fake one.
type clock struct{ at time.Time }

func newClock() *clock                { return &clock{time.Unix(1e9, 0)} }
func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// width is how many lanes there are now.
func width(l *Lanes) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.p.width
}

// link is a fake one: bytes a second for all together, and for each connection; an answer takes its delay on top.
type link struct {
	all, each float64
	delay     time.Duration
}

// ride sends requests of n bytes over a link, as many at a time as there are lanes, and tells the widths that were seen.
func (c *clock) ride(t *testing.T, l *Lanes, over func() link, n float64, requests int) (widths []int) {
	t.Helper()
	type request struct{ left, wait float64 }
	const step = 5 * time.Millisecond
	var running []*request
	widths = append(widths, width(l))
	for requests > 0 || len(running) > 0 {
		for len(running) < width(l) && requests > 0 {
			if err := l.Enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			k := over()
			running = append(running, &request{n, k.delay.Seconds()})
			requests--
		}
		l.mu.Lock()
		l.p.wanted = l.p.wanted || requests > 0 // as one more Enter that waits would say
		l.mu.Unlock()
		k, sending := over(), 0
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
				l.Moved(int64(go1))
			} else {
				r.wait -= step.Seconds()
			}
			if r.left > 0 || r.wait > 0 {
				kept = append(kept, r)
				continue
			}
			l.Leave()
			if w := width(l); w != widths[len(widths)-1] {
				widths = append(widths, w)
			}
		}
		running = kept
	}
	return widths
}

const mega = 1 << 20

func most(widths []int) (m int) {
	for _, w := range widths {
		m = max(m, w)
	}
	return m
}

func TestTheWidthFollowsTheLink(t *testing.T) {
	for name, like := range map[string]struct {
		link
		want int // lanes at the end
		most int // that were ever tried
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
			got := c.ride(t, l, func() link { return like.link }, 8*mega, 80)
			if got[0] != 4 || most(got) > like.most || !within(got, like.want) {
				t.Errorf("the widths were %v, to end at %d, with %d at most", got, like.want, like.most)
			}
		})
	}
}

// within: the last width that was kept; a guess may be running at the end.
func within(widths []int, want int) bool {
	n := len(widths)
	return widths[n-1] == want || n > 1 && widths[n-2] == want
}

func TestALinkThatGrowsIsFoundOutLater(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	start := c.at
	c.ride(t, l, func() link {
		if c.at.Sub(start) < time.Minute {
			return link{10 * mega, 10 * mega, 0}
		}
		return link{200 * mega, 10 * mega, 0}
	}, mega, 20000)
	if w := width(l); w != 16 {
		t.Errorf("%d lanes on a link that has room for 20", w)
	}
}

// A guess that brings nothing costs a bounded part of the time.
func TestGuessesThatBringNothingGetRare(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	widths := c.ride(t, l, func() link { return link{100 * mega, 100 * mega, 0} }, mega, 20000)
	if len(widths) < 3 || len(widths) > 40 || most(widths) != 8 {
		t.Errorf("%d changes in 200 s, of at most 8 lanes: %v", len(widths), widths)
	}
}

func TestWithoutMoreToDoThanLanesNothingIsGuessed(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	for range 1000 {
		if err := l.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Second)
		l.Moved(mega)
		l.Leave()
	}
	if w := width(l); w != 4 {
		t.Errorf("one request after the other, and %d lanes", w)
	}
}

func TestTroubleHalvesTheLanesOnceForAll(t *testing.T) {
	c := newClock()
	l := Adaptive(16, c.now)
	fast := func() link { return link{1000 * mega, 10 * mega, 0} }
	c.ride(t, l, fast, mega, 500)
	if w := width(l); w != 16 {
		t.Fatalf("%d lanes", w)
	}
	for range 16 {
		l.Troubled()
	}
	if w := width(l); w != 8 {
		t.Errorf("16 refusals at once leave %d lanes", w)
	}
	for width(l) > 1 {
		c.ride(t, l, fast, mega, 2*width(l))
		l.Troubled()
	}
	c.ride(t, l, fast, mega, 5)
	l.Troubled()
	if w := width(l); w != 1 {
		t.Errorf("%d lanes, and one must stay", w)
	}
	c.ride(t, l, fast, mega, 2000)
	if w := width(l); w != 16 {
		t.Errorf("the trouble is over, and %d lanes are left", w)
	}
}

func TestAFixedNumberStays(t *testing.T) {
	c := newClock()
	for _, n := range []int{1, 5} {
		l := Fixed(n)
		widths := c.ride(t, l, func() link { return link{1000 * mega, 10 * mega, 0} }, mega, 500)
		l.Troubled()
		if len(widths) != 1 || widths[0] != n || width(l) != n {
			t.Errorf("%v, then %d", widths, width(l))
		}
	}
}

func TestEnterWaitsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Fixed(1)
		if err := l.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		why := errors.New("over")
		ctx, stop := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Enter(ctx) }()
		synctest.Wait()
		stop(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		if err := l.Enter(ctx); !errors.Is(err, why) {
			t.Errorf("with a context that is over: %v", err)
		}
		go func() { ended <- l.Enter(t.Context()) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("two are in one lane")
		default:
		}
		l.Leave()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.Leave()
	})
}
