package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/store/pebblemeta"
)

// verify reads all of a backup, and gives the names of the memories in it.
func verify(on durable.FS) (names []string, err error) {
	b, err := backup.Open(on, dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	_, err = b.Restore(context.Background(), backup.Target{
		Decode: pebblemeta.Decode, Rows: pebblemeta.Format,
		Row: func(key, row []byte) error {
			what, err := pebblemeta.Decode(key, row)
			if m, ok := what.(catalog.Memory); ok {
				names = append(names, m.Name)
			}
			return err
		},
	}, nil)
	slices.Sort(names)
	return names, err
}

// twoStates gives a server, a disk with a backup of it, and the memories in that. The server has
// changed since: memories came and went, and an upload has ended.
func twoStates(t *testing.T) (s *server, to *crashfs.Disk, first, second []string) {
	s = serve(t, simulated(crashfs.New()), "/data")
	to = crashfs.New()
	gone := s.create("gone", bytesOf("gone", 2*chunk+1))
	s.create("stays", bytesOf("stays", chunk))
	open := bytesOf("open", 3*chunk)
	id := s.begin("open", len(open))
	s.put(id, 1, open)
	s.backup(to, dir)
	s.purge(gone.ID)
	s.collect()
	s.put(id, 0, open)
	s.put(id, 2, open)
	s.finish(id, open)
	s.create("new", bytesOf("new", 2*chunk))
	s.create("tiny", bytesOf("tiny", 10))
	return s, to, []string{"gone", "stays"}, []string{"new", "open", "stays", "tiny"}
}

// disksAfter are the disks that a death before a step may leave.
func disksAfter(im *crashfs.Image, seed uint64) map[string]*crashfs.Disk {
	rng := rand.New(rand.NewPCG(seed, 1))
	return map[string]*crashfs.Disk{
		"killed": im.Kill(), "power lost": im.Crash(rng, 0), "power lost, half kept": im.Crash(rng,
			50), "power lost, all kept": im.Crash(rng, 100),
	}
}

// A backup that dies at any step leaves the previous one or the new one, whole. The next one
// succeeds.
func TestABackupThatDiesLeavesTheFormerOne(t *testing.T) {
	s, to, first, second := twoStates(t)
	var images []*crashfs.Image
	var steps []string
	to.SetHook(func(st crashfs.Step) *crashfs.Fault {
		if st.Changes() {
			images, steps = append(images, st.Image()), append(steps, st.String())
		}
		return nil
	})
	s.backup(to, dir)
	to.SetHook(nil)
	olds, news := 0, 0
	for i, im := range images {
		for how, d := range disksAfter(im, uint64(i)) {
			got, err := verify(d)
			switch {
			case err != nil:
				t.Fatalf("%s before %s: %v", how, steps[i], err)
			case slices.Equal(got, first):
				olds++
			case slices.Equal(got, second):
				news++
			default:
				t.Fatalf("%s before %s: %v", how, steps[i], got)
			}
			again(t, s, d, second, fmt.Sprintf("%s before %s", how, steps[i]))
		}
	}
	t.Logf("%d steps: the previous backup %d times, the new one %d times", len(images), olds, news)
	if olds == 0 || news == 0 {
		t.Error("one of the two was never seen")
	}
}

// again makes one more backup, which must be there after a power loss.
func again(t *testing.T, s *server, d *crashfs.Disk, want []string, when string) {
	t.Helper()
	if _, err := backup.Run(t.Context(), d, dir, s.source(), s.clock.Now(), nil); err != nil {
		t.Fatalf("%s: the next one: %v", when, err)
	}
	d = d.Crash(rand.New(rand.NewPCG(1, 2)), 0)
	if got, err := verify(d); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%s: the next one has %v, %v", when, got, err)
	}
}

// The same holds for the first backup in a folder: there is none, or it is whole.
func TestAFirstBackupThatDiesIsNone(t *testing.T) {
	s, _, _, second := twoStates(t)
	to := crashfs.New()
	var images []*crashfs.Image
	var steps []string
	to.SetHook(func(st crashfs.Step) *crashfs.Fault {
		if st.Changes() {
			images, steps = append(images, st.Image()), append(steps, st.String())
		}
		return nil
	})
	s.backup(to, dir)
	for i, im := range images {
		for how, d := range disksAfter(im, uint64(i)) {
			got, err := verify(d)
			if !errors.Is(err, backup.ErrNone) && !errors.Is(err, backup.ErrNotBackup) &&
				(err != nil || !slices.Equal(got, second)) {
				t.Fatalf("%s before %s: %v, %v", how, steps[i], got, err)
			}
			if i%3 == 0 {
				again(t, s, d, second, fmt.Sprintf("%s before %s", how, steps[i]))
			}
		}
	}
}

// Any step may fail, with a full disk or a failing one. The previous backup stays, and the next one
// is whole, although the kernel reports a failed sync only once.
func TestABackupThatFailsLeavesTheFormerOne(t *testing.T) {
	s, before, first, second := twoStates(t)
	failed := 0
	for n := 1; ; n++ {
		to := before.Kill()
		at, what := 0, ""
		fault := crashfs.Fault{Err: syscall.ENOSPC, Short: 7}
		to.SetHook(func(st crashfs.Step) *crashfs.Fault {
			if !st.Changes() {
				return nil
			}
			if at++; at != n {
				return nil
			}
			what = st.String()
			if st.Op == crashfs.OpSync || st.Op == crashfs.OpSyncDir || st.Op == crashfs.OpRemove {
				fault.Err = syscall.EIO
			}
			return &fault
		})
		_, err := backup.Run(t.Context(), to, dir, s.source(), s.clock.Now(), nil)
		if what == "" {
			break
		}
		to.SetHook(nil)
		if err != nil {
			failed++
			if fault.Err == syscall.ENOSPC && !errors.Is(err, backup.ErrFull) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for how, d := range disksAfter(to.Image(), uint64(n)) {
			got, read := verify(d)
			if read != nil || !slices.Equal(got, second) && (err == nil || !slices.Equal(got, first)) {
				t.Fatalf("%s, after %s had failed (%v): %v, %v", how, what, err, got, read)
			}
		}
		again(t, s, to, second, "after "+what)
	}
	if failed < 10 {
		t.Errorf("only %d have failed", failed)
	}
}

// A restore that dies leaves no data folder, or a whole one; the next one succeeds.
func TestARestoreThatDiesMakesNothing(t *testing.T) {
	s, from, _, _ := twoStates(t)
	s.backup(from, dir)
	want := s.names()
	to := crashfs.New()
	type moment struct {
		im   *crashfs.Image
		step string
	}
	var all []moment
	to.SetHook(func(st crashfs.Step) *crashfs.Fault {
		if st.Changes() && (st.N%17 == 0 || st.Op == crashfs.OpRename) {
			all = append(all, moment{st.Image(), st.String()})
		}
		return nil
	})
	if _, err := restore(t.Context(), from, dir, simulated(to), "/data", false); err != nil {
		t.Fatal(err)
	}
	to.SetHook(nil)
	all = append(all, moment{to.Image(), "the end"})
	none := 0
	for i, m := range all {
		for how, d := range disksAfter(m.im, uint64(i)) {
			when := fmt.Sprintf("%s before %s", how, m.step)
			if _, err := d.Stat("/data"); errors.Is(err, fs.ErrNotExist) {
				none++
				if m.step == "the end" {
					t.Fatalf("%s: it is not there", when)
				}
				if i%8 != 0 {
					continue
				}
				if _, err := restore(t.Context(), from, dir, simulated(d), "/data", false); err != nil {
					t.Fatalf("%s: the next one: %v", when, err)
				}
			}
			r, err := start(t.Context(), simulated(d), "/data")
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			r.t = t
			if got := r.names(); !maps.Equal(got, want) {
				t.Errorf("%s: %v", when, got)
			}
			r.stop()
		}
	}
	t.Logf("%d moments; no folder %d times", len(all), none)
}

// A restore that fails says why, and leaves nothing.
func TestARestoreThatFailsMakesNothing(t *testing.T) {
	s, from, _, _ := twoStates(t)
	s.backup(from, dir)
	for _, part := range []string{"/content/places/", "/meta/", "/content/.state."} {
		to := crashfs.New()
		to.SetHook(func(st crashfs.Step) *crashfs.Fault {
			if st.Op == crashfs.OpWrite && strings.Contains(st.Path, part) && !strings.Contains(st.Path, "MANIFEST") {
				return &crashfs.Fault{Err: syscall.ENOSPC}
			}
			return nil
		})
		_, err := restore(t.Context(), from, dir, simulated(to), "/data", false)
		if err == nil {
			t.Errorf("writing to %s failed, and nobody minds", part)
		}
		if _, there := to.Stat("/data"); err != nil && !errors.Is(there, fs.ErrNotExist) {
			t.Errorf("a data folder is there: %v", there)
		}
		if names, _ := to.List("/"); err != nil && len(names) > 0 {
			t.Errorf("left over: %v", names)
		}
	}
}
