package localblob

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// stored writes content in parts of the given sizes, two parts to a place, and gives their extents
// in this order.
func stored(t *testing.T, s *Store, content []byte, sizes ...int) (extents []catalog.Extent) {
	t.Helper()
	at := 0
	for i, n := range sizes {
		w, err := s.Writer(t.Context(), 7, uint64(i/2), -1)
		if err != nil {
			t.Fatal(err)
		}
		b := content[at : at+n]
		if _, err := w.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
		e, err := w.Commit(t.Context(), int64(at), int64(n), crc32.Checksum(b, castagnoli))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		extents = append(extents, e)
		at += n
	}
	return extents
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// readIn reads with a buffer of the given size, and gives the bytes before the error.
func readIn(t *testing.T, s *Store, extents []catalog.Extent, off, n int64, size int) ([]byte, error) {
	t.Helper()
	r, err := s.Read(t.Context(), extents, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var got bytes.Buffer
	_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, size))
	return got.Bytes(), err
}

// openNew gives a store in a new folder.
func openNew(t *testing.T, opts Options) *Store {
	t.Helper()
	opts.Durability = durable.Process
	s, err := Open(t.TempDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (c *compared) forget() { c.all, c.n = nil, 0 }

// gated is a file system whose reads wait for a gate, and are counted in bytes.
type gated struct {
	durable.FS
	gate  chan struct{} // nil: reads do not wait
	bytes atomic.Int64
}

func (g *gated) OpenFile(path string, flag int, perm os.FileMode) (durable.File, error) {
	f, err := g.FS.OpenFile(path, flag, perm)
	return gatedFile{f, g}, err
}

type gatedFile struct {
	durable.File
	of *gated
}

func (f gatedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.of.gate != nil {
		<-f.of.gate
	}
	n, err := f.File.ReadAt(p, off)
	f.of.bytes.Add(int64(n))
	return n, err
}

// If many readers read parts of one extent at the same time, one of them compares the whole, and
// the others wait for it.
func TestAnExtentIsComparedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const readers, blocks = 20, 50
		fs := &gated{FS: durable.OS{}}
		s := openNew(t, Options{FS: fs})
		content := noise(blocks * markEvery)
		extents := stored(t, s, content, len(content))
		fs.bytes.Store(0)
		fs.gate = make(chan struct{})
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				off := int64(i * (markEvery + 1))
				got, err := readIn(t, s, extents, off, 1, 1)
				if err != nil || !bytes.Equal(got, content[off:off+1]) {
					t.Errorf("byte %d: %v, %v", off, got, err)
				}
			})
		}
		synctest.Wait()
		close(fs.gate)
		wg.Wait()
		if got, want := fs.bytes.Load(), int64(len(content)+readers*markEvery); got != want {
			t.Errorf("%d bytes were read, want %d", got, want)
		}
	})
}

// Every range is what was stored, with known and unknown marks and with any buffer, and also if the
// places are deleted meanwhile.
func TestReadingRanges(t *testing.T) {
	const k = markEvery
	sizes := []int{100, k, 3*k + 5, 2 * k, k - 1, k + 1}
	total := 0
	for _, n := range sizes {
		total += n
	}
	content := noise(total)
	s := openNew(t, Options{})
	extents := stored(t, s, content, sizes...)
	edges := []int64{
		0, 1, 99, 100, 101, 100 + k - 1, 100 + k, 100 + k + 1, 100 + 2*k, 100 + 2*k + 7, 100 + 4*k,
		105 + 4*k, 105 + 5*k, 105 + 6*k - 1, int64(total) - k - 1, int64(total) - 1, int64(total),
	}
	for _, forget := range []bool{true, false} {
		for _, size := range []int{1000, k, 4 * k} {
			for i, from := range edges {
				for _, to := range edges[i:] {
					if forget {
						s.compared.forget()
					}
					if got, err := readIn(t, s, extents, from, to-from, size); err != nil ||
						!bytes.Equal(got, content[from:to]) {
						t.Fatalf("%d bytes from %d in pieces of %d: %d bytes, %v", to-from, from, size, len(got), err)
					}
				}
			}
		}
	}
	r, err := s.Read(t.Context(), extents, 0, int64(total))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, e := range extents {
		if err := s.Delete(t.Context(), e.Place); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("deleted meanwhile: %d bytes, %v", len(got), err)
	}
}

// flip changes one bit of a place on the disk, behind the store's back. It evicts the place's pages
// from the page cache.
func flip(t *testing.T, s *Store, e catalog.Extent, at int64) {
	t.Helper()
	p, _ := parse(e.Place)
	f, err := os.OpenFile(s.path(p.home()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], p.of(e).Off+at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], p.of(e).Off+at); err != nil {
		t.Fatal(err)
	}
}

// A flipped bit is never returned as good. A range with it fails, and a read of the whole extent
// returns no last part. This holds before the extent was ever read, and after it was found right
// and is remembered: then the block with the bit is refused, and all other blocks are read. A
// truncated place fails likewise.
func TestReadingRot(t *testing.T) {
	const k = markEvery
	content := noise(5*k + 10)
	for name, row := range map[string]struct {
		packed int64
		bytes  int64
	}{
		"a place": {-1, 5*k + 10}, "an item of a pack": {0, 5*k + 10}, "a small item": {0, 1000},
		"a small place": {-1, 1000},
	} {
		s, id := openNew(t, Options{Packed: row.packed}), session.SessionID(0)
		for _, known := range []bool{false, true} {
			for _, at := range []int64{0, row.bytes / 2, row.bytes - 1} {
				b := content[:row.bytes]
				id++
				w, err := s.Writer(t.Context(), id, 0, row.bytes)
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.WriteAt(b, 0)
				e, err2 := w.Commit(t.Context(), 0, row.bytes, crc32.Checksum(b, castagnoli))
				if err := errors.Join(err, err2, w.Close()); err != nil {
					t.Fatal(err)
				}
				all := []catalog.Extent{e}
				if known {
					if got, err := readIn(t, s, all, 0, row.bytes, k); err != nil || !bytes.Equal(got, b) {
						t.Fatalf("%s: %v", name, err)
					}
				}
				flip(t, s, e, at)
				for _, size := range []int{100, k, 16 * k} {
					if got, err := readIn(t, s, all, 0, row.bytes, size); !errors.Is(err, blob.ErrCorrupt) ||
						int64(len(got)) >= row.bytes {
						t.Errorf("%s, known %v, bit at %d, whole in %d: %d bytes, %v",
							name, known, at, size, len(got), err)
					}
					for from := int64(0); from < row.bytes; from += k/2 + 3 {
						n := min(row.bytes-from, k/2)
						got, err := readIn(t, s, all, from, n, size)
						hit := from <= at && at < from+n
						good := n == row.bytes || bytes.Equal(got, b[from:from+int64(len(got))])
						if !good || hit && !errors.Is(err, blob.ErrCorrupt) || err == nil && int64(len(got)) != n {
							t.Errorf("%s, known %v, bit at %d, %d from %d in %d: %d bytes, %v",
								name, known, at, n, from, size, len(got), err)
						}
						if !known && !errors.Is(err, blob.ErrCorrupt) {
							t.Errorf("%s, bit at %d, %d from %d: an extent of which nothing is known is trusted",
								name, at, n, from)
						}
					}
				}
			}
		}
	}
	s := openNew(t, Options{})
	e := stored(t, s, content, len(content))[0]
	p, _ := parse(e.Place)
	if err := os.Truncate(s.path(p), 5*k); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{0, e.Len}, {0, 10}, {5 * k, 10}} {
		if got, err := readIn(t, s, []catalog.Extent{e}, r[0], r[1], k); !errors.Is(err, blob.ErrCorrupt) ||
			int64(len(got)) == r[1] {
			t.Errorf("cut, %d bytes from %d: %d bytes, %v", r[1], r[0], len(got), err)
		}
	}
}

// The memory for marks is bounded, however many extents are read.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	var c compared
	for i := range int64(40_000) {
		e := catalog.Extent{Place: "x", Off: i, Len: 8 << 20}
		c.add(e, make([]uint32, 128))
		if c.of(e) == nil {
			t.Fatal("the newest is forgotten")
		}
	}
	if c.n > mostMarks || c.n < mostMarks/2 || c.n != len(c.all)*(128+marksOfOne) {
		t.Errorf("%d, of %d extents", c.n, len(c.all))
	}
	c.add(catalog.Extent{Place: "small"}, make([]uint32, 1))
	c.add(catalog.Extent{Place: "huge"}, make([]uint32, mostMarks))
	if c.of(catalog.Extent{Place: "small"}) != nil || c.of(catalog.Extent{Place: "huge"}) != nil || len(c.all) < 1000 {
		t.Error("what has no use for it, or no space, is remembered")
	}
}
