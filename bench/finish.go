package main

import (
	"context"
	"math"
	"time"
)

// inner has the figures that only Sluice has: one operation at two sizes, and the bound of their
// ratio.
type inner struct {
	what, small, large string
	at                 [2][]time.Duration // one of each round, or many of one
	most               float64            // the bound of large ÷ small; 0: no bound
}

func (f inner) ratio() float64 {
	small := quantile(f.at[0], 0.5)
	if small == 0 {
		return math.NaN()
	}
	return float64(quantile(f.at[1], 0.5)) / float64(small)
}

// finishes measures a finish after the last chunk in order, of uploads of 1 MiB and of one large
// upload.
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
