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

// startHasher starts the background hasher of a session, unless one runs. It hashes what is
// recorded ahead of the prefix hash.
func (u *Service) startHasher(id session.SessionID) {
	t := u.tracks.hold(id)
	t.mu.Lock()
	start := !t.hashing && u.stop.Err() == nil
	t.hashing = t.hashing || start
	t.mu.Unlock()
	if !start {
		u.tracks.release(t)
		return
	}
	u.wg.Go(func() {
		defer u.tracks.release(t)
		err := panics.Try(func() error { return u.hashRecorded(u.stop, t) })
		if err != nil && u.stop.Err() == nil {
			u.cfg.Log.Warn("hashing ahead failed", "session", id, "err", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.hashing, t.hashErr = false, err
		t.notify()
	})
}

// checkpointEvery is how much is hashed between two saved states, in bytes: what a restart or a
// Drop costs at most.
const checkpointEvery = 64 << 20

// hashRecorded hashes to the end of what is recorded without a gap, slice by slice.
func (u *Service) hashRecorded(ctx context.Context, t *track) error {
	for ctx.Err() == nil {
		s, r, err := u.hashOffset(ctx, t)
		if err != nil || r.off >= s.Prefix() || s.State.Ended() {
			return err
		}
		if s, r, err = u.hashSlice(ctx, t, s.Prefix()-r.off); err != nil {
			if errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing) {
				if e := u.dropLost(ctx, t.id, session.Range{Off: r.off, End: min(s.Prefix(), r.off+sliceBytes)}); e != nil {
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

// hashOffset gives the session and how far it is hashed.
func (u *Service) hashOffset(ctx context.Context, t *track) (s session.Session, r prefixHash, err error) {
	if s, err = u.cfg.Sessions.Status(ctx, t.id); err == nil && !s.State.Ended() {
		r, err = u.prefixHash(ctx, t, s)
	}
	return s, r, err
}

// hashSlice hashes on for one slice, in its turn; left is how much there is to hash. It gives the
// session as it was before, and how far it is hashed.
func (u *Service) hashSlice(ctx context.Context, t *track, left int64) (s session.Session, r prefixHash, err error) {
	if err = u.hashSlots.acquire(ctx, left, t.finishWaiting); err != nil {
		return s, r, err
	}
	defer u.hashSlots.release()
	s, r, err = u.hashOffset(ctx, t) // the puts may have gone on meanwhile
	if err != nil || s.State.Ended() || r.off >= s.Prefix() {
		return s, r, err
	}
	from := r.off
	if err := u.hashRange(ctx, s, &r, min(s.Prefix(), r.off+sliceBytes)); err != nil {
		return s, r, err
	}
	after, err := u.cfg.Sessions.Status(ctx, t.id)
	if err != nil {
		return s, r, err
	}
	t.advanceHash(after, r)
	if r.off/checkpointEvery > from/checkpointEvery {
		err = u.saveCheckpoint(ctx, after, r)
	}
	return s, r, err
}

// finishWaiting reports whether a finish waits for the hash.
func (t *track) finishWaiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.finishesWaiting > 0
}

// addFinish counts a finish that waits for the hash, until done.
func (t *track) addFinish() (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finishesWaiting++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.finishesWaiting--
	}
}

// moved gives session.ErrGenMoved instead of err where the session is not what it was in s any
// more: then what failed may be gone from it.
func (u *Service) moved(ctx context.Context, s session.Session, err error) error {
	now, e := u.cfg.Sessions.Status(ctx, s.ID)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case now.Rev != s.Rev:
		return session.ErrGenMoved
	}
	return err
}

// saveCheckpoint keeps the state of a background hasher through a restart.
func (u *Service) saveCheckpoint(ctx context.Context, s session.Session, r prefixHash) error {
	state, err := r.checkpoint()
	if err != nil {
		return err
	}
	return u.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, open, err := catalog.Reservations.Find(tx, catalog.Number(s.ID)); err != nil || !open {
			return err // it has ended meanwhile, and its states are forgotten
		}
		return catalog.SaveCheckpoint(tx, catalog.HashCheckpoint{Session: uint64(s.ID), Off: r.off, Gen: r.gen, State: state})
	})
}

// hashRange reads the recorded bytes from r.off to `to` and hashes them. It reads whole extents,
// from their beginning, so that the store checks each against the CRC of the buffers that were
// written.
func (u *Service) hashRange(ctx context.Context, s session.Session, r *prefixHash, to int64) error {
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.Range{Off: r.off, End: to}, 0)
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
	body, err := u.cfg.Blobs.Read(ctx, extents, 0, end-from)
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

// waitForDigest waits until SHA-256 has got to the end of a session that was loaded as `was`, and
// gives it with the session that it is true of.
func (u *Service) waitForDigest(ctx context.Context, was session.Session, length int64) (sum catalog.SHA256, s session.Session, err error) {
	id := was.ID
	t := u.tracks.hold(id)
	defer u.tracks.release(t)
	defer t.addFinish()()
	for tries := 0; ; tries++ {
		if s = was; tries > 0 {
			if s, err = u.cfg.Sessions.Status(ctx, id); err != nil {
				return sum, s, err
			}
		}
		if s.State.Ended() {
			return sum, s, s.State.Err() // its pieces are forgotten, there is nothing left to hash
		}
		if s.Prefix() > length {
			return sum, s, &LengthError{Want: s.Prefix(), Got: length} // somebody goes on sending
		}
		if s.Prefix() < length {
			return sum, s, s.Incomplete(length)
		}
		r, err := u.prefixHash(ctx, t, s)
		if err != nil {
			return sum, s, err
		}
		if r.off == length {
			copy(sum[:], r.h.Sum(nil))
			return sum, s, nil
		}
		t.mu.Lock()
		changed, running, failed := t.changed, t.hashing, t.hashErr
		t.hashErr = nil
		t.mu.Unlock()
		if !running && failed != nil && tries > 0 {
			return sum, s, failed
		}
		if u.stop.Err() != nil {
			return sum, s, blob.ErrUnavailable
		}
		if !running {
			u.startHasher(id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sum, s, ctx.Err()
		}
	}
}
