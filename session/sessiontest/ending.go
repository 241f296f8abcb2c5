package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"sluice/session"
)

var errRefused = errors.New("the commit was refused")

// part draws the caller's part of an end: it succeeds, is refused, or has an unknown outcome.
func (w *world) part(of ...*known) (session.End, error) {
	answer := rapid.SampledFrom([]error{nil, nil, errRefused, session.ErrUnknownOutcome}).Draw(w.t, "part")
	return func(ctx context.Context, sealed []session.Session) (bool, error) {
		if len(sealed) != len(of) {
			w.t.Errorf("%d sessions are sealed, not %d", len(sealed), len(of))
		}
		for _, s := range sealed {
			i := slices.IndexFunc(of, func(k *known) bool { return k.id == s.ID })
			if i < 0 || s.State != session.Sealed || s.Gen <= of[i].gen || !slices.Equal(s.Received, of[i].received()) {
				w.t.Errorf("sealed: %+v", s)
				continue
			}
			w.same(of[i])
			if err := w.services[0].PutChunk(
				ctx, s.ID, 0, bytes.NewReader(nil), &sink{disk: w.disk, name: "?", store: w.store},
			); !errors.Is(err, session.ErrSealed) {
				w.t.Errorf("a put during the end: %v", err)
			}
		}
		return false, answer
	}, answer
}

// noteEnd applies an end with that answer to an open session of the model.
func (w *world) noteEnd(k *known, to session.State, answer error) {
	k.disturb()
	switch {
	case errors.Is(answer, session.ErrUnknownOutcome):
		k.state = session.Sealed
	case answer == nil:
		k.state = to
		w.count(to)
	}
}

func (w *world) count(to session.State) {
	switch to {
	case session.Finished:
		w.stats.Finished++
	case session.Aborted:
		w.stats.Aborted++
	case session.Expired:
		w.stats.Expired++
	}
}

func (w *world) finish() {
	var of []*known
	var verified []session.Verified
	for range w.draw("batch", 1, 3) {
		k := w.pick()
		if slices.Contains(of, k) {
			continue
		}
		want := session.Verified{ID: k.id, Bytes: session.Unknown}
		if k.BytesExpected < 0 || w.draw("bytes", 0, 3) == 0 {
			want.Bytes = k.end() + max(0, w.draw("more", -6, 1)) - max(0, w.draw("less", -6, 1))
		}
		if s, err := w.any().Status(context.Background(), k.id); err == nil && w.draw("gen", 0, 1) == 1 {
			want.Gen = s.Gen - uint64(w.draw("old", 0, 4)/4)
		}
		of, verified = append(of, k), append(verified, want)
	}
	// The session with the lowest id among those that are refused decides the error.
	slices.SortFunc(verified, func(a, b session.Verified) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	var expected error
	var at session.SessionID
	for _, want := range verified {
		k := of[slices.IndexFunc(of, func(k *known) bool { return k.id == want.ID })]
		if err := w.refuses(k, want); err != nil {
			expected, at = err, k.id
			break
		}
	}
	commit, answer := w.part(of...)
	ran := false
	err := w.any().Finish(context.Background(), func(ctx context.Context, sealed []session.Session) (bool, error) {
		ran = true
		return commit(ctx, sealed)
	}, verified...)
	if expected != nil {
		var end *session.EndError
		if w.expect("finish", err, expected); !errors.As(err, &end) || end.ID != at || ran {
			w.t.Fatalf("finish: %v, not of %s; commit ran: %v", err, at, ran)
		}
		return
	}
	w.expect("finish", err, answer)
	if !ran {
		w.t.Fatal("commit has not run")
	}
	for _, k := range of {
		k.BytesExpected = k.end()
		w.noteEnd(k, session.Finished, answer)
	}
}

// refuses returns the reason why a session can't be finished as wanted.
func (w *world) refuses(k *known, want session.Verified) error {
	if err := k.err(); err != nil {
		return err
	}
	s, err := w.any().Status(context.Background(), k.id)
	w.must(err)
	n := k.BytesExpected
	if n < 0 {
		n = want.Bytes
	}
	switch {
	case want.Gen != 0 && want.Gen != s.Gen:
		return session.ErrGenMoved
	case n < 0 || want.Bytes >= 0 && n != want.Bytes || n < k.end():
		return session.ErrLength
	case !slices.Equal(k.received(), session.Add(nil, rng(0, n))):
		return session.ErrIncomplete
	}
	return nil
}

func (w *world) abort() {
	k := w.pick()
	release, answer := w.part(k)
	want := k.err()
	switch k.state {
	case session.Open:
		want = answer
	case session.Aborted:
		want = nil
	}
	open := k.state == session.Open
	k.disturb()
	v := w.any()
	w.expect("abort", v.Abort(context.Background(), k.id, release), want)
	if open {
		k.fence(v, session.All())
		w.noteEnd(k, session.Aborted, answer)
	}
}

func (w *world) clear() {
	v, want := w.any(), 0
	var cleared []*known
	for _, k := range w.sessions {
		if k.state == session.Open {
			want++
			w.noteEnd(k, session.Aborted, nil)
			cleared = append(cleared, k)
		}
	}
	n, err := v.ClearAll(context.Background(), nil)
	w.must(err)
	for _, k := range cleared {
		k.fence(v, session.All())
	}
	if n != want {
		w.t.Fatalf("%d of %d sessions were cleared", n, want)
	}
}

// recover ends or opens all sealed sessions.
func (w *world) recover() {
	to := rapid.SampledFrom([]session.State{session.Open, session.Finished, session.Aborted}).Draw(w.t, "outcome")
	w.must(w.any().Recover(context.Background(), func(_ context.Context, s session.Session) (session.State, error) {
		if i := slices.IndexFunc(
			w.sessions, func(k *known) bool { return k.id == s.ID && k.state == session.Sealed },
		); i < 0 {
			return 0, fmt.Errorf("session %s is not sealed", s.ID)
		}
		return to, nil
	}))
	for _, k := range w.sessions {
		if k.state == session.Sealed {
			k.state = to
			w.count(to)
		}
	}
}

// time advances the clock, or lets it jump, and ticks every Service.
func (w *world) time() {
	w.now = w.now.Add(rapid.SampledFrom(
		[]time.Duration{time.Second, tick, tick, tick, 3 * tick, 9000 * time.Hour, -time.Hour},
	).Draw(w.t, "time"))
	for _, v := range w.services {
		type before struct {
			seen int64
			busy bool
		}
		was := map[*known]before{}
		for _, k := range w.sessions {
			if s, err := v.Status(context.Background(), k.id); err == nil {
				was[k] = before{s.Seen, slices.ContainsFunc(k.puts, func(p *put) bool { return p.on == v })}
			}
			k.disturb()
		}
		running := v.Running() + min(max(w.now.Sub(v.lastTick), 0), tick).Milliseconds()
		v.lastTick = w.now
		stored, err := v.Stats(context.Background())
		w.must(err)
		if running-v.storedTime >= tick.Milliseconds() {
			running = max(running, stored.Newest)
			v.storedTime = running
			w.storedTime = max(w.storedTime, running)
		}
		n, err := v.TickTTL(context.Background(), w.now, nil)
		w.must(err)
		if v.Running() != running {
			w.t.Fatalf("the running time is %d, not %d", v.Running(), running)
		}
		if stored, err = v.Stats(context.Background()); err != nil || stored.Newest < w.storedTime {
			w.t.Fatalf("the running time that is stored is %d, not at least %d: %v", stored.Newest, w.storedTime, err)
		}
		for k, b := range was {
			due := b.seen < running-ttl.Milliseconds()
			switch {
			case k.state == session.Open && due:
				// A put that was stopped does not keep its session from expiring any more. Only the
				// Service knows whether it was stopped.
				if s, err := v.Status(context.Background(), k.id); b.busy && err == nil && s.State == session.Open {
					if w.maxAge > 0 && running-k.start > w.maxAge.Milliseconds() {
						w.t.Fatalf("a session with a put lives on after %d ms", running-k.start)
					}
					continue
				}
				k.state = session.Expired
				w.count(session.Expired)
				n--
			case k.state == session.Open && w.maxAge > 0 && running-k.start > w.maxAge.Milliseconds():
				w.t.Fatalf("a session lives on after %d ms", running-k.start)
			case k.state.Ended() && b.seen < running-keep.Milliseconds():
				k.state = session.Gone
			}
		}
		if n != 0 {
			w.t.Fatalf("%d more were expired than have", n)
		}
	}
}
