package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// The table goes with the program: what it replaces is there exactly once, and the tests that it names exist.
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

// What go test says is read so that only a test that failed counts as a catch.
func TestOnlyAFailedTestIsACatch(t *testing.T) {
	const end = `{"Action":"fail","Package":"p"}` + "\n"
	failed, err := failures([]byte(`{"Action":"run","Test":"TestA"}` + "\n" + `{"Action":"fail","Test":"TestA"}` + "\n" + `{"Action":"pass","Test":"TestB"}` + "\n" + end))
	if err != nil || !failed["TestA"] || failed["TestB"] {
		t.Errorf("%v, %v", failed, err)
	}
	if _, err := failures([]byte(`{"Action":"build-output","Output":"undefined: x"}` + "\n" + `{"Action":"build-fail"}` + "\n" + end)); !errors.Is(err, errTable) || !strings.Contains(err.Error(), "undefined: x") {
		t.Errorf("a build that fails: %v", err)
	}
	if _, err := failures(nil); !errors.Is(err, errTable) {
		t.Errorf("nothing at all: %v", err)
	}
	failed, err = failures([]byte(`{"Action":"output","Test":"TestA","Output":"panic: test timed out after 1s\n"}` + "\n" + `{"Action":"fail","Test":"TestA"}` + "\n" + end))
	if err != nil || failed["TestA"] {
		t.Errorf("one that did not end: %v, %v", failed, err)
	}
}
