package sessiontest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sluice/session"
)

func recordsAddUp(t *testing.T, st store) {
	s := st.create(spec(1, "o", ""))
	s = st.record(s, add(rng(50, 60), rng(20, 30)))
	st.same([]session.Range{rng(20, 30), rng(50, 60)}, s.Received)
	s = st.record(s, add(rng(30, 40)))
	s = st.record(s, add(rng(0, 1)))
	st.same([]session.Range{rng(0, 1), rng(20, 40), rng(50, 60)}, s.Received)
	if s.EntryCount != 4 || s.Gen != 1 || s.State != session.Open {
		t.Errorf("%d pieces, generation %d, %v", s.EntryCount, s.Gen, s.State)
	}
	st.same([]session.Entry{
		{Range: rng(0, 1), Note: []byte("at 0")},
		{Range: rng(20, 30), Note: []byte("at 20")},
		{Range: rng(30, 40), Note: []byte("at 30")},
		{Range: rng(50, 60), Note: []byte("at 50")},
	}, st.entries(1, session.All(), 0))
	// An entry may have no note, or the longest one.
	s = st.record(s, session.Change{Length: session.Unknown, Add: []session.Entry{
		{Range: rng(60, 61)}, {Range: rng(61, 62), Note: make([]byte, session.MaxEntryNote)},
	}})
	if es := st.entries(1, rng(60, 62), 0); len(es) != 2 || len(es[0].Note) != 0 ||
		len(es[1].Note) != session.MaxEntryNote {
		t.Errorf("%d entries", len(es))
	}
	// Another session has no such entries.
	st.same(0, len(st.create(spec(2, "o", "")).Received))
	st.same(0, len(st.entries(2, session.All(), 0)))
}

func refusals(t *testing.T, st store) {
	st.record(st.create(spec(1, "o", "")), add(rng(20, 30), rng(50, 60)))
	open := st.create(session.Session{
		ID: 2, Spec: session.Spec{ChunkSize: 10, BytesExpected: session.Unknown}, Began: began, LastSeen: began,
	})
	st.record(open, add(rng(20, 30)))
	length := func(n int64) session.Change { return session.Change{Length: n} }
	remove := func(rs ...session.Range) session.Change {
		return session.Change{Remove: rs, Drop: rs[0], Length: session.Unknown}
	}
	bad := add(rng(70, 80), rng(0, 10), rng(9, 12))
	for _, c := range []struct {
		name   string
		id     session.SessionID
		gen    uint64
		change session.Change
		want   error
	}{
		{"no such session", 9, 1, add(rng(0, 10)), session.ErrNotFound},
		{"an older generation", 1, 0, add(rng(0, 10)), session.ErrFenced},
		{"a generation to come", 1, 2, add(rng(0, 10)), session.ErrFenced},
		{"the same again", 1, 1, add(rng(20, 30)), session.ErrOverlap},
		{"a byte at the left", 1, 1, add(rng(10, 21)), session.ErrOverlap},
		{"a byte at the right", 1, 1, add(rng(29, 40)), session.ErrOverlap},
		{"inside", 1, 1, add(rng(24, 26)), session.ErrOverlap},
		{"around", 1, 1, add(rng(0, 100)), session.ErrOverlap},
		{"within itself", 1, 1, bad, session.ErrOverlap},
		{"no byte", 1, 1, add(rng(10, 10)), session.ErrOverlap},
		{"below 0", 1, 1, add(rng(-1, 10)), session.ErrOverlap},
		{"past the length", 1, 1, add(rng(90, 101)), session.ErrLength},
		{"another length", 1, 1, length(99), session.ErrLength},
		{"a length that cuts off", 2, 1, length(29), session.ErrLength},
		{"removing what is not there", 1, 1, remove(rng(0, 10)), session.ErrOverlap},
		{"removing a part", 1, 1, remove(rng(20, 25)), session.ErrOverlap},
		{"removing too much", 1, 1, remove(rng(20, 31)), session.ErrOverlap},
		{"removing twice", 1, 1, remove(rng(20, 30), rng(20, 30)), session.ErrOverlap},
		{"removing one that is there and one that is not", 1, 1, remove(rng(20, 30), rng(50, 59)), session.ErrOverlap},
	} {
		t.Run(c.name, func(t *testing.T) {
			store{st.Store, t}.refuse(c.id, c.want, func() error {
				_, err := st.Record(t.Context(), c.id, c.gen, c.change)
				return err
			})
		})
	}
	for i, c := range []struct {
		to   session.State
		want error
	}{
		{session.Sealed, session.ErrSealed},
		{session.Finished, session.ErrFinished},
		{session.Aborted, session.ErrAborted},
		{session.Expired, session.ErrExpired},
	} {
		t.Run(c.to.String(), func(t *testing.T) {
			st := store{st.Store, t}
			s := st.create(spec(session.SessionID(10+i), "o", ""))
			s = st.move(s, session.Step{Gen: s.Gen, To: c.to, Next: s.Gen + 1})
			st.refuse(s.ID, c.want, func() error {
				_, err := st.Record(t.Context(), s.ID, s.Gen, add(rng(0, 10)))
				return err
			})
		})
	}
	if _, err := st.Record(t.Context(), 1, 1, add(rng(0, 20), rng(30, 50), rng(60, 100))); err != nil {
		t.Errorf("what fits after all that: %v", err)
	}
}

func replaces(t *testing.T, st store) {
	s := st.record(st.create(spec(1, "o", "")), add(rng(0, 10), rng(10, 20), rng(30, 40)))
	// Two entries become one.
	c := add(rng(0, 20))
	c.Remove = []session.Range{rng(0, 10), rng(10, 20)}
	c.Add[0].Note = []byte("joined")
	s = st.record(s, c)
	if s.EntryCount != 2 || s.Gen != 1 {
		t.Errorf("%d pieces, generation %d", s.EntryCount, s.Gen)
	}
	// One entry gets another note.
	c = add(rng(30, 40))
	c.Remove, c.Add[0].Note = []session.Range{rng(30, 40)}, []byte("new")
	s = st.record(s, c)
	st.same([]session.Range{rng(0, 20), rng(30, 40)}, s.Received)
	st.same([]session.Entry{
		{Range: rng(0, 20), Note: []byte("joined")}, {Range: rng(30, 40), Note: []byte("new")},
	}, st.entries(1, session.All(), 0))
}

func dropFences(t *testing.T, st store) {
	s := st.record(st.create(spec(1, "o", "")), add(rng(0, 10), rng(10, 20), rng(30, 40)))
	old := s.Gen
	// Bytes in the middle are dropped; the rest of a split entry replaces it.
	c := add(rng(0, 5))
	c.Remove, c.Drop = []session.Range{rng(0, 10), rng(10, 20)}, rng(5, 20)
	s = st.record(s, c)
	if s.Gen <= old || s.EntryCount != 2 || !s.Stale(old, rng(6, 7)) || s.Stale(old, rng(0, 5)) ||
		s.Stale(s.Gen, rng(0, 100)) {
		t.Errorf("generation %d after %d, %d pieces, dropped %v", s.Gen, old, s.EntryCount, s.Dropped)
	}
	st.same([]session.Range{rng(0, 5), rng(30, 40)}, s.Received)
	st.same([]session.Entry{
		{Range: rng(0, 5), Note: []byte("at 0")}, {Range: rng(30, 40), Note: []byte("at 30")},
	}, st.entries(1, session.All(), 0))
	st.refuse(1, session.ErrFenced, func() error {
		_, err := st.Record(t.Context(), 1, old, add(rng(50, 60)))
		return err
	})
	s = st.record(s, add(rng(5, 20)))
	if s.Received[0] != rng(0, 20) {
		t.Errorf("received %v", s.Received)
	}
}

func dropsRemembered(t *testing.T, st store) {
	s := st.create(spec(1, "o", ""))
	gens := []uint64{s.Gen}
	for i := range int64(100) {
		r := rng(i, i+1)
		s = st.record(s, add(r))
		s = st.record(s, session.Change{Remove: []session.Range{r}, Drop: r, Length: session.Unknown})
		gens = append(gens, s.Gen)
	}
	if len(s.Dropped) > 100 || len(s.Received) != 0 || s.EntryCount != 0 {
		t.Errorf("%d drops, %v received in %d pieces", len(s.Dropped), s.Received, s.EntryCount)
	}
	for i := range int64(100) {
		if !s.Stale(gens[i], rng(i, i+1)) {
			t.Fatalf("drop %d is forgotten", i)
		}
	}
	if s.Stale(gens[99], rng(0, 99)) {
		t.Error("the latest drop counts for bytes that it did not touch")
	}
}

func lengths(t *testing.T, st store) {
	open := session.Session{
		ID: 1, Spec: session.Spec{ChunkSize: 10, BytesExpected: session.Unknown}, Began: began, LastSeen: began,
	}
	s := st.record(st.create(open), add(rng(20, 30)))
	if s.BytesExpected != session.Unknown {
		t.Errorf("%d bytes expected", s.BytesExpected)
	}
	c := add(rng(30, 40))
	c.Length = 40
	s = st.record(s, c)
	if s.BytesExpected != 40 {
		t.Errorf("%d bytes expected", s.BytesExpected)
	}
	st.record(s, session.Change{Length: 40})
	st.refuse(1, session.ErrLength, func() error {
		_, err := st.Record(t.Context(), 1, s.Gen, session.Change{Length: 41})
		return err
	})
	open.ID = 2
	if s := st.record(st.create(open), session.Change{Length: 0}); s.BytesExpected != 0 {
		t.Errorf("an empty one is not complete: %+v", s)
	}
}

func touches(t *testing.T, st store) {
	s := st.create(spec(1, "o", ""))
	later := began.Add(time.Hour)
	s = st.record(s, session.Change{Length: session.Unknown, Seen: 1000, Now: later.UnixMilli()})
	if s.Seen != 1000 || !s.LastSeen.Equal(later) || !s.Began.Equal(began) {
		t.Errorf("%+v", s)
	}
	s = st.record(s, session.Change{Length: session.Unknown, Seen: 999})
	if s.Seen != 1000 || !s.LastSeen.Equal(later) {
		t.Errorf("time went back: %+v", s)
	}
	if n := st.stats().Newest; n != 1000 {
		t.Errorf("newest is %d", n)
	}
}

// starts checks that a change gives a Start to a session that has none, and only to such a session.
func starts(t *testing.T, st store) {
	bare := spec(1, "o", "")
	bare.Start = 0
	s := st.create(bare)
	for i, c := range []struct{ start, want int64 }{{0, 0}, {5, 5}, {9, 5}} {
		s = st.record(s, session.Change{Length: session.Unknown, Start: c.start})
		if got := st.load(s.ID); s.Start != c.want || got.Start != c.want {
			t.Errorf("change %d: it starts at %d, and is loaded with %d, not %d", i, s.Start, got.Start, c.want)
		}
	}
}

func recordAtOnce(t *testing.T, st store) {
	st.create(spec(1, "o", ""))
	const n = 10
	won := make([]atomic.Int32, n)
	notes := make([]string, n)
	atOnce(3*n, func(i int) {
		at, note := int64(i%n), fmt.Sprint("by ", i)
		_, err := st.Record(t.Context(), 1, 1, session.Change{
			Length: session.Unknown, Add: []session.Entry{{Range: rng(at*10, at*10+10), Note: []byte(note)}},
		})
		if err == nil {
			won[at].Add(1)
			notes[at] = note
		}
	})
	s := st.load(1)
	st.same([]session.Range{rng(0, 100)}, s.Received)
	if s.EntryCount != n || s.Rev != n+1 {
		t.Errorf("%d pieces, revision %d", s.EntryCount, s.Rev)
	}
	for i, e := range st.entries(1, session.All(), 0) {
		if won[i].Load() != 1 || string(e.Note) != notes[i] {
			t.Errorf("piece %d was won %d times, %q", i, won[i].Load(), e.Note)
		}
	}
	// Of several drops of one generation the first fences the others.
	before := st.load(1)
	var done atomic.Int32
	atOnce(n, func(i int) {
		r := rng(int64(i)*10, int64(i)*10+10)
		if _, err := st.Record(
			t.Context(), 1, before.Gen, session.Change{Remove: []session.Range{r}, Drop: r, Length: session.Unknown},
		); err == nil {
			done.Add(1)
		}
	})
	if after := st.load(1); done.Load() != 1 || after.Bytes() != 90 || !slices.Equal(
		after.Dropped, []session.Dropped{{Gen: after.Gen, Range: session.Gaps(after.Received, rng(0, 100), 0)[0]}},
	) {
		t.Errorf("%d drops won, %+v", done.Load(), after)
	}
}
