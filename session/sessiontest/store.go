// Package sessiontest says what a [session.Store] must do, as tests: the conformance suite that
// every store passes (TestStore), a model of the whole engine for any history of calls (TestModel),
// and a Store that repeats calls, as one does whose answers get lost (Repeating).
//
// It owns no store. Durability, formats and crashes are for the tests of each store.
package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/session"
)

// TestStore is the suite that every session.Store passes. open returns an empty one, with nothing
// that takes part in its commits.
func TestStore(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, st store)
	}{
		{"a created session is what was given", created},
		{"one session per owner and idem", oneIdem},
		{"an id is taken once", oneID},
		{"creating at once makes one", createAtOnce},
		{"what does not exist is not found", notFound},
		{"records add up", recordsAddUp},
		{"a record that is refused changes nothing", refusals},
		{"a record may replace entries", replaces},
		{"a drop fences", dropFences},
		{"drops are remembered", dropsRemembered},
		{"a length is given once", lengths},
		{"a touch moves time forwards only", touches},
		{"a change may give the start", starts},
		{"records at once: one of each overlap wins", recordAtOnce},
		{"steps", steps},
		{"a step is refused elsewhere", refusedSteps},
		{"an end forgets the entries", endsForget},
		{"aborted and expired give the idem free", idemFreed},
		{"two steps at once: one wins", stepAtOnce},
		{"entries that overlap a range", entriesOf},
		{"lists", lists},
		{"lists of what is due", dueLists},
		{"who holds an idem", holders},
		{"a list goes on where it stopped", pages},
		{"a page ends by its bytes", pagesByBytes},
		{"figures", figures},
		{"the running time is kept", keepsTime},
		{"the running time is kept by many at once", keepsTimeAtOnce},
		{"what is handed out is a copy", copies},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, store{open(t), t}) })
	}
}

// store is a Store with helpers for the tests.
type store struct {
	session.Store
	t *testing.T
}

var began = time.UnixMilli(1_700_000_000_000).UTC()

// spec is a session of 100 bytes in chunks of 10.
func spec(id session.SessionID, owner, idem string) session.Session {
	return session.Session{
		ID: id, Spec: session.Spec{ChunkSize: 10, BytesExpected: 100, Owner: owner, Idem: idem, Note: []byte("note")},
		State: session.Open, Gen: 1, Rev: 1, Began: began, LastSeen: began, Seen: 7, Start: 3,
	}
}

func (st store) create(s session.Session) session.Session {
	st.t.Helper()
	got, created, err := st.Create(st.t.Context(), s)
	if err != nil || !created {
		st.t.Fatalf("create %s: created %v, %v", s.ID, created, err)
	}
	return got
}

func (st store) load(id session.SessionID) session.Session {
	st.t.Helper()
	s, err := st.Load(st.t.Context(), id)
	if err != nil {
		st.t.Fatalf("load %s: %v", id, err)
	}
	return s
}

// record must succeed, and return the same as Load does afterwards.
func (st store) record(s session.Session, c session.Change) session.Session {
	st.t.Helper()
	got, err := st.Record(st.t.Context(), s.ID, s.Gen, c)
	if err != nil {
		st.t.Fatalf("record %+v: %v", c, err)
	}
	st.same(st.load(s.ID), got)
	if got.Rev <= s.Rev {
		st.t.Errorf("revision %d after %d", got.Rev, s.Rev)
	}
	return got
}

// move must succeed, and return the same as Load does afterwards.
func (st store) move(s session.Session, step session.Step) session.Session {
	st.t.Helper()
	got, err := st.Move(st.t.Context(), s.ID, step)
	if err != nil {
		st.t.Fatalf("move %+v: %v", step, err)
	}
	if step.To != session.Gone {
		st.same(st.load(s.ID), got)
	}
	return got
}

func (st store) end(s session.Session, to session.State) session.Session {
	st.t.Helper()
	return st.move(s, session.Step{Gen: s.Gen, To: to, Seen: s.Seen})
}

func (st store) entries(id session.SessionID, r session.Range, n int) []session.Entry {
	st.t.Helper()
	es, err := st.Entries(st.t.Context(), id, r, n)
	if err != nil {
		st.t.Fatalf("entries: %v", err)
	}
	return es
}

func (st store) same(want, got any) {
	st.t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		st.t.Errorf("(-want +got):\n%s", diff)
	}
}

// refuse checks the error of call, and that call has changed nothing.
func (st store) refuse(id session.SessionID, want error, call func() error) {
	st.t.Helper()
	before, figures := st.all(id), st.stats()
	if err := call(); !errors.Is(err, want) {
		st.t.Errorf("error is %v, not %v", err, want)
	}
	st.same(before, st.all(id))
	st.same(figures, st.stats())
}

// kept is everything that is stored of a session.
type kept struct {
	Session session.Session
	Entries []session.Entry
	Err     string
}

func (st store) all(id session.SessionID) (k kept) {
	st.t.Helper()
	s, err := st.Load(st.t.Context(), id)
	if err != nil {
		return kept{Err: err.Error()}
	}
	return kept{Session: s, Entries: st.entries(id, session.All(), 0)}
}

func (st store) stats() session.Stats {
	st.t.Helper()
	s, err := st.Stats(st.t.Context())
	if err != nil {
		st.t.Fatal(err)
	}
	return s
}

// add is a change that records entries. Their notes name their offsets.
func add(rs ...session.Range) session.Change {
	c := session.Change{Length: session.Unknown}
	for _, r := range rs {
		c.Add = append(c.Add, session.Entry{Range: r, Note: fmt.Append(nil, "at ", r.Off)})
	}
	return c
}

func rng(off, end int64) session.Range { return session.Range{Off: off, End: end} }

// atOnce runs f n times at once.
func atOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func created(t *testing.T, st store) {
	for _, s := range []session.Session{
		spec(1, "o", "i"),
		spec(math.MaxUint64, "", ""),
		{
			ID:    3,
			Spec:  session.Spec{ChunkSize: 1, BytesExpected: session.Unknown, Owner: "\x00\xff", Idem: "\xfe\x00"},
			Began: began, LastSeen: began,
		},
		{
			ID:    4,
			Spec:  session.Spec{ChunkSize: math.MaxInt64, BytesExpected: 0, Note: make([]byte, session.MaxNote)},
			Began: began.Add(999 * time.Microsecond), LastSeen: began, Ends: began,
		},
	} {
		got := st.create(s)
		want := s
		want.State, want.Gen, want.Rev, want.Ends = session.Open, 1, 1, time.Time{}
		want.Began = want.Began.Truncate(time.Millisecond)
		st.same(want, got)
		st.same(want, st.load(s.ID))
	}
}

func oneIdem(t *testing.T, st store) {
	first := st.create(spec(1, "o", "i"))
	again := func(why string) {
		t.Helper()
		other := spec(2, "o", "i")
		other.Note = []byte("another")
		got, created, err := st.Create(t.Context(), other)
		if err != nil || created {
			t.Errorf("%s: created %v, %v", why, created, err)
		}
		st.same(st.load(1), got)
		if _, err := st.Load(t.Context(), 2); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: something was stored: %v", why, err)
		}
	}
	again("open")
	sealed := st.move(first, session.Step{Gen: 1, To: session.Sealed, Next: 5})
	again("sealed")
	finished := st.end(sealed, session.Finished)
	again("finished")
	// Only the pair counts: not a half of it, nor the two joined. An empty idem holds no session.
	st.create(spec(10, "o", "j"))
	st.create(spec(11, "p", "i"))
	st.create(spec(12, "oi", ""))
	st.create(spec(13, "", "oi"))
	st.create(spec(14, "oi", ""))
	st.move(finished, session.Step{Gen: finished.Gen, To: session.Gone})
	st.create(spec(2, "o", "i"))
}

func oneID(t *testing.T, st store) {
	st.create(spec(1, "o", "i"))
	for _, other := range []session.Session{spec(1, "o", ""), spec(1, "p", "j")} {
		st.refuse(1, session.ErrTaken, func() error {
			_, created, err := st.Create(t.Context(), other)
			if created {
				t.Error("created")
			}
			return err
		})
	}
	st.create(spec(2, "p", "j"))
}

func createAtOnce(t *testing.T, st store) {
	const n = 16
	won := make([]bool, n)
	got := make([]session.Session, n)
	atOnce(n, func(i int) {
		var err error
		if got[i], won[i], err = st.Create(t.Context(), spec(session.SessionID(1+i), "o", "i")); err != nil {
			t.Error(err)
		}
	})
	winner := slices.Index(won, true)
	if winner < 0 || slices.Contains(won[winner+1:], true) {
		t.Fatalf("created: %v", won)
	}
	for i, s := range got {
		if s.ID != session.SessionID(1+winner) {
			t.Errorf("call %d got session %s, and call %d created its own", i, s.ID, winner)
		}
	}
	if n := st.stats().Begun; n != 1 {
		t.Errorf("%d begun", n)
	}
	made := make([]bool, n)
	atOnce(n, func(i int) {
		_, ok, err := st.Create(t.Context(), spec(99, "o", fmt.Sprint(i)))
		if made[i] = ok; err != nil && !errors.Is(err, session.ErrTaken) || ok != (err == nil) {
			t.Errorf("created %v, %v", ok, err)
		}
	})
	if i := slices.Index(made, true); i < 0 || slices.Contains(made[i+1:], true) {
		t.Errorf("created under one id: %v", made)
	}
}

func notFound(t *testing.T, st store) {
	ctx := context.Background()
	gone := st.end(st.create(spec(2, "o", "i")), session.Aborted)
	if s := st.move(gone, session.Step{Gen: gone.Gen, To: session.Gone}); s.State != session.Gone {
		t.Errorf("state %v", s.State)
	}
	for _, id := range []session.SessionID{1, 2} {
		_, err := st.Load(ctx, id)
		_, err2 := st.Record(ctx, id, 1, add(rng(0, 10)))
		_, err3 := st.Move(ctx, id, session.Step{Gen: 1, To: session.Sealed, Next: 2})
		_, err4 := st.Entries(ctx, id, session.All(), 0)
		for i, err := range []error{err, err2, err3, err4} {
			if !errors.Is(err, session.ErrNotFound) {
				t.Errorf("session %s, call %d: %v", id, i, err)
			}
		}
	}
}
