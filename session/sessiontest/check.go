package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/session"
)

// check compares everything that is stored with the model.
func (w *world) check() {
	ctx := context.Background()
	v := w.services[len(w.sessions)%w.n]
	want := w.stats
	kept := map[session.State]int{}
	for _, k := range w.sessions {
		w.same(k)
		s, err := v.Status(ctx, k.id)
		if k.state == session.Gone {
			w.expect("status", err, session.ErrNotFound)
			continue
		}
		w.must(err)
		if s.State != k.state {
			w.t.Fatalf("session %s is %v, not %v", k.id, s.State, k.state)
		}
		kept[k.state]++
		if s.Gen < k.gen || s.Rev < k.rev || s.Seen < k.seen || s.Ends.IsZero() != k.state.Ended() {
			w.t.Fatalf("session %s went back: %+v", k.id, s)
		}
		k.gen, k.rev, k.seen = s.Gen, s.Rev, s.Seen
		if k.state.Ended() {
			continue
		}
		age, left := v.Running()-k.start, s.Ends.Sub(w.now).Milliseconds()
		if w.maxAge > 0 && left > max(w.maxAge.Milliseconds()-age, 0) {
			w.t.Fatalf("session %s has %d ms left of %s, after %d", k.id, left, w.maxAge, age)
		}
		if s.BytesExpected != k.BytesExpected || s.ChunkSize != k.ChunkSize || s.Owner != k.Owner || s.Idem != k.Idem ||
			!bytes.Equal(s.Note, k.Note) {
			w.t.Fatalf("session %s: %+v, not %+v", k.id, s, k.Spec)
		}
		want.BytesExpected += max(0, s.BytesExpected)
		want.BytesReceived += s.Bytes()
		if again, err := v.Wait(ctx, k.id, s.Rev-1); err != nil || again.Rev != s.Rev {
			w.t.Fatalf("waiting for what has happened: revision %d of %d, %v", again.Rev, s.Rev, err)
		}
	}
	want.Open, want.Sealed = int64(kept[session.Open]), int64(kept[session.Sealed])
	got, err := v.Stats(ctx)
	w.must(err)
	got.OldestSeen, got.Newest = 0, 0
	if got != want {
		w.t.Fatalf("figures: %+v, not %+v", got, want)
	}
	for state := session.Open; state < session.Gone; state++ {
		n := 0
		count := func(session.Session) (bool, error) { n++; return true, nil }
		w.must(session.Page(ctx, w.store, session.Query{State: state, Limit: 2}, count))
		if n != kept[state] {
			w.t.Fatalf("%d sessions are listed as %v, not %d", n, state, kept[state])
		}
	}
}

// same compares the recorded bytes of a session with the model.
func (w *world) same(k *known) {
	if k.state.Ended() {
		return
	}
	s, err := w.store.Load(context.Background(), k.id)
	w.must(err)
	es, err := w.store.Entries(context.Background(), k.id, session.All(), 0)
	w.must(err)
	var content [maxBytes]byte
	for i, e := range es {
		if i > 0 && es[i-1].End > e.Off {
			w.t.Fatalf("entries overlap: %v", es)
		}
		copy(content[e.Off:], w.disk.read(e))
	}
	if content != k.content || s.EntryCount != len(es) || !slices.Equal(s.Received, k.received()) {
		w.t.Fatalf(
			"session %s holds %v in %d pieces (%d entries), received %v; expected %v", k.id, content, s.EntryCount,
			len(es), s.Received, k.content,
		)
	}
}

// atOnceModel has clients of all Services send all chunks of the same sessions at once, in any
// order, and finish them at once.
func atOnceModel(t *testing.T, st session.Store, services int) {
	ctx := t.Context()
	d := &disk{places: map[string]*place{}}
	var vs []*session.Service
	for range services {
		v, err := session.New(ctx, st, session.Config{Match: d.match})
		if err != nil {
			t.Fatal(err)
		}
		vs = append(vs, v)
	}
	for round := range 5 {
		const chunk = 4
		var ids [3]session.SessionID
		var commits [len(ids)]atomic.Int32
		var wg sync.WaitGroup
		for client := range 6 {
			v := vs[client%services]
			wg.Go(func() {
				for i := range ids {
					s, _, err := v.Begin(
						ctx, session.Spec{ChunkSize: chunk, BytesExpected: maxBytes, Idem: fmt.Sprint(round, i)},
					)
					if err != nil {
						t.Error(err)
						return
					}
					for _, idx := range rand.Perm(maxBytes / chunk) {
						bring(t, v, s.ID, int64(idx), chunk, &sink{
							disk: d, name: fmt.Sprint(s.ID, "/", client%services), session: s.ID, store: st,
						})
					}
					err = v.Finish(ctx, func(ctx context.Context, sealed []session.Session) (bool, error) {
						commits[i].Add(1)
						es, err := st.Entries(ctx, s.ID, session.All(), 0)
						if err != nil {
							return false, err
						}
						for _, e := range es {
							for off, b := range d.read(e) {
								if b != byteOf(e.Off+int64(off), 0) {
									t.Errorf("byte %d of %v is %d", off, e, b)
								}
							}
						}
						if s := sealed[0]; s.Bytes() != s.BytesExpected {
							t.Errorf("finished with %v", sealed[0].Received)
						}
						return false, nil
					}, session.Verified{ID: s.ID, Bytes: session.Unknown})
					if err != nil && !errors.Is(err, session.ErrFinished) {
						t.Errorf("finish: %v", err)
					}
				}
			})
		}
		wg.Wait()
		for i := range commits {
			if n := commits[i].Load(); n != 1 {
				t.Errorf("session %d was committed %d times", i, n)
			}
		}
	}
	if st, err := st.Stats(ctx); err != nil || st.Finished != 15 || st.Begun != 15 || st.Open+st.Sealed != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, b := range d.failures {
		t.Error(b)
	}
	if err := shut(st); err != nil {
		t.Error(err)
	}
}

// bring puts one chunk until it is recorded, or another client has finished the session.
func bring(t *testing.T, v *session.Service, id session.SessionID, idx, chunk int64, s *sink) {
	b := make([]byte, chunk)
	for i := range b {
		b[i] = byteOf(idx*chunk+int64(i), 0)
	}
	var err error
	for range 1000 {
		own := *s
		err = v.PutChunk(t.Context(), id, idx, bytes.NewReader(b), &own)
		if !errors.Is(err, session.ErrSuperseded) {
			break
		}
	}
	if err != nil && !errors.Is(err, session.ErrFinished) && !errors.Is(err, session.ErrSealed) {
		t.Errorf("chunk %d: %v", idx, err)
	}
}
