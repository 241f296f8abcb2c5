package linear

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"sluice/internal/test/leak"
)

var (
	count = flag.Int("linear.count", 0, "how many histories; 0 is a short run")
	limit = flag.Duration("linear.for", 0, "make histories for so long, however many they are")
	seed0 = flag.Uint64("linear.seed", 0, "the first seed; 0 draws one")
	out   = flag.String(
		"linear.out", "",
		"a folder for pictures of what failed; empty is the test's own, which go test -artifacts keeps",
	)
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// patience is how long the search for an order may take. A history without an order by then counts
// as unknown.
const patience = 10 * time.Second

// mostFailures is how many failures are shown.
const mostFailures = 3

// totals counts the work of all histories.
type totals struct {
	histories, ops, kills, lost, unknown, failed atomic.Int64
}

// † I1 to I30: Clients call at once, and the server dies anywhere. Some order of the calls, in
// which each has happened at one moment or, without an answer, perhaps never, explains every
// answer.
func TestConcurrentHistoriesAreLinearizable(t *testing.T) {
	n := *count
	switch {
	case n > 0 || *limit > 0:
	case withRace:
		n = 20
	default:
		n = 500
	}
	seed := *seed0
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	began := time.Now()
	var sum totals
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // a server's disk sleeps now and then
		wg.Go(func() {
			for sum.failed.Load() < mostFailures {
				i := next.Add(1) - 1
				if n > 0 && i >= uint64(n) || *limit > 0 && time.Since(began) > *limit {
					return
				}
				one(t, seed+i, &sum)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf(
		"seed %d: %d histories (%.0f a second), %d operations, %d kills, %d answers lost, %d without a result",
		seed, sum.histories.Load(), float64(sum.histories.Load())/took.Seconds(),
		sum.ops.Load(), sum.kills.Load(), sum.lost.Load(), sum.unknown.Load(),
	)
	// A few may take too long on a busy machine. If many did, the test would prove nothing.
	if u := sum.unknown.Load(); u*100 > sum.histories.Load() && u > 1 {
		t.Errorf("%d of %d histories were too long to be checked", u, sum.histories.Load())
	}
}

// one makes a history and checks it.
func one(t *testing.T, seed uint64, sum *totals) {
	h := run(seed)
	sum.ops.Add(int64(len(h.ops)))
	sum.kills.Add(int64(h.kills))
	sum.lost.Add(int64(h.lost))
	number := sum.histories.Add(1)
	if h.err != nil {
		if sum.failed.Add(1) <= mostFailures {
			t.Errorf(
				"history %d (seed %d; the same is drawn again, but calls may meet otherwise): %v\n%s", number, seed,
				h.err, text(h.ops),
			)
		}
		return
	}
	result, model, all := h.check(patience)
	switch result {
	case porcupine.Ok:
		return
	case porcupine.Unknown:
		sum.unknown.Add(1)
		t.Logf("history %d (seed %d) has no result within %v:\n%s", number, seed, patience, text(h.ops))
		return
	}
	if sum.failed.Add(1) > mostFailures {
		return
	}
	dir := *out
	if dir == "" {
		dir = t.ArtifactDir()
	}
	picture := filepath.Join(dir, "history.html")
	_, info := porcupine.CheckOperationsVerbose(model, all, patience)
	if err := porcupine.VisualizePath(model, info, picture); err != nil {
		t.Error(err)
	}
	t.Errorf("history %d (seed %d; the same is drawn again, but calls may meet otherwise) has no order that explains "+
		"it; picture: %s\n%s\nThe longest order found explains all but:\n%s",
		number, seed, picture, text(h.ops), text(unexplained(h.ops, info)))
}

// unexplained gives the operations that the longest order leaves out.
func unexplained(all []*op, info porcupine.LinearizationInfo) []*op {
	var best []porcupine.Operation
	for _, part := range info.PartialLinearizationsOperations() {
		for _, order := range part {
			if len(order) > len(best) {
				best = order
			}
		}
	}
	in := map[any]bool{}
	for _, o := range best {
		in[o.Input] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(o *op) bool { return in[o] })
}
