package upload

import (
	"context"
	"fmt"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/metadata"
	"sluice/session"
)

// reserveStep is how many bytes of quota are reserved at a time while the length of a session is
// unknown. A step is smaller if less quota is left.
const reserveStep = 64 << 20

// Hook gives the part that uploads take in the commits of sessions. bounds are the server's own. A
// nil clock is the machine's.
//
// Inside each commit that begins a session or records into one, it asks whether the caller of
// access.NewContext may still write. Without a caller the server acts for itself. Inside each that
// begins a session, or records into one of unknown length, it reserves quota for the bytes that the
// session may bring. It refuses a key that has been finished.
func Hook(bounds catalog.Bounds, clock session.Clock) metadata.Hook {
	if clock == nil {
		clock = system.Clock{}
	}
	return metadata.Hook{
		Decide: func(ctx context.Context, r catalog.Reader, s session.Session) error {
			return decideAgain(ctx, r, s, clock)
		},
		Reserve: func(tx catalog.Tx, before *session.Session, after session.Session) error {
			return reserve(tx, before, after, bounds)
		},
	}
}

func decideAgain(ctx context.Context, r catalog.Reader, s session.Session, clock session.Clock) error {
	c, ok := access.FromContext(ctx)
	if !ok {
		return nil
	}
	n, err := decodeNote(s.Note)
	if err != nil {
		return fmt.Errorf("session %s: %w", s.ID, err)
	}
	if err := stillAllowed(r, c, access.Upload, n.Capsule, clock.Now()); err != nil || c.Grant != catalog.Ticket {
		return err
	}
	if err := fitsTicket(r, c, max(s.BytesExpected, endOf(s))); err != nil {
		return err
	}
	g, err := catalog.Grants.Get(r, catalog.Name(c.Principal))
	if err != nil {
		return err
	}
	return g.Allows(n.Meta.MIME)
}

// fitsTicket gives ErrTooLarge if an upload of n bytes, or of that many at least, is larger than
// the caller's ticket allows.
func fitsTicket(r catalog.Reader, c access.Caller, n int64) error {
	most, err := mostBytes(r, c)
	if err == nil && n > most {
		err = fmt.Errorf("%w: %d bytes, and an upload with this ticket may have %d", ErrTooLarge, n, most)
	}
	return err
}

// endOf gives the end of what the session has received.
func endOf(s session.Session) int64 {
	if n := len(s.Received); n > 0 {
		return s.Received[n-1].End
	}
	return 0
}

func reserve(tx catalog.Tx, before *session.Session, after session.Session, bounds catalog.Bounds) error {
	n, err := decodeNote(after.Note)
	if err != nil {
		return fmt.Errorf("session %s: %w", after.ID, err)
	}
	if before == nil && after.Idem != "" {
		if err := checkUnfinished(tx, n, after.Owner); err != nil {
			return err
		}
	}
	least, most := reserves(after)
	r := catalog.Reservation{Session: uint64(after.ID), Capsule: n.Capsule, Owner: after.Owner, Bytes: most}
	return catalog.Reserve(tx, r, least, bounds)
}

// checkUnfinished gives errKeyFinished if the key has finished and the content is not damaged.
func checkUnfinished(tx catalog.Tx, n note, owner string) error {
	_, m, deleted, done, err := catalog.FinishedIdem(tx, n.Capsule, owner, n.Idem)
	if err != nil || !done {
		return err
	}
	if deleted {
		return errKeyFinished
	}
	damaged, err := catalog.Damaged(tx, m)
	if err == nil && damaged.IsZero() {
		err = errKeyFinished
	}
	return err
}

// reserves gives the quota that a session takes, in bytes: the most, and the least if a quota does
// not leave the most. While the length is unknown the quota is reserved in steps, so that not every
// record changes the capsule's row.
func reserves(s session.Session) (least, most int64) {
	if s.BytesExpected >= 0 {
		return s.BytesExpected, s.BytesExpected
	}
	least = max(endOf(s), 1) // without quota for a single byte the begin is refused
	return least, (least + reserveStep - 1) / reserveStep * reserveStep
}
