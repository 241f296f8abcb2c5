package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestGrowthAloneIsASectionOfItsOwn(t *testing.T) {
	docs := t.TempDir()
	before := "# Figures\n\n" + peersMarks.from + "\n\npeers\n\n" + peersMarks.to + "\n"
	if err := os.WriteFile(filepath.Join(docs, "benchmarks.md"), []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := parse([]string{
		"-quick", "-scenarios", "growth", "-systems", "sluice", "-docs", docs, "-grown", t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	r.out, r.progress = &out, &progress
	for range 2 { // the second time with the folders of the first
		if err := r.do(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
	}
	if n := strings.Count(progress.String(), "sessions and memories after"); n != 3 {
		t.Errorf("%d folders were filled, and 3 sizes there are:\n%s", n, progress.String())
	}
	b, err := os.ReadFile(filepath.Join(docs, "benchmarks.md"))
	text := string(b)
	if err != nil || !strings.HasPrefix(text, before) || strings.Count(text, growthMarks.from) != 1 ||
		strings.Contains(text, "NaN") {
		t.Errorf("%v\n%s", err, text)
	}
	if !strings.Contains(text, "\n| | 4 | 40 | 60 | ratio |") {
		t.Errorf("the table has other sizes:\n%s", text)
	}
	for _, o := range operations {
		if !strings.Contains(text, "\n| "+o.what+" |") {
			t.Errorf("no row of %q:\n%s", o.what, text)
		}
	}
	if svg, err := os.ReadFile(filepath.Join(docs, "growth.svg")); err != nil ||
		!bytes.Contains(svg, []byte("</svg>")) {
		t.Errorf("no chart: %v", err)
	}
	if _, err := os.Stat(filepath.Join(docs, "benchmarks.svg")); err == nil {
		t.Error("the chart of the peers was drawn, without peers")
	}
}

// fill leaves out steps of a request. They must leave nothing in the folder.
func TestAFilledFolderIsSound(t *testing.T) {
	r, err := parse([]string{"-quick", "-systems", "sluice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := build(t.Context(), r.here, r.bins, "", "", r.has); err != nil {
		t.Fatal(err)
	}
	a, err := newArena(chunk)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	const few, many = 7, 2*fillBatch + 9
	first, second := t.TempDir(), t.TempDir()
	if err := r.seedOne(t.Context(), a, first, "", 0, few); err != nil {
		t.Fatal(err)
	}
	if err := r.seedOne(t.Context(), a, second, filepath.Join(first, "data"), few, many); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]int64{first: few, second: many} {
		data := filepath.Join(dir, "data")
		if out, err := exec.CommandContext(
			t.Context(), filepath.Join(r.bins, "sluice"), "check", "--data", data,
		).CombinedOutput(); err != nil {
			t.Errorf("check of %d: %v\n%s", want, err, out)
		}
		s, err := openSeed(t.Context(), data, vfs.Default)
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Sessions.Stats(t.Context())
		if err != nil || st.Open != want {
			t.Errorf("%d sessions are open instead of %d: %v", st.Open, want, err)
		}
		if ticks, err := s.tick(t.Context(), 3); err != nil || len(ticks) != 3 {
			t.Errorf("%d ticks: %v", len(ticks), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStepsOfGrowth(t *testing.T) {
	for _, c := range []struct {
		from, to int
		want     []int
	}{
		{1000, 1_000_000, []int{1000, 10_000, 100_000, 1_000_000}},
		{1000, 20_000, []int{1000, 10_000, 20_000}},
		{1000, 1000, []int{1000}},
	} {
		if got := (sizes{growFrom: c.from, growTo: c.to}).steps(); !slices.Equal(got, c.want) {
			t.Errorf("from %d to %d: %v", c.from, c.to, got)
		}
	}
}
