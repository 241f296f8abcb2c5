package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sluice/internal/durable"
)

// Paths through an open folder lead into that folder, even if another has its name by now, and
// nowhere else.
func TestAHeldFolderIsTheOneThatWasOpened(t *testing.T) {
	base := t.TempDir()
	dir, moved := filepath.Join(base, "data"), filepath.Join(base, "moved")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(dir, 0o700))
	h, err := durable.OS{}.Hold(dir)
	check(err)
	defer h.Close()
	early, err := h.OpenFile(filepath.Join(dir, "early"), os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	defer early.Close()
	check(h.InPlace())
	check(os.Rename(dir, moved))
	if err := h.InPlace(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in place: %v", err)
	}
	check(os.Mkdir(dir, 0o700))
	if h.InPlace() == nil {
		t.Error("another folder has the name")
	}
	check(h.Mkdir(filepath.Join(dir, "sub"), 0o700))
	check(durable.WriteFile(h, filepath.Join(dir, "sub", "a"), []byte("a"), 0o600))
	check(h.Rename(filepath.Join(dir, "sub", "a"), filepath.Join(dir, "b")))
	check(h.Remove(filepath.Join(dir, "sub")))
	if b, err := durable.ReadFile(h, filepath.Join(dir, "b")); string(b) != "a" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if names, err := h.List(dir); !slices.Equal(names, []string{"b", "early"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	_, err = early.WriteAt(make([]byte, durable.Block), 0)
	check(err)
	if d, err := early.Direct(); err == nil { // it opens the file once more
		check(d.Close())
	} else if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("direct: %v", err)
	}
	read, done := early.PastCache(0, durable.Block)
	if n, err := read(make([]byte, durable.Block), 0); n != durable.Block {
		t.Errorf("past the cache: %d bytes, %v", n, err)
	}
	check(done())
	if way := h.HeldPath(); way != dir {
		info, err := os.Stat(filepath.Join(way, "b"))
		check(err)
		if its, err := os.Stat(filepath.Join(moved, "b")); err != nil || !os.SameFile(info, its) {
			t.Errorf("the way leads elsewhere: %v", err)
		}
	}
	inner, err := h.Stat(dir)
	check(err)
	if outer, err := (durable.OS{}).Stat(moved); err != nil || outer.ID != inner.ID || !inner.Dir {
		t.Errorf("%+v, %+v, %v", inner, outer, err)
	}
	if b, err := h.Stat(filepath.Join(dir, "b")); err != nil || !b.Regular || b.Dir || b.Bytes < 1 {
		t.Errorf("%+v, %v", b, err)
	}
	if n, err := h.Free(dir); n <= 0 || err != nil {
		t.Errorf("free: %d, %v", n, err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("written into the other folder: %v, %v", left, err)
	}
	for _, path := range []string{base, dir + "x", filepath.Join(base, "else"), "b"} {
		if _, err := h.Stat(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := h.Remove(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove: %v", err)
	}
	if _, err := h.OpenFile(filepath.Join(dir, "none"), os.O_RDONLY, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	check(h.Close())
	if _, err := h.Stat(dir); err == nil {
		t.Error("it is closed")
	}
}

// BenchmarkOpen opens a file below an open folder, and by its path.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "a", "b", "content")
	path := filepath.Join(dir, "places", "ab", "0123456789abcdef-1-1")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
		b.Fatal(err)
	}
	h, err := durable.OS{}.Hold(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for name, on := range map[string]durable.FS{"path": durable.OS{}, "held": h} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f, err := on.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					b.Fatal(err)
				}
				_ = f.Close()
			}
		})
	}
}
