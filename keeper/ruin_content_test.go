package keeper_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/store/localblob"
	"sluice/upload"
)

// files reads a folder of a disk.
func files(t *testing.T, disk *crashfs.Disk, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	names, err := disk.List(dir)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, e := disk.Stat(path)
		if err = errors.Join(err, e); info.Dir {
			maps.Copy(out, files(t, disk, path))
		} else if e == nil {
			out[path], e = durable.ReadFile(disk, path)
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// contents gives the files that have content.
func contents(t *testing.T, disk *crashfs.Disk) map[string][]byte {
	t.Helper()
	out := files(t, disk, "/content/places")
	maps.Copy(out, files(t, disk, "/content/packs"))
	delete(out, "/content/places/part") // it says to which folder they belong
	delete(out, "/content/packs/part")
	return out
}

// write makes a file have this content, also on the disk.
func write(disk *crashfs.Disk, path string, b []byte) error {
	f, err := disk.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

type ruin struct {
	what string
	must bool // a Check has to find it
	do   func(*crashfs.Disk) error
}

// padding reports whether a byte is one of many zeros, but neither the first nor the last of them:
// more of them would show nothing new.
func padding(b []byte, at int) bool {
	around := b[max(at-1, 0):min(at+2, len(b))]
	return len(around) == 3 && bytes.Equal(around, make([]byte, 3))
}

// ruins lists every damage: each byte inverted (of long zeros the first and the last), each file
// truncated at some points or removed, each pair of contents exchanged. used says which bytes of a
// file are in use.
func ruins(was map[string][]byte, used func(path string) []session.Range) (all []ruin) {
	paths := slices.Sorted(maps.Keys(was))
	to := func(path string, b []byte) func(*crashfs.Disk) error {
		return func(disk *crashfs.Disk) error { return write(disk, path, b) }
	}
	for i, path := range paths {
		b, name, in := was[path], filepath.Base(path), used(path)
		for at := range b {
			if padding(b, at) {
				continue
			}
			bad := bytes.Clone(b)
			bad[at] ^= 1 << (at % 8)
			all = append(all, ruin{
				fmt.Sprintf("byte %d of %s", at, name),
				session.Touches(in, session.Range{Off: int64(at), End: int64(at) + 1}), to(path, bad),
			})
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if n >= 0 && n < len(b) {
				all = append(all, ruin{
					fmt.Sprintf("%s cut to %d bytes", name, n),
					session.Touches(in, session.Range{Off: int64(n), End: int64(len(b))}), to(path, b[:n]),
				})
			}
		}
		all = append(all, ruin{name + " gone", len(in) > 0, func(disk *crashfs.Disk) error {
			return disk.Remove(path)
		}})
		for _, other := range paths[i+1:] {
			if bytes.Equal(b, was[other]) {
				continue
			}
			all = append(all, ruin{
				fmt.Sprintf("%s and %s exchanged", name, filepath.Base(other)),
				len(in)+len(used(other)) > 0, func(disk *crashfs.Disk) error {
					return errors.Join(write(disk, path, was[other]), write(disk, other, b))
				},
			})
		}
	}
	return all
}

// For each byte of the content that is inverted and each file that is truncated, removed or
// exchanged: a Check names it if it matters, and no reader gets wrong bytes.
func TestEveryByteOfTheContent(t *testing.T) {
	furnished := crashfs.New()
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	f := furnish(t, furnished, stores)
	was := files(t, furnished, "/content")
	named, harmless, refused := 0, 0, 0
	used := inUse(t, stores, f)
	for _, r := range ruins(was, func(path string) []session.Range { return used[path] }) {
		disk := furnished.Kill()
		if err := r.do(disk); err != nil {
			t.Fatal(err)
		}
		h, err := enter(t.Context(), disk, stores, f.Secret)
		if err != nil {
			refused++
			continue
		}
		found, sum, err := h.check(false)
		if err != nil {
			t.Fatalf("%s: %v", r.what, err)
		}
		right, err := h.readAll(f)
		if err != nil {
			t.Errorf("%s: %v", r.what, err)
		}
		up, err := h.uploads.Status(h.ctx, h.me, f.Open)
		if err != nil || !slices.Equal(up.Received, f.Received) {
			t.Errorf("%s: the upload under way has %v, %v", r.what, up.Received, err)
		}
		switch {
		case sum.Wrong > 0:
			named++
		case r.must:
			t.Errorf("%s: not found", r.what)
		case len(right) != len(f.Contents):
			t.Errorf("%s: %d of %d memories can be read, and nothing was found", r.what, len(right), len(f.Contents))
		default:
			harmless++
		}
		for _, f := range found {
			if !f.Note && f.Place == "" {
				t.Errorf("%s: the file is not named: %s", r.what, f.Text)
			}
		}
		if err := h.leave(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d named, %d harmless, %d not opened", named, harmless, refused)
	need := 0
	for _, in := range used {
		for _, r := range in {
			need += int(r.Len())
		}
	}
	if named <= need || need < 150 {
		t.Errorf("only %d ruins were named, of files with %d bytes in use", named, need)
	}
}

// inUse says which bytes of which files a content or the open session uses.
func inUse(t *testing.T, stores *metadatatest.Mem, f facts) map[string][]session.Range {
	used := map[string][]session.Range{}
	add := func(e catalog.Extent) {
		file, base := localblob.Where(e.Place)
		file = filepath.Join("/content", file)
		used[file] = session.Add(used[file], session.Range{Off: base + e.Off, End: base + e.Off + e.Len})
	}
	err := stores.Catalog().View(t.Context(), func(r catalog.Reader) error {
		for c, err := range catalog.Contents.After(r, catalog.ContentKey{}) {
			if err != nil {
				return err
			}
			for _, e := range c.Extents {
				add(e)
			}
		}
		return nil
	})
	entries, e := stores.Sessions().Entries(t.Context(), f.Open, session.All(), 0)
	for _, e := range entries {
		p, e := upload.InspectPiece(e)
		err = errors.Join(err, e)
		add(p.Extent)
	}
	if err = errors.Join(err, e); err != nil {
		t.Fatal(err)
	}
	return used
}

// A repair of ruined content marks damaged memories, drops lost pieces of open uploads, has nothing
// to do the second time, and everything can go on.
func TestRepairOfRuinedContent(t *testing.T) {
	disk := crashfs.New()
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	furnish(t, disk, stores)
	for i := range len(contents(t, disk)) {
		for _, how := range []string{"first", "last", "cut", "gone", "exchanged"} {
			t.Run(fmt.Sprintf("%d %s", i, how), func(t *testing.T) {
				disk := crashfs.New()
				stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
				f := furnish(t, disk, stores)
				was := contents(t, disk)
				paths := slices.Sorted(maps.Keys(was))
				path, next := paths[i], paths[(i+1)%len(paths)]
				b := bytes.Clone(was[path])
				var err error
				switch how {
				case "first":
					b[0] ^= 1
				case "last":
					b[len(b)-1] ^= 128
				case "cut":
					b = b[:len(b)-1]
				case "exchanged":
					b = was[next]
					err = write(disk, next, was[path])
				}
				err = errors.Join(err, write(disk, path, b))
				if how == "gone" {
					err = errors.Join(err, disk.Remove(path))
				}
				h, e := enter(t.Context(), disk, stores, f.Secret)
				if err = errors.Join(err, e); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(repairs(h, f), h.leave()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// repairs repairs a house twice, compares all readable memories before, between and afterwards, and
// then uses the house.
func repairs(h *house, f facts) error {
	before, err := h.readAll(f)
	if err != nil {
		return err
	}
	first, sum, err := h.check(true)
	if err != nil {
		return err
	}
	compare := func() error {
		right, err := h.readAll(f)
		for id := range before {
			if err == nil && !right[id] {
				err = fmt.Errorf("memory %s could be read before the repair", id)
			}
		}
		return err
	}
	if err := compare(); err != nil {
		return err
	}
	again, sum2, err := h.check(true)
	if err != nil {
		return err
	}
	if sum2.Repaired > 0 || sum2.Wrong != sum.Wrong-sum.Repaired {
		return fmt.Errorf("the second repair found other things than the first had left:\n%s\n%s",
			list(first), list(again))
	}
	if err := compare(); err != nil {
		return err
	}
	if err := h.goOn(f); err != nil {
		return err
	}
	found, sum, err := h.check(false)
	for _, f := range found {
		if !f.Note && f.Kind != keeper.KindContent { // a memory in the trash can't be stored again
			return fmt.Errorf("at the end: %s", list(found))
		}
	}
	if err == nil && sum.Left() > 1 {
		err = fmt.Errorf("at the end: %s", list(found))
	}
	return err
}

func list(found []keeper.Finding) string {
	var out []string
	for _, f := range found {
		out = append(out, fmt.Sprintf("  %s: %s (repaired %v, quarantined %v, note %v, %v)",
			f.Kind, f.Text, f.Repaired, f.Quarantined, f.Note, f.Err))
	}
	return strings.Join(out, "\n")
}
