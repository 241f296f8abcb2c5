// Command mutants plants bugs, one at a time, and asks the tests that are named for each whether they find it: a test that can't fail proves nothing.
//
// It owns the table of planted bugs ([table], one file for each part of the program) and how one is run. The bugs are texts in that table: each is laid
// over its file for one build (go test -overlay), so nothing of it is ever in the program. It does not own the tests; what no test finds needs one.
//
//	go run ./internal/mutants [-write docs/mutants.md] [-list] [NAME…]
//
// A NAME selects the mutants whose names contain it. Exit status: 0 where each named test failed under its mutant, 1 where one passed or
// did not end in time, 2 where the table does not fit the program any more (a text that is not there exactly once, code that does not build).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutant is a bug that is planted.
type mutant struct {
	name    string // kebab-case, what the program does wrong
	promise int    // of docs/promises.md, that it breaks
	file    string // relative to the module
	old     string // is there exactly once
	new     string
	// tests must all fail: package.TestName, where the package is relative to the module.
	tests []string
}

// table gives all mutants, by promise.
func table() []mutant {
	all := slices.Concat(ofSession(), ofUpload(), ofCatalog(), ofStores(), ofPacks(), ofFronts(), ofBounds(), ofMeetings(), ofRecords(), ofCleanup(), ofWire(), ofWaits(), ofFolder())
	all = append(all, ofClient()...)
	all = append(all, ofPromised()...)
	slices.SortStableFunc(all, func(a, b mutant) int { return a.promise - b.promise })
	return all
}

// errTable: the table does not fit the program.
var errTable = errors.New("the table does not fit")

func main() {
	write := flag.String("write", "", "write the table to this `file`; only without names")
	list := flag.Bool("list", false, "only list the mutants")
	limit := flag.Duration("timeout", 4*time.Minute, "how long the tests of one mutant and package may take")
	flag.Parse()
	os.Exit(run(flag.Args(), *list, *write, *limit, os.Stdout))
}

func run(names []string, list bool, write string, limit time.Duration, out io.Writer) int {
	var chosen []mutant
	for _, m := range table() {
		if len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(m.name, n) }) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintln(out, "no mutant has such a name")
		return 2
	}
	status := 0
	for _, m := range chosen {
		if list {
			fmt.Fprintf(out, "%2d  %s  %s\n", m.promise, m.name, m.file)
			continue
		}
		began := time.Now()
		passed, err := m.try(context.Background(), ".", limit)
		took := time.Since(began).Round(100 * time.Millisecond)
		switch {
		case err != nil:
			fmt.Fprintf(out, "BROKEN    %-40s %v\n", m.name, err)
			status = 2
		case len(passed) > 0:
			fmt.Fprintf(out, "SURVIVED  %-40s %s (%v)\n", m.name, strings.Join(passed, ", "), took)
			status = max(status, 1)
		default:
			fmt.Fprintf(out, "caught    %-40s by %s (%v)\n", m.name, strings.Join(m.tests, ", "), took)
		}
	}
	if write != "" && status == 0 && !list && len(names) == 0 {
		if err := os.WriteFile(write, document(chosen), 0o666); err != nil {
			fmt.Fprintln(out, err)
			return 2
		}
	}
	return status
}

// planted gives the file with the bug in it.
func (m mutant) planted(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTable, err)
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%w: the text to replace is %d times in %s", errTable, n, m.file)
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1), nil
}

// byPackage gives the tests of each package.
func (m mutant) byPackage() map[string][]string {
	out := map[string][]string{}
	for _, t := range m.tests {
		i := strings.LastIndexByte(t, '.')
		out[t[:i]] = append(out[t[:i]], t[i+1:])
	}
	return out
}

// try runs the tests over the planted bug, and gives those that did not fail.
func (m mutant) try(ctx context.Context, root string, limit time.Duration) (passed []string, err error) {
	text, err := m.planted(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: filepath.Join(dir, "planted.go")}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "planted.go"), text, 0o600), os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)); err != nil {
		return nil, err
	}
	for pkg, tests := range m.byPackage() {
		cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout", limit.String(),
			"-run", "^("+strings.Join(tests, "|")+")$", "./"+pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+filepath.Join(dir, "overlay.json")) // also for the programs that tests build
		out, _ := cmd.Output()                                                                                          // that it fails is hoped for
		failed, err := failures(out)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pkg, err)
		}
		for _, t := range tests {
			if !failed[t] {
				passed = append(passed, pkg+"."+t)
			}
		}
	}
	slices.Sort(passed)
	return passed, nil
}

// failures reads what go test -json says. Code that does not build proves nothing, and tests that were cut off by the time are not taken as failed.
func failures(out []byte) (map[string]bool, error) {
	failed := map[string]bool{}
	var build strings.Builder
	broken, ended := false, false
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var e struct{ Action, Test, Output, FailedBuild string }
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading what go test says: %w", err)
		}
		switch {
		case e.Action == "build-output":
			build.WriteString(e.Output)
		case e.Action == "build-fail" || e.FailedBuild != "":
			broken = true
		case strings.HasPrefix(e.Output, "panic: test timed out"):
			return map[string]bool{}, nil
		case e.Action == "fail" && e.Test != "":
			failed[e.Test] = true
		case e.Test == "" && (e.Action == "pass" || e.Action == "fail"):
			ended = true
		}
	}
	if broken || !ended {
		return nil, fmt.Errorf("%w: it does not build\n%s", errTable, build.String())
	}
	return failed, nil
}

// document writes the table for people.
func document(all []mutant) []byte {
	var b bytes.Buffer
	b.WriteString("# Planted bugs\n\n" +
		"Each of these bugs was put into the code for one build, and every test that is named beside it failed. `make mutants` does it again and writes this page;\n" +
		"`go run ./internal/mutants NAME` tries those whose names contain NAME. How, and why so: [adr/0007](adr/0007-planted-bugs-by-overlay.md). The promises are those of\n" +
		"[promises.md](promises.md).\n\n" +
		"| promise | planted bug | in | found by |\n| --- | --- | --- | --- |\n")
	for _, m := range all {
		var tests []string
		for _, t := range m.tests {
			i := strings.LastIndexByte(t, '.')
			tests = append(tests, t[:i]+" `"+t[i+1:]+"`")
		}
		fmt.Fprintf(&b, "| %d | %s | `%s` | %s |\n", m.promise, strings.ReplaceAll(m.name, "-", " "), m.file, strings.Join(tests, "; "))
	}
	return b.Bytes()
}
