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

// startHasher starts the background hasher of a session, unless one runs. The hasher reads the
// recorded bytes after the end of the prefix hash.
func (u *Service) startHasher(id session.SessionID) {
	a := u.active.acquire(id)
	a.mu.Lock()
	start := !a.hashing && u.stop.Err() == nil
	a.hashing = a.hashing || start
	a.mu.Unlock()
	if !start {
		u.active.release(a)
		return
	}
	u.wg.Go(func() {
		defer u.active.release(a)
		err := panics.Try(func() error { return u.hashRecorded(u.stop, a) })
		if err != nil && u.stop.Err() == nil {
			u.cfg.Log.Warn("hashing ahead failed", "session", id, "err", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.hashing, a.hashErr = false, err
		a.notify()
	})
}

// checkpointEvery is how many bytes are hashed between two checkpoints. A restart costs at most
// that much work. After a Drop all bytes behind it are hashed again, too.
const checkpointEvery = 64 << 20

// hashRecorded hashes the recorded bytes up to the first gap, slice by slice.
func (u *Service) hashRecorded(ctx context.Context, a *activeSession) error {
	for ctx.Err() == nil {
		s, p, err := u.hashOffset(ctx, a)
		if err != nil || p.off >= s.Prefix() || s.State.Ended() {
			return err
		}
		if s, p, err = u.hashSlice(ctx, a, s.Prefix()-p.off); err != nil {
			if errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing) {
				slice := session.Range{Off: p.off, End: min(s.Prefix(), p.off+sliceBytes)}
				if e := u.dropUnreadable(ctx, a.id, slice); e != nil {
					return errors.Join(err, e)
				}
			}
			if s.ID != 0 { // the session was there
				err = u.changedOr(ctx, s, err)
			}
			if !errors.Is(err, session.ErrGenMoved) {
				return err
			}
		}
	}
	return ctx.Err()
}

// hashOffset loads the session and its prefix hash.
func (u *Service) hashOffset(ctx context.Context, a *activeSession) (s session.Session, p prefixHash, err error) {
	if s, err = u.cfg.Sessions.Status(ctx, a.id); err == nil && !s.State.Ended() {
		p, err = u.prefixHash(ctx, a, s)
	}
	return s, p, err
}

// hashSlice waits for a hash slot and hashes one slice; remaining is how many bytes there are to
// hash. It gives the session as it was before, and the new prefix hash.
func (u *Service) hashSlice(
	ctx context.Context, a *activeSession, remaining int64,
) (s session.Session, p prefixHash, err error) {
	if err = u.hashSlots.acquire(ctx, remaining, a.finishWaiting); err != nil {
		return s, p, err
	}
	defer u.hashSlots.release()
	s, p, err = u.hashOffset(ctx, a) // puts may have recorded more meanwhile
	if err != nil || s.State.Ended() || p.off >= s.Prefix() {
		return s, p, err
	}
	from := p.off
	if err := u.hashRange(ctx, s, &p, min(s.Prefix(), p.off+sliceBytes)); err != nil {
		return s, p, err
	}
	after, err := u.cfg.Sessions.Status(ctx, a.id)
	if err != nil {
		return s, p, err
	}
	a.advanceHash(after, p)
	if p.off/checkpointEvery > from/checkpointEvery {
		err = u.saveCheckpoint(ctx, after, p)
	}
	return s, p, err
}

// finishWaiting reports whether a finish waits for the hash.
func (a *activeSession) finishWaiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.finishesWaiting > 0
}

// addFinish counts a finish that waits for the hash, until done is called.
func (a *activeSession) addFinish() (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finishesWaiting++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.finishesWaiting--
	}
}

// changedOr gives err, or session.ErrGenMoved if the session has changed since s was loaded: then
// the bytes that failed may be gone from it.
func (u *Service) changedOr(ctx context.Context, s session.Session, err error) error {
	now, e := u.cfg.Sessions.Status(ctx, s.ID)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case now.Rev != s.Rev:
		return session.ErrGenMoved
	}
	return err
}

// saveCheckpoint stores the state of a background hasher, so that a restart does not lose it.
func (u *Service) saveCheckpoint(ctx context.Context, s session.Session, p prefixHash) error {
	state, err := p.checkpoint()
	if err != nil {
		return err
	}
	return u.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, open, err := catalog.Reservations.Find(tx, catalog.Number(s.ID)); err != nil || !open {
			return err // the session has ended, and its checkpoints are deleted
		}
		return catalog.SaveCheckpoint(
			tx, catalog.HashCheckpoint{Session: uint64(s.ID), Off: p.off, Gen: p.gen, State: state},
		)
	})
}

// hashRange reads the recorded bytes from p.off to `to` and hashes them. It reads whole extents
// from their beginning, so that the store compares each extent with its CRC.
func (u *Service) hashRange(ctx context.Context, s session.Session, p *prefixHash, to int64) error {
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.Range{Off: p.off, End: to}, 0)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	extents, err := extentsOf(entries, p.off)
	if err != nil {
		return err
	}
	from, end := entries[0].Off, entries[len(entries)-1].End
	content, err := u.cfg.Blobs.Read(ctx, extents, 0, end-from)
	if err != nil {
		return err
	}
	defer content.Close()
	buf := make([]byte, 256<<10)
	for at := from; at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(content, buf[:min(int64(len(buf)), end-at)])
		if err != nil {
			return fmt.Errorf("reading session %s at %d: %w", s.ID, at, err)
		}
		if skip := max(p.off-at, 0); skip < int64(n) {
			p.h.Write(buf[skip:n])
			p.off = at + int64(n)
		}
		at += int64(n)
	}
	return nil
}

// waitForDigest waits until SHA-256 has reached the end of a session, which was loaded as `was`. It
// gives the digest and the session that the digest is true of.
func (u *Service) waitForDigest(
	ctx context.Context, was session.Session, length int64,
) (sum catalog.SHA256, s session.Session, err error) {
	id := was.ID
	a := u.active.acquire(id)
	defer u.active.release(a)
	defer a.addFinish()()
	for tries := 0; ; tries++ {
		if s = was; tries > 0 {
			if s, err = u.cfg.Sessions.Status(ctx, id); err != nil {
				return sum, s, err
			}
		}
		if s.State.Ended() {
			return sum, s, s.State.Err() // its entries are deleted: there is nothing left to hash
		}
		if s.Prefix() > length {
			return sum, s, &LengthError{Want: s.Prefix(), Got: length} // another request has sent more
		}
		if s.Prefix() < length {
			return sum, s, s.Incomplete(length)
		}
		p, err := u.prefixHash(ctx, a, s)
		if err != nil {
			return sum, s, err
		}
		if p.off == length {
			copy(sum[:], p.h.Sum(nil))
			return sum, s, nil
		}
		a.mu.Lock()
		changed, running, failed := a.changed, a.hashing, a.hashErr
		a.hashErr = nil
		a.mu.Unlock()
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
