package blobtest

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// TestStore is the suite that every content store passes. It runs with small contents that the
// store is told of, and without. open gives an empty store; corrupt flips a bit of a place's
// content, at an offset in the place.
func TestStore(t *testing.T, open func(t *testing.T) (s blob.Store, corrupt func(place string, off int64))) {
	for name, store := range map[string]storing{"in parts": storeParts, "whole": storeWhole} {
		t.Run(name, func(t *testing.T) { testStore(t, open, store) })
	}
}

// storing stores b at an offset of the session.
type storing func(t testing.TB, s blob.Store, id session.SessionID, gen uint64, off int64, b []byte) catalog.Extent

func testStore(
	t *testing.T, open func(t *testing.T) (s blob.Store, corrupt func(place string, off int64)), store storing,
) {
	t.Run("nothing exists before the first byte", func(t *testing.T) {
		s, _ := open(t)
		w, err := s.Writer(t.Context(), 1, 0, -1)
		check(t, err)
		check(t, w.Close())
		if places(t, s) != nil {
			t.Error("a place without a byte")
		}
	})
	t.Run("any part of any extents", func(t *testing.T) {
		s, _ := open(t)
		var all []byte
		var extents []catalog.Extent
		for i := range 7 {
			b := Random(1 + rand.IntN(70_000))
			extents = append(extents, store(t, s, session.SessionID(1+i/2), uint64(i%3), int64(i)*100_000, b))
			all = append(all, b...)
		}
		check(t, s.Persist(t.Context(), extents))
		rapid.Check(t, func(rt *rapid.T) {
			off := rapid.IntRange(0, len(all)).Draw(rt, "off")
			n := rapid.IntRange(0, len(all)-off).Draw(rt, "n")
			content, err := s.Read(t.Context(), extents, int64(off), int64(n))
			if err != nil {
				rt.Fatal(err)
			}
			defer content.Close()
			got, err := io.ReadAll(content)
			if err != nil || !bytes.Equal(got, all[off:off+n]) {
				rt.Fatalf("%d of %d bytes from %d, %v", len(got), n, off, err)
			}
		})
		if _, err := s.Read(t.Context(), extents, int64(len(all)), 1); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("past the end: %v", err)
		}
	})
	t.Run("writers share a place", func(t *testing.T) {
		s, _ := open(t)
		const n = 10_001 // no multiple of a block
		var wg sync.WaitGroup
		extents := make([]catalog.Extent, 20)
		want := make([][]byte, len(extents))
		for i := range extents {
			want[i] = Random(n)
			wg.Go(func() { extents[i] = store(t, s, 5, 0, int64(i)*n, want[i]) })
		}
		wg.Wait()
		read(t, s, extents, bytes.Join(want, nil))
	})
	t.Run("what a put left uncommitted is written again", func(t *testing.T) {
		s, _ := open(t)
		kept, fresh := Random(7000), Random(5000)
		a := store(t, s, 6, 0, 0, kept)
		w, err := s.Writer(t.Context(), 6, 0, -1)
		check(t, err)
		_, err = w.WriteAt(Random(3000), 7000)
		check(t, errors.Join(err, w.Close()))
		b := store(t, s, 6, 0, 7000, fresh)
		check(t, s.Persist(t.Context(), []catalog.Extent{a, b}))
		check(t, s.Check(t.Context(), a, blob.CheckAll))
		check(t, s.Check(t.Context(), b, blob.CheckAll))
		read(t, s, []catalog.Extent{b, a, b}, slices.Concat(fresh, kept, fresh))
	})
	t.Run("what is undone and trimmed harms no neighbour", func(t *testing.T) {
		s, _ := open(t)
		left, right := Random(9000), Random(20_000)
		a, b := store(t, s, 6, 0, 0, left), store(t, s, 6, 0, 59_000, right)
		w, err := s.Writer(t.Context(), 6, 0, -1)
		check(t, err)
		_, err = w.WriteAt(Random(50_000), 9000)
		check(t, err)
		place, err := w.Undo([]session.Range{{Off: 9000, End: 59_000}})
		check(t, errors.Join(err, w.Close()))
		both := []catalog.Extent{a, b}
		for range 2 {
			for _, e := range both {
				check(t, s.Check(t.Context(), e, blob.CheckAll))
			}
			read(t, s, both, slices.Concat(left, right))
			if place != "" {
				check(t, s.Trim(t.Context(), place, both))
			}
		}
		check(t, s.Trim(t.Context(), "0000000000000009-0-1", nil)) // there is none
	})
	t.Run("content without a byte", func(t *testing.T) {
		s, _ := open(t)
		check(t, s.Persist(t.Context(), nil))
		read(t, s, nil, nil)
		e := store(t, s, 6, 0, 0, []byte("x"))
		for off := range int64(2) {
			content, err := s.Read(t.Context(), []catalog.Extent{e}, off, 0)
			check(t, err)
			if b, err := io.ReadAll(content); len(b) > 0 || err != nil {
				t.Errorf("from %d: %q, %v", off, b, err)
			}
			check(t, content.Close())
		}
	})
	t.Run("readers keep to the rules", func(t *testing.T) {
		s, _ := open(t)
		var wg sync.WaitGroup
		a, b := Random(3001), Random(777)
		extents := []catalog.Extent{store(t, s, 6, 0, 0, a), store(t, s, 7, 0, 0, b)}
		for range 4 {
			wg.Go(func() {
				content, err := s.Read(context.Background(), extents, 0, 3778)
				if err == nil {
					err = errors.Join(iotest.TestReader(content, slices.Concat(a, b)), content.Close())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("another generation is another place", func(t *testing.T) {
		s, _ := open(t)
		old, fresh := Random(5000), Random(5000)
		a := store(t, s, 9, 0, 0, old)
		b := store(t, s, 9, 7, 0, fresh)
		if a.Place == b.Place {
			t.Fatal("the same place")
		}
		read(t, s, []catalog.Extent{a}, old)
		read(t, s, []catalog.Extent{b}, fresh)
	})
	t.Run("a flipped bit is found", func(t *testing.T) {
		s, corrupt := open(t)
		e := store(t, s, 3, 0, 0, Random(300_000))
		other := store(t, s, 3, 0, 300_000, Random(1000))
		check(t, s.Persist(t.Context(), []catalog.Extent{e, other}))
		check(t, s.Check(t.Context(), e, blob.CheckAll))
		corrupt(e.Place, e.Off+123_456)
		if err := s.Check(t.Context(), e, blob.CheckAll); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("check: %v", err)
		}
		check(t, s.Check(t.Context(), other, blob.CheckAll))
		content, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
		if err == nil {
			var n int64
			n, err = io.Copy(io.Discard, content)
			content.Close()
			if n == e.Len {
				t.Error("corrupt bytes were handed out to the end")
			}
		}
		if !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("deleting", func(t *testing.T) {
		s, _ := open(t)
		b := Random(200_000)
		e := store(t, s, 4, 0, 0, b)
		content, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
		check(t, err)
		for range 2 {
			check(t, s.Delete(t.Context(), e.Place))
		}
		if _, err := s.Read(t.Context(), []catalog.Extent{e}, 0, 1); !errors.Is(err, blob.ErrMissing) {
			t.Errorf("read: %v", err)
		}
		if err := s.Check(t.Context(), e, blob.CheckAll); !errors.Is(err, blob.ErrMissing) {
			t.Errorf("check: %v", err)
		}
		var failed *blob.PersistError
		if err := s.Persist(t.Context(), []catalog.Extent{e}); err != nil && !errors.As(err, &failed) {
			t.Errorf("persist: %v", err)
		}
		if ps := places(t, s); ps != nil {
			t.Errorf("still listed: %v", ps)
		}
		got, err := io.ReadAll(content)
		content.Close()
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("a reader lost its place: %v", err)
		}
		if _, err := s.Read(t.Context(), []catalog.Extent{e}, 0, 1); !errors.Is(err, blob.ErrMissing) {
			t.Errorf("read, when it has left: %v", err)
		}
		if ps := places(t, s); ps != nil {
			t.Errorf("listed again: %v", ps)
		}
	})
	t.Run("places are listed in order, page by page", func(t *testing.T) {
		s, _ := open(t)
		want := map[string]session.SessionID{}
		for range 50 {
			id := session.SessionID(rand.Uint64() | 1)
			want[store(t, s, id, 0, 0, []byte("x")).Place] = id
		}
		for _, p := range places(t, s) {
			if want[p.Name] != p.Session {
				t.Errorf("%+v", p)
			}
			delete(want, p.Name)
		}
		if len(want) > 0 {
			t.Errorf("%d are not listed", len(want))
		}
	})
	t.Run("a place that ends early is corrupt", func(t *testing.T) {
		s, _ := open(t)
		e := store(t, s, 3, 0, 0, Random(9000))
		for _, r := range []session.Range{
			{Off: 0, End: 9001}, {Off: 8999, End: 9500}, {Off: 9100, End: 9101}, {Off: 1 << 20, End: 2 << 20},
		} {
			e.Off, e.Len = r.Off, r.Len()
			if err := s.Check(t.Context(), e, blob.CheckAll); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("check of %v: %v", r, err)
			}
			content, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
			if err == nil {
				_, err = io.Copy(io.Discard, content)
				content.Close()
			}
			if !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("read of %v: %v", r, err)
			}
		}
	})
	t.Run("there is free space", func(t *testing.T) {
		s, _ := open(t)
		if n, err := s.Free(t.Context()); err != nil || n <= 0 {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Random gives n random bytes.
func Random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// storeWhole tells the store that b is the whole content, and writes it at once.
func storeWhole(t testing.TB, s blob.Store, id session.SessionID, gen uint64, off int64, b []byte) catalog.Extent {
	t.Helper()
	return storeAs(t, s, id, gen, int64(len(b)), off, b, len(b))
}

// storeParts writes b in parts.
func storeParts(t testing.TB, s blob.Store, id session.SessionID, gen uint64, off int64, b []byte) catalog.Extent {
	t.Helper()
	return storeAs(t, s, id, gen, -1, off, b, 1+rand.IntN(40_000))
}

// storeAs writes b in parts of at most so many bytes.
func storeAs(
	t testing.TB, s blob.Store, id session.SessionID, gen uint64, size, off int64, b []byte, most int,
) catalog.Extent {
	t.Helper()
	w, err := s.Writer(context.Background(), id, gen, size)
	if err != nil {
		t.Error(err)
		return catalog.Extent{}
	}
	for at := 0; at < len(b); {
		n := min(len(b)-at, most)
		if k, err := w.WriteAt(b[at:at+n], off+int64(at)); err != nil || k != n {
			t.Errorf("wrote %d of %d: %v", k, n, err)
			return catalog.Extent{}
		}
		at += n
	}
	e, err := w.Commit(context.Background(), off, int64(len(b)), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if err = errors.Join(err, w.Close()); err != nil {
		t.Error(err)
	}
	return e
}

func read(t testing.TB, s blob.Store, extents []catalog.Extent, want []byte) {
	t.Helper()
	content, err := s.Read(t.Context(), extents, 0, int64(len(want)))
	check(t, err)
	defer content.Close()
	if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes differ from %d, %v", len(got), len(want), err)
	}
}

func places(t testing.TB, s blob.Store) (all []blob.PlaceInfo) {
	t.Helper()
	after := ""
	for {
		page, err := s.Places(t.Context(), after, 3)
		check(t, err)
		if len(page) == 0 {
			return all
		}
		for _, p := range page {
			if p.Name <= after {
				t.Errorf("%s comes after %s", p.Name, after)
			}
			after = p.Name
		}
		all = append(all, page...)
	}
}
