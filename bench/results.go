package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// results are the samples of a run: by scenario, then by system, one for each round.
type results struct {
	scenarios []scenario
	samples   map[string]map[string][]sample
	links     []*onLink
	finish    *inner  // nil: not measured
	growth    *growth // nil: not measured
	compared  bool    // with another build
}

// paired gives the ratios of our sample to that of the other build in the same round.
func (r *results) paired(scenario string, f func(sample) float64) spread {
	var all []float64
	other := r.samples[scenario][otherBuild]
	for i, t := range r.samples[scenario]["sluice"] {
		if i < len(other) {
			all = append(all, f(t)/f(other[i]))
		}
	}
	return spreadOf(all)
}

// spread is the result of several rounds.
type spread struct{ median, min, max float64 }

func spreadOf(all []float64) spread {
	if len(all) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(all))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + m) / 2
	}
	return spread{m, s[0], s[len(s)-1]}
}

func (r *results) of(scenario, system string, f func(sample) float64) spread {
	var all []float64
	for _, t := range r.samples[scenario][system] {
		all = append(all, f(t))
	}
	return spreadOf(all)
}

func speed(t sample) float64  { return t.speed }
func perGiB(t sample) float64 { return t.perGiB }

// goal is a bound: of the ratio of two medians of one run.
type goal struct {
	what     string
	of       [2]string // scenario, system
	to       [2]string
	f        func(sample) float64
	want     float64
	atMost   bool // else: at least
	reported bool // no bound: tusd as it is promises less
}

// goals are those of the standard scenarios.
func goals() []goal {
	up := func(scenario, system, what string, want float64) goal {
		return goal{
			what: what, of: [2]string{scenario, "sluice"}, to: [2]string{scenario, system}, f: speed, want: want,
		}
	}
	asIs := func(g goal) goal {
		g.reported = true
		return g
	}
	return []goal{
		up("a", "floor", "a: floor", 0.9),
		asIs(up("a", "floor-1", "a: floor in one request", 0)),
		up("a", "tusd-synced", "a: tusd, synced", 2),
		up("a", "registry", "a: registry", 3),
		asIs(up("a", "tusd", "a: tusd as it is", 0)),
		{what: "a: CPU s/GiB of tusd as it is", of: [2]string{"a", "sluice"}, to: [2]string{"a", "tusd"}, f: perGiB, want: 0.5, atMost: true},
		{what: "b: our own a", of: [2]string{"b", "sluice"}, to: [2]string{"a", "sluice"}, f: speed, want: 0.95},
		up("b", "tusd", "b: tusd (concatenation)", 3),
		up("c", "floor", "c: floor", 0.9),
		asIs(up("c", "floor-1", "c: floor in one request", 0)),
		up("c", "tusd-synced", "c: tusd, synced", 2),
		up("c", "registry", "c: registry", 2),
		asIs(up("c", "tusd", "c: tusd as it is", 0)),
		up("d", "tusd", "d: tusd's two requests", 1.5),
		asIs(up("d", "tusd-synced", "d: tusd, synced", 0)),
		up("create", "pack", "create: its floor", 0.7),
		up("create", "versitygw", "create: versitygw's PUT", 1.2),
		up("read", "bare", "read, large: static file server", 1),
		up("read-small", "bare", "read, small: static file server", 0.8),
	}
}

// ratio is NaN if one side was not measured.
func (r *results) ratio(g goal) float64 {
	return r.of(g.of[0], g.of[1], g.f).median / r.of(g.to[0], g.to[1], g.f).median
}

func (g goal) verdict(ratio float64) (want, met string) {
	switch {
	case g.reported:
		return "reported", ""
	case g.atMost:
		return fmt.Sprintf("≤ %g", g.want), yes(ratio <= g.want)
	default:
		return fmt.Sprintf("≥ %g", g.want), yes(ratio >= g.want)
	}
}

func yes(b bool) string {
	if b {
		return "met"
	}
	return "**missed**"
}

// peakOf is the largest resident set that a system had in a scenario, MiB.
func (r *results) peakOf(scenario, system string) float64 {
	return slices.MaxFunc(
		r.samples[scenario][system], func(a, b sample) int { return cmp.Compare(a.peak, b.peak) },
	).peakMiB
}
