package main

import (
	"errors"
	"image/color"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// columns of charts beside each other.
const columns = 2

// chart draws a bar for each system in each scenario: the median, with minimum and maximum.
func (r *results) chart(path string) error {
	var plots []*plot.Plot
	for _, s := range r.scenarios {
		p, err := r.bars(s)
		if err != nil {
			return err
		}
		if p != nil {
			plots = append(plots, p)
		}
	}
	return tiled(path, plots, 7*vg.Centimeter)
}

// tiled draws charts beside and below each other. Without charts it makes no file.
func tiled(path string, all []*plot.Plot, height vg.Length) (err error) {
	if len(all) == 0 {
		return nil
	}
	var plots [][]*plot.Plot
	for row := range slices.Chunk(all, columns) {
		plots = append(plots, append(slices.Clone(row), make([]*plot.Plot, columns-len(row))...))
	}
	canvas := vgsvg.New(columns*14*vg.Centimeter, vg.Length(len(plots))*height)
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{
		Rows: len(plots), Cols: columns, PadX: 6 * vg.Millimeter, PadY: 4 * vg.Millimeter, PadTop: 2 * vg.Millimeter,
		PadRight: 4 * vg.Millimeter,
	}
	for i, row := range plot.Align(plots, tiles, dc) {
		for j, c := range row {
			if plots[i][j] != nil {
				plots[i][j].Draw(c)
			}
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = canvas.WriteTo(f)
	return err
}

// spans are medians, with the distances to the minimum and the maximum.
type spans struct {
	plotter.XYs
	plotter.XErrors
}

func (r *results) bars(s scenario) (*plot.Plot, error) {
	var names []string
	var ours, others plotter.Values
	var at spans
	for i := len(s.systems) - 1; i >= 0; i-- { // the first is on top
		sys := s.systems[i]
		if len(r.samples[s.name][sys]) == 0 {
			continue
		}
		v, _ := systemOf(sys)
		sp := r.of(s.name, sys, speed)
		at.XYs = append(at.XYs, plotter.XY{X: sp.median, Y: float64(len(names))})
		at.XErrors = append(at.XErrors, struct{ Low, High float64 }{sp.min - sp.median, sp.max - sp.median})
		names = append(names, strings.Trim(v.label, "*"))
		own, theirs := 0.0, sp.median
		if sys == "sluice" {
			own, theirs = theirs, own
		}
		ours, others = append(ours, own), append(others, theirs)
	}
	if len(names) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text = s.name + ": " + s.title
	p.X.Label.Text = s.unit()
	p.X.Min = 0
	p.BackgroundColor = color.White
	for _, of := range []struct {
		v plotter.Values
		c color.Color
	}{{ours, color.RGBA{0x1f, 0x6f, 0xb4, 0xff}}, {others, color.RGBA{0xb8, 0xc2, 0xcc, 0xff}}} {
		b, err := plotter.NewBarChart(of.v, 4*vg.Millimeter)
		if err != nil {
			return nil, err
		}
		b.Horizontal, b.Color, b.LineStyle.Width = true, of.c, 0
		p.Add(b)
	}
	e, err := plotter.NewXErrorBars(at)
	if err != nil {
		return nil, err
	}
	p.Add(e)
	p.NominalY(names...)
	return p, nil
}
