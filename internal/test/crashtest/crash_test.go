package crashtest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
)

var (
	seeds = flag.Int("crash.seeds", 1, "how many times each crash and each failure is tried, with other seeds")
	seed0 = flag.Uint64("crash.seed", 1, "the first seed")
	step0 = flag.Int("crash.step", 0, "only this step")
)

// point is the moment before a step, or the moment of the end.
type point struct {
	n     int
	what  string
	image *crashfs.Image
	model *model
	ms    int64
}

// variant is what is left of the disk: keep per cent of the unsynced bytes, or everything (the
// process was killed), and then perhaps with a flipped bit in the head of each item of the packs.
type variant int

const killed, beheaded variant = -1, -2

var variants = []variant{killed, beheaded, 0, 10, 50, 90, 100}

func (v variant) String() string {
	switch v {
	case killed:
		return "kill"
	case beheaded:
		return "kill, and damaged heads"
	}
	return fmt.Sprintf("power loss, keep %d", int(v))
}

func (v variant) of(im *crashfs.Image, rng *rand.Rand) (*crashfs.Disk, error) {
	switch v {
	case killed:
		return im.Kill(), nil
	case beheaded:
		disk := im.Kill()
		return disk, behead(disk, rng)
	}
	return im.Crash(rng, int(v)), nil
}

// behead flips a bit in each head of the packs.
func behead(disk *crashfs.Disk, rng *rand.Rand) error {
	const folder, head, block = data + "/content/packs/", 64, 4096
	names, err := disk.List(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		f, e := disk.OpenFile(folder+name, os.O_RDWR, 0)
		if e != nil {
			return e
		}
		for off := int64(block); ; off += block {
			b := make([]byte, head)
			if _, e := f.ReadAt(b, off); e != nil {
				break
			}
			if !bytes.HasPrefix(b, []byte("sluiceit")) {
				continue
			}
			i := rng.IntN(head)
			_, e := f.WriteAt([]byte{b[i] ^ 1<<rng.IntN(8)}, off+int64(i))
			err = errors.Join(err, e)
		}
		err = errors.Join(err, f.Close())
	}
	return err
}

// points runs a script and gives the moment before each step that changes the disk. packs counts
// the steps on packs.
func points(t *testing.T, d durable.Durability, script func(*run)) (all []point, packs map[crashfs.Op]int) {
	t.Helper()
	dead := newDeath(func() {})
	r := newRun(d, dead)
	r.look = true
	folders := 0
	packs = map[crashfs.Op]int{}
	r.hook = func(s crashfs.Step) *crashfs.Fault {
		if !s.Changes() {
			return nil
		}
		if strings.Contains(s.Path, "/packs/") {
			packs[s.Op]++
		}
		if s.Op == crashfs.OpMkdir && strings.Contains(s.Path, "/places/") {
			if folders++; folders%64 != 2 {
				return nil // one is as good as another
			}
		}
		m := r.m.clone()
		all = append(all, point{s.N, fmt.Sprintf("%s, while %s", s, m.doing), s.Image(), m, r.st.clock.Millis()})
		return nil
	}
	err := alive(dead, func() error { script(r); return r.err })
	if err != nil {
		t.Fatalf("the script itself fails: %v", err)
	}
	return append(all, point{r.disk.Steps() + 1, "the end", r.disk.Image(), r.m.clone(), r.st.clock.Millis()}), packs
}

// onPacks wants each kind of step on a pack.
func onPacks(t *testing.T, d durable.Durability, packs map[crashfs.Op]int) {
	t.Helper()
	for _, op := range []crashfs.Op{
		crashfs.OpCreate, crashfs.OpWrite, crashfs.OpSync, crashfs.OpPunch, crashfs.OpRemove,
	} {
		if packs[op] == 0 && (op != crashfs.OpRemove || d == durable.Power) {
			t.Errorf("no step was: %s a pack", op)
		}
	}
	t.Logf("steps on packs: %v", packs)
}

// trial is one recovery.
type trial struct {
	d    durable.Durability
	rng  *rand.Rand
	seed uint64
	deep bool // also collect, crash again, and look after that
	// halves: first without one half and the other, and with both exchanged
	halves bool
}

// start opens a server on a disk.
func (tr *trial) start(disk *crashfs.Disk, m *model, ms int64) (*client, *death, error) {
	dead := newDeath(func() {})
	cl := &world.Clock{}
	cl.SetMillis(ms + 1000)
	tr.seed += 1_000_003
	var c *client
	err := alive(dead, func() error {
		w, err := openServer(disk, setup{durability: tr.d, seed: tr.seed, clock: cl, die: dead.die})
		c = &client{w: w, m: m}
		return err
	})
	if err != nil {
		return nil, dead, fmt.Errorf("opening again: %w", err)
	}
	return c, dead, nil
}

// recover checks what a crash has left, and lets the client go on.
func (tr *trial) recover(p point, v variant) error {
	m := p.model.clone()
	if v >= 0 && tr.d == durable.Process {
		m.losePower()
	}
	disk, err := v.of(p.image, tr.rng)
	if err != nil {
		return err
	}
	if tr.halves {
		if err := tr.withoutHalves(disk, m, p.ms); err != nil {
			return err
		}
	}
	var again *point
	if tr.deep {
		at := disk.Steps() + 1 + tr.rng.IntN(150)
		disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
			if again == nil && s.N >= at && s.Changes() {
				again = &point{
					s.N, fmt.Sprintf("%s, while %s after %s", s, m.doing, p.what), s.Image(), m.clone(), p.ms,
				}
			}
			return nil
		})
	}
	if err := tr.finish(disk, m, p.ms); err != nil || again == nil {
		return err
	}
	tr.deep = false
	v = variants[tr.rng.IntN(len(variants))]
	if err := tr.recover(*again, v); err != nil {
		return fmt.Errorf("after a second crash at %s, %s: %w", again.what, v, err)
	}
	return nil
}

// finish opens what is on the disk, checks it, brings everything to its end, and checks again.
func (tr *trial) finish(disk *crashfs.Disk, m *model, ms int64) error {
	c, dead, err := tr.start(disk, m, ms)
	if err != nil {
		return err
	}
	if err := alive(dead, func() error { return tr.verify(c) }); err != nil {
		c.w.abandon()
		return err
	}
	if !tr.deep {
		return alive(dead, c.w.Close)
	}
	// Finished uploads are there after the worst power loss that may follow.
	left := disk.Crash(tr.rng, 0)
	if err := alive(dead, c.w.Close); err != nil {
		return err
	}
	after, dead, err := tr.start(left, m.clone(), ms)
	if err != nil {
		return fmt.Errorf("after a power loss at the end: %w", err)
	}
	err = alive(dead, func() error {
		return errors.Join(after.checkRights(), after.check(), audit(after.w), after.w.Close())
	})
	if err != nil {
		return fmt.Errorf("after a power loss at the end: %w", err)
	}
	return nil
}

func (tr *trial) verify(c *client) error {
	look := func() error {
		if err := c.checkRights(); err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
		return c.checkCounts()
	}
	if err := look(); err != nil {
		return err
	}
	if err := audit(c.w); err != nil {
		return err
	}
	if err := c.goOn(); err != nil {
		return err
	}
	if tr.deep {
		if err := c.collect(); err != nil {
			return err
		}
	}
	if err := look(); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	return audit(c.w)
}

// pool runs functions on all processors, and takes no more after some failures.
type pool struct {
	t      *testing.T
	wg     sync.WaitGroup
	slots  chan struct{}
	failed atomic.Int64
}

func newPool(t *testing.T) *pool {
	return &pool{t: t, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

const mostFailures = 5

func (p *pool) do(name string, f func() error) bool {
	if p.failed.Load() >= mostFailures {
		return false
	}
	p.slots <- struct{}{}
	p.wg.Go(func() {
		defer func() { <-p.slots }()
		if err := f(); err != nil && p.failed.Add(1) <= mostFailures {
			p.t.Errorf("%s: %v", name, err)
		}
	})
	return true
}

var durabilities = map[string]durable.Durability{"process": durable.Process, "power": durable.Power}

// † I1 to I30: A crash at every step, by power loss and by kill -9. Nothing that was acknowledged
// is lost, nothing is half there, and the client goes on. If a half of the folder is away, or both
// are exchanged, nothing starts and nothing changes.
func TestACrashAtEveryStep(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./internal/test/crashtest")
	}
	for name, d := range durabilities {
		t.Run(name, func(t *testing.T) {
			all, packs := points(t, d, (*run).script)
			onPacks(t, d, packs)
			sweep(t, name, d, all, variants)
		})
	}
}

// sweep recovers from a crash at each point, in each variant.
func sweep(t *testing.T, name string, d durable.Durability, all []point, variants []variant) {
	t.Helper()
	p := newPool(t)
	images := 0
	for round := range *seeds {
		for i, at := range all {
			if *step0 != 0 && at.n != *step0 {
				continue
			}
			for j, v := range variants {
				seed := *seed0 + uint64(round)
				tr := &trial{
					d: d, rng: rand.New(rand.NewPCG(seed, uint64(at.n*100+j))), seed: seed,
					deep: (i+j+round)%4 == 0, halves: (i+j+round)%4 == 1,
				}
				images++
				if !p.do(
					fmt.Sprintf("%s, %s (-run '/%s' -crash.step %d -crash.seed %d)", at.what, v, name, at.n, seed),
					func() error { return tr.recover(at, v) },
				) {
					break
				}
			}
		}
	}
	p.wg.Wait()
	t.Logf("%d crash points, %d images", len(all), images)
}
