package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"sluice/internal/durable"
)

var disk durable.OS

func TestAFileIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"first", "", "third"} {
		if err := durable.WriteFile(disk, path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if got, err := durable.ReadFile(disk, path); err != nil || string(got) != "third" {
		t.Errorf("%q, %v", got, err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left over: %v, %v", names, err)
	}
	if err := durable.WriteFile(disk, filepath.Join(path, "below a file"), nil, 0o600); err == nil {
		t.Error("written below a file")
	}
}

func TestFoldersAreMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := durable.MkdirAll(disk, dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "f")
	if err := durable.WriteFile(disk, file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(disk, file, 0o700); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestALockHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := durable.Lock(disk, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Lock(disk, path); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second holder: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = durable.Lock(disk, path); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Stat describes the target of a link, and does not take the link for a plain file.
func TestStat(t *testing.T) {
	dir := t.TempDir()
	file, link, toDir := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dir")
	for _, err := range []error{
		durable.WriteFile(disk, file, make([]byte, 5000), 0o600), os.Symlink(file, link), os.Symlink(dir, toDir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stat := func(path string) durable.Info {
		info, err := disk.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if got := stat(file); got.Dir || !got.Regular || got.Bytes < 5000 || got.ID == "" || got.ID == stat(dir).ID {
		t.Errorf("%+v", got)
	}
	if got := stat(link); got.Regular || got.ID != stat(file).ID {
		t.Errorf("a link: %+v", got)
	}
	if got := stat(toDir); !got.Dir || got.ID != stat(dir).ID {
		t.Errorf("a link to a folder: %+v", got)
	}
	if _, err := disk.Stat(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if names, err := disk.List(dir); err != nil || !slices.Equal(names, []string{"dir", "file", "link"}) {
		t.Errorf("%v, %v", names, err)
	}
	if n, err := disk.Free(dir); err != nil || n <= 0 {
		t.Errorf("%d, %v", n, err)
	}
}

// The leftovers of an earlier, crashed write do not stop a write.
func TestAFileIsWrittenBesideOthersThatWereBegun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, left := range []string{".f.0", ".f.1"} {
		if err := os.WriteFile(filepath.Join(dir, left), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := durable.WriteFile(disk, path, []byte("whole"), 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := os.ReadFile(path); err != nil || string(got) != "whole" {
		t.Errorf("%q, %v", got, err)
	}
	names, err := disk.List(dir)
	if err != nil || !slices.Equal(names, []string{".f.0", ".f.1", "f"}) {
		t.Errorf("%q, %v", names, err)
	}
	if left, err := os.ReadFile(filepath.Join(dir, ".f.0")); err != nil || string(left) != "half" {
		t.Errorf("%q, %v", left, err)
	}
}
