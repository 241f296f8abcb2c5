package upload_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// An abort comes between a put's Commit and its record. The put's bytes are given back at once.
func TestAnAbortBetweenCommitAndRecordLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.rewire(w.blobs, limits())
		b := random(2 * chunk)
		up := w.begin(2 * chunk)
		aborted := make(chan error, 1)
		meet := func() {
			go func() { aborted <- w.Abort(t.Context(), w.me, up.ID) }()
			synctest.Wait() // it has sealed, and waits for this commit
		}
		e.record.Store(&meet)
		if err := w.put(up.ID, 0, b[:chunk]); !errors.Is(err, session.ErrAborted) {
			t.Errorf("the put: %v", err)
		}
		w.check(<-aborted)
		w.check(w.Reclaim(t.Context(), true))
		places, err := w.blobs.Places(t.Context(), "", 10)
		w.check(err)
		for _, p := range places {
			t.Errorf("%s is left", p.Name)
		}
	})
}

// controllers makes these principals the controllers of the default capsule.
func (w *world) controllers(ids ...string) {
	change := func(c *catalog.Capsule) error { c.Controllers = ids; return nil }
	w.check(w.catalog.Update(w.t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(tx, "default", change, catalog.Moment{})
		return err
	}))
}

// A replacement waits for an end. Its caller loses the role meanwhile, and the end is taken back:
// nothing is dropped.
func TestAReplacementNeedsTheRoleUntilItDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		who := w.join("who")
		w.controllers(who.Principal)
		b, fresh := random(chunk), random(chunk)
		sealed, goOn := make(chan struct{}), make(chan struct{})
		persist := func() { close(sealed); <-goOn }
		s := &hookedPersist{Mem: w.blobs, err: errors.New("the disk is gone")}
		s.persist.Store(&persist)
		w.rewire(s, limits())
		req := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: chunk, Chunks: -1}
		up, err := w.Begin(t.Context(), who, req)
		w.check(err)
		w.check(w.PutChunk(t.Context(), who, up.ID, 0, bytes.NewReader(b), upload.Put{Length: chunk}))
		finished, put := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := w.Finish(t.Context(), who, upload.FinishRequest{ID: up.ID, UseServerDigest: true, Length: chunk})
			finished <- err
		}()
		<-sealed
		go func() {
			p := upload.Put{Length: chunk, Replace: true}
			put <- w.PutChunk(t.Context(), who, up.ID, 0, bytes.NewReader(fresh), p)
		}()
		time.Sleep(time.Second)
		w.controllers()
		close(goOn)
		<-finished
		if err := <-put; !errors.Is(err, access.ErrForbidden) {
			t.Errorf("the put: %v", err)
		}
		if s, err := w.sessions.Status(t.Context(), up.ID); err != nil || s.Bytes() != chunk {
			t.Errorf("%d bytes are left of %d, %v", s.Bytes(), chunk, err)
		}
	})
}

// The same of a replacement that waits for the record of the bytes that it would drop.
func TestAReplacementNeedsTheRoleWhenItDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.rewire(w.blobs, limits())
		who := w.join("who")
		w.controllers(who.Principal)
		req := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: chunk, Chunks: -1}
		up, err := w.Begin(t.Context(), who, req)
		w.check(err)
		put := func(p upload.Put) error {
			p.Length = chunk
			return w.PutChunk(t.Context(), who, up.ID, 0, bytes.NewReader(random(chunk)), p)
		}
		replaced := make(chan error, 1)
		meet := func() {
			go func() { replaced <- put(upload.Put{Replace: true}) }()
			synctest.Wait() // it waits for this record
			w.controllers()
		}
		e.kept.Store(&meet)
		w.check(put(upload.Put{}))
		if err := <-replaced; !errors.Is(err, access.ErrForbidden) {
			t.Errorf("the replacement: %v", err)
		}
		if s, err := w.sessions.Status(t.Context(), up.ID); err != nil || s.Bytes() != chunk {
			t.Errorf("%d bytes are left of %d, %v", s.Bytes(), chunk, err)
		}
	})
}

// A right that ends after the last look and before the commit: the commit refuses, and nothing is
// recorded.
func TestTheCommitDecides(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	for name, end := range map[string]func(c access.Caller){
		"role": func(access.Caller) { w.controllers() },
		"token": func(c access.Caller) {
			w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
				return catalog.DeleteToken(tx, catalog.SHA256(c.Token))
			}))
		},
		"principal": func(c access.Caller) { w.check(w.access.DeletePrincipal(t.Context(), w.me, c.Principal)) },
	} {
		for _, length := range []int64{chunk, session.Unknown} {
			who := w.join(name)
			w.controllers(who.Principal)
			req := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: length, Chunks: -1}
			up, err := w.Begin(t.Context(), who, req)
			w.check(err)
			strike := func() { end(who) }
			for what, put := range map[string]func() error{
				"a chunk": func() error {
					p := upload.Put{Length: chunk}
					return w.PutChunk(t.Context(), who, up.ID, 0, bytes.NewReader(random(chunk)), p)
				},
				"a range": func() error {
					p := upload.Put{Length: chunk}
					_, err := w.PutRange(t.Context(), who, up.ID, 0, bytes.NewReader(random(chunk)), p)
					return err
				},
			} {
				e.record.Store(&strike)
				err := put()
				if !errors.Is(err, access.ErrForbidden) && !errors.Is(err, access.ErrUnauthenticated) {
					t.Errorf("%s of length %d, the %s has ended: %v", what, length, name, err)
				}
				strike = func() {} // it has ended
			}
			if s, err := w.sessions.Status(t.Context(), up.ID); err != nil || s.Bytes() != 0 {
				t.Errorf("%d bytes are recorded, %v", s.Bytes(), err)
			}
			e.create.Store(&strike)
			req.Meta.Name, strike = "b", func() { end(who) }
			who = w.join(name)
			w.controllers(who.Principal)
			if up, err := w.Begin(t.Context(), who, req); err == nil {
				t.Errorf("a begin, the %s has ended: session %s", name, up.ID)
			}
		}
	}
}
