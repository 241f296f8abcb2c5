package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

// fault is how one step fails.
type fault struct {
	err     syscall.Errno
	after   bool // it took effect
	forever bool // and so does every later one of its kind, until the server is started anew
	short   bool // a write: half of it is done
	lose    bool // nothing fails, but before the step the write-back of all dirty content fails
}

func (f fault) String() string {
	out := f.err.Error()
	for word, is := range map[string]bool{
		", after it took effect": f.after, ", for ever": f.forever, ", half written": f.short,
	} {
		if is {
			out += word
		}
	}
	if f.lose {
		out = "a write-back fails"
	}
	return out
}

var faults = []fault{
	{err: syscall.EIO},
	{err: syscall.ENOSPC, forever: true},
	{err: syscall.EIO, after: true},
	{lose: true},
	{err: syscall.ENOSPC, short: true},
	{err: syscall.EMFILE},
	{err: syscall.EIO, forever: true},
	{err: syscall.ENOSPC, after: true, forever: true},
}

// failure is a call that failed.
type failure struct {
	name, doing string
	err         error
}

func (f failure) String() string { return fmt.Sprintf("%s: %v", f.doing, f.err) }

// attempt is one run of the script in which the k-th step fails.
type attempt struct {
	*run
	k     int
	fault fault

	mu       sync.Mutex
	hit      *crashfs.Step // what failed first
	during   string        // which call that was
	lifted   bool
	failures []failure
	dead     *death
	image    *crashfs.Image // at the death
	model    *model
}

func newAttempt(d durable.Durability, k int, f fault) *attempt {
	a := &attempt{k: k, fault: f}
	a.dead = newDeath(func() { a.image, a.model = a.disk.Image(), a.m.clone() })
	a.run = newRun(d, a.dead)
	a.hook = a.step
	a.failed = func(name, doing string, err error) { a.failures = append(a.failures, failure{name, doing, err}) }
	opens := 0
	a.fail = func(err error) bool {
		a.failures = append(a.failures, failure{"", "opening", err})
		a.lift()
		opens++
		return opens < 5
	}
	return a
}

// lift ends the fault, as an operator who changes the disk does.
func (a *attempt) lift() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hit != nil {
		a.lifted = true
	}
}

// side is the part of the data folder that a path is in.
func side(path string) string {
	part, _, _ := strings.Cut(strings.TrimPrefix(path, data+"/"), "/")
	return part
}

// step is the disk's hook.
func (a *attempt) step(s crashfs.Step) *crashfs.Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case s.Op == crashfs.OpRead || a.lifted:
		return nil
	case a.hit == nil && s.N == a.k:
		a.hit = &s
		a.m.mu.Lock()
		a.during = a.m.doing
		a.m.mu.Unlock()
		if a.reopening(s) {
			a.lifted = true
			return nil
		}
	case a.hit == nil || !a.fault.forever || s.Op != a.hit.Op || side(s.Path) != side(a.hit.Path):
		return nil
	}
	if a.fault.lose {
		s.LoseWriteBack(data + "/content/")
		return nil
	}
	out := &crashfs.Fault{Err: a.fault.err, After: a.fault.after}
	if a.fault.short && s.Op == crashfs.OpWrite {
		out.Short = s.Len / 2
	}
	return out
}

// reopening reports whether Pebble is being opened on what it has written before. If that fails
// late, Pebble closes its caches while one of its own goroutines still reads the tables, which
// panics. That is a stop too, as the other loop has at this very step, but no test survives it.
func (a *attempt) reopening(s crashfs.Step) bool {
	return side(s.Path) == "meta" && a.st.seed > 1 && a.during == "opening"
}

// try runs the script, and then looks. It is false if there was no such step.
func (a *attempt) try() (ok bool, err error) {
	err = alive(a.dead, func() error { a.script(); return a.err })
	if a.hit == nil {
		return false, err
	}
	tr := &trial{d: a.st.durability, rng: rand.New(rand.NewPCG(uint64(a.k), 3)), seed: uint64(a.k), deep: true}
	ms := a.st.clock.Millis()
	if errors.Is(err, errDied) {
		if side(a.hit.Path) == "content" {
			return true, fmt.Errorf("a failure of %s ended the server: %w", a.hit, err)
		}
		a.lift()
		if a.w != nil {
			a.w.abandon()
		}
		if a.loses() {
			a.model.losePower()
		}
		return true, tr.finish(a.image.Kill(), a.model, ms)
	}
	if err != nil {
		return true, err
	}
	if err := a.alone(); err != nil {
		return true, err
	}
	a.lift()
	if a.loses() {
		a.m.losePower()
	}
	return true, tr.finish(a.disk, a.m, ms)
}

// loses reports whether any open upload may have lost unsynced bytes: if the disk has lost them
// unseen, if all syncs of the content fail from some step on, or if the sync fails with which the
// server stops. No client hears of that last one.
func (a *attempt) loses() bool {
	stop := a.during == "closing" && a.st.durability == durable.Process
	return a.fault.lose || (a.fault.forever || stop) && a.hit.Op == crashfs.OpSync && side(a.hit.Path) == "content"
}

// alone: a failure that happens once harms one upload at most.
func (a *attempt) alone() error {
	if a.fault.forever || a.fault.lose {
		return nil
	}
	harmed := map[string]bool{}
	for _, f := range a.failures {
		if f.name != "" && !strings.HasPrefix(f.doing, "finish 2") { // a batch fails with any of its uploads
			harmed[f.name] = true
		}
	}
	if len(harmed) > 1 {
		return fmt.Errorf("%d uploads are harmed: %v", len(harmed), a.failures)
	}
	return nil
}

// Every step of the script fails once, or from then on. An error of the content harms that upload
// alone. An error of the metadata ends the server by Die, and then the client goes on and nothing
// is lost.
func TestAFailureOfEveryStep(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./internal/test/crashtest")
	}
	// How many of the faults each step is tried with: all of them in a longer run.
	most := min(*seeds, len(faults))
	for name, d := range durabilities {
		t.Run(name, func(t *testing.T) {
			p := newPool(t)
			var mu sync.Mutex
			runs, died, done := 0, 0, false
			for k := 1; !done; k++ {
				if *step0 != 0 {
					k = *step0
				}
				for i := range most {
					// With the other durability the step fails in another way.
					f := faults[(k+i*len(faults)/most+int(*seed0)+3*int(d))%len(faults)]
					if *step0 == 0 && k > 40 && k < 280 && k%16 != 0 {
						continue // folders, one as good as another
					}
					what := fmt.Sprintf(
						"step %d fails: %s (-run '/%s' -crash.step %d -crash.seed %d)", k, f, name, k, *seed0,
					)
					ok := p.do(what, func() error {
						a := newAttempt(d, k, f)
						hit, err := a.try()
						mu.Lock()
						defer mu.Unlock()
						if !hit {
							done = true
							return err
						}
						runs++
						if a.dead.first.Load() {
							died++
						}
						if err != nil {
							err = fmt.Errorf("%s, while %s: %w; failed: %v", a.hit, a.during, err, a.failures)
						}
						return err
					})
					done = done || !ok
				}
				mu.Lock()
				stop := done || *step0 != 0
				mu.Unlock()
				if stop {
					break
				}
			}
			p.wg.Wait()
			t.Logf("%d error points, in %d of them the server ended itself", runs, died)
		})
	}
}
