package upload_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// hookedPersist is a content store with a hook in Persist, and with an error for it.
type hookedPersist struct {
	*blobtest.Mem
	persist hook
	err     error
}

func (s *hookedPersist) Persist(ctx context.Context, es []catalog.Extent) error {
	if s.persist.fire(); s.err != nil {
		return s.err
	}
	return s.Mem.Persist(ctx, es)
}

// replace replaces chunk 0.
func (w *world) replace(id session.SessionID, b []byte) error {
	return w.PutChunk(w.t.Context(), w.me, id, 0, bytes.NewReader(b), upload.Put{Length: int64(len(b)), Replace: true})
}

// A replacement that comes while a finish commits waits for the outcome: then it is too late, or it
// goes on.
func TestAReplacementMeetsAFinish(t *testing.T) {
	for _, refused := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			b, fresh := random(2*chunk), random(chunk)
			up := w.begin(int64(len(b)))
			w.putAll(up.ID, b)
			sealed, goOn := make(chan struct{}), make(chan struct{})
			persist := func() {
				close(sealed)
				<-goOn
			}
			s := &hookedPersist{Mem: w.blobs}
			s.persist.Store(&persist)
			if refused {
				s.err = errors.New("the disk is gone")
			}
			w.rewire(s, limits())
			finished, put := make(chan error, 1), make(chan error, 1)
			go func() { finished <- second(w.finish(up.ID, b)) }()
			<-sealed
			go func() { put <- w.replace(up.ID, fresh) }()
			time.Sleep(time.Second)
			close(goOn)
			if err := <-finished; (err != nil) != refused {
				t.Errorf("the finish: %v", err)
			}
			if err := <-put; !refused && !errors.Is(err, session.ErrFinished) || refused && err != nil {
				t.Errorf("refused %v: the replacement: %v", refused, err)
			}
			if s.err = nil; refused {
				copy(b, fresh)
				w.finishes(up.ID, b)
			}
		})
	}
}

// A replacement meets other requests. Both get an answer that says how they ended, and never one
// that asks them to try again.
func TestAReplacementMeetsAnything(t *testing.T) {
	b, fresh := random(2*chunk), random(chunk)
	other := append(slices.Clone(fresh), b[chunk:]...)
	for name, c := range map[string]struct {
		do    func(w *world, id session.SessionID) error
		put   []error // the errors that the replacement may get
		other []error // the errors that the other request may get
	}{
		"finish": {
			func(w *world, id session.SessionID) error { return second(w.finish(id, b)) },
			[]error{session.ErrFinished},
			[]error{session.ErrIncomplete, upload.ErrChecksum},
		},
		"batch": {
			func(w *world, id session.SessionID) error {
				more := w.begin(0)
				reqs := []upload.FinishRequest{
					{ID: id, UseServerDigest: true, Length: int64(len(b))}, {ID: more.ID, UseServerDigest: true},
				}
				return second(w.FinishBatch(w.t.Context(), w.me, reqs))
			},
			[]error{session.ErrFinished},
			[]error{session.ErrIncomplete},
		},
		"abort": {
			func(w *world, id session.SessionID) error { return w.Abort(w.t.Context(), w.me, id) },
			[]error{session.ErrAborted},
			nil,
		},
		"expiry": {
			func(w *world, _ session.SessionID) error {
				return second(w.sessions.ClearAll(w.t.Context(), w.Expire))
			},
			[]error{session.ErrExpired},
			nil,
		},
		"replacement": {
			func(w *world, id session.SessionID) error { return w.replace(id, fresh) },
			[]error{session.ErrSuperseded},
			[]error{session.ErrSuperseded},
		},
		"put_range": {
			func(w *world, id session.SessionID) error {
				p := upload.Put{Length: int64(len(other))}
				return second(w.PutRange(w.t.Context(), w.me, id, 0, bytes.NewReader(other), p))
			},
			[]error{session.ErrSuperseded},
			[]error{session.ErrSuperseded, session.ErrConflict},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 50 {
				w := newWorld(t)
				up := w.begin(int64(len(b)))
				w.putAll(up.ID, b)
				var wg sync.WaitGroup
				var put, do error
				wg.Go(func() { put = w.replace(up.ID, fresh) })
				wg.Go(func() { do = c.do(w, up.ID) })
				wg.Wait()
				among(t, "the replacement", put, c.put)
				among(t, "the other", do, c.other)
			}
		})
	}
}

// among fails the test if err is set and is none of those.
func among(t *testing.T, who string, err error, of []error) {
	t.Helper()
	if err != nil && !slices.ContainsFunc(of, func(o error) bool { return errors.Is(err, o) }) {
		t.Errorf("%s: %v", who, err)
	}
}

// A put found the session before a chunk was dropped from it. It does not write at the place of
// that chunk, because a reader may be reading it.
func TestWhatWasWithdrawnIsNotWrittenAgain(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b, fresh := random(chunk), random(chunk)
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 0, b))
	w.check(second(w.Status(t.Context(), w.me, up.ID))) // the entries are checked from here on
	var places []string
	w.blobs.FailWrite(func(place string, _ int64) error {
		places = append(places, place)
		return nil
	})
	was, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	drop := func() {
		_, _, err := w.sessions.Drop(context.Background(), up.ID, session.All(), nil)
		w.check(err)
	}
	e.loaded.Store(&drop)
	w.check(w.put(up.ID, 0, fresh))
	if len(was) != 1 || len(places) == 0 || slices.Contains(places, was[0].Name) {
		t.Errorf("it was in %v, and %v were written to", was, places)
	}
	w.finishes(up.ID, fresh)
}

// A put that panics does not keep the session's other puts waiting.
func TestAPanicLeavesTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := random(2 * chunk)
		up := w.begin(int64(len(b)))
		w.blobs.FailWrite(func(string, int64) error { panic("the store is broken") })
		func() {
			defer func() { _ = recover() }()
			_ = w.put(up.ID, 0, b[:chunk])
		}()
		w.blobs.FailWrite(nil)
		began := time.Now()
		w.check(w.put(up.ID, 1, b[chunk:]))
		if took := time.Since(began); took != 0 {
			t.Errorf("the next put waited for %s", took)
		}
		w.check(w.put(up.ID, 0, b[:chunk]))
		w.finishes(up.ID, b)
	})
}
