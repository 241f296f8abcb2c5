package folder

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

const at = "/data"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents gives all files of a disk, except locks.
func contents(t *testing.T, on durable.FS, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := on.List(dir)
	must(t, err)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := on.Stat(path)
		must(t, err)
		if info.Dir {
			out[path] = "folder"
			maps.Copy(out, contents(t, on, path))
		} else if !strings.EqualFold(name, "lock") {
			b, err := durable.ReadFile(on, path)
			must(t, err)
			out[path] = string(b)
		}
	}
	return out
}

// session is one start and stop of a server. Of the halves' contents it has only the files that
// show that a half is used.
func session(disk durable.FS) (id string, err error) {
	f, err := Open(at, Options{FS: disk})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := fill(disk, "meta/FORMAT"); err != nil {
		return "", err
	}
	if _, err := f.Begin(lastOf(disk)); err != nil {
		return "", err
	}
	if err := errors.Join(fill(disk, "content/format"), setLast(disk, ContentState{f.meta.Next, false}),
		f.Begun()); err != nil {
		return "", err
	}
	if err := f.Look(); err != nil {
		return "", err
	}
	if err := f.End(); err != nil {
		return "", err
	}
	return f.id, setLast(disk, ContentState{f.meta.Incarnation, true})
}

func fill(disk durable.FS, path string) error {
	return durable.WriteFile(disk, filepath.Join(at, path), []byte("1"), 0o600)
}

// lastOf and setLast stand for the content store.
func lastOf(disk durable.FS) (l ContentState) {
	b, err := durable.ReadFile(disk, at+"/content/state")
	if err == nil {
		fmt.Sscan(string(b), &l.Incarnation, &l.Clean)
	}
	return l
}

func setLast(disk durable.FS, l ContentState) error {
	return durable.WriteFile(disk, at+"/content/state", fmt.Appendf(nil, "%d %v", l.Incarnation, l.Clean), 0o600)
}

// older makes a folder as earlier programs did: its halves have no marks.
func older(t *testing.T) *crashfs.Disk {
	t.Helper()
	disk := crashfs.New()
	for _, dir := range []string{at, at + "/meta", at + "/content"} {
		must(t, durable.MkdirAll(disk, dir, 0o700))
	}
	must(t, errors.Join(fill(disk, "meta/FORMAT"), fill(disk, "content/format"), fill(disk, "admin-token"),
		setLast(disk, ContentState{5, true})))
	return disk
}

func fresh(*testing.T) *crashfs.Disk { return crashfs.New() }

func lived(t *testing.T) *crashfs.Disk {
	t.Helper()
	disk := crashfs.New()
	for range 2 {
		_, err := session(disk)
		must(t, err)
	}
	return disk
}

// † I28: A start that is stopped at any step, by kill -9 or by power loss, is completed by the next
// one: the first start of a new folder, the first of one of an earlier program, and any other. The
// halves are of one folder then.
func TestAStartThatIsStoppedAnywhereGoesOn(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./store/folder")
	}
	for name, from := range map[string]func(*testing.T) *crashfs.Disk{"new": fresh, "earlier": older, "lived": lived} {
		t.Run(name, func(t *testing.T) {
			disk := from(t)
			var err error
			images := steps(disk, func() { _, err = session(disk) })
			must(t, err)
			if len(images) < 10 {
				t.Fatalf("only %d steps", len(images))
			}
			for step, im := range images {
				for _, keep := range []int{-1, 0, 50, 100} {
					left := im.Kill()
					if keep >= 0 {
						left = im.Crash(rand.New(rand.NewPCG(1, uint64(keep))), keep)
					}
					id, err := session(left)
					if err != nil {
						t.Errorf("%s, keep %d: %v", step, keep, err)
						continue
					}
					if again, err := session(left); again != id || err != nil {
						t.Errorf("%s, keep %d: folder %s, then %s, %v", step, keep, id, again, err)
					}
				}
				// The start after a kill loses power before what it has read is on the disk.
				stopped := im.Kill()
				for again, im := range steps(stopped, func() { _, err = session(stopped) }) {
					for _, keep := range []int{0, 50} {
						if _, err := session(im.Crash(rand.New(rand.NewPCG(1, 0)), keep)); err != nil {
							t.Errorf("killed before %s, power lost before %s, keep %d: %v", step, again, keep, err)
						}
					}
				}
				must(t, err)
			}
		})
	}
}

// steps gives the disk before each step of f that changes it.
func steps(disk *crashfs.Disk, f func()) map[string]*crashfs.Image {
	images := map[string]*crashfs.Image{}
	disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if s.Changes() {
			images[s.String()] = s.Image()
		}
		return nil
	})
	f()
	disk.SetHook(nil)
	return images
}

// hide takes a half away, as if its disk were not mounted; empty leaves the mount point.
func hide(t *testing.T, disk durable.FS, half string, empty bool) (back func()) {
	t.Helper()
	path := filepath.Join(at, half)
	if _, err := disk.Stat(path); err != nil {
		return func() {}
	}
	must(t, disk.Rename(path, "/hidden"))
	if empty {
		must(t, disk.Mkdir(path, 0o700))
	}
	return func() {
		t.Helper()
		if empty {
			must(t, disk.Remove(path))
		}
		must(t, disk.Rename("/hidden", path))
	}
}

// † I26: A start may be stopped at any step. Once a half has something, a start without it, or
// without the other half, is refused and changes nothing. With both halves all is well.
func TestAHalfThatIsAwayIsNeverMadeAnew(t *testing.T) {
	for name, from := range map[string]func(*testing.T) *crashfs.Disk{"earlier": older, "lived": lived} {
		t.Run(name, func(t *testing.T) {
			disk := from(t)
			var images []*crashfs.Image
			disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
				if s.Changes() {
					images = append(images, s.Image())
				}
				return nil
			})
			_, err := session(disk)
			must(t, err)
			images = append(images, disk.Image())
			for i, im := range images {
				for _, half := range []string{"meta", "content"} {
					for _, empty := range []bool{false, true} {
						left := im.Kill()
						back := hide(t, left, half, empty)
						before := contents(t, left, "/")
						if _, err := session(left); err == nil ||
							!strings.Contains(err.Error(), filepath.Join(at, half)) || !strings.Contains(err.Error(),
							"mounted") {
							t.Errorf("image %d without %s: %v", i, half, err)
						}
						if after := contents(t, left, "/"); !maps.Equal(before, after) {
							t.Errorf("image %d without %s: there was %q, and is %q", i, half, before, after)
						}
						back()
						if _, err := session(left); err != nil {
							t.Errorf("image %d, with %s again: %v", i, half, err)
						}
					}
				}
			}
		})
	}
}

// Halves that do not belong together are refused. The error has the name and a remedy, and nothing
// is changed.
func TestHalvesThatDoNotBelongTogether(t *testing.T) {
	exchange := func(t *testing.T, disk durable.FS, a, b string) {
		must(t, errors.Join(disk.Rename(a, "/third"), disk.Rename(b, a), disk.Rename("/third", b)))
	}
	second := func(t *testing.T, disk durable.FS) {
		must(t, disk.Rename(at, "/other"))
		_, err := session(disk)
		must(t, err)
	}
	for name, c := range map[string]struct {
		from func(*testing.T) *crashfs.Disk
		do   func(t *testing.T, disk durable.FS)
		says string
	}{
		"exchanged":                {lived, func(t *testing.T, d durable.FS) { exchange(t, d, at+"/meta", at+"/content") }, "/data/meta holds the other half of this data folder (content)"},
		"exchanged, of an earlier": {older, func(t *testing.T, d durable.FS) { exchange(t, d, at+"/meta", at+"/content") }, "/data/meta is no half of a data folder"},
		"metadata of another":      {lived, func(t *testing.T, d durable.FS) { second(t, d); exchange(t, d, at+"/meta", "/other/meta") }, "/data/meta belongs to another data folder"},
		"content of another":       {lived, func(t *testing.T, d durable.FS) { second(t, d); exchange(t, d, at+"/content", "/other/content") }, "/data/content belongs to another data folder"},
		"both of another": {lived, func(t *testing.T, d durable.FS) {
			second(t, d)
			exchange(t, d, at+"/content", "/other/content")
			exchange(t, d, at+"/meta", "/other/meta")
		}, "/data/meta belongs to another data folder"},
		"both away":                {lived, func(t *testing.T, d durable.FS) { hide(t, d, "meta", true); must(t, d.Rename(at+"/content", "/gone")) }, "/data/content is not there"},
		"both away, of an earlier": {older, func(t *testing.T, d durable.FS) { hide(t, d, "meta", true); must(t, d.Rename(at+"/content", "/gone")) }, "this data folder has been used"},
		"a copy from before it":    {lived, func(t *testing.T, d durable.FS) { must(t, d.Remove(at+"/meta/FOLDER")) }, "/data/meta has no file FOLDER"},
		"something else":           {older, func(t *testing.T, d durable.FS) { must(t, d.Remove(at+"/content/format")) }, "/data/content is no half of a data folder"},
		"an older copy of content": {lived, func(t *testing.T, d durable.FS) {
			must(t, setLast(d, ContentState{Incarnation: 1, Clean: true}))
		}, "/data/content is an older copy"},
		"a mark of a newer program": {lived, func(t *testing.T, d durable.FS) {
			must(t, durable.WriteFile(d, at+"/meta/FOLDER", []byte(`{"format":9,"new":1}`), 0o600))
		}, "format 9, and this program knows formats up to 1"},
		"a mark that is damaged": {lived, func(t *testing.T, d durable.FS) {
			must(t, durable.WriteFile(d, at+"/folder", []byte(`{"format":1`), 0o600))
		}, "/data/folder is damaged, or not one of sluice's"},
		"one half is left alone": {lived, func(t *testing.T, d durable.FS) {
			hide(t, d, "meta", false)
			must(t, d.Remove(at+"/folder"))
		}, "/data/meta is not there. Nothing was touched. Is its disk mounted"},
		"the other is left alone": {lived, func(t *testing.T, d durable.FS) {
			hide(t, d, "content", true)
			must(t, d.Remove(at+"/folder"))
		}, "/data/content is empty, and this data folder is not new"},
		"halves of two, and nothing says which": {lived, func(t *testing.T, d durable.FS) {
			second(t, d)
			exchange(t, d, at+"/content", "/other/content")
			must(t, d.Remove(at+"/folder"))
		}, "/data/meta and /data/content are halves of two data folders"},
		"a folder of somebody else":  {fresh, func(t *testing.T, d durable.FS) { must(t, errors.Join(d.Mkdir(at, 0o700), fill(d, "letter"))) }, "/data is no data folder of sluice, and not empty (it has letter)"},
		"a parent that is not there": {fresh, func(*testing.T, durable.FS) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			disk := c.from(t)
			c.do(t, disk)
			before := contents(t, disk, "/")
			var err error
			if c.says == "" {
				c.says = "/none is not there, and only the last part of /none/data is made"
				_, err = Open("/none/data", Options{FS: disk})
			} else {
				_, err = session(disk)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, and not: %s", err, c.says)
			}
			if after := contents(t, disk, "/"); !maps.Equal(before, after) {
				t.Errorf("there was %q, and is %q", before, after)
			}
		})
	}
}

// Halves that were moved together are accepted. Halves that somebody joins deliberately are one
// folder from then on.
func TestHalvesAreJoined(t *testing.T) {
	disk := lived(t)
	must(t, disk.Remove(at+"/folder"))
	_, err := session(disk)
	must(t, err)

	hide(t, disk, "content", false)
	if _, err := Open(at, Options{FS: disk, Existing: true}); err == nil {
		t.Fatal("there is no content")
	}
	f, err := Open(at, Options{FS: disk, Existing: true, Rejoin: true})
	must(t, err)
	after, err := f.Begin(ContentState{})
	if after != 3 || err != nil {
		t.Errorf("after life %d, %v", after, err)
	}
	must(t, errors.Join(fill(disk, "content/format"), setLast(disk, ContentState{4, true}), f.Begun(), f.End(),
		f.Close()))
	id, err := session(disk)
	if id == "" || id != f.id || err != nil {
		t.Errorf("folder %s, not %s, %v", id, f.id, err)
	}
	// The disk that was away no longer belongs to this folder.
	must(t, errors.Join(disk.Rename(at+"/content", "/new"), disk.Rename("/hidden", at+"/content")))
	if _, err := session(disk); err == nil || !strings.Contains(err.Error(), "belongs to another data folder") {
		t.Error(err)
	}
	// Content can't be joined to missing metadata.
	hide(t, disk, "meta", true)
	if _, err := Open(at, Options{FS: disk, Existing: true, Rejoin: true}); err == nil ||
		!strings.Contains(err.Error(), "has no metadata") {
		t.Error(err)
	}
}

// Incarnations of the content without the metadata are unknown for good. Stops leave none.
func TestLivesThatTheMetadataDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct {
		known   mark
		last    ContentState
		unknown string
		after   uint64
	}{
		"new":                                  {mark{}, ContentState{}, "[]", 0},
		"new, killed at its beginning":         {mark{Next: 1}, ContentState{}, "[]", 0},
		"of an earlier program":                {mark{}, ContentState{7, false}, "[]", 7},
		"stopped":                              {mark{Incarnation: 4}, ContentState{4, true}, "[]", 4},
		"killed":                               {mark{Incarnation: 4, Open: true}, ContentState{4, false}, "[]", 4},
		"killed at its end":                    {mark{Incarnation: 4}, ContentState{4, false}, "[]", 4},
		"killed before its beginning":          {mark{Incarnation: 3, Next: 4}, ContentState{3, true}, "[]", 3},
		"killed at its beginning":              {mark{Incarnation: 3, Next: 4}, ContentState{4, false}, "[]", 4},
		"joined, and killed":                   {mark{Incarnation: 3, Next: 9}, ContentState{3, false}, "[]", 8},
		"restored":                             {mark{Incarnation: 1 << 40}, ContentState{1 << 40, false}, "[]", 1 << 40},
		"a copy from while it ran":             {mark{Incarnation: 4, Open: true}, ContentState{4, true}, "[[4 4]]", 4},
		"a copy from its beginning":            {mark{Incarnation: 3, Next: 4}, ContentState{4, true}, "[[4 4]]", 4},
		"a copy from an earlier one's":         {mark{Incarnation: 3, Next: 4}, ContentState{6, true}, "[[4 6]]", 6},
		"a copy from between two":              {mark{Incarnation: 4}, ContentState{6, true}, "[[5 6]]", 6},
		"a copy from while an earlier one ran": {mark{Incarnation: 4, Open: true}, ContentState{6, false}, "[[4 6]]", 6},
		"again":                                {mark{Incarnation: 7, Unknown: [][2]uint64{{2, 3}}}, ContentState{8, true}, "[[2 3] [8 8]]", 8},
	} {
		disk := lived(t)
		f, err := Open(at, Options{FS: disk})
		must(t, err)
		f.meta.Incarnation, f.meta.Next = c.known.Incarnation, c.known.Next
		f.meta.Open, f.meta.Unknown = c.known.Open, c.known.Unknown
		after, err := f.Begin(c.last)
		if got := fmt.Sprint(f.meta.Unknown); got != c.unknown || after != c.after || err != nil {
			t.Errorf("%s: %s after life %d, %v", name, got, after, err)
		}
		must(t, errors.Join(f.Begun(), f.Close()))
		if f, err = Open(at, Options{FS: disk}); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(f.meta.Unknown); got != c.unknown || f.meta.Incarnation != after+1 || !f.meta.Open {
			t.Errorf("%s, on the disk: %+v", name, f.meta)
		}
		for incarnation := range uint64(10) {
			in := false
			for _, u := range f.meta.Unknown {
				in = in || u[0] <= incarnation && incarnation <= u[1]
			}
			if f.KnownIncarnation(incarnation) == in {
				t.Errorf("%s: life %d is known: %v", name, incarnation, !in)
			}
		}
		must(t, f.Close())
	}
}
