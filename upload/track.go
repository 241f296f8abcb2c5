package upload

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"sluice/catalog"
	"sluice/session"
)

// track is what a Service keeps in memory of a session it works on: how far SHA-256 has got, and how far its pieces are
// trusted. Everything in it can be had again from the entries' notes and the catalog's saved states, so that a
// track may be forgotten at any time.
type track struct {
	id   session.SessionID
	refs int           // under tracks.mu
	idle *list.Element // in tracks.idle while nobody works on it

	mu        sync.Mutex
	roll      rolling
	loaded    bool
	trusted   Care
	following bool
	checking  bool
	err       error // of the last follower
	checkErr  error // of the last check
	changed   chan struct{}
	turns     []*turn // the puts that are running
	pace      pace
}

// rolling is the state of SHA-256 over the first off bytes of the session, as they were at gen.
type rolling struct {
	off int64
	gen uint64
	h   hash.Hash
}

// tracks holds the sessions being worked on, and those that were last, for the next request.
type tracks struct {
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
		t = &track{id: id, changed: make(chan struct{})}
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

// cursor gives a copy of the rolling state that is valid for s, loading it where it is not in memory.
func (u *Service) cursor(ctx context.Context, t *track, s session.Session) (rolling, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loaded && s.Stale(t.roll.gen, session.Range{End: t.roll.off}) {
		t.loaded = false
	}
	if !t.loaded {
		r, err := u.saved(ctx, s)
		if err != nil {
			return rolling{}, err
		}
		t.roll, t.loaded = r, true
	}
	t.roll.gen = max(t.roll.gen, s.Gen)
	return t.roll.clone()
}

// saved finds the furthest state that was stored: in the notes of the entries, or by a follower.
func (u *Service) saved(ctx context.Context, s session.Session) (rolling, error) {
	best, state := rolling{gen: s.Gen, h: sha256.New()}, []byte(nil)
	prefix := session.Range{End: s.Prefix()}
	consider := func(off int64, gen uint64, b []byte) {
		if off > best.off && off <= prefix.End && len(b) > 0 && !s.Stale(gen, session.Range{End: off}) {
			best.off, state = off, b
		}
	}
	entries, err := u.Sessions.Entries(ctx, s.ID, prefix, 0)
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
	err = u.Catalog.View(ctx, func(r catalog.Reader) error {
		for st, err := range catalog.LatestState(r, uint64(s.ID)) {
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

func (r rolling) clone() (rolling, error) {
	h, err := r.h.(hash.Cloner).Clone()
	return rolling{r.off, r.gen, h}, err
}

// encoded gives the state as it is stored.
func (r rolling) encoded() ([]byte, error) {
	return r.h.(encoding.BinaryMarshaler).MarshalBinary()
}

// publish makes r the rolling state, if it is further and still true of s, all of whose bytes up to r.off are recorded.
func (t *track) publish(s session.Session, r rolling) {
	if s.Stale(r.gen, session.Range{End: r.off}) || s.Prefix() < r.off {
		return
	}
	c, err := r.clone()
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loaded && t.roll.off >= r.off && !s.Stale(t.roll.gen, session.Range{End: t.roll.off}) {
		return
	}
	c.gen = max(r.gen, s.Gen)
	t.roll, t.loaded = c, true
	t.notify()
}

// follow starts the follower of a session, unless one runs: it hashes what is recorded ahead of the rolling state.
func (u *Service) follow(id session.SessionID) {
	t := u.tracks.hold(id)
	t.mu.Lock()
	start := !t.following && u.stop.Err() == nil
	t.following = t.following || start
	t.mu.Unlock()
	if !start {
		u.tracks.release(t)
		return
	}
	u.wg.Go(func() {
		defer u.tracks.release(t)
		var err error
		select {
		case u.slots <- struct{}{}:
			err = u.catchUp(u.stop, t)
			<-u.slots
		case <-u.stop.Done():
			err = ErrUnavailable
		}
		if err != nil && u.stop.Err() == nil {
			u.Log.Warn("hashing ahead failed", "session", id, "err", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.following, t.err = false, err
		t.notify()
	})
}

// ladder is how much a follower hashes between two saved states, in bytes: what a restart or a Drop costs at most.
const ladder = 64 << 20

// catchUp hashes to the end of what is recorded without a gap.
func (u *Service) catchUp(ctx context.Context, t *track) error {
	for ctx.Err() == nil {
		s, err := u.Sessions.Status(ctx, t.id)
		if err != nil || s.State.Ended() {
			return err
		}
		r, err := u.cursor(ctx, t, s)
		if err != nil || r.off >= s.Prefix() {
			return err
		}
		from, to := r.off, min(s.Prefix(), r.off+ladder)
		if err := u.hashRange(ctx, s, &r, to); err != nil {
			if errors.Is(err, ErrRotten) || errors.Is(err, ErrNoPlace) {
				if e := u.dropLost(ctx, t.id, session.Range{Off: r.off, End: to}); e != nil {
					return errors.Join(err, e)
				}
			}
			if err = u.moved(ctx, s, err); errors.Is(err, session.ErrGenMoved) {
				continue
			}
			return err
		}
		if s, err = u.Sessions.Status(ctx, t.id); err != nil {
			return err
		}
		t.publish(s, r)
		if r.off/ladder > from/ladder {
			if err := u.saveState(ctx, s, r); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// moved gives session.ErrGenMoved instead of err where the session is not what it was in s any more: then what failed may be gone from it.
func (u *Service) moved(ctx context.Context, s session.Session, err error) error {
	now, e := u.Sessions.Status(ctx, s.ID)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case now.Rev != s.Rev:
		return session.ErrGenMoved
	}
	return err
}

// saveState keeps the state of a follower through a restart.
func (u *Service) saveState(ctx context.Context, s session.Session, r rolling) error {
	state, err := r.encoded()
	if err != nil {
		return err
	}
	return u.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, open, err := catalog.Reservations.Find(tx, catalog.Number(s.ID)); err != nil || !open {
			return err // it has ended meanwhile, and its states are forgotten
		}
		return catalog.SaveState(tx, catalog.HashState{Session: uint64(s.ID), Off: r.off, Gen: r.gen, State: state})
	})
}

// hashRange reads the recorded bytes from r.off to `to` and hashes them. It reads whole extents, from their beginning, so that the
// store checks each against the CRC of the buffers that were written.
func (u *Service) hashRange(ctx context.Context, s session.Session, r *rolling, to int64) error {
	entries, err := u.Sessions.Entries(ctx, s.ID, session.Range{Off: r.off, End: to}, 0)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	extents, err := extentsOf(entries, r.off)
	if err != nil {
		return err
	}
	from, end := entries[0].Off, entries[len(entries)-1].End
	body, err := u.Blobs.Read(ctx, extents, 0, end-from)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, 256<<10)
	for at := from; at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), end-at)])
		if err != nil {
			return fmt.Errorf("reading session %s at %d: %w", s.ID, at, err)
		}
		if skip := max(r.off-at, 0); skip < int64(n) {
			r.h.Write(buf[skip:n])
			r.off = at + int64(n)
		}
		at += int64(n)
	}
	return nil
}

// extentsOf gives the extents of entries that follow each other without a gap, from `from` or before it on. An error where they don't: something was dropped since
// it was known to be there.
func extentsOf(entries []session.Entry, from int64) ([]catalog.Extent, error) {
	extents := make([]catalog.Extent, len(entries))
	for i, e := range entries {
		if e.Off > from || i > 0 && e.Off != from {
			return nil, fmt.Errorf("bytes from %d are not recorded", from)
		}
		from = e.End
		p, err := decodePiece(e.Note)
		if err != nil {
			return nil, fmt.Errorf("bytes from %d: %w", e.Off, err)
		}
		extents[i] = p.extent(e.Range)
	}
	return extents, nil
}

// digest waits until SHA-256 has got to the session's end, and gives it with the generation that it is true of.
func (u *Service) digest(ctx context.Context, id session.SessionID, length int64) (sum catalog.SHA256, s session.Session, err error) {
	t := u.tracks.hold(id)
	defer u.tracks.release(t)
	for tries := 0; ; tries++ {
		if s, err = u.Sessions.Status(ctx, id); err != nil {
			return sum, s, err
		}
		if s.State.Ended() {
			return sum, s, s.State.Err() // by somebody else: its pieces are forgotten, there is nothing left to hash
		}
		if s.Prefix() > length {
			return sum, s, &LengthError{Want: s.Prefix(), Got: length} // somebody goes on sending
		}
		if s.Prefix() < length {
			return sum, s, s.Incomplete(length)
		}
		r, err := u.cursor(ctx, t, s)
		if err != nil {
			return sum, s, err
		}
		if r.off == length {
			copy(sum[:], r.h.Sum(nil))
			return sum, s, nil
		}
		t.mu.Lock()
		changed, running, failed := t.changed, t.following, t.err
		t.err = nil
		t.mu.Unlock()
		if !running && failed != nil && tries > 0 {
			return sum, s, failed
		}
		if u.stop.Err() != nil {
			return sum, s, ErrUnavailable
		}
		if !running {
			u.follow(id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sum, s, ctx.Err()
		}
	}
}
