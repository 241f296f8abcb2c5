package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// scenario is one row of the measurements: clients that upload, or read, items of one size.
type scenario struct {
	name, title string
	how         how
	items       int
	size        int64
	clients     int
	inflight    int // chunks of one upload at a time
	repeats     int // of reading each item
	systems     []string
}

type how int

const (
	inChunks    how = iota // with the requests that a resumable upload takes
	oneRequest             // with the fewest requests that the system has for an upload
	reading                // of what was uploaded, and verified, before: from a warm page cache
	readingCold            // the same with a page cache that was emptied before
)

func (s scenario) reads() bool { return s.how == reading || s.how == readingCold }

// unit is the unit of a speed.
func (s scenario) unit() string {
	switch {
	case s.size >= 1<<20:
		return "MiB/s"
	case s.reads():
		return "reads/s"
	default:
		return "uploads/s"
	}
}

// sizes are the knobs of a run.
type sizes struct {
	large, each, small   int64 // bytes: of a, b and read; of each of c's; of d's
	many, clients        int   // uploads of d and create, and how many at a time
	repeats, smallPasses int   // of reading the large one, and the small ones
	finish               int64 // bytes of the large upload of finish
	growFrom, growTo     int   // sessions and memories
	samples              int   // of each operation of growth, in each round
}

var (
	shortForm = sizes{
		large: 512 << 20, each: 128 << 20, small: 64 << 10, many: 1000, clients: 16, repeats: 4, smallPasses: 4,
		finish: 4 << 30, growFrom: 1000, growTo: 100_000, samples: 100,
	}
	quickForm = sizes{
		large: 20<<20 + 5, each: 9 << 20, small: 64 << 10, many: 20, clients: 4, repeats: 1, smallPasses: 1,
		finish: 24 << 20, growFrom: 4, growTo: 60, samples: 5,
	}
)

const chunk = 8 << 20

// scenarios are the rows, in the order of docs/benchmarks.md.
func scenarios(z sizes) []scenario {
	return []scenario{
		{
			"a", "one upload, chunks one after the other", inChunks, 1, z.large, 1, 1, 0,
			[]string{"sluice", "floor", "floor-1", "bare", "tusd", "tusd-synced", "registry", "versitygw"},
		},
		{"b", "one upload, 4 chunks in flight", inChunks, 1, z.large, 1, 4, 0, []string{"sluice", "tusd", "tusd-synced", "versitygw"}},
		{
			"c", "8 clients, one upload each", inChunks, 8, z.each, 8, 1, 0,
			[]string{"sluice", "floor", "floor-1", "bare", "tusd", "tusd-synced", "registry", "versitygw"},
		},
		{
			"d", "small uploads, with the requests of a resumable one", inChunks, z.many, z.small, z.clients, 1, 0,
			[]string{"sluice", "tusd", "tusd-synced"},
		},
		{
			"create", "small uploads, in the fewest requests", oneRequest, z.many, z.small, z.clients, 1, 0,
			[]string{"sluice", "pack", "bare", "tusd", "tusd-synced", "registry", "versitygw"},
		},
		{"read", "reading a large one", reading, 1, z.large, 1, 1, z.repeats, []string{"sluice", "bare", "tusd", "registry", "versitygw"}},
		{
			"read-small", "reading small ones", reading, z.many, z.small, z.clients, 1, z.smallPasses,
			[]string{"sluice", "bare", "tusd", "registry", "versitygw"},
		},
		{"read-cold", "reading a large one, from the disk", readingCold, 1, z.large, 1, 1, 1, []string{"sluice", "bare"}},
		{"read-small-cold", "reading small ones, from the disk", readingCold, z.many, z.small, z.clients, 1, 1, []string{"sluice", "bare"}},
	}
}

// emptyCache empties the page cache. Only root may do that.
func emptyCache() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("reading from the disk is measured by root alone: %w", err)
	}
	return nil
}

// describe says in words what a scenario does.
func (s scenario) describe() string {
	d := fmt.Sprintf("%s of %s", plural(s.items, "item"), bytesOf(s.size))
	if s.size > chunk && s.how == inChunks {
		d += ", in chunks of " + bytesOf(chunk)
	}
	d += ", " + plural(s.clients, "client")
	if s.reads() {
		d += fmt.Sprintf(", each read %d times", s.repeats)
	}
	return d
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func bytesOf(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// split makes a scenario's uploads out of the arena, all different.
func (s scenario) split(a *arena) []item {
	all := make([]item, s.items)
	for i := range all {
		all[i] = a.item(fmt.Sprintf("%s-%04d", s.name, i), int64(i)*s.size, s.size, chunk)
	}
	return all
}

// sample is the result of one system in one round of a scenario.
type sample struct {
	bytes   int64
	count   int // uploads or reads
	took    time.Duration
	each    []time.Duration // of each request with content (large items), or of each upload or read (small ones)
	cpu     time.Duration   // of the server
	peak    int64           // of its resident set, bytes, since its start
	p50     time.Duration
	p99     time.Duration
	speed   float64 // in the scenario's unit
	perGiB  float64 // CPU seconds
	peakMiB float64
}

// run lets a fresh server do a scenario once. All stored content is read back and compared, outside
// of the measured time.
func (s scenario) run(ctx context.Context, sys system, bins, dir string, items []item) (sample, error) {
	srv, err := sys.start(ctx, bins, dir)
	if err != nil {
		return sample{}, err
	}
	defer srv.process().stop()
	c := newClient(ctx)
	defer c.close()
	if err := s.warm(srv, c, items[0].a); err != nil {
		return sample{}, fmt.Errorf("warming up: %w", err)
	}
	refs := make([]string, len(items))
	store := func(i int) (err error) {
		if s.how == inChunks || s.reads() && items[i].size > chunk {
			refs[i], err = srv.store(c, items[i], s.inflight)
		} else {
			refs[i], err = srv.create(c, items[i])
		}
		return err
	}
	verify := func(i int) error {
		r, err := srv.fetch(refs[i])
		if err != nil {
			return err
		}
		return c.verify(r, items[i])
	}
	read := func(i int) error {
		r, err := srv.fetch(refs[i%len(items)])
		if err != nil {
			return err
		}
		return c.read(r, s.size, nowhere{})
	}
	t := sample{count: len(items)}
	if s.reads() {
		if err := parallel(len(items), s.clients, store); err != nil {
			return t, err
		}
		if err := parallel(len(items), s.clients, verify); err != nil {
			return t, err
		}
		t.count *= s.repeats
		if s.how == readingCold {
			if err := emptyCache(); err != nil {
				return t, err
			}
		}
		if err := s.measure(&t, srv, c, read); err != nil {
			return t, err
		}
		return t, nil
	}
	if err := s.measure(&t, srv, c, store); err != nil {
		return t, err
	}
	return t, parallel(len(items), s.clients, verify)
}

// warm makes connections, and lets the server do each operation once.
func (s scenario) warm(srv server, c *client, a *arena) error {
	return parallel(s.clients, s.clients, func(i int) error {
		it := a.item(fmt.Sprintf("warm-%d", i), int64(13+i), 64<<10, chunk)
		store := srv.store
		if s.how == oneRequest {
			store = func(c *client, it item, _ int) (string, error) { return srv.create(c, it) }
		}
		ref, err := store(c, it, 1)
		if err != nil {
			return err
		}
		r, err := srv.fetch(ref)
		if err != nil {
			return err
		}
		return c.verify(r, it)
	})
}

func (s scenario) measure(t *sample, srv server, c *client, one func(i int) error) error {
	c.bodys.take()
	var whole latencies
	runtime.GC()
	before, err := srv.process().cpu()
	if err != nil {
		return err
	}
	start := time.Now()
	err = parallel(t.count, s.clients, func(i int) error {
		from := time.Now()
		err := one(i)
		whole.add(time.Since(from))
		return err
	})
	t.took = time.Since(start)
	if err != nil {
		return err
	}
	after, err := srv.process().cpu()
	if err != nil {
		return err
	}
	if t.peak, err = srv.process().peak(); err != nil {
		return err
	}
	t.cpu, t.bytes = after-before, int64(t.count)*s.size
	if t.each = whole.take(); s.how == inChunks && s.size > chunk {
		t.each = c.bodys.take()
	}
	t.sum(s)
	return nil
}

// sum derives what the tables show.
func (t *sample) sum(s scenario) {
	t.p50, t.p99 = quantile(t.each, 0.5), quantile(t.each, 0.99)
	t.speed = float64(t.count) / t.took.Seconds()
	if s.unit() == "MiB/s" {
		t.speed = float64(t.bytes) / (1 << 20) / t.took.Seconds()
	}
	t.perGiB = t.cpu.Seconds() / (float64(t.bytes) / (1 << 30))
	t.peakMiB = float64(t.peak) / (1 << 20)
}
