package keeper

import (
	"context"
	"errors"
	"fmt"

	"sluice/catalog"
	"sluice/session"
)

// EndPrincipal removes what a deleted principal has left: it aborts its open sessions, then removes
// its tokens and its roles. A crash in between leaves the rest to a later Tick. A repeat does
// nothing.
func (k *Keeper) EndPrincipal(ctx context.Context, id string) error {
	due := catalog.Due{Kind: catalog.DuePrincipal, Key: id}
	var is bool
	err := k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		_, is, err = catalog.Dues.Find(r, catalog.DueKey(due))
		return err
	})
	if err != nil || !is {
		return err
	}
	return k.runOne(ctx, due)
}

// endSessions aborts the sessions of a deleted principal. It can begin no new ones.
func (k *Keeper) endSessions(ctx context.Context, owner string) error {
	for _, state := range []session.State{session.Open, session.Sealed} {
		for after := ""; ; {
			page, next, err := k.cfg.Sessions.List(ctx, session.Query{
				Owner: &owner, State: state, After: after, Limit: 1000,
			})
			if err != nil {
				return err
			}
			for _, s := range page {
				err := k.cfg.Sessions.Abort(ctx, s.ID, k.cfg.Uploads.Release)
				if err != nil && !ended(err) {
					return fmt.Errorf("aborting session %s of a principal that was deleted: %w", s.ID, err)
				}
			}
			if next == "" {
				break
			}
			after = next
		}
	}
	return nil
}

// ended reports whether an error says that a session has ended another way.
func ended(err error) bool {
	return errors.Is(err, session.ErrFinished) || errors.Is(err, session.ErrExpired) ||
		errors.Is(err, session.ErrNotFound)
}
