package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sluice/session"
)

// samples returns an operation of each kind.
func samples() []session.Op {
	s := session.Session{
		ID: 7, Spec: session.Spec{ChunkSize: 4, BytesExpected: 9, Owner: "o\xff", Idem: "i", Note: []byte("n")},
		State: session.Open, Gen: 1, Rev: 1, Began: time.UnixMilli(5).UTC(), LastSeen: time.UnixMilli(6).UTC(), Seen: 3,
	}
	row := s
	row.Gen, row.Received = 9, []session.Range{{Off: 0, End: 3}}
	row.Dropped = []session.Dropped{{Gen: 8, Range: session.Range{Off: 3, End: 4}}}
	return []session.Op{
		{Kind: session.OpCreate, Session: s},
		{Kind: session.OpRecord, ID: 7, Gen: 1, Change: session.Change{
			Add: []session.Entry{{Range: session.Range{Off: 0, End: 3}, Note: []byte("n")}}, Length: session.Unknown,
			Seen: 4, Now: 7,
		}},
		{Kind: session.OpRecord, ID: 7, Gen: 1, Change: session.Change{
			Remove: []session.Range{{Off: 0, End: 3}}, Drop: session.Range{Off: 0, End: 1}, Length: 9,
		}},
		{Kind: session.OpMove, ID: 7, Step: session.Step{Gen: 1, To: session.Sealed, Next: 5, Seen: 8}},
		{Kind: session.OpRow, Session: row, Entries: []session.Entry{{Range: session.Range{Off: 0, End: 3}}}},
		{Kind: session.OpTotals, Totals: session.Stats{Begun: 3, Finished: 1, Newest: 8}},
	}
}

// An operation that can be read keeps its meaning when it is written again, and no part of it is
// ignored. Doing it never panics.
func FuzzOperation(f *testing.F) {
	for _, op := range samples() {
		b, err := frame(op)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[frameHead:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		op, err := parse(payload)
		if err != nil {
			return
		}
		again, err := frame(op)
		if err != nil {
			t.Fatal(err)
		}
		same, err := parse(again[frameHead:])
		if err != nil || !sameOp(t, op, same) {
			t.Fatalf("%v\n%+v\n%+v", err, op, same)
		}
		if _, err := parse(append(bytes.Clone(payload), "{}"...)); err == nil {
			t.Fatal("what follows an operation is passed over")
		}
		if _, err := parse(append(
			bytes.TrimSuffix(bytes.TrimSpace(payload), []byte("}")), `,"totals":{"begun":1},"move":{"id":1}}`...,
		)); err == nil {
			t.Fatal("of two operations in one, one is passed over")
		}
		m := session.NewMem()
		_ = m.Do(op)
		m.Rows()
	})
}

func sameOp(t *testing.T, a, b session.Op) bool {
	x, errX := frame(a)
	y, errY := frame(b)
	if errX != nil || errY != nil {
		t.Fatal(errX, errY)
	}
	return a.Kind == b.Kind && bytes.Equal(x, y)
}

// Any file is either refused with a named error and left as it is, or it opens. Then it opens again
// with the same content.
func FuzzFile(f *testing.F) {
	whole, err := image(samples()[:2])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), make([]byte, 16)...))
	rows, err := image(samples()[4:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rows)
	f.Add(header())
	path := filepath.Join(f.TempDir(), "journal")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(path)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("refused without a name: %v", err)
			}
			if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, b) {
				t.Fatalf("a refused file was changed: %v", err)
			}
			return
		}
		was := rowsOf(j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = Open(path); err != nil {
			t.Fatalf("opened once, and then: %v", err)
		}
		is := rowsOf(j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(was, is) {
			t.Fatalf("%v\n%v", was, is)
		}
	})
}

// rowsOf returns the frames of a journal's content, and how often each occurs.
func rowsOf(j *Journal) map[string]int {
	out := map[string]int{}
	for _, op := range j.Rows() {
		if b, err := frame(op); err == nil {
			out[string(b)]++
		}
	}
	return out
}
