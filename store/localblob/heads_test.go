package localblob

import (
	"os"
	"testing"

	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/test/crashfs"
	"sluice/session"
)

// An item with a corrupt head can be read by its name, in this incarnation and after any stop.
// Nothing of it is given back when the folder is opened, and a listing says that its place may be
// there. A torn item is listed likewise, and goes when it is deleted.
func TestADamagedHeadIsNoGarbage(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	contents := [][]byte{blobtest.Random(3 * block), blobtest.Random(9000), blobtest.Random(100)}
	var extents []catalog.Extent
	for i, b := range contents {
		extents = append(extents, packed(t, s, session.SessionID(i+1), b))
	}
	persist(t, s, extents...)
	file, base := Where(extents[1].Place)
	f, err := disk.OpenFile("/d/"+file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(off int64) {
		t.Helper()
		var b [1]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 4
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
	flip(base - itemHeader + 3)
	last, _ := parse(extents[2].Place)
	torn := last.off + last.size() // an append that was stopped
	if _, err := f.WriteAt(blobtest.Random(2*block+5), torn); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		after := disk.Image().Kill()
		s.kill()
		disk = after
		s = open(t, "/d", Options{FS: disk})
		for i, e := range extents {
			holds(t, s, e, contents[i])
		}
	}
	all, err := s.Places(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var whole, strange []string
	for _, p := range all {
		switch {
		case !p.Earlier:
			t.Errorf("%s is of this life", p.Name)
		case p.Holds == nil:
			whole = append(whole, p.Name)
		default:
			strange = append(strange, p.Name)
			for i, e := range extents {
				if p.Holds(e.Place) != (i == 1 && len(strange) == 1) {
					t.Errorf("whether place %d is in stretch %d: %v", i, len(strange), p.Holds(e.Place))
				}
			}
		}
	}
	if len(whole) != 2 || whole[0] != extents[0].Place || whole[1] != extents[2].Place || len(strange) != 2 {
		t.Fatalf("whole are %q, and strange %q", whole, strange)
	}
	if err := s.Delete(t.Context(), strange[1]); err != nil {
		t.Fatal(err)
	}
	for i, e := range extents {
		holds(t, s, e, contents[i])
		if err := s.Delete(t.Context(), e.Place); err != nil {
			t.Fatal(err)
		}
	}
	if files := packsOn(t, disk, "/d"); len(files) > 0 {
		t.Errorf("packs %q are left", files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the process died before anything was written to a pack, the pack is listed and can be deleted.
func TestAnEmptyPackIsListed(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	e := packed(t, s, 1, blobtest.Random(10))
	if err := s.Delete(t.Context(), e.Place); err != nil {
		t.Fatal(err)
	}
	after := disk.Image().Kill()
	s.kill()
	s = open(t, "/d", Options{FS: after})
	names := listed(t, s)
	if len(names) != 1 || len(packsOn(t, after, "/d")) != 1 {
		t.Fatalf("listed are %q, and there are packs %q", names, packsOn(t, after, "/d"))
	}
	if err := s.Delete(t.Context(), names[0]); err != nil {
		t.Fatal(err)
	}
	if files := packsOn(t, after, "/d"); len(files) > 0 {
		t.Errorf("packs %q are left", files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
