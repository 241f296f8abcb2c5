package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A file that has a name of Get's own, and was not left by a Get, is neither changed, followed,
// waited for nor removed.
func TestWhatIsNotGetsOwnIsLeftAsItIs(t *testing.T) {
	precious := bytes.Repeat([]byte("precious\n"), 1000)
	put := func(path string) error { return os.WriteFile(path, precious, 0o600) }
	for name, create := range map[string]func(path, other string) error{
		"a file":           func(path, _ string) error { return put(path) },
		"an empty file":    func(path, _ string) error { return os.WriteFile(path, nil, 0o600) },
		"zeros":            func(path, _ string) error { return os.WriteFile(path, make([]byte, 5<<20), 0o600) },
		"a link":           func(path, other string) error { return errors.Join(put(other), os.Symlink(other, path)) },
		"a dangling link":  func(path, other string) error { return os.Symlink(other, path) },
		"a second name":    func(path, other string) error { return errors.Join(put(other), os.Link(other, path)) },
		"a pipe":           func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder":         func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"nearly a journal": func(path, _ string) error { return os.WriteFile(path, []byte("sluice journals are fine"), 0o600) },
	} {
		for _, suffix := range []string{partSuffix, journalSuffix} {
			for _, n := range []int{0, 1 << 20, 5 << 20} {
				if !t.Run(name, func(t *testing.T) {
					src, to, other := newSource(n), dest(t), filepath.Join(t.TempDir(), "other")
					if err := create(to+suffix, other); err != nil {
						t.Fatal(err)
					}
					before, beside := describe(t, to+suffix), describe(t, other)
					ended := make(chan error, 1)
					go func() { ended <- Get(t.Context(), Request{Source: src, Dest: to}) }()
					var err error
					select {
					case err = <-ended:
					case <-time.After(20 * time.Second):
						t.Fatal("what is in the way is waited for")
					}
					var inTheWay *InTheWayError
					if err != nil && !errors.As(err, &inTheWay) || err == nil && (n == 5<<20 || suffix == partSuffix) {
						t.Errorf("%s, %d bytes: %v", suffix, n, err)
					}
					if after := describe(t, to+suffix); after != before || describe(t, other) != beside {
						t.Errorf("%s was %.60q, and is %.60q", suffix, before, after)
					}
					left, _ := os.ReadDir(filepath.Dir(to))
					if want := map[bool]int{true: 2, false: 1}[err == nil]; len(left) != want {
						t.Errorf("the folder has %v", left)
					}
				}) {
					return
				}
			}
		}
	}
}

// describe returns a text of a file with all its bytes.
func describe(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	if err != nil {
		t.Fatal(err)
	}
	s := info.Mode().String()
	if info.Mode().IsRegular() {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s += string(b)
	}
	return s
}

// A file that took the name of the part since is no part, even with the same inode.
func TestAFileInThePlaceOfThePartIsNone(t *testing.T) {
	src, to := newSource(12<<20), dest(t)
	interrupted(t, to, src, 8<<20)
	if err := errors.Join(
		os.Remove(to+partSuffix), os.WriteFile(to+partSuffix, []byte("precious"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	before := describe(t, to+partSuffix)
	var inTheWay *InTheWayError
	if err := get(t, to, src); !errors.As(err, &inTheWay) || describe(t, to+partSuffix) != before {
		t.Errorf("%v, and it is %.60q", err, describe(t, to+partSuffix))
	}
	if err := os.Remove(to + partSuffix); err != nil {
		t.Fatal(err)
	}
	if err := get(t, to, src); err != nil {
		t.Fatal(err)
	}
	whole(t, to, src)
}

// A file that takes the name of the part while Get runs does not become the file.
func TestAPartThatLosesItsNameIsNotPublished(t *testing.T) {
	for _, n := range []int{1 << 20, 5 << 20} {
		src, to := newSource(n), dest(t)
		src.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
			foreign := filepath.Join(filepath.Dir(to), "mine")
			if err := errors.Join(
				os.WriteFile(foreign, []byte("precious"), 0o600), os.Rename(foreign, to+partSuffix),
			); err != nil {
				t.Error(err)
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		err := get(t, to, src)
		var inTheWay *InTheWayError
		if b, _ := os.ReadFile(to + partSuffix); !errors.As(err, &inTheWay) || string(b) != "precious" ||
			describe(t, to) != "nothing" {
			t.Errorf("%d bytes: %v, %q", n, err, b)
		}
	}
}

func TestAFileThatAppearsMeanwhileIsNotReplaced(t *testing.T) {
	for _, n := range []int{1 << 20, 5 << 20} {
		src, to := newSource(n), dest(t)
		src.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
			if err := os.WriteFile(to, []byte("precious"), 0o600); err != nil {
				t.Error(err)
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		err := Get(t.Context(), Request{Source: src, Dest: to, New: true})
		if b, _ := os.ReadFile(to); !errors.Is(err, fs.ErrExist) || string(b) != "precious" {
			t.Errorf("%d bytes: %v, %q", n, err, b)
		}
		src.open = nil
		src.asked.Store(0)
		if err := get(t, to, src); err != nil {
			t.Fatal(err)
		}
		whole(t, to, src)
		if n > chunkSize && src.asked.Load() != 0 {
			t.Errorf("%d bytes were asked for again", src.asked.Load())
		}
	}
}

// The mode of a file that is replaced stays, and is that of the part from the beginning.
func TestAReplacedFileKeepsItsMode(t *testing.T) {
	for _, n := range []int{1 << 20, 5 << 20} {
		for _, mode := range []os.FileMode{0o600, 0o640, 0o755, 0o444} {
			src, to := newSource(n), dest(t)
			if err := errors.Join(os.WriteFile(to, []byte("former"), 0o600), os.Chmod(to, mode)); err != nil {
				t.Fatal(err)
			}
			src.open = func(_ context.Context, _ int64, b []byte) (io.ReadCloser, error) {
				if info, err := os.Stat(to + partSuffix); err != nil || info.Mode().Perm()&^mode != 0 {
					t.Errorf("the part of a file of mode %v: %v, %v", mode, info.Mode(), err)
				}
				return io.NopCloser(bytes.NewReader(b)), nil
			}
			if err := get(t, to, src); err != nil {
				t.Fatal(err)
			}
			whole(t, to, src)
			if info, err := os.Stat(to); err != nil || info.Mode().Perm() != mode {
				t.Errorf("mode %v became %v, %v", mode, info.Mode(), err)
			}
		}
	}
}

// A source that gives no parts is asked for the whole content from then on.
func TestASourceThatGivesNoPartsIsReadInOneGo(t *testing.T) {
	for _, n := range []int{1 << 20, 12 << 20} {
		src, to := newSource(n), dest(t)
		parts, cut := 0, false
		src.open = func(_ context.Context, off int64, b []byte) (io.ReadCloser, error) {
			if off+int64(len(b)) < int64(n) {
				parts++
				return nil, fmt.Errorf("%w: 200", ErrNoParts)
			}
			if !cut {
				cut = true
				return cutAfter(b, len(b)/2+1, errCut), nil
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		if err := Get(t.Context(), Request{Source: src, Dest: to, Parallel: 1}); err != nil || parts > 1 {
			t.Fatalf("%d requests for parts: %v", parts, err)
		}
		whole(t, to, src)
	}
}
