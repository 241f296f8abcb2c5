package upload

import (
	"context"
	"errors"
	"fmt"

	"sluice/access"
	"sluice/catalog"
	"sluice/session"
)

// Abort ends the caller's session. The bytes that it had received become garbage. A repeat is fine.
// It gives session.ErrFinished if a finish was first.
func (u *Service) Abort(ctx context.Context, c access.Caller, id session.SessionID) error {
	if _, _, err := u.loadOwn(ctx, c, id, access.Upload, false); err != nil {
		return err
	}
	defer u.active.forget(id)
	return u.cfg.Sessions.Abort(ctx, id, u.Release)
}

// Release is the upload's part of an abort. In the commit that ends the session it gives the
// reservation back and marks the bytes as garbage. It is a session.End.
func (u *Service) Release(ctx context.Context, sealed []session.Session) (ended bool, err error) {
	return u.release(ctx, sealed, session.Aborted, catalog.SessionAborted)
}

// Expire is Release for sessions whose time to live has passed.
func (u *Service) Expire(ctx context.Context, sealed []session.Session) (ended bool, err error) {
	return u.release(ctx, sealed, session.Expired, catalog.SessionExpired)
}

func (u *Service) release(
	ctx context.Context, sealed []session.Session, to session.State, event catalog.EventType,
) (ended bool, err error) {
	places := make([][]string, len(sealed))
	for i, s := range sealed {
		entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.All(), 0)
		if err != nil {
			return false, err
		}
		var extents []catalog.Extent
		for _, e := range entries {
			// A note that can't be decoded names no place. The sweep for orphans will find the
			// place.
			if n, err := decodeEntryNote(e.Note); err == nil {
				extents = append(extents, n.extent(e.Range))
			}
		}
		places[i] = catalog.Content{Extents: extents}.Places()
	}
	at := u.moment()
	payers := make([]string, len(sealed))
	err = u.cfg.Catalog.Update(ctx, func(tx catalog.Tx) (err error) {
		for i, s := range sealed {
			if err := tx.EndSession(s.ID, s.Gen, to); err != nil {
				return err
			}
			if payers[i], err = catalog.SessionEnded(tx, uint64(s.ID), event, at); err != nil {
				return err
			}
			if err := catalog.Discard(tx, places[i], at); err != nil {
				return err
			}
			if err := catalog.ForgetCheckpoints(tx, uint64(s.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		u.countEnded(payers)
	}
	if err == nil && to == session.Aborted {
		for i, s := range sealed { // the owner asked for it: no request reads the bytes any more
			for _, place := range places[i] {
				u.rememberLeftover(place, s.ID, anyGen)
			}
		}
	}
	return err == nil, unknownOutcome(err)
}

// unknownOutcome tells the engine that a commit may have happened.
func unknownOutcome(err error) error {
	if errors.Is(err, catalog.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", session.ErrUnknownOutcome, err)
	}
	return err
}

// endedFor is how long the ended sessions of an owner count together, in running time: as long as
// the engine remembers an ended session.
const endedFor = session.KeepEnded

// endedCount counts the sessions that counted for a principal and were aborted or have expired
// since a moment of the running time, in ms.
type endedCount struct{ since, n int64 }

// countEnded counts ended sessions for the principals that they counted for; "": for nobody.
func (u *Service) countEnded(payers []string) {
	now := u.cfg.Sessions.Running()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, payer := range payers {
		if payer == "" {
			continue
		}
		e := u.endedCounts[payer]
		if e.n == 0 || now-e.since >= endedFor.Milliseconds() {
			e = endedCount{since: now}
		}
		e.n++
		u.endedCounts[payer] = e
	}
}

// checkEnded refuses a new session to a caller for whose principal MaxEnded have ended. The rows of
// ended sessions are in no quota.
func (u *Service) checkEnded(c access.Caller) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.endedCounts[c.Payer()]
	if most := u.cfg.Limits.MaxEnded; most > 0 && e.n >= most &&
		u.cfg.Sessions.Running()-e.since < endedFor.Milliseconds() {
		return &catalog.CountError{
			Err: ErrTooManyEnded, Of: "the principal", Things: fmt.Sprintf("of them within %s", endedFor),
			Limit: most, Used: e.n, Remedy: "wait",
		}
	}
	return nil
}
