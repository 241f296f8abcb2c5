package upload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/blob"
	"sluice/internal/panics"
	"sluice/session"
)

// maxCheckWait is how long a request waits for the check of its session. Then the client is asked
// to come again.
const maxCheckWait = 10 * time.Second

// ensureChecked makes sure that the session's entries hold the bytes that were acknowledged, as far
// as the policy asks for. After a restart of the machine, no request learns of a session before its
// unsynced entries have been compared with their CRCs. After the mere death of the process, no
// finish uses them before. Entries that fail are dropped durably, and their bytes show as missing.
// Normally there is nothing to compare, and the check costs one look at the entries while the
// session is in memory. It gives blob.ErrUnavailable if the check takes longer than 10 s; the check
// goes on.
func (u *Service) ensureChecked(
	ctx context.Context, s session.Session, policy blob.CheckPolicy,
) (session.Session, error) {
	if s.State.Ended() || len(s.Received) == 0 {
		return s, nil
	}
	a := u.active.acquire(s.ID)
	defer u.active.release(a)
	late := time.NewTimer(maxCheckWait)
	defer late.Stop()
	for waited := false; ; waited = true {
		a.mu.Lock()
		done, changed, failed := a.checked >= policy, a.changed, a.checkErr
		if !done && !a.checking {
			if waited && failed != nil {
				a.checkErr = nil
				a.mu.Unlock()
				return s, failed
			}
			if u.stop.Err() != nil {
				a.mu.Unlock()
				return s, blob.ErrUnavailable
			}
			a.checking = true
			u.startCheck(a, policy)
		}
		a.mu.Unlock()
		if done {
			if !waited {
				return s, nil
			}
			return u.cfg.Sessions.Status(ctx, s.ID)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, ctx.Err()
		case <-late.C:
			return s, fmt.Errorf("%w: the session's pieces are being checked after a restart", blob.ErrUnavailable)
		}
	}
}

// markChecked is called while the session has no entries. The entries to come are of this
// incarnation of the store, and no restart leaves them in doubt.
func (a *activeSession) markChecked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checked = max(a.checked, blob.CheckBeforeCrash)
}

// startCheck compares the session's entries in the background. a.mu is held.
func (u *Service) startCheck(a *activeSession, policy blob.CheckPolicy) {
	u.active.mu.Lock()
	u.active.use(a)
	u.active.mu.Unlock()
	u.wg.Go(func() {
		defer u.active.release(a)
		err := panics.Try(func() error { return u.checkEntries(u.stop, a.id, session.All(), policy) })
		a.mu.Lock()
		defer a.mu.Unlock()
		a.checking, a.checkErr = false, err
		if err == nil {
			a.checked = max(a.checked, policy)
		}
		a.notify()
	})
}

// dropUnreadable reads every entry again that overlaps r, and drops those whose bytes are corrupt
// or missing.
func (u *Service) dropUnreadable(ctx context.Context, id session.SessionID, r session.Range) error {
	return u.checkEntries(ctx, id, r, blob.CheckAll)
}

func (u *Service) checkEntries(
	ctx context.Context, id session.SessionID, r session.Range, policy blob.CheckPolicy,
) error {
	entries, err := u.cfg.Sessions.Entries(ctx, id, r, 0)
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := decodeEntryNote(e.Note)
		if err == nil {
			err = u.cfg.Blobs.Check(ctx, n.extent(e.Range), policy)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, blob.ErrCorrupt) && !errors.Is(err, blob.ErrMissing) && !errors.Is(err, errNote) {
			return err
		}
		u.cfg.Log.Warn(
			"a recorded piece is lost and will be asked for again",
			"session", id, "from", e.Off, "bytes", e.Len(), "err", err,
		)
		if _, err := u.cfg.Sessions.DropEntry(ctx, id, e); err != nil {
			return err
		}
	}
	return nil
}
