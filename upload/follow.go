package upload

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/panics"
	"sluice/session"
)

// follow starts the follower of a session, unless one runs: it hashes what is recorded ahead of the
// rolling state.
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
		err := panics.Try(func() error { return u.catchUp(u.stop, t) })
		if err != nil && u.stop.Err() == nil {
			u.Log.Warn("hashing ahead failed", "session", id, "err", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.following, t.err = false, err
		t.notify()
	})
}

// ladder is how much is hashed between two saved states, in bytes: what a restart or a Drop costs
// at most.
const ladder = 64 << 20

// catchUp hashes to the end of what is recorded without a gap, slice by slice.
func (u *Service) catchUp(ctx context.Context, t *track) error {
	for ctx.Err() == nil {
		s, r, err := u.behind(ctx, t)
		if err != nil || r.off >= s.Prefix() || s.State.Ended() {
			return err
		}
		if s, r, err = u.hashSlice(ctx, t, s.Prefix()-r.off); err != nil {
			if errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing) {
				if e := u.dropLost(ctx, t.id, session.Range{Off: r.off, End: min(s.Prefix(), r.off+slice)}); e != nil {
					return errors.Join(err, e)
				}
			}
			if s.ID != 0 { // the session was there
				err = u.moved(ctx, s, err)
			}
			if !errors.Is(err, session.ErrGenMoved) {
				return err
			}
		}
	}
	return ctx.Err()
}

// behind gives the session and how far it is hashed.
func (u *Service) behind(ctx context.Context, t *track) (s session.Session, r rolling, err error) {
	if s, err = u.Sessions.Status(ctx, t.id); err == nil && !s.State.Ended() {
		r, err = u.cursor(ctx, t, s)
	}
	return s, r, err
}

// hashSlice hashes on for one slice, in its turn; left is how much there is to hash. It gives the
// session as it was before, and how far it is hashed.
func (u *Service) hashSlice(ctx context.Context, t *track, left int64) (s session.Session, r rolling, err error) {
	if err = u.hashers.enter(ctx, left, t.isAwaited); err != nil {
		return s, r, err
	}
	defer u.hashers.leave()
	s, r, err = u.behind(ctx, t) // the puts may have gone on meanwhile
	if err != nil || s.State.Ended() || r.off >= s.Prefix() {
		return s, r, err
	}
	from := r.off
	if err := u.hashRange(ctx, s, &r, min(s.Prefix(), r.off+slice)); err != nil {
		return s, r, err
	}
	after, err := u.Sessions.Status(ctx, t.id)
	if err != nil {
		return s, r, err
	}
	t.publish(after, r)
	if r.off/ladder > from/ladder {
		err = u.saveState(ctx, after, r)
	}
	return s, r, err
}

// isAwaited reports whether a finish waits for the hash.
func (t *track) isAwaited() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.awaited > 0
}

// await counts a finish that waits for the hash, until done.
func (t *track) await() (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.awaited++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.awaited--
	}
}

// moved gives session.ErrGenMoved instead of err where the session is not what it was in s any
// more: then what failed may be gone from it.
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

// hashRange reads the recorded bytes from r.off to `to` and hashes them. It reads whole extents,
// from their beginning, so that the store checks each against the CRC of the buffers that were
// written.
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

// extentsOf gives the extents of entries that follow each other without a gap, from `from` or
// before it on. An error where they don't: something was dropped since it was known to be there.
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

// digest waits until SHA-256 has got to the session's end, and gives it with the generation that it
// is true of.
func (u *Service) digest(ctx context.Context, id session.SessionID, length int64) (sum catalog.SHA256, s session.Session, err error) {
	t := u.tracks.hold(id)
	defer u.tracks.release(t)
	defer t.await()()
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
			return sum, s, blob.ErrUnavailable
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
