package folder

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/durable"
)

// begun opens a folder as a server does, with the lock files that the stores make.
func begun(t *testing.T, data string, on durable.FS) *Folder {
	t.Helper()
	f, err := Open(data, Options{FS: on})
	must(t, err)
	for _, h := range []Half{f.Meta, f.Content} {
		must(t, os.WriteFile(filepath.Join(h.Path, h.lock), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(h.Path, h.format), nil, 0o600))
	}
	_, err = f.Begin(ContentState{Incarnation: f.meta.Incarnation})
	must(t, errors.Join(err, f.Begun(), f.Look()))
	return f
}

// lockFiles are all lock files of a folder.
var lockFiles = []string{"lock", "meta/LOCK", "content/lock"}

// † I27: A second server is refused whichever lock files are removed, or made anew: the folders
// themselves are locked. It changes nothing, and the first server reports at once that a lock is
// gone.
func TestAFolderIsLockedWithoutItsLockFiles(t *testing.T) {
	for some := range 1 << len(lockFiles) {
		for _, anew := range []bool{false, true} {
			data := filepath.Join(t.TempDir(), "data")
			f := begun(t, data, nil)
			removed := ""
			for i, name := range lockFiles {
				if some>>i&1 == 0 {
					continue
				}
				removed = filepath.Join(data, name)
				must(t, os.Rename(removed, removed+".was")) // kept, so that its inode is not used again
				if anew {
					must(t, os.WriteFile(removed, nil, 0o600))
				}
			}
			before := contents(t, durable.OS{}, data)
			for _, o := range []Options{{}, {Existing: true, ReadOnly: true}, {Existing: true, Rejoin: true}} {
				_, err := Open(data, o)
				if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), data) ||
					!strings.Contains(err.Error(), "no lock file is to be removed") {
					t.Errorf("locks %03b removed, anew %v, %+v: %v", some, anew, o, err)
				}
			}
			if after := contents(t, durable.OS{}, data); !maps.Equal(before, after) {
				t.Errorf("locks %03b removed: there was %q, and is %q", some, before, after)
			}
			err := f.Look()
			if (err == nil) != (removed == "") ||
				err != nil && (!strings.Contains(err.Error(), filepath.Dir(removed)) && !strings.Contains(err.Error(),
					data) || !strings.Contains(err.Error(), "lock file")) {
				t.Errorf("locks %03b removed: the first says %v", some, err)
			}
			must(t, f.Close())
			f = begun(t, data, nil)
			must(t, f.Close())
		}
	}
}

// A half that another data folder shares, by a link, is locked with it.
func TestAHalfIsLockedForAllWhoHaveIt(t *testing.T) {
	base := t.TempDir()
	a, b := filepath.Join(base, "a"), filepath.Join(base, "b")
	defer begun(t, a, nil).Close()
	for _, half := range []string{"meta", "content"} {
		must(t, begun(t, b, nil).Close())
		must(t, errors.Join(os.RemoveAll(filepath.Join(b, half)),
			os.Symlink(filepath.Join(a, half), filepath.Join(b, half))))
		if _, err := Open(b, Options{}); !errors.Is(err, ErrLocked) ||
			!strings.Contains(err.Error(), filepath.Join(b, half)) {
			t.Errorf("%s: %v", half, err)
		}
		must(t, os.RemoveAll(b))
	}
}

// † I27: If folders can't be locked, the first server notices that another has begun on its folder.
// It takes nothing more then and writes nothing at its end, even after the other one has gone.
func TestAnotherServerOnTheFolderIsNoticed(t *testing.T) {
	plain := struct{ durable.FS }{durable.OS{}} // its folders can't be locked
	data := filepath.Join(t.TempDir(), "data")
	a := begun(t, data, plain)
	for _, name := range lockFiles {
		must(t, os.Remove(filepath.Join(data, name)))
	}
	b := begun(t, data, plain)
	says := func(when string) {
		t.Helper()
		if err := a.Look(); err == nil || a.Away() == nil ||
			!strings.Contains(err.Error(), "another server has been started on this folder") {
			t.Errorf("%s: %v", when, err)
		}
		before := contents(t, durable.OS{}, data)
		if err := a.End(); err == nil {
			t.Errorf("%s: its end is noted", when)
		}
		if after := contents(t, durable.OS{}, data); !maps.Equal(before, after) {
			t.Errorf("%s: there was %q, and is %q", when, before, after)
		}
	}
	says("the other one runs")
	must(t, errors.Join(b.Look(), b.End(), b.Close()))
	says("the other one has gone")
	must(t, a.Close())
}
