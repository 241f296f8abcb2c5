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
// session may bring. It refuses a key that has been finished, and a type that the capsule or the
// caller's ticket does not take.
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
	g, err := ticketOf(r, c)
	if err != nil {
		return err
	}
	return fitsTicket(g, max(s.BytesExpected, endOf(s)), n.Meta.MIME)
}

// ticketOf gives the upload ticket of the caller as it is now; the zero value if it has none.
func ticketOf(r catalog.Reader, c access.Caller) (g catalog.Grant, err error) {
	if c.Grant == catalog.Ticket {
		g, err = catalog.Grants.Get(r, catalog.Name(c.Principal))
	}
	return g, err
}

// fitsTicket gives a *SizeError if an upload of n bytes, or of that many at least, is larger than
// the ticket allows, and a *catalog.MIMEError if the ticket is not for its declared type. It says
// nothing against an upload without a ticket.
func fitsTicket(g catalog.Grant, n int64, mime string) error {
	if g.Kind == catalog.Ticket && n > g.MaxBytes {
		return &SizeError{
			Limit: g.MaxBytes, Problem: fmt.Sprintf("%d bytes, and an upload with this ticket may have %d", n, g.MaxBytes),
		}
	}
	return catalog.CheckMIME(mime, g.MIME)
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
	if before == nil {
		if err := checkBegin(tx, n, after); err != nil {
			return err
		}
	}
	least, most := reserves(after)
	r := catalog.Reservation{Session: uint64(after.ID), Capsule: n.Capsule, Owner: after.Owner, Bytes: most}
	return catalog.Reserve(tx, r, least, bounds)
}

// checkBegin gives errKeyFinished if the key has finished and the content is not damaged. Otherwise
// it asks whether the capsule takes the type. A session that heals a memory needs no leave: that
// type was taken once.
func checkBegin(tx catalog.Tx, n note, s session.Session) error {
	var (
		m             catalog.Memory
		deleted, done bool
		err           error
	)
	if s.Idem != "" {
		_, m, deleted, done, err = catalog.FinishedIdem(tx, n.Capsule, s.Owner, n.Idem)
	}
	switch {
	case err != nil:
		return err
	case !done:
		capsule, err := catalog.Capsules.Get(tx, catalog.Name(n.Capsule))
		if err != nil {
			return err
		}
		return catalog.CheckMIME(n.Meta.MIME, capsule.MIMETypes)
	case deleted:
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
