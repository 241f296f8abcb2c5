package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const root = "../../.."

// The table fits the program: each text that it replaces is there exactly once, and the tests that
// it names exist.
func TestTheTableFits(t *testing.T) {
	all := table()
	if len(all) < 25 {
		t.Errorf("only %d mutants", len(all))
	}
	names := map[string]bool{}
	for _, m := range all {
		if names[m.name] || m.name == "" || strings.Trim(m.name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("name %q", m.name)
		}
		names[m.name] = true
		if m.promise < 1 || m.promise > 20 || m.old == m.new || len(m.tests) == 0 {
			t.Errorf("%s: %+v", m.name, m)
		}
		if _, err := m.planted(root); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		for pkg, tests := range m.byPackage() {
			files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				text.Write(b)
			}
			for _, test := range tests {
				if !strings.Contains(text.String(), "\nfunc "+test+"(") {
					t.Errorf("%s: %s has no %s", m.name, pkg, test)
				}
			}
		}
	}
}

// The output of go test is read so that only a test that failed, or that ended the process, is a
// catch.
func TestOnlyAFailureIsACatch(t *testing.T) {
	line := func(parts ...string) string { // Action, Test, Output
		parts = append(parts, "", "")
		b, err := json.Marshal(map[string]string{"Action": parts[0], "Test": parts[1], "Output": parts[2]})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	for name, c := range map[string]struct {
		out  string
		want map[string]verdict
		bad  bool
	}{
		"one fails":            {line("run", "A") + line("fail", "A") + line("run", "B") + line("pass", "B") + line("fail"), map[string]verdict{"A": failed, "B": passed}, false},
		"one is skipped":       {line("run", "A") + line("skip", "A") + line("pass"), map[string]verdict{"A": passed}, false},
		"one ends":             {line("run", "A") + line("output", "A", "=== RUN A\n") + line("fail"), map[string]verdict{"A": ended}, false},
		"the end of another":   {line("run", "A") + line("pause", "A") + line("run", "B") + line("fail"), map[string]verdict{"B": ended}, false},
		"the end behind all":   {line("run", "A") + line("pass", "A") + line("output", "", "FAIL: a leak\n") + line("fail"), map[string]verdict{"A": passed}, false},
		"none was running":     {line("fail"), map[string]verdict{}, false},
		"it was killed":        {line("run", "A") + line("output", "A", "signal: killed\n") + line("fail"), nil, false},
		"the time was up":      {line("run", "A") + line("output", "A", "panic: test timed out after 1s\n") + line("fail", "A") + line("fail"), nil, false},
		"it does not build":    {line("build-output", "", "undefined: x\n") + line("build-fail") + line("fail"), nil, true},
		"nothing was said":     {"", nil, true},
		"go test was ended":    {line("run", "A"), nil, true},
		"something unheard of": {"{", nil, true},
	} {
		got, err := read([]byte(c.out))
		if (err != nil) != c.bad || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := read([]byte(
		line("build-output", "", "undefined: x\n") + line("build-fail") + line("fail"),
	)); !errors.Is(err, errTable) || !strings.Contains(err.Error(), "undefined: x") {
		t.Errorf("a build that fails: %v", err)
	}
}

// module makes a program with tests, and gives its folder.
func module(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":          "module m\n\ngo 1.26\n",
		"go.sum":          "",
		"docs/mutants.md": "| 1 | it is known | `p/p.go` | p `TestFails` |\n",
		"p/p.go":          "package p\n\nvar Fails, Exits, Panics, Nobody, Other = false, false, false, false, 0\n",
		"p/p_test.go": `package p

import (
	"os"
	"testing"
)

func TestFails(t *testing.T) {
	if Fails {
		t.Error("so it is")
	}
}

func TestFailsToo(t *testing.T) { TestFails(t) }

func TestExits(t *testing.T) {
	if Exits {
		os.Exit(3)
	}
}

func TestPanics(t *testing.T) {
	if Panics {
		done := make(chan int)
		go func() { panic("so it is") }()
		<-done
	}
}
`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sets is a mutant of [module] that turns variables on.
func sets(name, values string, tests ...string) mutant {
	return mutant{
		name: name, promise: 1, file: "p/p.go", old: "false, false, false, false, 0", new: values, tests: tests,
	}
}

// A run says of each mutant how it went: which test found it, which did not, and what the end of
// the process caused.
func TestARunTellsWhoCatches(t *testing.T) {
	var out strings.Builder
	status := run(t.Context(), module(t), []mutant{
		sets("one-fails", "true, false, false, false, 0", "p.TestFails", "p.TestFailsToo"),
		sets("one-exits", "false, true, false, false, 0", "p.TestExits"),
		sets("one-panics", "false, false, true, false, 0", "p.TestPanics"),
		sets("all-do", "true, true, true, false, 0", "p.TestPanics", "p.TestFails", "p.TestExits"),
		sets("another-ends", "false, true, false, false, 0", "p.TestFails", "p.TestExits", "p.TestPanics"),
		sets("nobody-looks", "false, false, false, true, 0", "p.TestFails"),
		sets("no-code", "false, false, false, false", "p.TestFails"),
	}, options{parallel: 2, limit: time.Minute}, &out)
	if status != 2 {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{
		"caught    one-fails                                by p.TestFails, p.TestFailsToo (",
		"caught    one-exits                                by p.TestExits (ended) (",
		"caught    one-panics                               by p.TestPanics (ended) (",
		"caught    all-do                                   " +
			"by p.TestPanics (ended), p.TestFails, p.TestExits (ended) (",
		"SURVIVED  another-ends                             p.TestFails, p.TestPanics (",
		"SURVIVED  nobody-looks                             p.TestFails (",
		"BROKEN    no-code ",
	} {
		if !strings.Contains(out.String(), "/7  "+want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// Several runs make one page. A result counts only as long as its row and its code are the same.
func TestRunsAreMerged(t *testing.T) {
	dir := module(t)
	all := []mutant{
		sets("it-is-known", "true, false, false, false, 0", "p.TestFails"),
		sets("it-is-new", "false, true, false, false, 0", "p.TestExits"),
	}
	o := options{record: filepath.Join(dir, "record"), write: filepath.Join(dir, page), limit: time.Minute}
	try := func(status int, want string, change func(o *options)) {
		t.Helper()
		var out strings.Builder
		o := o
		change(&o)
		if s := run(t.Context(), dir, all, o, &out); s != status || strings.Join(
			regexp.MustCompile(
				`caught +\S+|\d of \d mutants without a result|not written: .*`,
			).FindAllString(out.String(), -1),
			"; ",
		) != want {
			t.Errorf("status %d, want %d and %q:\n%s", s, status, want, &out)
		}
	}
	whole := func(*options) {}
	try(1, "caught    it-is-new; 1 of 2 mutants without a result", func(o *options) { o.onlyNew = true })
	text, err := os.ReadFile(o.write)
	if left := "\n| 1 | it is known | `p/p.go` | p `TestFails` |\n"; err != nil ||
		!strings.HasSuffix(string(text), left) ||
		strings.Index(string(text), left) < strings.Index(string(text), untried) {
		t.Errorf("%v\n%s", err, text)
	}
	try(0, "caught    it-is-known", func(o *options) { o.onlyNew = true })
	text, err = os.ReadFile(o.write)
	if err != nil || !strings.HasSuffix(
		string(text),
		"\n| 1 | it is known | `p/p.go` | p `TestFails` |\n| 1 | it is new | `p/p.go` | p `TestExits` (ended) |\n",
	) {
		t.Errorf("%v\n%s", err, text)
	}
	try(0, "", whole)
	try(2, "", func(o *options) { o.onlyNew = true }) // none is

	all[0].new = "true, false, true, false, 0"
	try(0, "caught    it-is-known", whole)
	code, err := os.ReadFile(filepath.Join(dir, "p/p.go"))
	if err := errors.Join(err, os.WriteFile(
		filepath.Join(dir, "p/p.go"), append(code, "// changed\n"...), 0o666,
	)); err != nil {
		t.Fatal(err)
	}
	try(1, "caught    it-is-new; 1 of 2 mutants without a result", func(o *options) { o.names = []string{"new"} })
	try(0, "caught    it-is-known", whole)
	try(0, "caught    it-is-known; caught    it-is-new", func(o *options) { o.record = "" })

	// A test that fails anyway catches nothing.
	code, err = os.ReadFile(filepath.Join(dir, "p/p_test.go"))
	if err := errors.Join(err, os.WriteFile(
		filepath.Join(dir, "p/p_test.go"), bytes.Replace(code, []byte("if Exits {"), []byte("if true {"), 1), 0o666,
	)); err != nil {
		t.Fatal(err)
	}
	try(
		2,
		"caught    it-is-known; caught    it-is-new; not written: these tests do not pass without a mutant: "+
			"p.TestExits",
		whole,
	)
}
