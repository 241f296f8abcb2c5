package localblob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/internal/test/crashfs"
	"sluice/session"
)

// tryPacked stores the whole content of a session at once.
func tryPacked(s *Store, id session.SessionID, b []byte) (e catalog.Extent, err error) {
	w, err := s.Writer(context.Background(), id, 0, int64(len(b)))
	if err != nil {
		return e, err
	}
	defer w.Close()
	if _, err := w.WriteAt(b, 0); err != nil {
		return e, err
	}
	return w.Commit(context.Background(), 0, int64(len(b)), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func packed(t *testing.T, s *Store, id session.SessionID, b []byte) catalog.Extent {
	t.Helper()
	e, err := tryPacked(s, id, b)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := parse(e.Place); !ok || p.in == 0 {
		t.Fatalf("%s is in no pack", e.Place)
	}
	return e
}

func persist(t *testing.T, s *Store, extents ...catalog.Extent) {
	t.Helper()
	if err := s.Persist(t.Context(), extents); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, s *Store, e catalog.Extent, want []byte) {
	t.Helper()
	if got, err := content(s, e); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes of %d, %v", e.Place, len(got), len(want), err)
	}
}

func content(s *Store, e catalog.Extent) ([]byte, error) {
	r, err := s.Read(context.Background(), []catalog.Extent{e}, 0, e.Len)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// listed gives the names of all places.
func listed(t *testing.T, s *Store) (names []string) {
	t.Helper()
	all, err := s.Places(t.Context(), "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}

// packsOn gives the names in the folder of the packs.
func packsOn(t *testing.T, on durable.FS, dir string) []string {
	t.Helper()
	names, err := on.List(dir + "/packs")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == partFile })
}

// Many contents at once share packs and syncs. Packs end, and go with their last item. The content
// is the same in the next incarnation.
func TestSmallContentsSharePacks(t *testing.T) {
	disk, syncs := crashfs.New(), 0
	disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if s.Op == crashfs.OpSync && strings.Contains(s.Path, "/packs/") {
			syncs++
		}
		return nil
	})
	s := open(t, "/d", Options{FS: disk, PackSize: 256 << 10})
	const n = 100
	contents, extents := make([][]byte, n), make([]catalog.Extent, n)
	var wg sync.WaitGroup
	for i := range n {
		contents[i] = blobtest.Random(5000 + rand.IntN(20_000))
		wg.Go(func() {
			e, err := tryPacked(s, session.SessionID(i+1), contents[i])
			if err == nil {
				err = s.Persist(context.Background(), []catalog.Extent{e})
			}
			if err != nil {
				t.Error(err)
			}
			extents[i] = e
		})
	}
	wg.Wait()
	if files := packsOn(t, disk, "/d"); len(files) < 5 || len(files) > 20 {
		t.Errorf("%d contents are in packs %q", n, files)
	}
	if syncs > n+40 {
		t.Errorf("%d syncs", syncs)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "/d", Options{FS: disk})
	if names := listed(t, s); len(names) != n {
		t.Errorf("%d of %d are listed", len(names), n)
	}
	for i, e := range extents {
		holds(t, s, e, contents[i])
		if err := s.Check(t.Context(), e, blob.CheckAll); err != nil {
			t.Error(err)
		}
	}
	for i, e := range extents {
		if i%3 > 0 {
			if err := s.Delete(t.Context(), e.Place); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, e := range extents {
		if i%3 == 0 {
			holds(t, s, e, contents[i])
		}
	}
	for _, e := range extents {
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

// Content that has the bytes of a header, at the edge of a block, is not taken for an item, even if
// the header before it is gone.
func TestNoContentLooksLikeAnItem(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	victim := packed(t, s, 1, blobtest.Random(5000))
	file, base := Where(victim.Place)
	f, err := disk.OpenFile("/d/"+file, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	header := make([]byte, itemHeader)
	if _, err := f.ReadAt(header, base-itemHeader); err != nil {
		t.Fatal(err)
	}
	// Two guesses: a copied header, and a header with another key that is right in all else.
	p, _ := parse(victim.Place)
	liar := bytes.Repeat([]byte{7}, 3*block)
	copy(liar[block-itemHeader:], header)
	fake := place{id: 9, incarnation: p.incarnation, in: p.in, off: p.off + p.size() + 2*block, len: 100}
	key, err := newKey(system.Random{})
	if err != nil {
		t.Fatal(err)
	}
	key.header(liar[2*block-itemHeader:], fake)
	e := packed(t, s, 2, liar)
	persist(t, s, victim, e)
	if got := listed(t, s); len(got) != 2 || got[0] != victim.Place || got[1] != e.Place {
		t.Errorf("listed are %q", got)
	}
	w, err := disk.OpenFile("/d/"+file, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, base = Where(e.Place)
	if _, err := w.WriteAt(make([]byte, 10), base-itemHeader); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, s); len(got) != 1 {
		t.Errorf("without its header: listed are %q", got)
	}
	holds(t, s, e, liar)
	if err := errors.Join(f.Close(), w.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// Power loss may leave anything of packs. Persisted items are there. The rest is listed or given
// back, and after everything listed is deleted no pack is left.
func TestPowerLossLeavesNothingInPacks(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := crashfs.New()
		s := open(t, "/d", Options{FS: disk, PackSize: 64 << 10})
		var kept, loose []catalog.Extent
		contents := map[string][]byte{}
		for i := range 1 + rng.IntN(12) {
			b := make([]byte, 1+rng.IntN(3*block))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			e := packed(t, s, session.SessionID(i+1), b)
			contents[e.Place] = b
			switch loose = append(loose, e); rng.IntN(4) {
			case 0:
				persist(t, s, loose...)
				kept, loose = append(kept, loose...), nil
			case 1:
				if n := len(kept); n > 0 {
					if err := s.Delete(t.Context(), kept[n-1].Place); err != nil {
						t.Fatal(err)
					}
					kept = kept[:n-1]
				}
			}
		}
		after := disk.Crash(rng, []int{0, 30, 50, 70, 100}[seed%5])
		s.kill()
		s = open(t, "/d", Options{FS: after})
		there := map[string]bool{}
		for _, name := range listed(t, s) {
			there[name] = true
		}
		for _, e := range kept {
			if !there[e.Place] {
				t.Errorf("seed %d: %s is not listed", seed, e.Place)
			}
			holds(t, s, e, contents[e.Place])
		}
		for _, e := range loose {
			got, err := content(s, e)
			if err == nil && !bytes.Equal(got, contents[e.Place]) {
				t.Errorf("seed %d: %s has other bytes", seed, e.Place)
			}
			if err == nil && !there[e.Place] {
				t.Errorf("seed %d: %s can be read, and is not listed", seed, e.Place)
			}
		}
		for name := range there {
			if err := s.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if files := packsOn(t, after, "/d"); len(files) > 0 {
			t.Errorf("seed %d: packs %q are left", seed, files)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A failed sync loses the items that are in no sync yet, and nothing else. Later items go to
// another pack.
func TestAFailedSyncOfAPack(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	good, bad := packed(t, s, 1, []byte("good")), catalog.Extent{}
	persist(t, s, good)
	bad = packed(t, s, 2, []byte("bad"))
	disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if s.Op == crashfs.OpSync {
			return &crashfs.Fault{Err: syscall.EIO}
		}
		return nil
	})
	var lost *blob.PersistError
	if err := s.Persist(t.Context(), []catalog.Extent{good, bad}); !errors.As(err, &lost) || len(lost.Lost) != 1 ||
		lost.Lost[0] != bad {
		t.Fatalf("%v", err)
	}
	disk.SetHook(nil)
	next := packed(t, s, 3, []byte("next"))
	a, _ := parse(bad.Place)
	if b, _ := parse(next.Place); a.in == b.in {
		t.Error("it is appended to the same pack")
	}
	persist(t, s, next, good)
	if err := s.Persist(t.Context(), []catalog.Extent{bad}); !errors.As(err, &lost) {
		t.Errorf("a second try: %v", err)
	}
	holds(t, s, good, []byte("good"))
	holds(t, s, next, []byte("next"))
	s.kill()
}

// A write that fails harms its put alone, and leaves nothing.
func TestAFailedAppend(t *testing.T) {
	for _, short := range []int{0, 512, block} {
		disk := crashfs.New()
		s := open(t, "/d", Options{FS: disk})
		good := packed(t, s, 1, blobtest.Random(3*block))
		disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
			if s.Op == crashfs.OpWrite {
				return &crashfs.Fault{Err: syscall.EIO, Short: short}
			}
			return nil
		})
		if _, err := tryPacked(s, 2, blobtest.Random(3*block)); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%v", err)
		}
		disk.SetHook(nil)
		next := packed(t, s, 3, []byte("next"))
		persist(t, s, good, next)
		if got := listed(t, s); fmt.Sprint(got) != fmt.Sprint([]string{good.Place, next.Place}) {
			t.Errorf("after %d bytes: listed are %q", short, got)
		}
		for _, e := range []catalog.Extent{good, next} {
			if err := s.Delete(t.Context(), e.Place); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if files := packsOn(t, disk, "/d"); len(files) > 0 {
			t.Errorf("after %d bytes: packs %q are left", short, files)
		}
	}
}

// A deletion refuses a name that covers another place's bytes, and one past its content's end.
func TestDeletingTakesNobodyElsesBytes(t *testing.T) {
	s := open(t, "/d", Options{FS: crashfs.New()})
	a, b := packed(t, s, 1, blobtest.Random(5000)), packed(t, s, 2, blobtest.Random(5000))
	p, _ := parse(a.Place)
	for _, wrong := range []place{
		{id: p.id, incarnation: p.incarnation, in: p.in, off: p.off, len: p.len + block},
		{id: p.id + 1, incarnation: p.incarnation, in: p.in, off: p.off, len: p.len},
		{id: p.id, incarnation: p.incarnation, in: p.in, off: p.off - block, len: p.len},
	} {
		if err := s.Delete(t.Context(), wrong.String()); err == nil {
			t.Errorf("%s was deleted", wrong)
		}
	}
	for _, e := range []catalog.Extent{a, b} {
		if err := s.Check(t.Context(), e, blob.CheckAll); err != nil {
			t.Error(err)
		}
		if err := s.Delete(t.Context(), e.Place); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the first block of a pack is damaged, its places can be read and deleted, but not listed by
// name.
func TestAPackWithoutItsKey(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	b := blobtest.Random(9000)
	e := packed(t, s, 1, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, _ := Where(e.Place)
	f, err := disk.OpenFile("/d/"+file, 2, 0)
	b30 := make([]byte, 1)
	if err == nil {
		_, err = f.ReadAt(b30, 30)
	}
	if err == nil {
		b30[0] ^= 1
		_, err = f.WriteAt(b30, 30)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, "/d", Options{FS: disk.Kill()})
	holds(t, s, e, b)
	if err := s.Check(t.Context(), e, blob.CheckAll); err != nil {
		t.Error(err)
	}
	all, err := s.Places(t.Context(), "", 10)
	if err != nil || len(all) != 1 || all[0].Holds == nil || !all[0].Holds(e.Place) {
		t.Errorf("listed are %+v, %v", all, err)
	}
	if err := s.Delete(t.Context(), e.Place); err != nil {
		t.Error(err)
	}
	if _, err := content(s, e); !errors.Is(err, blob.ErrMissing) {
		t.Errorf("after it was deleted: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// withoutPunch is a file system that can't give back parts of files.
type withoutPunch struct{ *crashfs.Disk }

type rigidFile struct{ durable.File }

func (r withoutPunch) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := r.Disk.OpenFile(path, flag, perm)
	return rigidFile{f}, err
}

func (rigidFile) Punch(int64, int64) error { return errors.ErrUnsupported }

// If the file system can't punch there are no packs. Packs that were copied there are used up.
func TestWithoutPunching(t *testing.T) {
	disk := crashfs.New()
	s := open(t, "/d", Options{FS: disk})
	b := blobtest.Random(9000)
	e := packed(t, s, 1, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "/d", Options{FS: withoutPunch{disk}})
	own, err := tryPacked(s, 2, b)
	if p, _ := parse(own.Place); err != nil || p.in > 0 {
		t.Errorf("%+v, %v", own, err)
	}
	holds(t, s, e, b)
	holds(t, s, own, b)
	if err := s.Delete(t.Context(), e.Place); err != nil {
		t.Error(err)
	}
	if got := listed(t, s); len(got) != 1 || got[0] != own.Place {
		t.Errorf("listed are %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Content gets a file of its own if it arrives in parts, is too long, or is only a part of a
// session.
func TestWhatIsNotPacked(t *testing.T) {
	s := open(t, "/d", Options{FS: crashfs.New(), Packed: 10_000})
	for _, c := range []struct {
		size   int64
		pieces []int
	}{{-1, []int{100}}, {10_001, []int{10_001}}, {100, []int{50, 50}}, {100, []int{99}}, {0, []int{10}}} {
		w, err := s.Writer(t.Context(), 7, 0, c.size)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(0)
		for _, n := range c.pieces {
			if _, err := w.WriteAt(make([]byte, n), at); err != nil {
				t.Fatal(err)
			}
			at += int64(n)
		}
		e, err := w.Commit(t.Context(), 0, at, 0)
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		if p, ok := parse(e.Place); !ok || p.in > 0 {
			t.Errorf("%+v is at %s", c, e.Place)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A restored item is like one that was appended.
func TestAdoptedItems(t *testing.T) {
	from, to := open(t, "/d", Options{FS: crashfs.New()}), crashfs.New()
	contents := map[catalog.Extent][]byte{}
	for i := range 5 {
		b := blobtest.Random(1 + i*5000)
		contents[packed(t, from, session.SessionID(i+1), b)] = b
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, "/d", Options{FS: to})
	for e, b := range contents {
		f, err := s.Adopt(e.Place)
		if err == nil {
			_, err = f.WriteAt(b, e.Off)
		}
		if err == nil {
			if _, err := f.WriteAt([]byte{1}, e.Len); err == nil {
				t.Error("more than the item can hold was written")
			}
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseAdopted(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "/d", Options{FS: to})
	if got := listed(t, s); len(got) != len(contents) {
		t.Errorf("listed are %q", got)
	}
	for e, b := range contents {
		holds(t, s, e, b)
		if err := s.Delete(t.Context(), e.Place); err != nil {
			t.Error(err)
		}
	}
	if files := packsOn(t, to, "/d"); len(files) > 0 {
		t.Errorf("packs %q are left", files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// slow is a disk whose writes past the cache wait while hold is set.
type slow struct {
	*crashfs.Disk
	wait func()
}

type slowFile struct {
	durable.File
	on slow
}

type slowDirect struct {
	durable.DirectFile
	on slow
}

func (d slow) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	return slowFile{f, d}, err
}

func (f slowFile) Direct() (durable.DirectFile, error) {
	d, err := f.File.Direct()
	return slowDirect{d, f.on}, err
}

func (f slowDirect) WriteAt(p []byte, off int64) (int, error) {
	f.on.wait()
	return f.DirectFile.WriteAt(p, off)
}

// A pack stays while an item is being written to it, even if it gets no more items and is empty
// yet.
func TestAPackThatIsWrittenToStays(t *testing.T) {
	disk := crashfs.New()
	waiting, begun := make(chan struct{}), make(chan struct{})
	var writes atomic.Int64
	s := open(t, "/d", Options{FS: slow{disk, func() {
		if writes.Add(1) == 1 {
			close(begun)
			<-waiting
		}
	}}, PackSize: 2 * block})
	var late, next catalog.Extent
	var wg sync.WaitGroup
	store := func(e *catalog.Extent, id session.SessionID, what string) {
		wg.Go(func() {
			var err error
			if *e, err = tryPacked(s, id, []byte(what)); err != nil {
				t.Error(err)
			}
		})
	}
	store(&late, 1, "late")
	<-begun
	store(&next, 2, "next")
	second := func(name string) bool { return strings.HasSuffix(name, "-00000002") }
	for !slices.ContainsFunc(packsOn(t, disk, "/d"), second) { // until the first one gets no more
		time.Sleep(time.Millisecond)
	}
	close(waiting)
	wg.Wait()
	persist(t, s, next, late)
	after := disk.Kill()
	s.kill()
	s = open(t, "/d", Options{FS: after})
	holds(t, s, next, []byte("next"))
	holds(t, s, late, []byte("late"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A folder without packs gets the number of the format that has them, so that no older program
// opens it.
func TestAFolderOfFormat1IsRaised(t *testing.T) {
	disk := crashfs.New()
	if err := open(t, "/d", Options{FS: disk}).Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(disk.Remove("/d/packs/part"), disk.Remove("/d/packs"), disk.Remove("/d/places/part"),
		disk.Remove("/d/parts"), durable.WriteFile(disk, "/d/format", []byte("sluice content, format 1\n"),
			0o600)); err != nil {
		t.Fatal(err)
	}
	s := open(t, "/d", Options{FS: disk})
	packed(t, s, 1, []byte("x"))
	if text, err := durable.ReadFile(disk, "/d/format"); err != nil || string(text) != "sluice content, format 2\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
