// Package soak runs the real program under load and lets things happen to it: it is killed, stopped
// or paused, its disk or its inodes run out, it gets few descriptors or little memory. After each
// round it asks for everything that a client was told.
//
// It owns the mishaps. Package load has the clients and their facts. It knows nothing of how the
// program works: it sees the command line and the client of package api. `go test
// ./internal/test/soak` is a short run; `make soak` a long one, with a log of its rounds.
package soak

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/test/load"
)

var (
	series  = flag.Int("soak.series", 1, "series to run, each on a fresh data folder")
	rounds  = flag.Int("soak.rounds", 8, "rounds of a series")
	first   = flag.Uint64("soak.seed", 0, "seed of the first series; 0 draws one")
	only    = flag.String("soak.mishap", "", "only this mishap")
	program = flag.String("soak.program", "", "the sluice to run; empty builds one")
	logFile = flag.String("soak.log", "", "a file for a line of JSON a round")
)

// run is one series.
type run struct {
	t     *testing.T
	exe   string
	seed  uint64
	rand  *rand.Rand
	root  string // of its files
	small bool   // root is a small disk in memory, whose space runs out
	facts *load.Facts
	log   func(entry)
}

// entry is a line of the log.
type entry struct {
	Time    time.Time `json:"time"`
	Program string    `json:"program"`
	Seed    uint64    `json:"seed"`
	Round   int       `json:"round"`
	Mishap  string    `json:"mishap"`
	Answers int64     `json:"answers"` // acknowledged so far
	Outcome string    `json:"outcome"`
}

func TestSoak(t *testing.T) {
	if withRace {
		t.Skip("runs the program without the race detector: go test ./internal/test/soak")
	}
	exe, err := load.Program(*program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.Command(exe, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	log := func(entry) {}
	if *logFile != "" {
		f, err := os.OpenFile(*logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		log = func(e entry) { _ = json.NewEncoder(f).Encode(e) }
	}
	seed := *first
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	count := map[string]int{}
	var acks int64
	for i := range uint64(*series) {
		r := &run{t: t, exe: exe, seed: seed + i, rand: rand.New(rand.NewPCG(seed+i, 1)), facts: load.New()}
		r.log = func(e entry) {
			e.Time, e.Program = time.Now().UTC(), strings.TrimSpace(string(version))
			e.Seed, e.Answers = r.seed, r.facts.Answers()
			log(e)
			count[e.Mishap]++
		}
		r.series(i%3 == 0 || *only != "")
		acks += r.facts.Answers()
	}
	t.Logf(
		"%d series of %d rounds, seeds from %d: %d acknowledgements, none was a lie; %v", *series, *rounds, seed, acks,
		count,
	)
	if acks < int64(*series**rounds) {
		t.Errorf("only %d acknowledgements: that was no load", acks)
	}
}

// fail ends the test, and says how to repeat it.
func (r *run) fail(round int, what string, err error) {
	r.t.Helper()
	r.log(entry{Round: round, Mishap: what, Outcome: err.Error()})
	r.t.Fatalf(
		"series of seed %d, round %d, %s: %v\nagain: go test ./internal/test/soak -count=1 -args -soak.series 1 "+
			"-soak.seed %d",
		r.seed, round, what, err, r.seed,
	)
}

// series ages one data folder.
func (r *run) series(small bool) {
	r.root = r.t.TempDir()
	if small && os.Geteuid() == 0 {
		// A round stores some 10 MB in 100 files, and 80 MiB stay free. Only the mishaps fill the
		// disk.
		room := fmt.Sprintf("size=%dm,nr_inodes=%d", 250+20**rounds, 2500+200**rounds)
		if err := syscall.Mount("tmpfs", r.root, "tmpfs", 0, room); err != nil {
			r.t.Logf("no small disk: %v", err)
		} else {
			r.small = true
			defer func() {
				if err := syscall.Unmount(r.root, 0); err != nil {
					r.t.Error(err)
				}
			}()
		}
	}
	for i := range *rounds {
		m := r.draw()
		if err := r.round(m); err != nil {
			r.fail(i, m.name, err)
		}
		r.log(entry{Round: i, Mishap: m.name, Outcome: "ok"})
	}
	if err := r.last(); err != nil {
		r.fail(*rounds, "the end", err)
	}
}

func (r *run) draw() mishap {
	var all []mishap
	for _, m := range mishaps {
		if (*only == "" || *only == m.name) && (!m.small || r.small) {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		r.t.Skipf("mishap %q is not possible here", *only)
	}
	return all[r.rand.IntN(len(all))]
}

func (r *run) data() string { return filepath.Join(r.root, "data") }

// round starts the server, checks the facts of earlier rounds, loads it, and lets one thing happen.
func (r *run) round(m mishap) error {
	before, undo := "", func() {}
	if m.before != nil {
		var err error
		if before, undo, err = m.before(r); err != nil {
			return err
		}
	}
	defer undo()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	srv, err := load.Start(r.exe, r.data(), "")
	if err != nil {
		return err
	}
	defer func() {
		if srv.Alive() {
			srv.Kill()
		}
	}()
	if err := r.facts.Check(ctx, srv.Client, load.Everything); err != nil {
		return err
	}
	if before != "" { // the check needs more than the round allows
		if err := srv.Stop(); err != nil {
			return err
		}
		if srv, err = load.Start(r.exe, r.data(), before); err != nil {
			return err
		}
	}
	work, done := context.WithCancel(ctx)
	defer done()
	var wg sync.WaitGroup
	refused := make(chan error, 6)
	for range cap(refused) {
		c := r.facts.Client(srv.Client, rand.New(rand.NewPCG(r.rand.Uint64(), 2)))
		wg.Go(func() {
			if err := c.Work(work); err != nil {
				refused <- err
			}
		})
	}
	r.sleep(30, 300)
	err = m.do(r, srv)
	done()
	wg.Wait()
	if err != nil {
		return err
	}
	select {
	case err := <-refused:
		return fmt.Errorf("a client was refused: %w", err)
	default:
		return nil
	}
}

// last lets all clients end, and looks at the folder once more.
func (r *run) last() error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	for _, step := range []func(*load.Server) error{
		func(c *load.Server) error { return r.facts.Check(ctx, c.Client, load.Everything) },
		func(c *load.Server) error {
			return errors.Join(
				r.facts.FinishAll(ctx, c.Client, load.Everything), r.facts.Check(ctx, c.Client, load.Everything),
			)
		},
		func(c *load.Server) error { return r.facts.Check(ctx, c.Client, load.Everything) },
	} {
		srv, err := load.Start(r.exe, r.data(), "")
		if err != nil {
			return err
		}
		if err := step(srv); err != nil {
			srv.Kill()
			return err
		}
		if err := srv.Stop(); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits a random number of milliseconds.
func (r *run) sleep(from, to int) {
	time.Sleep(time.Duration(from+r.rand.IntN(to-from)) * time.Millisecond)
}
