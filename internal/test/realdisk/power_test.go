package realdisk

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/test/load"
)

var (
	images  = flag.Int("realdisk.images", 8, "power losses to look at")
	first   = flag.Uint64("realdisk.seed", 0, "seed of the first series; 0 draws one")
	rounds  = flag.Int("realdisk.rounds", 2, "rounds of a disk that fails for a while")
	program = flag.String("realdisk.program", "", "the sluice to run; empty builds one")
)

// build gives the program.
var build = sync.OnceValues(func() (string, error) { return load.Program(*program, os.Getenv(inside)) })

const (
	// perDisk is how many power losses a disk sees before the next series begins with an empty one.
	// atOnce is how many images are taken while a server runs. The series goes on with the last of
	// them as its disk.
	perDisk, atOnce = 16, 4
	workers         = 6
)

// series ages one disk, from power loss to power loss.
type series struct {
	*shelf
	exe        string
	durability string
	seed       uint64
	rand       *rand.Rand
	facts      *load.Facts
	want       load.Demand // after a power loss
	met        Taken       // in all
}

func newSeries(s *shelf, durability string, seed uint64) *series {
	s.t.Helper()
	exe, err := build()
	if err != nil {
		s.t.Fatal(err)
	}
	r := &series{
		shelf: s, exe: exe, durability: durability, seed: seed,
		rand:  rand.New(rand.NewPCG(seed, uint64(crc32.ChecksumIEEE([]byte(s.kind.name+durability))))),
		facts: load.New(), want: load.ButChunks,
	}
	if durability == "power" {
		r.want = load.Everything
	}
	return r
}

// A power loss at any moment, of a disk that keeps any of the unflushed writes, on real file
// systems. The kernel reads its journal, the server starts, and everything that was acknowledged
// before is there.
func TestNoPowerLossTakesWhatWasAcknowledged(t *testing.T) {
	seed := *first
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	combos := len(kinds) * 2
	for _, k := range kinds {
		for _, durability := range []string{"process", "power"} {
			t.Run(k.name+"/"+durability, func(t *testing.T) {
				need(t, k)
				var met Taken
				n, acks := 0, int64(0)
				for i := uint64(0); n < max(1, *images/combos); i++ {
					r := newSeries(newShelf(t, k), durability, seed+i)
					got, err := r.run(min(perDisk, *images/combos-n))
					n += got
					if err != nil {
						t.Fatalf(
							"%v\nsomewhat like it: go test ./internal/test/realdisk -count=1 -v -run %s -args "+
								"-realdisk.images %d -realdisk.seed %d",
							err, t.Name(), perDisk*combos, r.seed,
						)
					}
					acks += r.facts.Answers()
					met.Cached, met.Kept, met.Torn = met.Cached+r.met.Cached, met.Kept+r.met.Kept, met.Torn+r.met.Torn
				}
				t.Logf(
					"%d power losses, seeds from %d, %d acknowledgements: none was a lie. Of %d writes that had "+
						"not been flushed %d were on the disk, and %d torn",
					n, seed, acks, met.Cached, met.Kept, met.Torn)
			})
		}
	}
}

// run looks at n power losses.
func (r *series) run(n int) (done int, err error) {
	now := r.mount(r.format())
	for done < n {
		shots, err := r.work(now, min(atOnce, n-done))
		if err != nil {
			return done, fmt.Errorf("series of seed %d, after %d power losses: %w", r.seed, done, err)
		}
		now.remove()
		for i, s := range shots {
			r.reboot()
			m := r.mount(s.take.Image)
			if err := r.look(m, s.facts, r.want, knows); err != nil {
				return done, fmt.Errorf(
					"series of seed %d, power loss %d (%+v, of %+v): %w", r.seed, done, s.take, s.of, err,
				)
			}
			done++
			if i < len(shots)-1 {
				m.remove()
				continue
			}
			now, r.facts = m, s.facts
		}
	}
	now.remove()
	return done, nil
}

// shot is a power loss, and the facts from before it.
type shot struct {
	take  Take
	of    Taken
	facts *load.Facts
}

// work lets clients work on a server, and takes n images of its disk.
func (r *series) work(m *mounted, n int) (shots []shot, err error) {
	srv, err := load.Start(r.exe, m.data(), "", "--durability="+r.durability)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	end := r.clients(m, srv)
	for range n {
		time.Sleep(time.Duration(10+r.rand.IntN(150)) * time.Millisecond)
		s := shot{take: Take{
			Disk: m.disk, Image: r.name(), Seed: r.rand.Uint64(),
			Keep: []int{0, 10, 50, 90, 100}[r.rand.IntN(5)], Tear: []int{0, 20}[r.rand.IntN(2)],
			After: r.rand.Int64N(40), Cached: r.rand.IntN(6),
		}}
		if s.facts, s.of, err = r.shelf.take(s.take, r.facts); err != nil {
			break
		}
		r.met.Cached, r.met.Kept, r.met.Torn = r.met.Cached+s.of.Cached, r.met.Kept+s.of.Kept, r.met.Torn+s.of.Torn
		shots = append(shots, s)
	}
	if refused := end(); err == nil {
		err = refused
	}
	if err == nil && !srv.Alive() {
		err = fmt.Errorf("the server ended by itself: %s", srv.Output())
	}
	return shots, err
}

// clients work until end is called. It gives the first refusal that no client should have got.
func (r *series) clients(m *mounted, srv *load.Server) (end func() error) {
	ctx, done := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	refused := make(chan error, workers)
	for range workers {
		c := r.facts.Client(srv.Client, rand.New(rand.NewPCG(r.rand.Uint64(), 2)))
		wg.Go(func() {
			if err := c.Work(ctx); err != nil {
				refused <- fmt.Errorf("a client was refused: %w", err)
			}
		})
	}
	draw := rand.New(rand.NewPCG(r.rand.Uint64(), 4))
	wg.Go(func() { writeBack(ctx, m, draw) })
	return func() error {
		done()
		wg.Wait()
		close(refused)
		return <-refused
	}
}

// writeBack lets the kernel bring content to the disk at any time, as it does when memory is short.
// So there are writes that no process has asked for, and that are not flushed.
func writeBack(ctx context.Context, m *mounted, r *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(1+r.IntN(20)) * time.Millisecond)
		files, _ := filepath.Glob(filepath.Join(m.data(), "content", "places", "*", "*"))
		if len(files) == 0 {
			continue
		}
		f, err := os.Open(files[r.IntN(len(files))])
		if err != nil {
			continue // deleted just now
		}
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
		f.Close()
	}
}

// look starts a server on a disk that something has happened to, and asks for the facts. Then it
// lets all clients end, and looks at the folder as a whole.
func (r *series) look(m *mounted, facts *load.Facts, want load.Demand, started ...func(*mounted) error) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	srv, err := load.Start(r.exe, m.data(), "", "--durability="+r.durability)
	if err != nil {
		return err
	}
	defer srv.Kill()
	for _, also := range started {
		if err := also(m); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return facts.Check(ctx, srv.Client, want) },
		func() error { return facts.FinishAll(ctx, srv.Client, want) },
		func() error { return facts.Check(ctx, srv.Client, load.Everything) },
		srv.Stop,
	} {
		if err := step(); err != nil {
			srv.Kill() // whose last output is complete then
			return fmt.Errorf("%w\nthe server said: %s", err, srv.Output())
		}
	}
	if out, err := exec.CommandContext(ctx, r.exe, "check", "--data", m.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("sluice check: %w: %s", err, out)
	}
	return nil
}

// knows makes sure that the server takes the stop for one of the machine. Else this would be a test
// of kill -9.
func knows(m *mounted) error {
	text, err := os.ReadFile(filepath.Join(m.data(), "content", "state"))
	var state struct{ Life, Rebooted uint64 }
	if err = errors.Join(err, json.Unmarshal(text, &state)); err != nil {
		return err
	}
	if state.Life > 1 && state.Rebooted != state.Life {
		return fmt.Errorf("the server does not know of the power loss: %s", text)
	}
	return nil
}
