package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The quick form builds the peers if they are not built yet. That takes minutes.
func TestEverySystemStoresAndGivesBackWhatItWasSent(t *testing.T) {
	docs := t.TempDir()
	hand := "# Figures\n\nBy hand.\n"
	if err := os.WriteFile(filepath.Join(docs, "benchmarks.md"), []byte(hand), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := parse([]string{"-quick", "-docs", docs})
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	r.out, r.progress = &out, &progress
	if err := r.do(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	text, err := os.ReadFile(filepath.Join(docs, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), hand) || strings.Contains(string(text), "NaN") {
		t.Errorf("benchmarks.md:\n%s", text)
	}
	for _, s := range scenarios(quickForm) {
		if s.how == readingCold {
			continue // asked for by name
		}
		table, found := "", false
		if _, table, found = strings.Cut(string(text), "### "+s.name+":"); !found {
			t.Errorf("no table of %s", s.name)
			continue
		}
		table, _, _ = strings.Cut(table, "###")
		for _, sys := range s.systems {
			v, _ := systemOf(sys)
			if !strings.Contains(table, "\n| "+v.label+" |") {
				t.Errorf("%s has no row of %s:\n%s", s.name, sys, table)
			}
		}
	}
	if svg, err := os.ReadFile(filepath.Join(docs, "benchmarks.svg")); err != nil ||
		!bytes.Contains(svg, []byte("</svg>")) {
		t.Errorf("no chart: %v", err)
	}
}

// Another build gets a round each time that ours gets one, and the ratios are a table.
func TestAnotherBuildTakesPart(t *testing.T) {
	r, err := parse([]string{"-quick", "-systems", "sluice", "-scenarios", "b,create,read-small"})
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	r.out, r.progress = &out, &progress
	r.before = filepath.Join(t.TempDir(), "other")
	build := exec.Command("go", "build", "-o", r.before, "./cmd/sluice")
	build.Dir = ".."
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if err := r.do(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	_, table, _ := strings.Cut(out.String(), "### Beside another build")
	for _, name := range []string{"b", "create", "read-small"} {
		if !strings.Contains(table, "\n| "+name+" | ") || strings.Contains(table, "NaN") {
			t.Errorf("no ratio of %s:\n%s", name, table)
		}
	}
}

func TestOnlyWhatIsBetweenTheMarksIsWritten(t *testing.T) {
	first, err := peersMarks.between("# By hand\n", "one")
	if err != nil {
		t.Fatal(err)
	}
	second, err := peersMarks.between(first+"\n## Also by hand\n", "two")
	if err != nil {
		t.Fatal(err)
	}
	want := "# By hand\n\n" + peersMarks.from + "\n\ntwo\n\n" + peersMarks.to + "\n\n## Also by hand\n"
	if second != want {
		t.Errorf("got %q, want %q", second, want)
	}
	if _, err := peersMarks.between("# By hand\n\n"+peersMarks.from+"\nno end\n", "three"); err == nil {
		t.Error("a mark without an end is taken for one with an end: all below it would be lost")
	}
}

func TestMediansAndQuantiles(t *testing.T) {
	if got := spreadOf([]float64{5, 1, 3}); got != (spread{3, 1, 5}) {
		t.Error(got)
	}
	if got := spreadOf([]float64{4, 1, 2, 3}); got != (spread{2.5, 1, 4}) {
		t.Error(got)
	}
	var d []time.Duration
	for i := range 101 {
		d = append(d, time.Duration(100-i))
	}
	if p50, p99 := quantile(d, 0.5), quantile(d, 0.99); p50 != 50 || p99 != 99 {
		t.Error(p50, p99)
	}
}

func TestAnItemThatIsLongerThanTheArenaGoesAroundIt(t *testing.T) {
	a, err := newArena(chunk)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	it := a.item("around", chunk-1, 1<<20, chunk)
	body, err := it.body(0, it.size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	if want := append([]byte{a.b[chunk-1]}, a.b[:1<<20-1]...); !bytes.Equal(got.Bytes(), want) {
		t.Error("other bytes")
	}
}
