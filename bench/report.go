package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// about describes a run.
type about struct {
	when                             time.Time
	commit, machine, versions, flags string
	rounds                           int
	z                                sizes
	took                             time.Duration
}

// markdown writes the results of a run as a section of docs/benchmarks.md.
func (r *results) markdown(b *about, chart string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "## Beside its peers\n\n`make bench` (`bench/`%s), %s, commit %s, %s. %s, interleaved: in each "+
		"round every system has its turn at a scenario, the first one "+
		"another each time; a turn is a fresh server on an empty folder; file systems are synced between turns. It "+
		"took %s. Speeds are of one machine on one day: compare ratios, not numbers.\n\n",
		b.flags, b.when.Format(time.DateOnly), b.commit, b.machine, plural(b.rounds, "round"),
		b.took.Round(time.Second))
	fmt.Fprintf(&w, "Client and server share the cores. The client is the same for all: net/http, HTTP/1.1 over "+
		"loopback, connections kept alive, random bytes from a file in memory "+
		"(sendfile), every status and every digest in an answer checked; after the time that counts all is read back "+
		"and its SHA-256 compared. "+
		"CPU is the server process's, user and system, without what the kernel writes back later; RSS is the largest "+
		"of any round (`VmHWM`); p50 and p99 are medians over the rounds, "+
		"of requests that carry content in a–c, of whole uploads or reads elsewhere. Peers: %s, built from one "+
		"module, so with its versions of what they share.\n\n", b.versions)
	if b.z == quickForm {
		fmt.Fprint(&w, "**One round of tiny sizes, to see that everything works: these figures mean nothing.**\n\n")
	}
	if chart != "" {
		fmt.Fprintf(&w, "![Medians, with minimum and maximum](%s)\n\n", chart)
	}
	r.goals(&w)
	for _, s := range r.scenarios {
		r.table(&w, s)
	}
	r.compare(&w)
	r.finishing(&w)
	linkTable(&w, r.links)
	r.growth.table(&w, b.rounds, b.z.samples)
	fmt.Fprintf(&w, "### How each runs\n\n| system | settings, and what an answer promises |\n| --- | --- |\n")
	for _, s := range systems {
		if s.name == otherBuild && !r.compared {
			continue
		}
		fmt.Fprintf(&w, "| %s | %s |\n", s.label, s.settings)
	}
	return w.String()
}

func (r *results) goals(w *strings.Builder) {
	var rows []string
	for _, g := range goals() {
		if ratio := r.ratio(g); !math.IsNaN(ratio) {
			want, met := g.verdict(ratio)
			rows = append(rows, fmt.Sprintf("| %s | %s | %.2f | %s |\n", g.what, want, ratio, met))
		}
	}
	peak := 0.0
	for _, s := range r.scenarios {
		if !s.reads() && len(r.samples[s.name]["sluice"]) > 0 {
			peak = max(peak, r.peakOf(s.name, "sluice"))
		}
	}
	if peak > 0 {
		rows = append(rows, fmt.Sprintf(
			"| resident set in all that upload, MiB | ≤ 64 | %.0f | %s |\n", peak, yes(peak <= 64),
		))
	}
	if len(rows) > 0 {
		fmt.Fprintf(
			w,
			"### The goals: ratios of Sluice's medians to…\n\n| | goal | measured | |\n| --- | --- | --- | --- |\n%s\n",
			strings.Join(rows, ""),
		)
	}
}

func (r *results) table(w *strings.Builder, s scenario) {
	fmt.Fprintf(
		w,
		"### %s: %s\n\n%s.\n\n| | %s: median (min–max) | p50, ms | p99, ms | CPU s/GiB (min–max) | RSS, MiB |\n| "+
			"--- | --- | --- | --- | --- | --- |\n",
		s.name, s.title, s.describe(), s.unit())
	for _, sys := range s.systems {
		if len(r.samples[s.name][sys]) == 0 {
			continue
		}
		v, _ := systemOf(sys)
		sp, cpu := r.of(s.name, sys, speed), r.of(s.name, sys, perGiB)
		p50 := r.of(s.name, sys, func(t sample) float64 { return ms(t.p50) })
		p99 := r.of(s.name, sys, func(t sample) float64 { return ms(t.p99) })
		fmt.Fprintf(w, "| %s | %.0f (%.0f–%.0f) | %.2f | %.2f | %.2f (%.2f–%.2f) | %.0f |\n",
			v.label, sp.median, sp.min, sp.max, p50.median, p99.median, cpu.median, cpu.min, cpu.max,
			r.peakOf(s.name, sys))
	}
	fmt.Fprintln(w)
}

// compare writes the results of another build of the program in the same rounds. Each round gives
// one ratio, and the table has the median.
func (r *results) compare(w *strings.Builder) {
	if !r.compared {
		return
	}
	fmt.Fprint(w, "### Beside another build\n\nThis program's speed by the other's, and its processor time by the "+
		"other's, of each round: median (min–max).\n\n"+
		"| | speed | CPU |\n| --- | --- | --- |\n")
	for _, s := range r.scenarios {
		faster, dearer := r.paired(s.name, speed), r.paired(s.name, perGiB)
		fmt.Fprintf(w, "| %s | %.2f (%.2f–%.2f) | %.2f (%.2f–%.2f) |\n",
			s.name, faster.median, faster.min, faster.max, dearer.median, dearer.min, dearer.max)
	}
	fmt.Fprintln(w)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func (r *results) finishing(w *strings.Builder) {
	f := r.finish
	if f == nil {
		return
	}
	fmt.Fprintf(w, "### Sluice alone: finish\n\nOne client, after the last chunk in order. Medians (min–max) of n, in "+
		"ms.\n\n"+
		"| small | large | ratio | goal | |\n| --- | --- | --- | --- | --- |\n| %s: %s | %s: %s | %.2f | ≤ %g | %s "+
		"|\n\n",
		f.small, times(f.at[0]), f.large, times(f.at[1]), f.ratio(), f.most, yes(f.ratio() <= f.most))
}

func times(all []time.Duration) string {
	return fmt.Sprintf(
		"%.2f (%.2f–%.2f), n = %d", ms(quantile(all, 0.5)), ms(quantile(all, 0)), ms(quantile(all, 1)), len(all),
	)
}
