//go:build linux

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
	"sluice/upload"
)

// waitFor waits until the server's readiness is as wanted. The server looks at its folder every two
// seconds.
func waitFor(t *testing.T, c *api.Client, ready bool) (err error) {
	t.Helper()
	for range 300 {
		if err = c.Ready(t.Context()); (err == nil) == ready {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("after half a minute /readyz says %v", err)
	return nil
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// store stores bytes under a name.
func store(t *testing.T, c *api.Client, name string, b []byte) api.Memory {
	t.Helper()
	m, err := c.Create(
		t.Context(), api.CreateRequest{CapsuleID: "default", Name: name}, bytes.NewReader(b), int64(len(b)),
	)
	if err != nil {
		t.Fatalf("storing %s: %v", name, err)
	}
	return m
}

// refusedAway makes sure that a server takes nothing and says why.
func refusedAway(t *testing.T, c *api.Client) {
	t.Helper()
	b := contentOf("late.bin", 100_000)
	_, err := c.Create(
		t.Context(), api.CreateRequest{CapsuleID: "default", Name: "late.bin"}, bytes.NewReader(b), int64(len(b)),
	)
	if err == nil || !strings.Contains(err.Error(), "not in its place") {
		t.Errorf("a create: %v", err)
	}
	_, err = c.CreateCapsule(t.Context(), api.CreateCapsuleRequest{CapsuleID: "late", Name: "late"})
	if err == nil || !strings.Contains(err.Error(), "not in its place") {
		t.Errorf("a capsule: %v", err)
	}
}

// † I26: A server whose folder was renamed goes on in its own folder and takes nothing. It never
// touches the folder that has the name by now: the files, the socket and the token of another
// server. When its folder is back it goes on.
func TestARenamedFolderIsNotAnothers(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	base := t.TempDir()
	data, moved, other := filepath.Join(base, "data"), filepath.Join(base, "moved"), filepath.Join(base, "other")
	a := startServer(t, data)
	before := contentOf("before.bin", 3_000_000)
	m := store(t, a.client, "before.bin", before)
	move(t, data, moved)
	b := startServer(t, data)
	theirs := contentOf("theirs.bin", 2_000_000)
	n := store(t, b.client, "theirs.bin", theirs)
	had := contentFiles(t, data)

	if err := waitFor(t, a.client, false); !strings.Contains(err.Error(), "not in its place") {
		t.Errorf("/readyz: %v", err)
	}
	refusedAway(t, a.client)
	holdsContent(t, a.client, m, before)
	if now := contentFiles(t, data); !slices.Equal(now, had) {
		t.Errorf("the other folder has %q, and had %q", now, had)
	}

	b.stop(t)
	move(t, data, other)
	move(t, moved, data)
	if err := waitFor(t, a.client, true); err != nil {
		t.Error(err)
	}
	store(t, a.client, "after.bin", before[:1_000_000])
	move(t, data, moved)
	move(t, other, data)
	b = startServer(t, data)
	holdsContent(t, b.client, n, theirs)
	a.stop(t) // in its own folder
	if out, err := exec.Command(
		"sluice", "backup", "--data", data, filepath.Join(base, "backup"),
	).CombinedOutput(); err != nil {
		t.Errorf("the other server's socket: %v: %s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(moved, "socket")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its own socket: %v", err)
	}
	b.stop(t)
	for _, dir := range []string{data, moved} {
		if out, err := exec.Command("sluice", "check", "--data", dir).CombinedOutput(); err != nil {
			t.Errorf("check of %s: %v: %s", dir, err, out)
		}
	}
}

// contentFiles lists the places of a data folder.
func contentFiles(t *testing.T, data string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(data, "content"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// While a half is not in its place, nothing is begun, put, created, finished, aborted, deleted,
// collected or marked; stored content can be read. When the half is back all goes on, and nothing
// was lost.
func TestNothingIsTakenWhileAHalfIsAway(t *testing.T) {
	for _, half := range []string{"meta", "content"} {
		s, me := opened(t)
		path := filepath.Join(s.folder.Path, half)
		b := contentOf("a.bin", 100_000)
		ask := upload.CreateRequest{Capsule: "default", Put: upload.Put{Length: int64(len(b))}}
		ask.Meta.Name = "a.bin"
		if _, err := s.uploads.Create(t.Context(), me, ask, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		open, err := s.uploads.Begin(t.Context(), me, upload.BeginRequest{
			Capsule: "default", Meta: ask.Meta, Bytes: int64(len(b)), Chunks: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		put := func() error {
			return s.uploads.PutChunk(
				t.Context(), me, open.ID, 0, bytes.NewReader(b), upload.Put{Length: int64(len(b))},
			)
		}
		move(t, path, path+".moved")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		_ = s.folder.Look()
		late := ask
		late.Meta.Name = "late.bin"
		_, created := s.uploads.Create(t.Context(), me, late, bytes.NewReader(b[1:]))
		_, begun := s.uploads.Begin(t.Context(), me, upload.BeginRequest{
			Capsule: "default", Meta: late.Meta, Bytes: 10, Chunks: -1,
		})
		_, ticked := s.keeper.Tick(t.Context())
		_, swept := s.keeper.Sweep(t.Context())
		for what, err := range map[string]error{
			"create": created, "begin": begun, "put": put(), "abort": s.uploads.Abort(t.Context(), me, open.ID),
			"tick": ticked, "sweep": swept, "ready": s.ready(t.Context()),
		} {
			if !errors.Is(err, upload.ErrAway) {
				t.Errorf("%s away: %s: %v", half, what, err)
			}
		}
		if left, err := os.ReadDir(path); len(left) > 0 || err != nil {
			t.Errorf("%s away: what is there instead has %v, %v", half, left, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		move(t, path+".moved", path)
		_ = s.folder.Look()
		if err := errors.Join(put(), s.ready(t.Context()), s.uploads.Abort(t.Context(), me, open.ID)); err != nil {
			t.Errorf("%s is back: %v", half, err)
		}
	}
}

// mounted mounts a folder over another for the test. It skips the test if that is not allowed.
func mounted(t *testing.T, from, to string) (unmount func()) {
	t.Helper()
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("needs to mount a folder, which only root may: %v", err)
	}
	is := true
	unmount = func() {
		t.Helper()
		if !is {
			return
		}
		is = false
		if err := syscall.Unmount(to, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// † I26: A half whose disk is not mounted, or is another's, is refused at the start by its name,
// and nothing is made on the mount point. A disk that is mounted over a half while the server runs
// is noticed.
func TestAHalfIsAMountOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	for _, half := range []string{"meta", "content"} {
		base := t.TempDir()
		data, disk, strange := filepath.Join(base, "data"), filepath.Join(base, "disk"), filepath.Join(base, "strange")
		at := filepath.Join(data, half)
		for _, dir := range []string{data, at, disk, strange} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		unmount := mounted(t, disk, at)
		srv := startServer(t, data)
		b := contentOf("a.bin", 3_000_000)
		m := store(t, srv.client, "a.bin", b)
		unmountStrange := mounted(t, strange, at)
		waitFor(t, srv.client, false)
		refusedAway(t, srv.client)
		holdsContent(t, srv.client, m, b)
		unmountStrange()
		waitFor(t, srv.client, true)
		store(t, srv.client, "b.bin", b[1:])
		srv.stop(t)
		unmount()
		for _, args := range [][]string{
			{"serve", "--listen", "127.0.0.1:0", "--admin-listen", ""},
			{"check", "--repair"},
			{"backup", filepath.Join(base, "backup")},
		} {
			out, err := refused(t, append(args, "--data", data)...)
			if err == nil || !strings.Contains(out, at+" is empty") || !strings.Contains(out, "mounted") {
				t.Errorf("%q without %s: %v: %s", args, half, err, out)
			}
			if left, err := os.ReadDir(at); len(left) > 0 || err != nil {
				t.Fatalf("%q: on the mount point of %s is %v, %v", args, half, left, err)
			}
		}
		mounted(t, disk, at)
		srv = startServer(t, data)
		holdsContent(t, srv.client, m, b)
		srv.stop(t)
		if out, err := exec.Command("sluice", "check", "--data", data).CombinedOutput(); err != nil {
			t.Errorf("check: %v: %s", err, out)
		}
	}
}
