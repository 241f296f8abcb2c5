// Command bench measures Sluice beside its peers and the floors below it: the scenarios of
// docs/benchmarks.md, interleaved, several rounds, in one process that is the client of all. It
// builds the peers from the versions that peers/go.mod pins, checks every answer, reads back what
// was stored, and writes tables and a chart.
//
// A scenario is a row of scenario.go, a system a row of system.go with a file that speaks its
// protocol. It is a module of its own, and the peers another: none of what they need is a
// dependency of Sluice. Benchmarks of single functions are beside their code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// run has the flags and their results.
type run struct {
	here, bins, dir, sluice, before, docs, grown string
	rounds                                       int
	z                                            sizes
	scenarios, systems                           []string // empty: all
	flags                                        string
	out                                          io.Writer // tables
	progress                                     io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	r, err := parse(os.Args[1:])
	if err == nil {
		err = r.do(ctx)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (*run, error) {
	r := &run{z: shortForm, out: os.Stdout, progress: os.Stderr}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := f.Bool("quick", false, "one round of tiny sizes: does every system work? Its figures mean nothing")
	list := func(to *[]string, name, about string) {
		f.Func(name, about, func(s string) error {
			*to = strings.Split(s, ",")
			r.flags += " -" + name + " " + s
			return nil
		})
	}
	list(
		&r.scenarios, "scenarios",
		"`names`, separated by commas: a,b,c,d,create,read,read-small,finish,growth (all of these), read-cold, "+
			"read-small-cold, links",
	)
	list(
		&r.systems, "systems",
		"`names`, separated by commas: sluice,floor,floor-1,bare,pack,tusd,tusd-synced,registry,versitygw (all)",
	)
	f.IntVar(&r.rounds, "rounds", 5, "rounds")
	mib := func(to *int64, name, about string) {
		f.Func(name, about, func(s string) error {
			var n float64
			if _, err := fmt.Sscan(s, &n); err != nil || n <= 0 {
				return errors.New("must be a number of MiB")
			}
			*to = int64(n * (1 << 20))
			r.flags += " -" + name + " " + s
			return nil
		})
	}
	mib(&r.z.large, "large", "`MiB` of the upload of a, b and read (512)")
	mib(&r.z.each, "each", "`MiB` of each upload of c (128)")
	mib(&r.z.finish, "finish", "`MiB` of the large upload of finish (4096)")
	f.IntVar(&r.z.many, "many", r.z.many, "uploads of d, create and read-small")
	f.IntVar(&r.z.growTo, "grow", r.z.growTo, "open sessions, and memories, that growth goes to")
	f.StringVar(&r.dir, "dir", "", "a folder on the disk that is to be measured (a new one for temporary files)")
	f.StringVar(
		&r.grown, "grown", "",
		"a `folder` that keeps the data folders of growth, so that the next run need not make them (none)",
	)
	f.StringVar(&r.sluice, "sluice", "", "the `program` to measure (one that is built from the tree)")
	f.StringVar(
		&r.before, "before", "",
		"another build of the `program`, which has a turn wherever the first has one; the ratios are a table",
	)
	f.StringVar(
		&r.docs, "docs", "",
		"the `folder` whose benchmarks.md and chart are written (none); growth alone is a section and a chart of "+
			"its own",
	)
	f.StringVar(&r.here, "bench", ".", "the folder of this module")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if *quick {
		r.rounds, r.z = 1, quickForm
	}
	f.Visit(func(g *flag.Flag) {
		// without paths: the others are given in the section
		if slices.Contains([]string{"quick", "rounds", "many", "grow"}, g.Name) {
			r.flags += " -" + g.Name + " " + g.Value.String()
		}
	})
	return r, r.check()
}

// check refuses unknown names.
func (r *run) check() error {
	known := []string{"finish", "growth", "links"}
	for _, s := range scenarios(r.z) {
		known = append(known, s.name)
	}
	for _, n := range r.scenarios {
		if !slices.Contains(known, n) {
			return fmt.Errorf("no scenario is called %q: %s", n, strings.Join(known, ", "))
		}
	}
	for _, n := range r.systems {
		if _, ok := systemOf(n); !ok {
			return fmt.Errorf("no system is called %q", n)
		}
	}
	if r.rounds < 1 || r.z.many < 1 || r.z.growTo < r.z.growFrom {
		return fmt.Errorf("rounds and many must be at least 1, grow at least %d", r.z.growFrom)
	}
	var err error
	r.here, err = filepath.Abs(r.here)
	r.bins = filepath.Join(r.here, "bin")
	return err
}

func (r *run) wants(scenario string) bool {
	return len(r.scenarios) == 0 || slices.Contains(r.scenarios, scenario)
}

func (r *run) growthAlone() bool { return slices.Equal(r.scenarios, []string{"growth"}) }

func (r *run) has(system string) bool {
	if system == otherBuild {
		return r.before != ""
	}
	return len(r.systems) == 0 || slices.Contains(r.systems, system)
}

func (r *run) do(ctx context.Context) error {
	fmt.Fprintln(r.progress, "building")
	if err := build(ctx, r.here, r.bins, r.sluice, r.before, r.has); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(r.dir, "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The arena is as large as the largest scenario. The upload of finish is larger, and wraps
	// around it.
	size := max(r.z.large, 8*r.z.each, int64(r.z.many)*r.z.small, chunk)
	if r.growthAlone() {
		size = 8 * chunk
	}
	a, err := newArena(size)
	if err != nil {
		return err
	}
	defer a.close()
	b := &about{
		when: time.Now(), commit: commit(ctx, r.here), machine: shape(dir), versions: versions(ctx, r.here),
		flags: r.flags, rounds: r.rounds, z: r.z,
	}
	all, err := r.measure(ctx, a, dir)
	if err != nil {
		return err
	}
	b.took = time.Since(b.when)
	section, err := r.report(all, b)
	if err != nil {
		return err
	}
	_, err = io.WriteString(r.out, section)
	return err
}

// report gives the section of a run, and writes it and its chart if the flags ask for that. Growth
// alone is a section of its own. So a run to a size that takes longer stays when all is measured
// anew.
func (r *run) report(all *results, b *about) (section string, err error) {
	at, chart, draw := peersMarks, "benchmarks.svg", all.chart
	write := all.markdown
	if r.growthAlone() && all.growth != nil {
		at, chart, draw, write = growthMarks, "growth.svg", all.growth.chart, all.growth.markdown
	}
	if r.docs == "" {
		return write(b, ""), nil
	}
	if err := draw(filepath.Join(r.docs, chart)); err != nil {
		return "", err
	}
	section = write(b, chart)
	return section, at.write(r.docs, section)
}

// measure runs the systems one after the other, in each round of each scenario.
func (r *run) measure(ctx context.Context, a *arena, dir string) (*results, error) {
	all := &results{samples: map[string]map[string][]sample{}, compared: r.before != "" && r.has("sluice")}
	split := map[string][]item{}
	for _, s := range scenarios(r.z) {
		if all.compared {
			s.systems = slices.Insert(s.systems, 1, otherBuild) // all begin with ours
		}
		s.systems = slices.DeleteFunc(s.systems, func(n string) bool { return !r.has(n) })
		if (r.wants(s.name) && s.how != readingCold || slices.Contains(r.scenarios, s.name)) && len(s.systems) > 0 {
			all.scenarios = append(all.scenarios, s)
			all.samples[s.name] = map[string][]sample{}
			split[s.name] = s.split(a)
		}
	}
	finish := inner{what: "finish", small: "1 MiB", large: bytesOf(r.z.finish), most: 2}
	if slices.Contains(r.scenarios, "links") && r.has("sluice") { // it takes minutes, and is asked for by name
		all.links = linkShapes()
	}
	var ends [2]item
	if r.wants("finish") && r.has("sluice") {
		ends = [2]item{a.item("finish", 0, 1<<20, chunk), a.item("finish", 0, r.z.finish, chunk)}
	}
	for round := range r.rounds {
		for _, s := range all.scenarios {
			for i := range s.systems {
				sys, _ := systemOf(s.systems[(i+round)%len(s.systems)])
				err := r.sample(dir, func(dir string) error {
					t, err := s.run(ctx, sys, r.bins, dir, split[s.name])
					if err != nil {
						return err
					}
					all.samples[s.name][sys.name] = append(all.samples[s.name][sys.name], t)
					fmt.Fprintf(
						r.progress, "round %d, %s, %s: %.0f %s, %.2f CPU s/GiB, %.0f MiB\n", round+1, s.name, sys.name,
						t.speed, s.unit(), t.perGiB, t.peakMiB,
					)
					return nil
				})
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", s.name, sys.name, err)
				}
			}
		}
		say := func(what string) { fmt.Fprintf(r.progress, "round %d, %s\n", round+1, what) }
		if err := r.sample(
			dir, func(dir string) error { return links(ctx, r.bins, dir, a, all.links, say) },
		); err != nil {
			return nil, fmt.Errorf("links: %w", err)
		}
		if r.wants("finish") && r.has("sluice") {
			if err := r.sample(
				dir, func(dir string) error { return finishes(ctx, r.bins, dir, ends, &finish) },
			); err != nil {
				return nil, fmt.Errorf("finish: %w", err)
			}
		}
	}
	if r.wants("finish") && r.has("sluice") {
		all.finish = &finish
	}
	if r.wants("growth") && r.has("sluice") {
		err := r.sample(dir, func(dir string) (err error) {
			all.growth, err = r.grow(ctx, a, dir)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("growth: %w", err)
		}
	}
	return all, nil
}

// sample gives f an empty folder, and leaves nothing behind for the next: no file, and no page that
// the kernel has still to write.
func (r *run) sample(dir string, f func(dir string) error) error {
	own, err := os.MkdirTemp(dir, "")
	if err != nil {
		return err
	}
	err = f(own)
	err = errors.Join(err, os.RemoveAll(own))
	unix.Sync()
	return err
}
