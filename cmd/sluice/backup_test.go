package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// kill -9 may end the command, or the server that works for it. The former backup can be restored,
// and the next backup succeeds.
func TestKillNineDuringABackup(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	data, dir := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "backup")
	srv := startServer(t, data)
	var names []string
	store := func(n int) {
		for range n {
			b, name := noise(1_500_000), fmt.Sprint("m", len(names))
			if _, err := srv.client.Create(
				t.Context(), api.CreateRequest{Name: name}, bytes.NewReader(b), int64(len(b)),
			); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	sluice := func(args ...string) (string, error) {
		out, err := exec.Command("sluice", args...).CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := sluice(args...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return out
	}
	store(5)
	must("backup", "--data", data, dir)
	interrupted := 0
	for round := range 6 {
		store(4)
		alone := round%3 == 2
		if alone {
			srv.stop(t)
		}
		cmd := exec.Command("sluice", "backup", "--data", data, dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		if round%3 == 1 {
			srv.kill()
		} else {
			cmd.Process.Kill()
		}
		if cmd.Wait() != nil {
			interrupted++
		}
		// If only the command was killed, the server may hold the folder a moment longer.
		out, err := "", error(nil)
		for range 100 {
			if out, err = sluice("restore", "--check", dir); err == nil || !strings.Contains(out, "in use by") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("round %d: %v: %s", round, err, out)
		}
		if alone || round%3 == 1 {
			srv = startServer(t, data)
		}
	}
	if interrupted == 0 {
		t.Error("no backup was cut off")
	}
	must("backup", "--data", data, dir)
	must("restore", "--data", data+"2", dir)
	srv.stop(t)
	srv = startServer(t, data+"2")
	page, err := srv.client.ListMemories(t.Context(), api.MemoryQuery{Limit: 1000})
	if err != nil || len(page.Memories) != len(names) {
		t.Fatalf("%d memories of %d, %v", len(page.Memories), len(names), err)
	}
	srv.stop(t)
}

// A server that stops does not wait for a backup.
func TestAServerThatStopsEndsItsBackup(t *testing.T) {
	data, dir := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "backup")
	srv := startServer(t, data)
	for range 20 {
		b := noise(2_000_000)
		if _, err := srv.client.Create(
			t.Context(), api.CreateRequest{Name: "a"}, bytes.NewReader(b), int64(len(b)),
		); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sluice", "backup", "--data", data, dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
		if places, _ := filepath.Glob(dir + "/content/*/*"); len(places) > 0 {
			break
		}
	}
	srv.stop(t)
	if err := cmd.Wait(); err == nil {
		t.Skip("the backup was faster")
	}
	if !strings.Contains(said.String(), "the server is stopping") &&
		!strings.Contains(said.String(), "the server went away") {
		t.Errorf("%s", &said)
	}
}
