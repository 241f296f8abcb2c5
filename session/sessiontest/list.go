package sessiontest

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/session"
)

func entriesOf(t *testing.T, st store) {
	s := st.create(spec(1<<63, "o", ""))
	st.record(st.create(spec(1<<63-1, "o", "")), add(rng(90, 100)))
	st.record(st.create(spec(1<<63+1, "o", "")), add(rng(0, 10)))
	st.record(s, add(rng(70, 80), rng(10, 20), rng(20, 21), rng(40, 60)))
	for _, c := range []struct {
		r    session.Range
		n    int
		want []int64
	}{
		{session.All(), 0, []int64{10, 20, 40, 70}},
		{session.All(), 2, []int64{10, 20}},
		{rng(0, 10), 0, nil},
		{rng(0, 11), 0, []int64{10}},
		{rng(19, 20), 0, []int64{10}},
		{rng(19, 21), 0, []int64{10, 20}},
		{rng(19, 21), 1, []int64{10}},
		{rng(21, 40), 0, nil},
		{rng(45, 46), 1, []int64{40}},
		{rng(59, 71), 0, []int64{40, 70}},
		{rng(80, 1000), 0, nil},
	} {
		var got []int64
		for _, e := range st.entries(s.ID, c.r, c.n) {
			got = append(got, e.Off)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v, at most %d: entries at %v, not %v", c.r, c.n, got, c.want)
		}
	}
}

// crowd makes sessions of two owners in every state, under random ids, and returns them in the
// order in which they began.
func crowd(st store) []session.Session {
	var all []session.Session
	for i, state := range []session.State{
		session.Finished, session.Open, session.Expired, session.Open, session.Sealed, session.Aborted,
		session.Open, session.Sealed, session.Open, session.Finished, session.Aborted, session.Open,
	} {
		s := spec(session.SessionID(rand.Uint64()|1), []string{"a", "ab", "a\x00"}[i%3], "")
		s.Began = began.Add(time.Duration(i) * time.Second)
		s.Seen = int64(1000 - 10*i)
		s = st.create(s)
		if state != session.Open {
			s = st.move(s, session.Step{Gen: 1, To: state, Next: 4, Seen: s.Seen})
		}
		all = append(all, s)
	}
	return all
}

// list reads all pages.
func (st store) list(q session.Query) (all []session.Session) {
	st.t.Helper()
	err := session.Page(st.t.Context(), st, q, func(s session.Session) (bool, error) {
		all = append(all, s)
		return len(all) < 1000, nil
	})
	if err != nil {
		st.t.Fatal(err)
	}
	return all
}

func lists(t *testing.T, st store) {
	st.same(0, len(st.list(session.Query{Limit: 1})))
	all := crowd(st)
	owners := []*string{nil}
	for _, o := range []string{"a", "ab", "a\x00", "", "b"} {
		owners = append(owners, &o)
	}
	for _, owner := range owners {
		for state := session.State(0); state < session.Gone; state++ {
			var want []session.Session
			for st := session.Open; st < session.Gone; st++ {
				for _, s := range slices.Backward(all) {
					if s.State == st && (state == 0 || state == st) && (owner == nil || *owner == s.Owner) {
						want = append(want, s)
					}
				}
			}
			for _, limit := range []int{1, 2, len(all), 10_000} {
				st.same(want, st.list(session.Query{Owner: owner, State: state, Limit: limit}))
			}
		}
	}
}

func dueLists(t *testing.T, st store) {
	all := crowd(st)
	owner := "a"
	for _, due := range []int64{1, 890, 891, 930, 995, 1000, 1001, 5000} {
		for _, state := range []session.State{0, session.Open, session.Finished, session.Aborted, session.Expired} {
			var want []session.Session
			for _, s := range slices.Backward(all) {
				if s.Seen < due && (s.State == session.Open && !state.Ended() || s.State.Ended() && state.Ended()) {
					want = append(want, s)
				}
			}
			for _, limit := range []int{1, 3, 100} {
				st.same(want, st.list(session.Query{Owner: &owner, State: state, Due: due, Limit: limit}))
			}
		}
	}
	// A touch moves a session to its new position.
	first := all[len(all)-1]
	st.record(first, session.Change{Length: session.Unknown, Seen: 2000})
	if got := st.list(session.Query{Due: 3000, Limit: 100}); got[0].ID == first.ID || got[len(got)-1].ID != first.ID {
		t.Error("a touched session is where it was")
	}
}

func holders(t *testing.T, st store) {
	for i, state := range []session.State{
		session.Open, session.Sealed, session.Finished, session.Aborted, session.Expired,
	} {
		s := st.create(spec(session.SessionID(1+i), "o", state.String()))
		if state != session.Open {
			s = st.move(s, session.Step{Gen: 1, To: state, Next: 4, Seen: s.Seen})
		}
		want := []session.Session{s}
		if state > session.Finished {
			want = nil
		}
		owner, other := "o", "p"
		st.same(want, st.list(session.Query{Owner: &owner, Idem: state.String(), Limit: 1}))
		st.same(0, len(st.list(session.Query{Owner: &other, Idem: state.String(), Limit: 1})))
		st.same(0, len(st.list(session.Query{Owner: &owner, Idem: state.String() + "x", Limit: 1})))
	}
}

func pages(t *testing.T, st store) {
	crowd(st)
	for _, q := range []session.Query{
		{Limit: 5},
		{Limit: 2, State: session.Open},
		{Limit: 2, Due: 5000},
		{Limit: 3, Due: 5000, State: session.Finished},
	} {
		page, next, err := st.List(t.Context(), q)
		if err != nil || len(page) != q.Limit || next == "" {
			t.Fatalf("%+v: %d sessions, next %q, %v", q, len(page), next, err)
		}
		whole := st.list(session.Query{State: q.State, Due: q.Due, Limit: 100})
		// Sessions that go meanwhile, even the last of the page, do not disturb the rest.
		last := page[len(page)-1]
		if !last.State.Ended() {
			last = st.end(last, session.Aborted)
		}
		st.move(last, session.Step{Gen: last.Gen, To: session.Gone})
		q.After, q.Limit = next, 100
		rest, end, err := st.List(t.Context(), q)
		if err != nil || end != "" {
			t.Fatalf("%+v: next %q, %v", q, end, err)
		}
		st.same(whole[len(page):], rest)
	}
	// The last page says that it is the last, even when it is full.
	left := len(st.list(session.Query{Limit: 100}))
	if page, next, err := st.List(t.Context(), session.Query{Limit: left}); err != nil || len(page) != left ||
		next != "" {
		t.Errorf("%d of %d sessions, next %q, %v", len(page), left, next, err)
	}
	for _, bad := range []string{"x", "-", "AAAA", " ", "../.."} {
		if _, _, err := st.List(t.Context(), session.Query{Limit: 1, After: bad}); !errors.Is(err, session.ErrInvalid) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

func figures(t *testing.T, st store) {
	want := session.Stats{}
	check := func(after string) {
		t.Helper()
		got := st.stats()
		// OldestSeen is exact to a tick only.
		if (got.OldestSeen == 0) != (want.Open == 0) {
			t.Errorf("after %s: the oldest was seen at %d", after, got.OldestSeen)
		}
		got.OldestSeen = 0
		if got != want {
			t.Errorf("after %s: %+v, not %+v", after, got, want)
		}
	}
	check("nothing")
	s := st.create(spec(1, "o", "i"))
	want = session.Stats{Open: 1, BytesExpected: 100, Begun: 1, Newest: 7}
	check("begin")
	if _, created, err := st.Create(t.Context(), spec(2, "o", "i")); created || err != nil {
		t.Errorf("created %v, %v", created, err)
	}
	check("a repeated begin")
	open := spec(3, "o", "")
	open.BytesExpected = session.Unknown
	u := st.create(open)
	want.Open, want.Begun = 2, 2
	check("begin with an unknown length")
	u = st.record(u, add(rng(0, 10)))
	s = st.record(s, add(rng(0, 10), rng(20, 40)))
	want.BytesReceived = 40
	check("records")
	u = st.record(u, session.Change{Length: 15, Seen: 50})
	want.BytesExpected, want.Newest = 115, 50
	check("a length")
	s = st.record(s, session.Change{Remove: []session.Range{rng(0, 10)}, Drop: rng(0, 10), Length: session.Unknown})
	want.BytesReceived = 30
	check("a drop")
	s = st.move(s, session.Step{Gen: s.Gen, To: session.Sealed, Next: s.Gen + 1})
	want.Open, want.Sealed = 1, 1
	check("a seal")
	s = st.move(s, session.Step{Gen: s.Gen, To: session.Open, Next: s.Gen + 1})
	want.Open, want.Sealed = 2, 0
	check("a reopening")
	u = st.move(u, session.Step{Gen: u.Gen, To: session.Sealed, Next: u.Gen + 1})
	u = st.move(u, session.Step{Gen: u.Gen, To: session.Finished, Seen: 60})
	want.Open, want.Finished, want.BytesExpected, want.BytesReceived, want.Newest = 1, 1, 100, 20, 60
	check("a finish")
	s = st.end(s, session.Aborted)
	want.Open, want.Aborted, want.BytesExpected, want.BytesReceived = 0, 1, 0, 0
	check("an abort")
	st.end(st.create(spec(4, "o", "i")), session.Expired)
	want.Begun, want.Expired = 3, 1
	check("an expiry")
	st.move(s, session.Step{Gen: s.Gen, To: session.Gone})
	st.move(u, session.Step{Gen: u.Gen, To: session.Gone})
	check("their going")
}

func keepsTime(t *testing.T, st store) {
	keep := func(running, want int64) {
		t.Helper()
		newest, err := st.KeepTime(t.Context(), running)
		if kept := st.stats().Newest; err != nil || newest != want || kept != want {
			t.Errorf("keeping %d: %d, %v, and %d is kept, not %d", running, newest, err, kept, want)
		}
	}
	keep(5, 5)
	keep(5, 5)
	keep(4, 5)
	st.create(spec(1, "o", "")) // seen at 7
	keep(6, 7)
	keep(math.MaxInt64, math.MaxInt64)
	st.same(spec(1, "o", ""), st.load(1))
	if got, want := st.stats(), (session.Stats{
		Open: 1, BytesExpected: 100, Begun: 1, Newest: math.MaxInt64, OldestSeen: began.UnixMilli(),
	}); got != want {
		t.Errorf("figures: %+v, not %+v", got, want)
	}
}

func keepsTimeAtOnce(t *testing.T, st store) {
	const n = 20
	atOnce(n, func(i int) {
		running := int64(100 + i)
		if newest, err := st.KeepTime(t.Context(), running); err != nil || newest < running {
			t.Errorf("keeping %d: %d, %v", running, newest, err)
		}
	})
	if kept := st.stats().Newest; kept != 100+n-1 {
		t.Errorf("%d is kept", kept)
	}
}

func copies(t *testing.T, st store) {
	given := spec(1, "o", "i")
	given.Note = []byte("note")
	s := st.create(given)
	copy(given.Note, "####")
	copy(s.Note, "####")
	change := add(rng(0, 10), rng(20, 30))
	s = st.record(s, change)
	copy(change.Add[0].Note, "####")
	want := st.all(1)
	if string(want.Session.Note) != "note" || string(want.Entries[0].Note) != "at 0" {
		t.Fatalf("a caller's change shows: %q, %q", want.Session.Note, want.Entries[0].Note)
	}
	drop := session.Change{Remove: []session.Range{rng(20, 30)}, Drop: rng(20, 30), Length: session.Unknown}
	s = st.record(s, drop)
	want = st.all(1)
	spoil := func(s session.Session) {
		copy(s.Note, "####")
		clear(s.Received)
		clear(s.Dropped)
	}
	spoil(s)
	held, _, err := st.Create(t.Context(), spec(9, "o", "i"))
	if err != nil {
		t.Fatal(err)
	}
	spoil(held)
	spoil(st.load(1))
	for _, s := range st.list(session.Query{Limit: 10}) {
		spoil(s)
	}
	for _, e := range st.entries(1, session.All(), 0) {
		copy(e.Note, "####")
	}
	st.same(want, st.all(1))
	sealed := st.move(st.load(1), session.Step{Gen: want.Session.Gen, To: session.Sealed, Next: want.Session.Gen + 1})
	want = st.all(1)
	spoil(sealed)
	st.same(want, st.all(1))
}

func pagesByBytes(t *testing.T, st store) {
	const n = 100
	for i := range n {
		s := spec(session.SessionID(i+1), "a", "")
		s.Note = make([]byte, session.MaxNote)
		st.create(s)
	}
	page, next, err := st.List(t.Context(), session.Query{Limit: 1000})
	size := 0
	for _, s := range page {
		size += s.Size()
	}
	if err != nil || next == "" || len(page) == 0 || size < session.PageBytes ||
		size > session.PageBytes+2*session.MaxNote {
		t.Errorf("%d sessions of %d bytes, next %q, %v", len(page), size, next, err)
	}
	if all := st.list(session.Query{Limit: 1000}); len(all) != n {
		t.Errorf("%d sessions in all", len(all))
	}
}
