//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// † I26: A disk of the places or the packs that is not mounted at the start is refused by its name,
// by every command, and nothing is touched: neither there nor in the other half. If another disk is
// mounted over it while the server runs, the server notices, and marks nothing as damaged. All goes
// on when the disk is back.
func TestAPartIsAMountOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	for _, part := range []string{"places", "packs"} {
		base := t.TempDir()
		data, strange := filepath.Join(base, "data"), filepath.Join(base, "strange")
		at := filepath.Join(data, "content", part)
		if err := os.Mkdir(strange, 0o700); err != nil {
			t.Fatal(err)
		}
		srv := startServer(t, data)
		big, small := contentOf("a.bin", 3_000_000), contentOf("b.bin", 30_000)
		a, b := store(t, srv.client, "a.bin", big), store(t, srv.client, "b.bin", small)
		holds := func() {
			t.Helper()
			holdsContent(t, srv.client, a, big)
			holdsContent(t, srv.client, b, small)
		}
		unmount := mounted(t, strange, at)
		waitFor(t, srv.client, false)
		refusedAway(t, srv.client)
		unmount()
		waitFor(t, srv.client, true)
		holds()
		srv.stop(t)
		for _, gone := range []bool{false, true} {
			back := func() { move(t, at+".away", at) }
			if gone {
				move(t, at, at+".away")
			} else {
				back = mounted(t, strange, at)
			}
			before := filesOf(t, data)
			for _, args := range [][]string{
				{"serve", "--listen", "127.0.0.1:0", "--admin-listen", ""},
				{"check"},
				{"check", "--repair"},
				{"backup", filepath.Join(base, "backup")},
			} {
				out, err := refused(t, append(args, "--data", data)...)
				if err == nil || !strings.Contains(out, at+" is") || !strings.Contains(out, "mounted") ||
					!strings.Contains(out, "Nothing was touched") {
					t.Errorf("%q without %s: %v: %s", args, part, err, out)
				}
				if after := filesOf(t, data); !slices.Equal(before, after) {
					t.Fatalf("%q without %s: there was %q, and is %q", args, part, before, after)
				}
			}
			back()
		}
		srv = startServer(t, data)
		holds()
		srv.stop(t)
		if out, err := exec.Command("sluice", "check", "--data", data).CombinedOutput(); err != nil {
			t.Errorf("check: %v: %s", err, out)
		}
		// Gone for good: all other content goes on.
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
		if out, err := refused(t, "check", "--repair", "--rejoin", "--data", data); err == nil ||
			!strings.Contains(out, "quarantined") {
			t.Errorf("check --repair --rejoin: %v: %s", err, out)
		}
		srv = startServer(t, data)
		store(t, srv.client, "a.bin", big)
		store(t, srv.client, "b.bin", small)
		srv.stop(t)
		if out, err := exec.Command("sluice", "check", "--data", data).CombinedOutput(); err != nil {
			t.Errorf("check: %v: %s", err, out)
		}
	}
}

// A folder that is refused at the start is not touched. If the content is refused, the metadata is
// not touched either.
func TestWhatIsRefusedIsNotTouched(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	data := filepath.Join(t.TempDir(), "data")
	srv := startServer(t, data)
	b := contentOf("a.bin", 30_000)
	m := store(t, srv.client, "a.bin", b)
	srv.stop(t)
	for _, name := range []string{
		"folder", "meta/FOLDER", "meta/FORMAT", "content/folder", "content/format", "content/state", "content/parts",
		"content/places/part", "content/packs/part",
	} {
		for _, how := range []string{"gone", "cut"} {
			if how == "gone" && (name == "folder" || name == "content/parts") {
				continue // made anew: nothing is missing
			}
			path := filepath.Join(data, name)
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if how == "gone" {
				err = os.Remove(path)
			} else {
				err = os.Truncate(path, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := filesOf(t, data)
			for _, args := range [][]string{
				{"serve", "--listen", "127.0.0.1:0", "--admin-listen", ""}, {"check"}, {"check", "--repair"},
			} {
				out, err := refused(t, append(args, "--data", data)...)
				if err == nil || !strings.Contains(out, filepath.Base(name)) ||
					!strings.Contains(out, filepath.Dir(path)) ||
					!strings.Contains(strings.ToLower(out), "restore a backup") {
					t.Errorf("%q, %s %s: %v: %s", args, name, how, err, out)
				}
				if after := filesOf(t, data); !slices.Equal(before, after) {
					t.Errorf("%q, %s %s: there was %q, and is %q", args, name, how, before, after)
				}
			}
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	srv = startServer(t, data)
	holdsContent(t, srv.client, m, b)
	srv.stop(t)
}
