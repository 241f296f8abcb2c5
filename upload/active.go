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

// activeSession is what a Service keeps in memory of a session that requests work on: how far
// SHA-256 has got, and how far the session's entries have been checked. That can be loaded again
// from the entries' notes and the catalog's checkpoints. So an activeSession may be evicted as soon
// as no request uses it.
type activeSession struct {
	id   session.SessionID
	now  func() time.Time
	refs int           // under activeSessions.mu
	idle *list.Element // in activeSessions.idle while no request uses it

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
	// writers counts the running puts that may write, by the generation in the name of their place.
	writers    map[uint64]int
	firstWaits firstWaits
}

// prefixHash is the state of SHA-256 over the first off bytes of the session, as these bytes were
// at generation gen.
type prefixHash struct {
	off int64
	gen uint64
	h   hash.Hash
}

// activeSessions has the sessions that requests work on, and the ones used last, for the next
// request.
type activeSessions struct {
	now func() time.Time // by which puts wait for each other

	mu   sync.Mutex
	all  map[session.SessionID]*activeSession
	idle list.List // of *activeSession, the longest unused first
}

// maxIdle is how many sessions are kept that no request uses. Each takes about 300 bytes.
const maxIdle = 1024

func (as *activeSessions) acquire(id session.SessionID) *activeSession {
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.all[id]
	if a == nil {
		a = &activeSession{id: id, now: as.now, changed: make(chan struct{})}
		as.all[id] = a
	}
	as.use(a)
	return a
}

// use counts one more user of a. as.mu is held.
func (as *activeSessions) use(a *activeSession) {
	if a.refs++; a.idle != nil {
		as.idle.Remove(a.idle)
		a.idle = nil
	}
}

func (as *activeSessions) release(a *activeSession) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a.refs--; a.refs > 0 {
		return
	}
	a.idle = as.idle.PushBack(a)
	if as.idle.Len() > maxIdle {
		as.evict(as.idle.Front().Value.(*activeSession))
	}
}

// evict forgets a session that no request uses. as.mu is held.
func (as *activeSessions) evict(a *activeSession) {
	as.idle.Remove(a.idle)
	delete(as.all, a.id)
}

// forget evicts a session that has ended, unless a request uses it.
func (as *activeSessions) forget(id session.SessionID) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.all[id]; a != nil && a.refs == 0 {
		as.evict(a)
	}
}

// notify wakes all waiters. a.mu is held.
func (a *activeSession) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// prefixHash gives a copy of the prefix hash that is valid for s. It loads the hash if it is not in
// memory.
func (u *Service) prefixHash(ctx context.Context, a *activeSession, s session.Session) (prefixHash, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := u.loadHash(ctx, a, s); err != nil {
		return prefixHash{}, err
	}
	return a.hash.clone()
}

// hashed gives how many bytes of s the prefix hash covers.
func (u *Service) hashed(ctx context.Context, a *activeSession, s session.Session) (off int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err = u.loadHash(ctx, a, s)
	return a.hash.off, err
}

// loadHash makes a.hash one that is valid for s. a.mu is held.
func (u *Service) loadHash(ctx context.Context, a *activeSession, s session.Session) error {
	if a.loaded && s.Stale(a.hash.gen, session.Range{End: a.hash.off}) {
		a.loaded = false
	}
	if !a.loaded {
		p, err := u.loadCheckpoint(ctx, s)
		if err != nil {
			return err
		}
		a.hash, a.loaded = p, true
	}
	a.hash.gen = max(a.hash.gen, s.Gen)
	return nil
}

// loadCheckpoint finds the furthest stored state of the prefix hash: in the notes of the entries,
// or in the checkpoints of a background hasher.
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
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return best, fmt.Errorf("session %s, bytes from %d: %w", s.ID, e.Off, err)
		}
		consider(n.Hashed, n.Gen, n.State)
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

func (p prefixHash) clone() (prefixHash, error) {
	h, err := p.h.(hash.Cloner).Clone()
	return prefixHash{p.off, p.gen, h}, err
}

// checkpoint encodes the state as it is stored.
func (p prefixHash) checkpoint() ([]byte, error) {
	return p.h.(encoding.BinaryMarshaler).MarshalBinary()
}

// advanceHash makes p the prefix hash of the session, if p is further and still true of s. All
// bytes of s up to p.off are recorded.
func (a *activeSession) advanceHash(s session.Session, p prefixHash) {
	if s.Stale(p.gen, session.Range{End: p.off}) || s.Prefix() < p.off {
		return
	}
	c, err := p.clone()
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.loaded && a.hash.off >= p.off && !s.Stale(a.hash.gen, session.Range{End: a.hash.off}) {
		return
	}
	c.gen = max(p.gen, s.Gen)
	a.hash, a.loaded = c, true
	a.notify()
}
