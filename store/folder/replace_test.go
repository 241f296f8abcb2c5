package folder

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

var when = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// replace replaces the metadata, as sluice check --repair does.
func replace(disk durable.FS) (err error) {
	f, err := Open(at, Options{FS: disk, Existing: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	next, err := f.BeginReplace()
	if err != nil {
		return err
	}
	for _, name := range []string{"FORMAT", "salvaged"} {
		if err := durable.WriteFile(next.FS, next.Path+"/"+name, []byte("1"), 0o600); err != nil {
			return err
		}
	}
	kept, err := f.Replace(next, lastOf(disk), when)
	if err == nil && kept != at+"/meta.damaged-20261130T120000Z" {
		err = errors.New(kept)
	}
	return err
}

// isReplaced reports whether the new metadata are in place; the old ones must be somewhere.
func isReplaced(t *testing.T, disk durable.FS) bool {
	t.Helper()
	files := contents(t, disk, at)
	_, is := files[at+"/meta/salvaged"]
	if _, was := files[at+"/meta/old"]; was == is {
		t.Errorf("in place: old %v, new %v", was, is)
	}
	if _, kept := files[at+"/meta.damaged-20261130T120000Z/old"]; kept != is {
		t.Errorf("kept: %v, replaced: %v", kept, is)
	}
	return is
}

// † I28: A replacement of the metadata may be stopped at any step, by kill -9 or power loss. The
// next start leaves the old ones in place or, once it was decided, the new ones. The halves belong
// together, the old metadata are kept, earlier content is no garbage for having no record, and a
// repeat succeeds.
func TestAReplacementThatIsStoppedAnywhere(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./store/folder")
	}
	for name, from := range map[string]func(*testing.T) *crashfs.Disk{"earlier": older, "lived": lived} {
		t.Run(name, func(t *testing.T) {
			disk := from(t)
			must(t, fill(disk, "meta/old"))
			var images []*crashfs.Image
			disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
				if s.Changes() {
					images = append(images, s.Image())
				}
				return nil
			})
			must(t, replace(disk))
			disk.SetHook(nil)
			if !isReplaced(t, disk) {
				t.Fatal("it is not replaced")
			}
			before, after := 0, 0
			for step, im := range images {
				for _, keep := range []int{-1, 0, 50, 100} {
					left := im.Kill()
					if keep >= 0 {
						left = im.Crash(rand.New(rand.NewPCG(uint64(step), uint64(keep))), keep)
					}
					if _, err := session(left); err != nil {
						t.Fatalf("step %d, keep %d: %v", step, keep, err)
					}
					if !isReplaced(t, left) {
						before++
						if err := replace(left); err != nil {
							t.Errorf("step %d, keep %d: again: %v", step, keep, err)
						}
						continue
					}
					after++
					f, err := Open(at, Options{FS: left})
					must(t, err)
					for life, known := range map[uint64]bool{
						1: false, lastOf(disk).Incarnation: false,
						lastOf(left).Incarnation: true,
					} {
						if f.KnownIncarnation(life) != known {
							t.Errorf("step %d, keep %d: life %d: %v", step, keep, life, !known)
						}
					}
					must(t, f.Close())
				}
				stopped := im.Kill()
				var err error
				for again, im := range steps(stopped, func() { _, err = session(stopped) }) {
					for _, keep := range []int{0, 50} {
						left := im.Crash(rand.New(rand.NewPCG(uint64(step), 0)), keep)
						if _, err := session(left); err != nil {
							t.Errorf("killed at step %d, power lost before %s, keep %d: %v", step, again, keep, err)
						}
						isReplaced(t, left)
					}
				}
				must(t, err)
			}
			t.Log(before, after)
			if before < 10 || after < 10 {
				t.Errorf("%d, %d", before, after)
			}
		})
	}
}

// A process that may not resume a replacement reports it. If the metadata can't be renamed,
// everything is left as it was.
func TestAReplacementThatCannotBe(t *testing.T) {
	disk := lived(t)
	must(t, fill(disk, "meta/old"))
	var half *crashfs.Image
	disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if strings.Contains(s.String(), "meta.damaged") && half == nil {
			half = s.Image()
			return &crashfs.Fault{Err: syscall.EBUSY}
		}
		return nil
	})
	if err := replace(disk); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("%v", err)
	}
	disk.SetHook(nil)
	if _, err := session(disk); err != nil || isReplaced(t, disk) {
		t.Errorf("%v", err)
	}
	if _, err := Open(at, Options{FS: half.Kill(), Existing: true, ReadOnly: true}); err == nil ||
		!strings.Contains(err.Error(), "check --repair was stopped") {
		t.Errorf("reading alone: %v", err)
	}
}
