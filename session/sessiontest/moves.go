package sessiontest

import (
	"errors"
	"sync/atomic"
	"testing"

	"sluice/session"
)

// steps takes sessions through all steps, and each step twice.
func steps(t *testing.T, st store) {
	for i, to := range []session.State{session.Finished, session.Aborted, session.Expired} {
		for j, sealed := range []bool{true, false} {
			s := st.create(spec(session.SessionID(1+2*i+j), "o", ""))
			s = st.record(s, add(rng(0, 10)))
			take := func(step session.Step) {
				t.Helper()
				before := s
				s = st.move(s, step)
				again := st.move(s, step)
				st.same(s, again)
				if s.State != step.To || s.Rev <= before.Rev {
					t.Errorf("%v at revision %d after %d", s.State, s.Rev, before.Rev)
				}
			}
			if sealed {
				gen := s.Gen
				take(session.Step{Gen: gen, To: session.Sealed, Next: gen + 7})
				take(session.Step{Gen: gen + 7, To: session.Open, Next: gen + 9})
				if s.Gen != gen+9 {
					t.Errorf("generation %d", s.Gen)
				}
				st.same([]session.Range{rng(0, 10)}, s.Received)
				st.same(1, len(st.entries(s.ID, session.All(), 0)))
				st.refuse(s.ID, session.ErrFenced, func() error {
					_, err := st.Record(t.Context(), s.ID, gen, add(rng(10, 20)))
					return err
				})
				take(session.Step{Gen: gen + 9, To: session.Sealed, Next: gen + 10})
			}
			take(session.Step{Gen: s.Gen, To: to, Seen: 5000})
			if s.Seen != 5000 {
				t.Errorf("seen at %d", s.Seen)
			}
			if gone := st.move(s, session.Step{Gen: s.Gen, To: session.Gone}); gone.State != session.Gone {
				t.Errorf("%v", gone.State)
			}
		}
	}
}

func refusedSteps(t *testing.T, st store) {
	id := session.SessionID(0)
	in := func(state session.State) session.Session {
		id++
		s := st.create(spec(id, "o", ""))
		if state != session.Open {
			s = st.move(s, session.Step{Gen: 1, To: state, Next: 10})
		}
		return s
	}
	for _, c := range []struct {
		name string
		in   session.State
		step func(gen uint64) session.Step
		want error
	}{
		{"a seal of another generation", session.Open, func(g uint64) session.Step { return session.Step{Gen: g + 1, To: session.Sealed, Next: g + 2} }, session.ErrFenced},
		{"a seal that does not move the generation", session.Open, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Sealed, Next: g} }, session.ErrFenced},
		{"an end of another generation", session.Open, func(g uint64) session.Step { return session.Step{Gen: g + 1, To: session.Aborted} }, session.ErrFenced},
		{"opening what is open", session.Open, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Open, Next: g + 1} }, session.ErrFenced},
		{"removing what is open", session.Open, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Gone} }, session.ErrFenced},
		{"a second seal", session.Sealed, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Sealed, Next: g + 1} }, session.ErrSealed},
		{"the same seal, drawn otherwise", session.Sealed, func(uint64) session.Step { return session.Step{Gen: 1, To: session.Sealed, Next: 11} }, session.ErrSealed},
		{"opening another seal", session.Sealed, func(g uint64) session.Step { return session.Step{Gen: g - 1, To: session.Open, Next: g + 1} }, session.ErrFenced},
		{"ending another seal", session.Sealed, func(g uint64) session.Step { return session.Step{Gen: g - 1, To: session.Finished} }, session.ErrFenced},
		{"removing what is sealed", session.Sealed, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Gone} }, session.ErrFenced},
		{"sealing what is finished", session.Finished, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Sealed, Next: g + 1} }, session.ErrFinished},
		{"opening what was aborted", session.Aborted, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Open, Next: g + 1} }, session.ErrAborted},
		{"finishing what was aborted", session.Aborted, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Finished} }, session.ErrAborted},
		{"aborting what is finished", session.Finished, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Aborted} }, session.ErrFinished},
		{"aborting what has expired", session.Expired, func(g uint64) session.Step { return session.Step{Gen: g, To: session.Aborted} }, session.ErrExpired},
		{"the same end of another generation", session.Finished, func(g uint64) session.Step { return session.Step{Gen: g + 1, To: session.Finished} }, session.ErrFinished},
		{"removing another generation", session.Finished, func(g uint64) session.Step { return session.Step{Gen: g + 1, To: session.Gone} }, session.ErrFenced},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := in(c.in)
			store{st.Store, t}.refuse(s.ID, c.want, func() error {
				_, err := st.Move(t.Context(), s.ID, c.step(s.Gen))
				return err
			})
		})
	}
}

func endsForget(t *testing.T, st store) {
	for i, to := range []session.State{session.Finished, session.Aborted, session.Expired} {
		s := st.create(spec(session.SessionID(1+i), "o", ""))
		other := st.record(st.create(spec(session.SessionID(11+i), "o", "")), add(rng(0, 10)))
		s = st.end(st.record(s, add(rng(0, 10), rng(10, 20))), to)
		if es := st.entries(s.ID, session.All(), 0); len(es) != 0 || s.EntryCount != 0 {
			t.Errorf("%v: %d entries, %d pieces", to, len(es), s.EntryCount)
		}
		if len(st.entries(other.ID, session.All(), 0)) != 1 {
			t.Errorf("%v: the end took another's entries", to)
		}
		// A new session under the id of a gone one has no entries.
		st.move(s, session.Step{Gen: s.Gen, To: session.Gone})
		again := st.create(spec(s.ID, "o", ""))
		if es := st.entries(again.ID, session.All(), 0); len(es) != 0 || again.State != session.Open {
			t.Errorf("%v: made again it has %d entries", to, len(es))
		}
	}
	// With so many entries a store may delete in another way.
	s := st.create(session.Session{
		ID: 100, Spec: session.Spec{ChunkSize: 1, BytesExpected: 10_000}, Began: began, LastSeen: began,
	})
	next := st.record(st.create(spec(101, "o", "")), add(rng(0, 10)))
	var many []session.Range
	for i := range int64(5000) {
		many = append(many, rng(2*i, 2*i+1))
	}
	s = st.record(s, add(many...))
	if es := st.entries(s.ID, session.All(), 0); len(es) != 5000 {
		t.Fatalf("%d entries", len(es))
	}
	s = st.end(s, session.Aborted)
	if len(st.entries(s.ID, session.All(), 0)) != 0 || len(st.entries(next.ID, session.All(), 0)) != 1 {
		t.Error("the wrong entries are forgotten")
	}
}

func idemFreed(t *testing.T, st store) {
	for i, to := range []session.State{session.Aborted, session.Expired} {
		for j, sealed := range []bool{false, true} {
			id := session.SessionID(10*i + 4*j)
			idem := to.String() + string(rune('0'+j))
			s := st.create(spec(id+1, "o", idem))
			if sealed {
				s = st.move(s, session.Step{Gen: s.Gen, To: session.Sealed, Next: s.Gen + 3})
			}
			s = st.end(s, to)
			next := st.create(spec(id+2, "o", idem))
			// The rest of the first session does not take the idem from it.
			st.move(s, session.Step{Gen: s.Gen, To: session.Gone})
			if got, created, err := st.Create(t.Context(), spec(id+3, "o", idem)); err != nil || created ||
				got.ID != next.ID {
				t.Errorf("%s: session %s, created %v, %v", idem, got.ID, created, err)
			}
		}
	}
}

func stepAtOnce(t *testing.T, st store) {
	for round := range session.SessionID(20) {
		s := st.create(spec(round+1, "o", "i"))
		var sealed atomic.Int32
		atOnce(8, func(i int) {
			_, err := st.Move(
				t.Context(), s.ID, session.Step{Gen: s.Gen, To: session.Sealed, Next: s.Gen + uint64(i) + 1},
			)
			if err == nil {
				sealed.Add(1)
			} else if !errors.Is(err, session.ErrSealed) && !errors.Is(err, session.ErrFenced) {
				t.Error(err)
			}
		})
		s = st.load(s.ID)
		if sealed.Load() != 1 || s.State != session.Sealed {
			t.Fatalf("%d sealed it, and it is %v", sealed.Load(), s.State)
		}
		ended := make(chan session.State, 9)
		ends := []session.State{session.Finished, session.Aborted, session.Expired}
		atOnce(9, func(i int) {
			step := session.Step{Gen: s.Gen, To: ends[i%3]}
			if i >= 6 {
				step = session.Step{Gen: s.Gen, To: session.Open, Next: s.Gen + uint64(i)}
			}
			if _, err := st.Move(t.Context(), s.ID, step); err == nil {
				ended <- step.To
			}
		})
		close(ended)
		got := st.load(s.ID)
		for to := range ended {
			// A repeat of the same end may succeed too.
			if to != got.State {
				t.Fatalf("a step to %v was taken, and the session is %v", to, got.State)
			}
		}
		if got.State == session.Open || got.State == session.Finished {
			st.end(got, session.Finished)
			gone := st.load(s.ID)
			st.move(gone, session.Step{Gen: gone.Gen, To: session.Gone})
		}
	}
}
