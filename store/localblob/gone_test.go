package localblob

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
)

// twoPlaces writes one place of its own, and one in a pack.
func twoPlaces(t *testing.T, s *Store) (es []catalog.Extent) {
	t.Helper()
	for i, b := range [][]byte{bytes.Repeat([]byte("a"), 3<<20), []byte("small")} {
		size := int64(-1)
		if i == 1 {
			size = int64(len(b))
		}
		w, err := s.Writer(t.Context(), 7, uint64(i), size)
		if err == nil {
			_, err = w.WriteAt(b, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := w.Commit(t.Context(), 0, int64(len(b)), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		es = append(es, e)
	}
	return es
}

// If the whole folder is gone, or nothing in it can be read, no place is lost: no error says that a
// place is missing or corrupt, and no deletion counts as done.
func TestAFolderThatIsGoneIsNoLossOfPlaces(t *testing.T) {
	for name, vanish := range map[string]func(t *testing.T, dir string, disk *sick){
		"removed": func(t *testing.T, dir string, _ *sick) { check(t, os.RemoveAll(dir)) },
		"emptied": func(t *testing.T, dir string, _ *sick) {
			for _, of := range []string{"format", "places", "packs"} {
				check(t, os.RemoveAll(filepath.Join(dir, of)))
			}
		},
		"places alone": func(t *testing.T, dir string, _ *sick) {
			check(t, errors.Join(os.RemoveAll(filepath.Join(dir, "places")), os.RemoveAll(filepath.Join(dir, "packs"))))
		},
		"a dead disk": func(_ *testing.T, _ string, disk *sick) { disk.bad = true },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "content")
			s, err := Open(dir, Options{Durability: durable.Process})
			check(t, err)
			es := twoPlaces(t, s)
			check(t, s.Close())
			disk := &sick{FS: durable.OS{}, all: true}
			s, err = Open(dir, Options{Durability: durable.Process, FS: disk})
			check(t, err)
			vanish(t, dir, disk)
			for _, e := range es {
				want := func(what string, err error) {
					t.Helper()
					if !errors.Is(err, blob.ErrUnavailable) || errors.Is(err, blob.ErrMissing) ||
						errors.Is(err, blob.ErrCorrupt) {
						t.Errorf("%s of %s: %v", what, e.Place, err)
					}
				}
				r, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
					check(t, r.Close())
				}
				want("read", err)
				want("check", s.Check(t.Context(), e, blob.CheckAll))
				if disk.bad {
					continue
				}
				want("persist", s.Persist(t.Context(), []catalog.Extent{e}))
				want("delete", s.Delete(t.Context(), e.Place))
			}
			disk.bad = false
			_ = s.Close()
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A folder that is older than others know repeats no incarnation, and nothing in it counts as
// verified.
func TestAnOlderFolderLivesOn(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{Durability: durable.Process})
	check(t, err)
	es := twoPlaces(t, s)
	check(t, s.Close())
	if life, clean, err := Peek(dir, durable.OS{}, false); life != 1 || !clean || err != nil {
		t.Errorf("life %d, %v, %v", life, clean, err)
	}
	s, err = Open(dir, Options{Durability: durable.Process, AfterIncarnation: 9})
	check(t, err)
	if s.Incarnation != 10 {
		t.Errorf("life %d", s.Incarnation)
	}
	if life, clean, err := Peek(dir, durable.OS{}, false); life != 10 || clean || err != nil {
		t.Errorf("life %d, %v, %v", life, clean, err)
	}
	check(t, s.Check(t.Context(), es[0], blob.CheckBeforeReboot))
	missing := es[0]
	missing.Place = place{id: 7, gen: 3, incarnation: 8}.String()
	if err := s.Check(t.Context(), missing, blob.CheckBeforeReboot); !errors.Is(err, blob.ErrMissing) {
		t.Errorf("a place of a life that this copy does not know: %v", err)
	}
	check(t, s.Close())
	if incarnation, _, err := Peek(filepath.Join(dir, "none"), durable.OS{}, false); incarnation != 0 || err != nil {
		t.Errorf("no folder: incarnation %d, %v", incarnation, err)
	}
}
