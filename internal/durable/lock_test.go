package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// Between the opening and the locking of a file another process may take its name away, or give it
// to another file.
func TestAFileIsKnownByItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(what string, want bool) {
		t.Helper()
		if got, err := Named(f, path); err != nil || got != want {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	check("untouched", true)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	check("removed", false)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("replaced", false)
}
