package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

// The watch notices that a folder or a half is not where it was opened, and that it is back: a name
// is gone, another folder has it, or a mark is gone or another's.
func TestAFolderThatMovesIsNoticed(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	f, err := Open(data, Options{})
	must(t, err)
	defer f.Close()
	_, err = f.Begin(ContentState{})
	must(t, err)
	must(t, f.Look())
	for _, of := range []string{"", "meta", "content"} {
		path := filepath.Join(data, of)
		for name, c := range map[string]struct{ away, back func() error }{
			"gone":     {func() error { return os.Rename(path, data+".moved") }, func() error { return os.Rename(data+".moved", path) }},
			"another":  {func() error { return errors.Join(os.Rename(path, data+".moved"), os.Mkdir(path, 0o700)) }, func() error { return errors.Join(os.Remove(path), os.Rename(data+".moved", path)) }},
			"no mark":  {func() error { return os.Rename(markIn(path), data+".mark") }, func() error { return os.Rename(data+".mark", markIn(path)) }},
			"its mark": {func() error { return swap(markIn(path), data+".mark") }, func() error { return os.Rename(data+".mark", markIn(path)) }},
		} {
			must(t, c.away())
			if err := f.Look(); err == nil || f.Away() == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, %s: %v", path, name, err)
			}
			must(t, c.back())
			if err := f.Look(); err != nil || f.Away() != nil {
				t.Errorf("%s, %s, back: %v", path, name, err)
			}
		}
	}
}

// markIn gives the path of the mark in a folder.
func markIn(path string) string {
	if _, err := os.Stat(filepath.Join(path, "FOLDER")); err == nil || filepath.Base(path) == "meta" {
		return filepath.Join(path, "FOLDER")
	}
	return filepath.Join(path, "folder")
}

// swap keeps a mark, and writes that of another folder in its place.
func swap(path, keep string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	m, _, err := readMark(durable.OS{}, path)
	other := strings.Replace(string(b), m.Folder, strings.Repeat("A", 26), 1)
	return errors.Join(err, os.Rename(path, keep), os.WriteFile(path, []byte(other), 0o600))
}

// The watch looks at the folder every two seconds. A second process, or a second Open of this one,
// is refused.
func TestAFolderIsWatchedAndLocked(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	f, err := Open(data, Options{})
	must(t, err)
	defer f.Close()
	if _, err := Open(data, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), data) {
		t.Errorf("a second one: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		go f.Watch(t.Context())
		must(t, os.Rename(data, data+".moved"))
		time.Sleep(lookEvery + 1)
		synctest.Wait()
		if err := f.Away(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("away: %v", err)
		}
		must(t, os.Rename(data+".moved", data))
		time.Sleep(lookEvery)
		synctest.Wait()
		must(t, f.Away())
	})
}

// A single failing step of a look says nothing of the folder: nothing is refused for it. A disk
// that goes on failing counts as away until a look succeeds.
func TestOneFailingStepOfALookIsPutUpWith(t *testing.T) {
	disk := lived(t)
	f, err := Open(at, Options{FS: disk})
	must(t, err)
	defer f.Close()
	n, from, to := 0, 0, 0 // steps, and which of them fail
	var no syscall.Errno
	disk.SetHook(func(crashfs.Step) *crashfs.Fault {
		if n++; from <= n && n <= to {
			return &crashfs.Fault{Err: no}
		}
		return nil
	})
	look := func(first, last int) error {
		n, from, to = 0, first, last
		return f.Look()
	}
	must(t, look(0, 0))
	steps := n
	if steps < 6 { // three marks are opened and read
		t.Fatalf("a look has %d steps", steps)
	}
	for _, no = range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.ENOMEM} {
		for k := 1; k <= steps; k++ {
			if err := errors.Join(look(k, k), f.Away()); err != nil || n < k {
				t.Errorf("%v at step %d alone: %v", no, k, err)
			}
		}
		if err := look(1, 1000); !errors.Is(err, no) || !errors.Is(f.Away(), no) {
			t.Errorf("%v at each step: %v, away: %v", no, err, f.Away())
		}
		must(t, errors.Join(look(0, 0), f.Away()))
	}
}
