package metadatatest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/catalog"
	"sluice/metadata"
	"sluice/session"
)

// testJoint tests the end of a session in the catalog's commit.
func testJoint(t *testing.T, open func(t *testing.T) metadata.Store) {
	for name, test := range map[string]func(t *testing.T, j joint){
		"both or nothing":               bothOrNothing,
		"a repeat is fine":              endRepeats,
		"what is refused":               endRefused,
		"a batch ends whole, or not":    endBatch,
		"an end forgets, and goes free": endFrees,
	} {
		t.Run(name, func(t *testing.T) { test(t, joint{open(t), t}) })
	}
}

type joint struct {
	metadata.Store
	t *testing.T
}

// sealed makes a sealed session with one entry.
func (j joint) sealed(id session.SessionID) session.Session {
	j.t.Helper()
	ctx, now := j.t.Context(), time.UnixMilli(1e12).UTC()
	s, _, err := j.Sessions().Create(ctx, session.Session{
		ID: id, Spec: session.Spec{ChunkSize: 4, BytesExpected: 4, Owner: "o", Idem: id.String()},
		Began: now, LastSeen: now, Seen: 5,
	})
	check(j.t, err)
	add := []session.Entry{{Range: session.Range{Off: 0, End: 4}}}
	s, err = j.Sessions().Record(ctx, id, s.Gen, session.Change{Add: add, Length: session.Unknown})
	check(j.t, err)
	s, err = j.Sessions().Move(ctx, id, session.Step{Gen: s.Gen, To: session.Sealed, Next: s.Gen + 10, Seen: 7})
	check(j.t, err)
	return s
}

// end ends sessions and writes a row, in one commit.
func (j joint) end(to session.State, row string, of ...session.Session) error {
	return j.Catalog().Update(j.t.Context(), func(tx catalog.Tx) error {
		if err := putPlace(tx, row, 1); err != nil {
			return err
		}
		for _, s := range of {
			if err := tx.EndSession(s.ID, s.Gen, to); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j joint) is(id session.SessionID, want session.State) session.Session {
	j.t.Helper()
	s, err := j.Sessions().Load(j.t.Context(), id)
	if err != nil || s.State != want {
		j.t.Errorf("session %s is %v, not %v; %v", id, s.State, want, err)
	}
	return s
}

func bothOrNothing(t *testing.T, j joint) {
	s := j.sealed(1)
	boom := errors.New("boom")
	err := j.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
		return errors.Join(tx.EndSession(1, s.Gen, session.Finished), putPlace(tx, "a", 1), boom)
	})
	if !errors.Is(err, boom) {
		t.Errorf("the closure's error came back as %v", err)
	}
	j.is(1, session.Sealed)
	has(t, j.Catalog(), "a", -1)
	check(t, j.end(session.Finished, "a", s))
	j.is(1, session.Finished)
	has(t, j.Catalog(), "a", 1)
}

func endRepeats(t *testing.T, j joint) {
	for i, to := range []session.State{session.Finished, session.Aborted, session.Expired} {
		s := j.sealed(session.SessionID(1 + i))
		check(t, j.end(to, "a", s))
		ended := j.is(s.ID, to)
		// The commit's result was lost. Then the engine takes its own step.
		check(t, j.end(to, "a", s))
		again, err := j.Sessions().Move(t.Context(), s.ID, session.Step{Gen: s.Gen, To: to, Seen: 9})
		check(t, err)
		if diff := cmp.Diff(ended, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-ended +moved):\n%s", diff)
		}
	}
	if st, err := j.Sessions().Stats(t.Context()); err != nil || st.Finished != 1 || st.Aborted != 1 ||
		st.Expired != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func endRefused(t *testing.T, j joint) {
	sealed := j.sealed(1)
	open := j.sealed(2)
	open, err := j.Sessions().Move(t.Context(), 2, session.Step{Gen: open.Gen, To: session.Open, Next: open.Gen + 1})
	check(t, err)
	finished := j.sealed(3)
	check(t, j.end(session.Finished, "b", finished))
	other := sealed
	other.Gen++
	older := sealed
	older.Gen = 1
	for name, c := range map[string]struct {
		s    session.Session
		to   session.State
		want error
	}{
		"of another generation": {other, session.Finished, session.ErrFenced},
		"of an older one":       {older, session.Finished, session.ErrFenced},
		"not sealed":            {open, session.Finished, session.ErrFenced},
		"ended otherwise":       {finished, session.Aborted, session.ErrFinished},
		"unknown":               {session.Session{ID: 9, Gen: 1}, session.Finished, session.ErrNotFound},
	} {
		if err := j.end(c.to, "a", c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
		has(t, j.Catalog(), "a", -1)
	}
	j.is(1, session.Sealed)
	j.is(2, session.Open)
	j.is(3, session.Finished)
}

func endBatch(t *testing.T, j joint) {
	a, b, c := j.sealed(1), j.sealed(2), j.sealed(3)
	wrong := c
	wrong.Gen++
	if err := j.end(session.Finished, "a", a, b, wrong); !errors.Is(err, session.ErrFenced) {
		t.Errorf("a batch with one that is fenced: %v", err)
	}
	for id := range session.SessionID(3) {
		j.is(id+1, session.Sealed)
	}
	check(t, j.end(session.Finished, "a", a, b, c))
	for id := range session.SessionID(3) {
		j.is(id+1, session.Finished)
	}
}

func endFrees(t *testing.T, j joint) {
	s := j.sealed(1)
	check(t, j.end(session.Aborted, "a", s))
	es, err := j.Sessions().Entries(t.Context(), 1, session.All(), 0)
	if err != nil || len(es) != 0 {
		t.Errorf("entries %v, %v", es, err)
	}
	again := s
	again.ID = 2
	if got, created, err := j.Sessions().Create(t.Context(), again); err != nil || !created {
		t.Errorf("session %s, created %v, %v", got.ID, created, err)
	}
	page, _, err := j.Sessions().List(t.Context(), session.Query{State: session.Sealed, Limit: 10})
	if err != nil || len(page) != 0 {
		t.Errorf("%v are listed as sealed, %v", page, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func putPlace(tx catalog.Tx, name string, n int64) error {
	return catalog.Places.Put(tx, catalog.Name(name), catalog.Place{Name: name, Refs: n})
}

// has checks the Refs of a row; -1 means that there is no row.
func has(t *testing.T, s catalog.Store, name string, want int64) {
	t.Helper()
	check(t, s.View(t.Context(), func(r catalog.Reader) error {
		p, ok, err := catalog.Places.Find(r, catalog.Name(name))
		if !ok {
			p.Refs = -1
		}
		if p.Refs != want {
			t.Errorf("%s is %d, not %d", name, p.Refs, want)
		}
		return err
	}))
}
