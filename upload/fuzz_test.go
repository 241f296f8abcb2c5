package upload

import (
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/session"
)

// A note that can be decoded means the same after it is encoded again: decoding guesses nothing,
// and encoding loses nothing.
func FuzzNote(f *testing.F) {
	for _, n := range []note{{}, {
		Capsule: "c", Idem: "i", Fingerprint: []byte{1, 2},
		Meta: catalog.Meta{
			Name: "n", Path: "p/q", MIME: "text/plain", Description: "d", Tags: []string{"t", "u"},
			Width: 1, Height: 2, TakenAt: time.UnixMilli(3),
		},
	}} {
		b, err := n.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzNoted(t, b, decodeNote, note.encode) })
}

func FuzzPiece(f *testing.F) {
	for _, p := range []entryNote{{}, {Place: "p", Off: 5, CRC: 7, Gen: 3, Hashed: 9, State: []byte("s")}} {
		b, err := p.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzNoted(t, b, decodeEntryNote, entryNote.encode) })
}

func fuzzNoted[N any](t *testing.T, b []byte, decode func([]byte) (N, error), encode func(N) ([]byte, error)) {
	n, err := decode(b)
	if err != nil {
		if !errors.Is(err, errNote) {
			t.Fatalf("refused without a name: %v", err)
		}
		return
	}
	once, err := encode(n)
	if err != nil {
		t.Fatal(err)
	}
	same, err := decode(once)
	if err != nil || !reflect.DeepEqual(n, same) {
		t.Fatalf("%v\n%+v\n%+v", err, n, same)
	}
	if _, err := decode(append(append([]byte(nil), b...), 0)); err == nil {
		t.Fatal("what follows a note is passed over")
	}
}

// The entries of one put, split anywhere and merged one after the other, have the CRC of the whole
// and the furthest state. Entries that do not lie side by side at one place are not merged.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("some bytes of a chunk"), uint8(3), uint8(9), "p", int64(5), int64(2), int64(0), "p")
	f.Add([]byte{0}, uint8(0), uint8(0), "", int64(0), int64(9), int64(1), "q")
	f.Fuzz(func(t *testing.T, data []byte, first, second uint8, place string, at, hashed, gap int64, other string) {
		i := min(int(first), len(data))
		j := min(i+int(second), len(data))
		entry := func(place string, off, from, to int, hashed int64, shift int64) session.Entry {
			p := entryNote{
				Place:  place,
				Off:    at + int64(off) + shift,
				CRC:    crc32.Checksum(data[from:to], castagnoli),
				Gen:    uint64(from),
				Hashed: hashed,
				State:  data[from:to],
			}
			note, err := p.encode()
			if err != nil {
				t.Fatal(err)
			}
			return session.Entry{Range: session.Range{Off: int64(from), End: int64(to)}, Note: note}
		}
		a, b := entry(place, 0, 0, i, hashed, 0), entry(place, i, i, j, hashed+1, 0)
		c := entry(place, j, j, len(data), 1, 0)
		ab, ok := merge(a, b)
		whole := session.Entry{Range: session.Range{Off: 0, End: int64(j)}, Note: ab}
		if !ok {
			if _, err := decodeEntryNote(a.Note); err == nil {
				t.Fatal("neighbours are not merged")
			}
			return // a name that is not UTF-8: no note has it
		}
		all, ok := merge(whole, c)
		p, err := decodeEntryNote(all)
		if !ok || err != nil || p.Place != place || p.Off != at || p.CRC != crc32.Checksum(data, castagnoli) {
			t.Fatalf("%v, %v: %+v", ok, err, p)
		}
		if want := max(hashed, hashed+1, 1); p.Hashed != want {
			t.Fatalf("hashed %d, want %d", p.Hashed, want)
		}
		if _, ok := merge(a, entry(other, i, i, j, 0, gap)); ok && (other != place || gap != 0) {
			t.Fatalf("merged, although it lies at %q, %d further", other, gap)
		}
	})
}

// For any two notes, merging does not panic, and gives a note only if both are notes.
func FuzzMergeNotes(f *testing.F) {
	good, err := entryNote{Place: "p", Off: 4, CRC: 1}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, good, int64(4))
	f.Add(good, []byte{}, int64(0))
	f.Fuzz(func(t *testing.T, a, b []byte, n int64) {
		r := session.Range{End: n & (1<<40 - 1)}
		merged, ok := merge(
			session.Entry{Range: r, Note: a}, session.Entry{Range: session.Range{Off: r.End, End: r.End + 1}, Note: b},
		)
		_, errA := decodeEntryNote(a)
		_, errB := decodeEntryNote(b)
		_, err := decodeEntryNote(merged)
		if ok && (errA != nil || errB != nil || err != nil) {
			t.Fatal(errA, errB, err)
		}
	})
}

// Combining gives the CRC of the concatenated bytes for any lengths, and does not depend on the
// order of combining.
func FuzzCombineCRC(f *testing.F) {
	f.Add([]byte("a"), []byte("b"), uint32(1), int64(1), int64(1))
	f.Add([]byte{}, []byte{}, uint32(0), int64(0), int64(1)<<62)
	f.Fuzz(func(t *testing.T, a, b []byte, c uint32, n, m int64) {
		x, y := crc32.Checksum(a, castagnoli), crc32.Checksum(b, castagnoli)
		want := crc32.Checksum(append(append([]byte(nil), a...), b...), castagnoli)
		if got := combineCRC(x, y, int64(len(b))); got != want {
			t.Fatalf("%08x, want %08x", got, want)
		}
		n, m = n&(1<<61-1), m&(1<<61-1)
		left, right := combineCRC(combineCRC(x, y, n), c, m), combineCRC(x, combineCRC(y, c, m), n+m)
		if left != right {
			t.Fatalf("(x‖y)‖z is %08x, x‖(y‖z) is %08x", left, right)
		}
	})
}
