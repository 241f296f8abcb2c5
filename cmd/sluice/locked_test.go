//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// † I27: A second server on a folder is refused though all lock files were removed, and touches
// nothing. The first one takes nothing more, says why, and has lost nothing when it starts again.
func TestASecondServerIsRefusedWithoutLockFiles(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	a := startServer(t, data)
	b := contentOf("a.bin", 3_000_000)
	m := store(t, a.client, "a.bin", b)
	for _, lock := range []string{"lock", "meta/LOCK", "content/lock"} {
		if err := os.Remove(filepath.Join(data, lock)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"serve", "--listen", "127.0.0.1:0", "--admin-listen", ""}, {"check", "--repair"}, {"check"},
	} {
		out, err := refused(t, append(args, "--data", data)...)
		if err == nil || !strings.Contains(out, "another sluice server is using this data folder") ||
			!strings.Contains(out, "no lock file is to be removed") {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	if err := waitFor(t, a.client, false); !strings.Contains(err.Error(), "its lock file was removed") {
		t.Errorf("/readyz: %v", err)
	}
	refusedAway(t, a.client)
	holdsContent(t, a.client, m, b)
	a.stop(t)
	if said := a.said.String(); !strings.Contains(said, "its lock file "+filepath.Join(data, "lock")+" was removed") {
		t.Errorf("the log does not say what is wrong: %s", said)
	}
	a = startServer(t, data)
	holdsContent(t, a.client, m, b)
	store(t, a.client, "b.bin", b[1:])
	a.stop(t)
}

// † I27: If another server has begun on the folder nevertheless (some file systems can't lock), the
// first one takes nothing more, says why, and ends without having written anything.
func TestAServerWhoseFolderWasTakenWritesNothing(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	a := startServer(t, data)
	b := contentOf("a.bin", 3_000_000)
	m := store(t, a.client, "a.bin", b)
	mark := filepath.Join(data, "meta", "FOLDER")
	was, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	theirs := bytes.Replace(was, []byte(`"life":1`), []byte(`"life":2`), 1)
	if err := os.WriteFile(mark, theirs, 0o600); err != nil || bytes.Equal(was, theirs) {
		t.Fatalf("%s, %v", was, err)
	}
	if err := waitFor(t, a.client, false); !strings.Contains(err.Error(), "another server has been started on it") {
		t.Errorf("/readyz: %v", err)
	}
	refusedAway(t, a.client)
	holdsContent(t, a.client, m, b)
	if err := os.Remove(filepath.Join(data, socketName)); err != nil { // it is removed, and is no file of the folder
		t.Fatal(err)
	}
	before := filesOf(t, data)
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-a.done
	if a.cmd.Wait() == nil {
		t.Error("it ends as if all were well")
	}
	if after := filesOf(t, data); !slices.Equal(before, after) {
		t.Errorf("there was %q, and is %q", before, after)
	}
	if err := os.WriteFile(mark, was, 0o600); err != nil {
		t.Fatal(err)
	}
	a = startServer(t, data)
	holdsContent(t, a.client, m, b)
	a.stop(t)
}
