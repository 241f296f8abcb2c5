package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// verdict is what one test said of a planted bug.
type verdict string

const (
	passed verdict = "passed" // also: skipped, not run, not ended in time, killed from outside
	failed verdict = "failed"
	ended  verdict = "ended" // the test process ended while this test was running
)

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
		pkg, test := split(t)
		out[pkg] = append(out[pkg], test)
	}
	return out
}

// split parts package.TestName.
func split(t string) (pkg, test string) {
	i := strings.LastIndexByte(t, '.')
	return t[:i], t[i+1:]
}

// try runs the tests over the planted bug, and gives the verdict of each.
func (m mutant) try(ctx context.Context, root string, limit time.Duration) (map[string]verdict, error) {
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
	overlayFile := filepath.Join(dir, "overlay.json")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: filepath.Join(dir, "planted.go")}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "planted.go"), text, 0o600), os.WriteFile(overlayFile, overlay, 0o600),
	); err != nil {
		return nil, err
	}
	found := map[string]verdict{}
	byPackage := m.byPackage()
	for _, pkg := range slices.Sorted(maps.Keys(byPackage)) {
		said, err := goTest(ctx, root, overlayFile, pkg, byPackage[pkg], limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pkg, err)
		}
		for test, v := range said {
			found[pkg+"."+test] = v
		}
	}
	return found, nil
}

// unsound gives the tests that fail without any mutant: their verdict on a mutant means nothing.
func unsound(ctx context.Context, root string, all []mutant, limit time.Duration) (bad []string, err error) {
	var every mutant
	for _, m := range all {
		every.tests = append(every.tests, m.tests...)
	}
	slices.Sort(every.tests)
	every.tests = slices.Compact(every.tests)
	byPackage := every.byPackage()
	for _, pkg := range slices.Sorted(maps.Keys(byPackage)) {
		said, err := goTest(ctx, root, "", pkg, byPackage[pkg], limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pkg, err)
		}
		for _, t := range byPackage[pkg] {
			if said[t] != passed {
				bad = append(bad, pkg+"."+t)
			}
		}
	}
	return bad, nil
}

// goTest runs tests of one package, over the files that an overlay names ("" for none). If the
// process ends early, the tests that have neither passed nor failed are run again, each alone. That
// tells which of them ends it.
func goTest(
	ctx context.Context, root, overlay, pkg string, tests []string, limit time.Duration,
) (map[string]verdict, error) {
	cmd := exec.CommandContext(
		ctx, "go", "test", "-json", "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout", limit.String(),
		"-run", "^("+strings.Join(tests, "|")+")$", "./"+pkg,
	)
	cmd.Dir = root
	// else an input at which one mutant fails is tried first with the next one
	cmd.Env = append(os.Environ(), "RAPID_NOFAILFILE=true")
	if overlay != "" {
		// for the programs that tests build, too
		cmd.Env = append(cmd.Env, "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	}
	out, _ := cmd.Output() // an error is the expected case
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	said, err := read(out)
	if said == nil || len(tests) == 1 {
		return said, err
	}
	for _, t := range tests {
		if said[t] == passed || said[t] == failed {
			continue
		}
		alone, err := goTest(ctx, root, overlay, pkg, []string{t}, limit)
		if err != nil {
			return nil, err
		}
		said[t] = alone[t]
	}
	return said, nil
}

// read gives the verdicts in the output of go test -json. A test that was running when the process
// failed has ended it, if no other was chosen. If the tests ran out of time, or were killed from
// outside, read gives nothing: that proves nothing. Code that does not build is an error.
func read(out []byte) (map[string]verdict, error) {
	said, running := map[string]verdict{}, map[string]bool{}
	var build strings.Builder
	buildFailed, complete, timedOut := false, false, false
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
			buildFailed = true
		case strings.HasPrefix(e.Output, "panic: test timed out") || e.Output == "signal: killed\n":
			timedOut = true
		case e.Test == "" && e.Action == "fail":
			complete = true
			for t := range running {
				said[t] = ended
			}
		case e.Test == "":
			complete = complete || e.Action == "pass"
		case e.Action == "run" || e.Action == "cont":
			running[e.Test] = true
		case e.Action == "pause":
			delete(running, e.Test)
		case e.Action == "fail":
			said[e.Test] = failed
			delete(running, e.Test)
		case e.Action == "pass" || e.Action == "skip":
			said[e.Test] = passed
			delete(running, e.Test)
		}
	}
	if buildFailed || !complete {
		return nil, fmt.Errorf("%w: it does not build\n%s", errTable, build.String())
	}
	if timedOut {
		return nil, nil
	}
	return said, nil
}
