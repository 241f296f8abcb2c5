package main

import (
	"fmt"
	"image/color"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// markdown writes growth as a section of its own.
func (g *growth) markdown(b *about, chart string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "## Growth\n\n`make growth` (`bench/`%s), %s, commit %s, %s. It took %s.\n\n",
		b.flags, b.when.Format(time.DateOnly), b.commit, b.machine, b.took.Round(time.Second))
	if b.z == quickForm {
		fmt.Fprint(&w, "**One round of tiny sizes, to see that everything works: these figures mean nothing.**\n\n")
	}
	if chart != "" {
		fmt.Fprintf(&w, "![Growth: requests, TickTTL, starts, resident set](%s)\n\n", chart)
	}
	g.table(&w, b.rounds, b.z.samples)
	return w.String()
}

func (g *growth) table(w *strings.Builder, rounds, samples int) {
	if g == nil {
		return
	}
	fmt.Fprintf(w, "### Sluice alone: growth\n\nFolders with so many open sessions of one principal, and as many "+
		"memories of 64 bytes in one capsule; %s, in each of which every size has a server on a fresh copy of "+
		"its folder: a start, %d of each request by one client, one after the other (the servers run side by side and "+
		"take turns of %d), kill -9, and a start again; then `TickTTL` in this "+
		"process, %d times. A start lasts until the first answer; the folder is in the page cache. In ms: the median "+
		"of the rounds' p50 (min–max of them), then the p99 of all rounds. The ratio is the largest size's p50 to "+
		"the smallest's in "+
		"each round: median (min–max).\n\n|", plural(rounds, "round"), samples, growthSample, 10*samples)
	for _, n := range g.sizes {
		fmt.Fprintf(w, " | %s", grouped(n))
	}
	fmt.Fprintf(w, " | ratio | goal | |\n|%s\n", strings.Repeat(" --- |", len(g.sizes)+4))
	top := &g.at[len(g.at)-1]
	for i, o := range operations {
		fmt.Fprintf(w, "| %s", o.what)
		for j := range g.at {
			at := &g.at[j]
			p := at.p50(i)
			fmt.Fprintf(w, " | %s (%s–%s)", digits(p.median), digits(p.min), digits(p.max))
			if i != startClean && i != startKilled { // too few
				fmt.Fprintf(w, "; %s", digits(at.p99(i)))
			}
		}
		r := ratios(g.at[0].took[i], top.took[i])
		goal, met := "reported", ""
		switch {
		case o.most > 0:
			goal, met = fmt.Sprintf("ratio ≤ %g", o.most), yes(r.median <= o.most)
		case o.top > 0:
			goal, met = "≤ "+o.top.String(), yes(top.p50(i).median <= ms(o.top))
		}
		fmt.Fprintf(w, " | %.2f (%.2f–%.2f) | %s | %s |\n", r.median, r.min, r.max, goal, met)
	}
	row := func(what string, f func(*grown) string, end string) {
		fmt.Fprintf(w, "| %s", what)
		for i := range g.at {
			fmt.Fprintf(w, " | %s", f(&g.at[i]))
		}
		fmt.Fprintf(w, " | %s |\n", end)
	}
	rss := func(of func(*grown) []float64) func(*grown) string {
		return func(at *grown) string {
			s := spreadOf(of(at))
			return fmt.Sprintf("%.1f (%.1f–%.1f)", s.median/(1<<20), s.min/(1<<20), s.max/(1<<20))
		}
	}
	row("resident set after a start, MiB", rss(func(at *grown) []float64 { return at.fresh }), "| |")
	row("resident set after the requests, MiB", rss(func(at *grown) []float64 { return at.after }),
		fmt.Sprintf("%.0f bytes for each more | ≤ %d each | %s", g.each(), mostEach, yes(g.each() <= mostEach)))
	row(
		"metadata on the disk, MiB", func(at *grown) string { return fmt.Sprintf("%.1f", float64(at.disk)/(1<<20)) },
		"| |",
	)
	fmt.Fprintln(w)
	g.cpu(w)
}

// cpu is the table of processor time, which is steadier if others use the machine as well.
func (g *growth) cpu(w *strings.Builder) {
	fmt.Fprint(
		w,
		"The server's own processor time for the same, in ms, with what it does in the background meanwhile: the "+
			"median of the rounds' p50 (min–max).\n\n|",
	)
	for _, n := range g.sizes {
		fmt.Fprintf(w, " | %s", grouped(n))
	}
	fmt.Fprintf(w, " | ratio |\n|%s\n", strings.Repeat(" --- |", len(g.sizes)+2))
	for i := range g.at[0].cpu {
		fmt.Fprintf(w, "| %s", operations[i].what)
		for j := range g.at {
			p := medians(g.at[j].cpu[i])
			fmt.Fprintf(w, " | %s (%s–%s)", digits(p.median), digits(p.min), digits(p.max))
		}
		r := ratios(g.at[0].cpu[i], g.at[len(g.at)-1].cpu[i])
		fmt.Fprintf(w, " | %.2f (%.2f–%.2f) |\n", r.median, r.min, r.max)
	}
	fmt.Fprintln(w)
}

// digits shows three digits, if there are decimals.
func digits(f float64) string {
	switch {
	case f < 0.1:
		return strconv.FormatFloat(f, 'f', 4, 64)
	case f < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	default:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
}

// grouped writes 1000000 as 1,000,000.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// line is a curve of a chart, with one point for each size.
type line struct {
	name string
	of   func(*grown) spread
}

// chart draws the operations over the sizes.
func (g *growth) chart(path string) error {
	scaled := func(figure int, by float64) line {
		return line{operations[figure].what, func(at *grown) spread {
			s := at.p50(figure)
			return spread{s.median * by, s.min * by, s.max * by}
		}}
	}
	mib := func(name string, of func(*grown) []float64) line {
		return line{name, func(at *grown) spread {
			s := spreadOf(of(at))
			return spread{s.median / (1 << 20), s.min / (1 << 20), s.max / (1 << 20)}
		}}
	}
	var requests []line
	for i := range startClean {
		requests = append(requests, scaled(i, 1))
	}
	var plots []*plot.Plot
	for _, c := range []struct {
		title, unit string
		lines       []line
	}{
		{"requests, p50 (min–max of the rounds)", "ms", requests},
		{"TickTTL, p50", "µs", []line{scaled(growTick, 1000)}},
		{"start, until the first answer", "ms", []line{scaled(startClean, 1), scaled(startKilled, 1)}},
		{"resident set", "MiB", []line{
			mib("after a start", func(at *grown) []float64 { return at.fresh }),
			mib("after the requests", func(at *grown) []float64 { return at.after }),
		}},
	} {
		p, err := g.plot(c.lines)
		if err != nil {
			return err
		}
		p.Title.Text, p.Y.Label.Text = c.title, c.unit
		plots = append(plots, p)
	}
	return tiled(path, plots, 9*vg.Centimeter)
}

func (g *growth) plot(lines []line) (*plot.Plot, error) {
	p := plot.New()
	p.X.Label.Text = "open sessions, and memories"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(g.ticks())
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Millimeter
	p.BackgroundColor = color.White
	most := 0.0
	for i, l := range lines {
		var at bars
		for j := range g.at {
			s := l.of(&g.at[j])
			at.XYs = append(at.XYs, plotter.XY{X: float64(g.sizes[j]), Y: s.median})
			at.YErrors = append(at.YErrors, struct{ Low, High float64 }{s.min - s.median, s.max - s.median})
			most = max(most, s.max)
		}
		curve, points, err := plotter.NewLinePoints(at.XYs)
		if err != nil {
			return nil, err
		}
		errs, err := plotter.NewYErrorBars(at)
		if err != nil {
			return nil, err
		}
		c := plotutil.Color(i)
		curve.Color, points.Color, points.Shape, errs.Color = c, c, plotutil.Shape(i), c
		p.Add(curve, points, errs)
		p.Legend.Add(l.name, curve, points)
	}
	p.Add(plotter.NewGrid())
	p.Y.Min, p.Y.Max = 0, most*(1.1+0.08*float64(len(lines))) // and space for the legend
	return p, nil
}

// bars are medians, with the distances to the minimum and the maximum.
type bars struct {
	plotter.XYs
	plotter.YErrors
}

func (g *growth) ticks() (all []plot.Tick) {
	for _, n := range slices.Compact(slices.Clone(g.sizes)) {
		all = append(all, plot.Tick{Value: float64(n), Label: grouped(n)})
	}
	return all
}
