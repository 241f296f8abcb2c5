package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// operation is a request or a step that growth measures, with the bound of its ratio between the
// largest and the smallest size.
type operation struct {
	what string
	most float64       // the ratio; 0: no bound
	top  time.Duration // at the largest size; 0: no bound
}

// The operations of growth, in the order of the tables. Those before startClean are requests.
const (
	growBegin = iota
	growPut
	growFinish
	growCreate
	growMemories
	growUploads
	growStats
	startClean
	startKilled
	growTick
	growFigures
)

var operations = [growFigures]operation{
	growBegin:    {what: "begin", most: 1.5},
	growPut:      {what: "put, 64 KiB", most: 1.5},
	growFinish:   {what: "finish, 64 KiB", most: 1.5},
	growCreate:   {what: "create, 64 KiB", most: 1.5},
	growMemories: {what: "memories_list, first 100", most: 1.5},
	growUploads:  {what: "uploads_list, first 100", most: 1.5},
	growStats:    {what: "sessions_stats", most: 1.5},
	startClean:   {what: "start after a clean end", top: 2 * time.Second},
	startKilled:  {what: "start after kill -9", top: 2 * time.Second},
	growTick:     {what: "TickTTL, nothing due", top: 20 * time.Microsecond},
}

// growthSample is how many of each request a server answers before the next server is asked.
const growthSample = 10

// mostEach is how many bytes of memory each open session may add.
const mostEach = 512

// growth is a measurement at each of several sizes.
type growth struct {
	sizes []int
	at    []grown // of each size
}

// grown is one size: the data folder with that many rows, the result of each round for each
// operation, and the resident set of each round, in bytes.
type grown struct {
	seed         string
	took         [growFigures][][]time.Duration
	cpu          [growTick][][]time.Duration // of the server, from sending the request to having its answer
	fresh, after []float64                   // after a start, and after the requests
	disk         int64                       // bytes of the metadata
}

// steps are the sizes from the smallest to the largest, each ten times the one before.
func (z sizes) steps() (all []int) {
	for n := z.growFrom; n < z.growTo; n *= 10 {
		all = append(all, n)
	}
	return append(all, z.growTo)
}

// grow makes the data folders that are missing, one for each size, and then measures them in
// rounds.
func (r *run) grow(ctx context.Context, a *arena, dir string) (*growth, error) {
	g := &growth{sizes: r.z.steps()}
	g.at = make([]grown, len(g.sizes))
	if r.grown != "" {
		dir = r.grown
	}
	if err := r.seed(ctx, a, dir, g); err != nil {
		return nil, err
	}
	for round := range r.rounds {
		err := r.sample(dir, func(dir string) error { return r.growthRound(ctx, a, dir, round, g) })
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}

// seed fills a folder of each size from that of the one before.
func (r *run) seed(ctx context.Context, a *arena, dir string, g *growth) error {
	have := 0
	for i, want := range g.sizes {
		at := &g.at[i]
		at.seed = filepath.Join(dir, fmt.Sprintf("grown-%d", want))
		if _, err := os.Stat(at.seed); errors.Is(err, fs.ErrNotExist) {
			start := time.Now()
			from := ""
			if i > 0 {
				from = g.at[i-1].seed
			}
			err := r.sample(dir, func(dir string) error {
				if err := r.seedOne(ctx, a, dir, from, have, want); err != nil {
					return fmt.Errorf("filling up to %d: %w", want, err)
				}
				return os.Rename(filepath.Join(dir, "data"), at.seed)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(
				r.progress, "growth: %d sessions and memories after %s\n", want,
				time.Since(start).Round(time.Millisecond),
			)
		} else if err != nil {
			return err
		}
		var err error
		if at.disk, err = bytesIn(filepath.Join(at.seed, "meta")); err != nil {
			return err
		}
		have = want
	}
	return nil
}

// seedOne makes a data folder of want sessions and memories out of one that has fewer.
func (r *run) seedOne(ctx context.Context, a *arena, dir, from string, have, want int) error {
	data := filepath.Join(dir, "data")
	if from != "" {
		if err := copyData(from, data); err != nil {
			return err
		}
	} else if s, err := openSluice(ctx, r.bins, dir); err != nil {
		return err
	} else if err := s.p.end(); err != nil {
		return err
	}
	s, err := openSeed(ctx, data, unsynced{vfs.Default})
	if err != nil {
		return err
	}
	return errors.Join(s.fill(ctx, a, have, want), s.Close())
}

// bytesIn counts the bytes of a folder's files. It leaves the reserve out, which is as large in an
// empty folder.
func bytesIn(dir string) (n int64, err error) {
	names, err := os.ReadDir(dir)
	for _, e := range names {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		if !strings.HasPrefix(e.Name(), "RESERVE-") {
			n += info.Size()
		}
	}
	return n, err
}

// growthRound measures each size once: a start, requests, kill -9, a start again, and ticks. The
// servers of all sizes run side by side and are asked in short alternating runs, so that other load
// of the machine hits all of them.
func (r *run) growthRound(ctx context.Context, a *arena, dir string, round int, g *growth) (err error) {
	var servers []*grownServer
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for i := range g.sizes { // the first one is another each time
		at := (i + round) % len(g.sizes)
		s := &grownServer{
			at: &g.at[at], dir: filepath.Join(dir, strconv.Itoa(g.sizes[at])),
			name: fmt.Sprintf("sample-%d-%d", round, at), c: newClient(ctx),
		}
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return err
		}
		if err := copyData(s.at.seed, filepath.Join(s.dir, "data")); err != nil {
			return err
		}
		unix.Sync()
		if err := r.startGrown(ctx, s, startClean); err != nil {
			return fmt.Errorf("with %d: %w", g.sizes[at], err)
		}
		servers = append(servers, s)
		if err := s.resident(&s.at.fresh); err != nil {
			return err
		}
	}
	for did := -growthSample; did < r.z.samples; did += growthSample {
		for _, s := range servers {
			if err := s.requests(a, min(growthSample, r.z.samples-did), did < 0); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, s := range servers {
		if err := s.resident(&s.at.after); err != nil {
			return err
		}
		s.stop()
		for j := range s.took {
			s.at.took[j], s.at.cpu[j] = append(s.at.took[j], s.took[j]), append(s.at.cpu[j], s.cpu[j])
		}
	}
	for _, s := range servers {
		if err := r.again(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for i := range g.sizes {
		fmt.Fprintf(r.progress, "round %d, growth, %d: %s\n", round+1, g.sizes[i], g.at[i].last())
	}
	return nil
}

// grownServer is a server on a folder of one size.
type grownServer struct {
	*sluice
	at   *grown
	dir  string
	name string
	c    *client
	did  int // of each request
	took [startClean][]time.Duration
	cpu  [startClean][]time.Duration
}

func (s *grownServer) stop() {
	if s.c.close(); s.sluice != nil {
		s.p.stop()
	}
}

// startGrown measures a start, which lasts until the first answer.
func (r *run) startGrown(ctx context.Context, s *grownServer, figure int) (err error) {
	start := time.Now()
	if s.sluice, err = openSluice(
		ctx, r.bins, s.dir, "--max-open-sessions", strconv.Itoa(2*r.z.growTo+1000),
	); err != nil {
		return err
	}
	if err := s.ask(s.c, "GET", "/v1/uploads_list?limit=1", nil, nil); err != nil {
		return closing(s.p, err)
	}
	took := time.Since(start)
	cpu, err := s.p.cpu()
	s.at.took[figure] = append(s.at.took[figure], []time.Duration{took})
	s.at.cpu[figure] = append(s.at.cpu[figure], []time.Duration{cpu})
	return err
}

// again measures a start after kill -9, and then ticks without a server.
func (r *run) again(ctx context.Context, s *grownServer) error {
	if err := r.startGrown(ctx, s, startKilled); err != nil {
		return err
	}
	if err := s.p.end(); err != nil {
		return err
	}
	inside, err := openSeed(ctx, filepath.Join(s.dir, "data"), vfs.Default)
	if err != nil {
		return err
	}
	ticks, err := inside.tick(ctx, 10*r.z.samples)
	s.at.took[growTick] = append(s.at.took[growTick], ticks)
	return errors.Join(err, inside.Close())
}

func (s *grownServer) resident(to *[]float64) error {
	b, err := s.p.memory("VmRSS")
	*to = append(*to, float64(b))
	return err
}

// requests does each operation n times, one at a time, and leaves as many open sessions as there
// were.
func (s *grownServer) requests(a *arena, n int, warming bool) error {
	for range n {
		var session string
		up := a.item(fmt.Sprintf("%s-%d", s.name, s.did), int64(s.did)<<17, 64<<10, chunk)
		made := a.item(up.name+"-made", up.off+1<<16, 64<<10, chunk)
		s.did++
		for j, do := range [startClean]func() error{
			growBegin:  func() (err error) { session, err = s.begin(s.c, up); return err },
			growPut:    func() error { return s.put(s.c, session, up, 0) },
			growFinish: func() error { _, err := s.finish(s.c, session, up); return err },
			growCreate: func() error { _, err := s.create(s.c, made); return err },
			growMemories: func() error {
				return s.ask(
					s.c, "GET", "/v1/memories_list?capsule_id=default&limit=100", nil, nil,
				)
			},
			growUploads: func() error { return s.ask(s.c, "GET", "/v1/uploads_list?limit=100", nil, nil) },
			growStats:   func() error { return s.ask(s.c, "GET", "/v1/sessions_stats", nil, nil) },
		} {
			before, err := s.p.cpu()
			if err != nil {
				return err
			}
			from := time.Now()
			if err := do(); err != nil {
				return err
			}
			took := time.Since(from)
			after, err := s.p.cpu()
			if err != nil {
				return err
			}
			if !warming {
				s.took[j], s.cpu[j] = append(s.took[j], took), append(s.cpu[j], after-before)
			}
		}
	}
	return nil
}

// medians gives the medians of the rounds, in ms.
func medians(rounds [][]time.Duration) spread {
	var all []float64
	for _, round := range rounds {
		all = append(all, ms(quantile(round, 0.5)))
	}
	return spreadOf(all)
}

// p50 gives the medians of the rounds, in ms, and p99 that of all rounds together.
func (g *grown) p50(figure int) spread { return medians(g.took[figure]) }

func (g *grown) p99(figure int) float64 { return ms(quantile(slices.Concat(g.took[figure]...), 0.99)) }

// last gives the result of the last round.
func (g *grown) last() string {
	var all []string
	for i, o := range operations {
		rounds := g.took[i]
		all = append(all, fmt.Sprintf("%s %.3f", o.what, ms(quantile(rounds[len(rounds)-1], 0.5))))
	}
	return strings.Join(all, ", ") + fmt.Sprintf(" ms, RSS %.0f MiB", g.after[len(g.after)-1]/(1<<20))
}

// ratios are those of the large size's p50 to the small one's, in each round.
func ratios(small, large [][]time.Duration) spread {
	var all []float64
	for i := range small {
		all = append(all, float64(quantile(large[i], 0.5))/float64(quantile(small[i], 0.5)))
	}
	return spreadOf(all)
}

// each is how many bytes of memory each further session has added.
func (g *growth) each() float64 {
	n := len(g.sizes) - 1
	return (spreadOf(g.at[n].after).median - spreadOf(g.at[0].after).median) / float64(g.sizes[n]-g.sizes[0])
}
