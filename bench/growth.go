package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// inner are the figures that only Sluice has: the same operation at two sizes, and what may be between them.
type inner struct {
	what, small, large string
	at                 [2][]time.Duration // one of each round, or many of one
	most               float64            // that large may be of small; 0: no bound
}

func (f inner) ratio() float64 {
	small := quantile(f.at[0], 0.5)
	if small == 0 {
		return math.NaN()
	}
	return float64(quantile(f.at[1], 0.5)) / float64(small)
}

// finishes measures finish after the last chunk in order: of uploads of 1 MiB, and of one that is large.
func finishes(ctx context.Context, bins, dir string, items [2]item, f *inner) error {
	s, err := openSluice(ctx, bins, dir)
	if err != nil {
		return err
	}
	defer s.p.stop()
	c := newClient(ctx)
	defer c.close()
	one := func(it item) (time.Duration, error) {
		session, err := s.begin(c, it)
		if err != nil {
			return 0, err
		}
		for i := range it.chunks() {
			if err := s.put(c, session, it, i); err != nil {
				return 0, err
			}
		}
		start := time.Now()
		ref, err := s.finish(c, session, it)
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		r, err := s.fetch(ref)
		if err != nil {
			return 0, err
		}
		return took, c.verify(r, it)
	}
	for i, it := range items {
		for range 3 {
			took, err := one(it)
			if err != nil {
				return err
			}
			f.at[i] = append(f.at[i], took)
			if i == 1 {
				break
			}
		}
	}
	return nil
}

// grown measures begin, put, finish, create and the first pages of lists with few open sessions and memories, then with many, and a start with these.
func grown(ctx context.Context, bins, dir string, a *arena, z sizes) ([]inner, error) {
	few, many := counted(z.growFrom), counted(z.growTo)
	var all []inner
	for _, what := range []string{"begin", "put, 64 KiB", "finish, 64 KiB", "create, 64 KiB", "memories_list, 100", "uploads_list, 100"} {
		all = append(all, inner{what: what, small: few, large: many, most: 1.5})
	}
	start := inner{what: "start", small: "empty", large: many}
	open := func() (*sluice, time.Duration, error) {
		from := time.Now()
		s, err := openSluice(ctx, bins, dir, "--max-open-sessions", strconv.Itoa(z.growTo+10*z.samples))
		return s, time.Since(from), err
	}
	s, took, err := open()
	if err != nil {
		return nil, err
	}
	start.at[0] = append(start.at[0], took)
	c := newClient(ctx)
	defer c.close()
	have := 0
	for i, want := range []int{z.growFrom, z.growTo} {
		if err := s.fill(c, a, have, want); err != nil {
			return nil, closing(s.p, err)
		}
		have = want
		if err := s.sample(c, a, z.samples, i, all); err != nil {
			return nil, closing(s.p, err)
		}
	}
	s.p.stop()
	c.close()
	if s, took, err = open(); err != nil {
		return nil, err
	}
	start.at[1] = append(start.at[1], took)
	s.p.stop()
	return append(all, start), nil
}

func counted(n int) string { return fmt.Sprintf("%d sessions and memories", n) }

// fill begins sessions and creates memories, each from have to want.
func (s *sluice) fill(c *client, a *arena, have, want int) error {
	return parallel(want-have, 16, func(i int) error {
		it := a.item(fmt.Sprintf("grow-%d", have+i), int64(have+i), 64, chunk)
		if _, err := s.create(c, it); err != nil {
			return err
		}
		_, err := s.begin(c, it)
		return err
	})
}

// sample does each operation so many times, one at a time, and leaves as many open sessions as there were.
func (s *sluice) sample(c *client, a *arena, n, at int, all []inner) error {
	for i := range n {
		var session string
		up := a.item(fmt.Sprintf("sample-%d-%d", at, i), int64((at*n+i)*2)<<16, 64<<10, chunk)
		made := a.item(up.name+"-made", up.off+1<<16, 64<<10, chunk)
		for j, do := range []func() error{
			func() (err error) { session, err = s.begin(c, up); return err },
			func() error { return s.put(c, session, up, 0) },
			func() error { _, err := s.finish(c, session, up); return err },
			func() error { _, err := s.create(c, made); return err },
			func() error { return s.ask(c, "GET", "/v1/memories_list?capsule_id=default&limit=100", nil, nil) },
			func() error { return s.ask(c, "GET", "/v1/uploads_list?limit=100", nil, nil) },
		} {
			from := time.Now()
			if err := do(); err != nil {
				return err
			}
			all[j].at[at] = append(all[j].at[at], time.Since(from))
		}
	}
	return nil
}
