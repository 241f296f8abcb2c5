package localblob

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/blob"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

// livedIn gives a folder that was used, with an item of a pack and a place.
func livedIn(t *testing.T, disk *crashfs.Disk, dir string) {
	t.Helper()
	s := open(t, dir, Options{FS: disk})
	packed(t, s, 1, []byte("packed"))
	check(t, s.Close())
}

// namesOn gives all names on a disk, with the content of the files except the locks.
func namesOn(t *testing.T, disk *crashfs.Disk, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := disk.List(dir)
	check(t, err)
	for _, name := range names {
		path := dir + "/" + name
		info, err := disk.Stat(path)
		check(t, err)
		if info.Dir {
			out[path] = "folder"
			maps.Copy(out, namesOn(t, disk, path))
		} else if name != "lock" {
			b, err := durable.ReadFile(disk, path)
			check(t, err)
			out[path] = string(b)
		}
	}
	return out
}

// † I26: A start refuses places or packs that are missing, empty or another content's, and names
// them. It changes and makes nothing. When they are back, everything is there. Their owner may say
// that they are gone for good.
func TestPartsThatAreAwayAreNotMadeAnew(t *testing.T) {
	for _, part := range []string{"places", "packs", "places/00", "places/ab"} {
		for name, away := range map[string]func(disk *crashfs.Disk, path string) error{
			"gone":    func(*crashfs.Disk, string) error { return nil },
			"empty":   func(disk *crashfs.Disk, path string) error { return disk.Mkdir(path, 0o700) },
			"another": func(disk *crashfs.Disk, path string) error { return disk.Rename("/other"+path[2:], path) },
			"a fresh disk": func(disk *crashfs.Disk, path string) error {
				return errors.Join(disk.Mkdir(path, 0o700), disk.Mkdir(path+"/lost+found", 0o700))
			},
		} {
			if strings.Contains(part, "/") && name != "gone" {
				continue
			}
			disk := crashfs.New()
			livedIn(t, disk, "/d")
			livedIn(t, disk, "/other")
			path := "/d/" + part
			check(t, errors.Join(disk.Rename(path, "/hidden"), away(disk, path)))
			before := namesOn(t, disk, "/")
			for _, o := range []Options{{FS: disk}, {FS: disk, ReadOnly: true}, {FS: disk, AfterIncarnation: 1}} {
				s, err := Open("/d", o)
				if err == nil {
					check(t, s.Close())
				}
				says := path
				if part != "places" && part != "packs" {
					says = "/d/places has no folder " + part[len("places/"):]
				}
				if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "mounted") ||
					!strings.Contains(err.Error(), "--rejoin") {
					t.Errorf("%s, %s: %v", part, name, err)
				}
			}
			if _, _, err := Peek("/d", disk, false); err == nil {
				t.Errorf("%s, %s: a look finds nothing", part, name)
			}
			if after := namesOn(t, disk, "/"); !maps.Equal(before, after) {
				t.Errorf("%s, %s: there was %q, and is %q",
					part, name, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
			}
			_, _, err := Peek("/d", disk, true)
			check(t, err)
			left := disk.Image().Kill()
			s, err := Open("/d", Options{Durability: durable.Process, FS: left, Rejoin: true})
			check(t, err)
			packed(t, s, 2, []byte("more"))
			check(t, errors.Join(s.InPlace(), s.Close()))
			s, err = Open("/d", Options{Durability: durable.Process, FS: left})
			check(t, err)
			check(t, s.Close())
			if name != "gone" {
				check(t, disk.Rename(path, "/taken"))
			}
			check(t, disk.Rename("/hidden", path))
			s, err = Open("/d", Options{Durability: durable.Process, FS: disk})
			check(t, err)
			check(t, s.Close())
		}
	}
}

// A folder of an earlier program has no files that say to whom its parts belong. It gets them.
// Parts that are certainly away are refused.
func TestPartsOfAnEarlierProgram(t *testing.T) {
	old := func() *crashfs.Disk {
		disk := crashfs.New()
		livedIn(t, disk, "/d")
		check(t, errors.Join(disk.Remove("/d/parts"), disk.Remove("/d/places/part"), disk.Remove("/d/packs/part"),
			disk.Remove("/d/places/77")))
		return disk
	}
	disk := old()
	s, err := Open("/d", Options{Durability: durable.Process, FS: disk})
	check(t, err)
	check(t, s.Close())
	whose, err := readPart(disk, "/d/parts")
	check(t, err)
	for _, path := range []string{"/d/places/part", "/d/packs/part"} {
		if of, err := readPart(disk, path); of != whose || whose == "" || err != nil {
			t.Errorf("%s says %q, and not %q, %v", path, of, whose, err)
		}
	}
	for what, away := range map[string]func(*crashfs.Disk) error{
		"places is not there": func(d *crashfs.Disk) error { return d.Rename("/d/places", "/hidden") },
		"places is empty": func(d *crashfs.Disk) error {
			return errors.Join(d.Rename("/d/places", "/hidden"), d.Mkdir("/d/places", 0o700))
		},
		"packs is not there": func(d *crashfs.Disk) error { return d.Rename("/d/packs", "/hidden") },
	} {
		disk := old()
		check(t, away(disk))
		_, err := Open("/d", Options{Durability: durable.Process, FS: disk})
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The store notices places or packs that go away, or that another folder covers, while it is open.
// Missing places there are no loss.
func TestPartsThatGoAwayAreNoticed(t *testing.T) {
	for _, part := range []string{"places", "packs"} {
		for _, another := range []bool{false, true} {
			disk := crashfs.New()
			s := open(t, "/d", Options{FS: disk})
			check(t, s.InPlace())
			path := "/d/" + part
			check(t, disk.Rename(path, "/hidden"))
			if another {
				check(t, disk.Mkdir(path, 0o700))
			}
			if err := s.InPlace(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, another %v: %v", part, another, err)
			}
			if err := s.checkFolder(packFolder); !errors.Is(err, blob.ErrUnavailable) {
				t.Errorf("%s, another %v: what is there: %v", part, another, err)
			}
			if another {
				check(t, disk.Remove(path))
			}
			check(t, disk.Rename("/hidden", path))
			check(t, errors.Join(s.InPlace(), s.checkFolder(packFolder), s.Close()))
		}
	}
}

// A missing or damaged state is refused, with a remedy. Its owner may go on without it: no
// incarnation is repeated, and no earlier content counts as verified.
func TestAStateThatIsGone(t *testing.T) {
	for name, text := range map[string]string{"gone": "", "cut": `{"life":`, "empty": " ", "of nothing": "{}"} {
		disk := crashfs.New()
		for range 3 {
			livedIn(t, disk, "/d")
		}
		if name == "gone" {
			check(t, disk.Remove("/d/state"))
		} else {
			check(t, durable.WriteFile(disk, "/d/state", []byte(text), 0o600))
		}
		before := namesOn(t, disk, "/d")
		for _, err := range []error{func() error {
			_, err := Open("/d", Options{Durability: durable.Process, FS: disk})
			return err
		}(), func() error {
			_, _, err := Peek("/d", disk, false)
			return err
		}()} {
			if err == nil || !strings.Contains(err.Error(), "file state") || !strings.Contains(err.Error(), "/d:") ||
				!strings.Contains(err.Error(), "--rejoin") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := namesOn(t, disk, "/d"); !maps.Equal(before, after) {
			t.Errorf("%s: the folder was touched", name)
		}
		s, err := Open("/d", Options{Durability: durable.Process, FS: disk, Rejoin: true})
		check(t, err)
		if s.Incarnation != 4 || s.SinceCrash != 4 || s.SinceReboot != 4 {
			t.Errorf("%s: life %d, trusted from %d and %d", name, s.Incarnation, s.SinceCrash, s.SinceReboot)
		}
		check(t, s.Close())
	}
}

// A start that is stopped at any step is completed by the next one: no part counts as away then.
func TestAStartThatIsStoppedBetweenTheParts(t *testing.T) {
	for _, format := range []int{0, 1, 2} {
		disk := crashfs.New()
		if format > 0 {
			livedIn(t, disk, "/d")
			check(t, errors.Join(disk.Remove("/d/parts"), disk.Remove("/d/places/part"), disk.Remove("/d/packs/part"),
				durable.WriteFile(disk, "/d/format", fmt.Appendf(nil, formatLine, format), 0o600)))
		}
		var images []*crashfs.Image
		disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
			if s.Changes() {
				images = append(images, s.Image())
			}
			return nil
		})
		livedIn(t, disk, "/d")
		for i, im := range images {
			for _, keep := range []int{-1, 0, 50, 100} {
				left := im.Kill()
				if keep >= 0 {
					left = im.Crash(rand.New(rand.NewPCG(uint64(i), 1)), keep)
				}
				s, err := Open("/d", Options{Durability: durable.Process, FS: left})
				if err != nil {
					t.Errorf("format %d, step %d, keep %d: %v", format, i, keep, err)
					continue
				}
				check(t, errors.Join(s.InPlace(), s.Close()))
			}
		}
	}
}
