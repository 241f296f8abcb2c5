package upload

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"sluice/session"
)

// link is a body of a certain speed: each Read takes `wait` and brings n bytes.
type link struct {
	wait time.Duration
	n    int
}

func (l link) Read(p []byte) (int, error) {
	time.Sleep(l.wait)
	return min(l.n, len(p)), nil
}

// orderedBodies are puts of a GiB each on one session. The prefix hash is at the first.
func orderedBodies(links ...io.Reader) (a *activeSession, all []*orderedBody) {
	a = &activeSession{now: time.Now, loaded: true, changed: make(chan struct{})}
	for i, l := range links {
		b := newBody(l, Put{})
		a.join(b, session.Range{Off: int64(i) << 30, End: int64(i+1) << 30})
		all = append(all, b)
	}
	return a, all
}

// read gives how long a Read takes.
func read(t *testing.T, b *orderedBody) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := b.Read(make([]byte, 64<<10)); err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

// moveTo moves the end of the prefix hash.
func (a *activeSession) moveTo(off int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hash.off = off
	a.notify()
}

var (
	quick = link{0, 64 << 10}
	slow  = link{30 * time.Millisecond, 64 << 10}
)

// A put ahead of the hash waits until the hash has reached it. A put at the hash, or behind it,
// never waits.
func TestTheFirstGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := orderedBodies(quick, quick, quick)
		if took := read(t, all[0]); took != 0 {
			t.Errorf("the first waited for %s", took)
		}
		time.AfterFunc(300*time.Millisecond, func() { a.moveTo(1 << 30); all[0].done() })
		done := make(chan time.Duration)
		for _, b := range all[1:] {
			go func() { done <- read(t, b) }()
		}
		if took := <-done; took != 300*time.Millisecond {
			t.Errorf("the second waited for %s", took)
		}
		a.moveTo(2 << 30)
		if took := <-done; took != 300*time.Millisecond {
			t.Errorf("the third waited for %s", took)
		}
	})
}

func TestNobodyIsHeldInVain(t *testing.T) {
	for name, c := range map[string]struct {
		first io.Reader
		do    func(a *activeSession, all []*orderedBody)
		most  time.Duration
	}{
		"longer than a second": {quick, func(*activeSession, []*orderedBody) {}, maxOrderWait + firstWindow},
		"for one whose Read does not return": {link{time.Hour, 1}, func(_ *activeSession, all []*orderedBody) {
			go all[0].Read(make([]byte, 10))
		}, maxFirstRead + firstWindow/10},
		"for one that waits for its client": {slow, func(_ *activeSession, all []*orderedBody) {
			for range 8 {
				_, _ = all[0].Read(make([]byte, 64<<10))
			}
		}, 0},
		"for one that brings little": {link{time.Millisecond, 100}, func(_ *activeSession, all []*orderedBody) {
			for range 30 {
				_, _ = all[0].Read(make([]byte, 64<<10))
				time.Sleep(20 * time.Millisecond)
			}
		}, 0},
		"where streams share a connection": {quick, func(_ *activeSession, all []*orderedBody) {
			all[1].neverWaits = true
		}, 0},
		"where nobody is at the cursor": {quick, func(_ *activeSession, all []*orderedBody) { all[0].done() }, 0},
		"where the cursor is not known": {quick, func(a *activeSession, _ []*orderedBody) { a.loaded = false }, 0},
		"when it is taken over": {quick, func(_ *activeSession, all []*orderedBody) {
			time.AfterFunc(70*time.Millisecond, func() { _ = all[1].SetReadDeadline(time.Unix(1, 0)) })
		}, 70 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, all := orderedBodies(c.first, quick)
				c.do(a, all)
				began := time.Now()
				for range 20 { // the time that it has waited counts for the whole put
					read(t, all[1])
				}
				if took := time.Since(began); took > c.most {
					t.Errorf("waited for %s", took)
				}
				time.Sleep(2 * time.Hour) // all waits end
			})
		})
	}
}

// A put that waits for the disk between its Reads counts as first too, and the others wait for it.
func TestASlowDiskIsNotTheClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, all := orderedBodies(quick, quick)
		for range 50 {
			read(t, all[0])
			time.Sleep(5 * time.Millisecond)
		}
		if took := read(t, all[1]); took < maxOrderWait {
			t.Errorf("waited for %s", took)
		}
	})
}

var _ session.DeadlineReader = (*orderedBody)(nil)
