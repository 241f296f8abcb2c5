package keeper

import (
	"context"
	"errors"
	"fmt"

	"sluice/audit"
	"sluice/catalog"
	"sluice/session"
)

// EndOwner removes what a deleted principal, or a ticket that has ended, has left: it aborts its
// open sessions, then removes the tokens, the grants and the roles of the principal. A crash in
// between leaves the rest to a later Tick. A repeat does nothing.
func (k *Keeper) EndOwner(ctx context.Context, id string) error {
	for _, kind := range []catalog.DueKind{catalog.DuePrincipal, catalog.DueTicket} {
		due := catalog.Due{Kind: kind, Key: id}
		var is bool
		err := k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			_, is, err = catalog.Dues.Find(r, catalog.DueKey(due))
			return err
		})
		if err == nil && is {
			err = k.runOne(ctx, due)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recordOf gives the record for the audit log of a due thing that is about to be done. It is nil if
// the thing makes none, or was done before.
func recordOf(r catalog.Reader, d catalog.Due) (*audit.Record, error) {
	record := &audit.Record{Event: audit.Act, Origin: audit.Keeper, Outcome: audit.OK}
	switch d.Kind {
	case catalog.DuePrincipal:
		_, is, err := catalog.Dues.Find(r, catalog.DueKey(d))
		if err != nil || !is {
			return nil, err
		}
		record.Action, record.Target.Principal = "principal_ended", d.Key
	case catalog.DueToken:
		t, is, err := catalog.Tokens.Find(r, catalog.TokenKey([]byte(d.Key)))
		if errors.Is(err, catalog.ErrDamaged) || err == nil && !is { // revoked before
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		record.Action, record.Target.Principal, record.Target.Token = "token_expired", t.Principal, t.ID
	case catalog.DueGrant:
		g, is, err := catalog.Grants.Find(r, catalog.Name(d.Key))
		if errors.Is(err, catalog.ErrDamaged) || err == nil && !is { // revoked before
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		record.Action, record.Target.Principal, record.Target.Capsule = "ticket_expired", g.Maker, g.Capsule
		if record.Target.Ticket = g.ID; g.Kind == catalog.Link {
			record.Action, record.Target.Ticket, record.Target.Link = "link_expired", "", g.ID
		}
	default:
		return nil, nil
	}
	return record, nil
}

// endSessions aborts the sessions of a deleted principal or an ended ticket, and gives how many. It
// can begin no new ones.
func (k *Keeper) endSessions(ctx context.Context, owner string) (aborted int, err error) {
	for _, state := range []session.State{session.Open, session.Sealed} {
		for after := ""; ; {
			page, next, err := k.cfg.Sessions.List(ctx, session.Query{
				Owner: &owner, State: state, After: after, Limit: 1000,
			})
			if err != nil {
				return aborted, err
			}
			for _, s := range page {
				err := k.cfg.Sessions.Abort(ctx, s.ID, k.cfg.Uploads.Release)
				if err != nil && !ended(err) {
					return aborted, fmt.Errorf("aborting session %s, whose owner is gone: %w", s.ID, err)
				}
				if err == nil {
					aborted++
				}
			}
			if next == "" {
				break
			}
			after = next
		}
	}
	return aborted, nil
}

// ended reports whether an error says that a session has ended another way.
func ended(err error) bool {
	return errors.Is(err, session.ErrFinished) || errors.Is(err, session.ErrExpired) ||
		errors.Is(err, session.ErrNotFound)
}
