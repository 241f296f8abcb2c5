package upload

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding"
	"fmt"
	"hash"
	"sync"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// track is what a Service keeps in memory of a session it works on: how far SHA-256 has got, and
// how far its pieces are trusted. Everything in it can be had again from the entries' notes and the
// catalog's saved states, so that a track may be forgotten at any time.
type track struct {
	id   session.SessionID
	now  func() time.Time
	refs int           // under tracks.mu
	idle *list.Element // in tracks.idle while nobody works on it

	mu              sync.Mutex
	hash            prefixHash
	loaded          bool
	checked         blob.CheckPolicy
	hashing         bool
	finishesWaiting int // finishes that wait for the hash
	checking        bool
	hashErr         error // of the last background hasher
	checkErr        error // of the last check
	changed         chan struct{}
	puts            []*orderedBody // the puts that are running
	// writing counts the puts that may write, by the generation in the name of their place.
	writing map[uint64]int
	pace    pace
}

// prefixHash is the state of SHA-256 over the first off bytes of the session, as they were at gen.
type prefixHash struct {
	off int64
	gen uint64
	h   hash.Hash
}

// tracks holds the sessions being worked on, and those that were last, for the next request.
type tracks struct {
	now func() time.Time // by which puts wait for each other

	mu   sync.Mutex
	all  map[session.SessionID]*track
	idle list.List // of *track, the longest unused first
}

// idleTracks is how many may be kept without anybody working on them, at about 300 bytes each.
const idleTracks = 1024

func (ts *tracks) hold(id session.SessionID) *track {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.all[id]
	if t == nil {
		t = &track{id: id, now: ts.now, changed: make(chan struct{})}
		ts.all[id] = t
	}
	ts.use(t)
	return t
}

// use counts one more who works on t. mu is held.
func (ts *tracks) use(t *track) {
	if t.refs++; t.idle != nil {
		ts.idle.Remove(t.idle)
		t.idle = nil
	}
}

func (ts *tracks) release(t *track) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.refs--; t.refs > 0 {
		return
	}
	t.idle = ts.idle.PushBack(t)
	if ts.idle.Len() > idleTracks {
		ts.drop(ts.idle.Front().Value.(*track))
	}
}

// drop forgets a track that nobody works on. mu is held.
func (ts *tracks) drop(t *track) {
	ts.idle.Remove(t.idle)
	delete(ts.all, t.id)
}

// forget drops what is known of a session that has ended.
func (ts *tracks) forget(id session.SessionID) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.all[id]; t != nil && t.refs == 0 {
		ts.drop(t)
	}
}

// notify wakes who waits; t.mu is held.
func (t *track) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// prefixHash gives a copy of the prefix hash that is valid for s, loading it where it is not in
// memory.
func (u *Service) prefixHash(ctx context.Context, t *track, s session.Session) (prefixHash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := u.loadHash(ctx, t, s); err != nil {
		return prefixHash{}, err
	}
	return t.hash.clone()
}

// hashed is how far the prefix hash has got that is valid for s.
func (u *Service) hashed(ctx context.Context, t *track, s session.Session) (off int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = u.loadHash(ctx, t, s)
	return t.hash.off, err
}

// loadHash makes t.hash one that is valid for s. t.mu is held.
func (u *Service) loadHash(ctx context.Context, t *track, s session.Session) error {
	if t.loaded && s.Stale(t.hash.gen, session.Range{End: t.hash.off}) {
		t.loaded = false
	}
	if !t.loaded {
		r, err := u.loadCheckpoint(ctx, s)
		if err != nil {
			return err
		}
		t.hash, t.loaded = r, true
	}
	t.hash.gen = max(t.hash.gen, s.Gen)
	return nil
}

// loadCheckpoint finds the furthest state that was stored: in the notes of the entries, or by a
// background hasher.
func (u *Service) loadCheckpoint(ctx context.Context, s session.Session) (prefixHash, error) {
	best, state := prefixHash{gen: s.Gen, h: sha256.New()}, []byte(nil)
	prefix := session.Range{End: s.Prefix()}
	if prefix.Empty() {
		return best, nil
	}
	consider := func(off int64, gen uint64, b []byte) {
		if off > best.off && off <= prefix.End && len(b) > 0 && !s.Stale(gen, session.Range{End: off}) {
			best.off, state = off, b
		}
	}
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, prefix, 0)
	if err != nil {
		return best, err
	}
	for _, e := range entries {
		p, err := decodePiece(e.Note)
		if err != nil {
			return best, fmt.Errorf("session %s, bytes from %d: %w", s.ID, e.Off, err)
		}
		consider(p.Hashed, p.Gen, p.State)
	}
	err = u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		for st, err := range catalog.CheckpointsBack(r, uint64(s.ID)) {
			if err != nil {
				return err
			}
			consider(st.Off, st.Gen, st.State)
		}
		return nil
	})
	if err != nil || state == nil {
		return best, err
	}
	return best, best.h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

func (r prefixHash) clone() (prefixHash, error) {
	h, err := r.h.(hash.Cloner).Clone()
	return prefixHash{r.off, r.gen, h}, err
}

// checkpoint gives the state as it is stored.
func (r prefixHash) checkpoint() ([]byte, error) {
	return r.h.(encoding.BinaryMarshaler).MarshalBinary()
}

// advanceHash makes r the prefix hash, if it is further and still true of s, all of whose bytes up
// to r.off are recorded.
func (t *track) advanceHash(s session.Session, r prefixHash) {
	if s.Stale(r.gen, session.Range{End: r.off}) || s.Prefix() < r.off {
		return
	}
	c, err := r.clone()
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loaded && t.hash.off >= r.off && !s.Stale(t.hash.gen, session.Range{End: t.hash.off}) {
		return
	}
	c.gen = max(r.gen, s.Gen)
	t.hash, t.loaded = c, true
	t.notify()
}
