package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/catalog"
)

// ErrGrantTTL: a new ticket or link would live too long, or not at all.
var ErrGrantTTL error = &catalog.FieldError{
	Field: "expires_in_seconds", Problem: fmt.Sprintf("must be 1 to %d", int64(catalog.MaxGrantTTL/time.Second)),
}

// GrantRequest describes a new ticket or link. Other fields of Grant than Kind, Name, Capsule,
// MaxBytes, MIME, Uploads, Memory and Downloads are ignored.
type GrantRequest struct {
	catalog.Grant
	TTL time.Duration
}

// CreateGrant makes an upload ticket for a capsule that the caller may upload to, or a read link
// for a memory that it may read, and gives its secret, which is not kept. It ends no later than the
// caller's token. Errors: catalog.ErrNotFound for the capsule or the memory;
// catalog.ErrTooManyGrants; *catalog.FieldError.
func (s *Service) CreateGrant(
	ctx context.Context, by Caller, req GrantRequest,
) (g catalog.Grant, secret string, err error) {
	if req.TTL < time.Second || req.TTL > catalog.MaxGrantTTL {
		return g, "", ErrGrantTTL
	}
	if req.MIME, err = catalog.CleanMIMEPatterns("mime_types", req.MIME); err != nil {
		return g, "", err
	}
	secret, hash, id, err := s.draw()
	if err != nil {
		return g, "", err
	}
	now := s.clock.Now()
	draft := catalog.Grant{
		ID: id, Kind: req.Kind, Hash: hash, Name: req.Name, Maker: by.Principal, Capsule: req.Capsule,
		Created: now, Expires: now.Add(req.TTL),
		MaxBytes: req.MaxBytes, MIME: req.MIME, Uploads: req.Uploads, Memory: req.Memory, Downloads: req.Downloads,
	}
	err = s.store.Update(ctx, func(tx catalog.Tx) error {
		g = draft
		action := Upload
		if g.Kind == catalog.Link {
			action = Read
			m, err := catalog.Memories.Get(tx, catalog.MemoryKey(g.Memory))
			if err != nil || !m.Trashed.IsZero() {
				return errors.Join(AllowAny(tx, by, true, now), err, catalog.ErrNotFound)
			}
			g.Capsule = m.Capsule
		}
		if _, err := Allow(tx, by, action, g.Capsule, now); err != nil {
			return err
		}
		if err := AllowAny(tx, by, true, now); err != nil { // a token that only reads makes no links
			return err
		}
		end, err := endOf(tx, by)
		if err != nil {
			return err
		}
		if !end.IsZero() && g.Expires.After(end) {
			g.Expires = end
		}
		return catalog.NewGrant(tx, g, catalog.Moment{Now: now, Running: s.running()})
	})
	return g, secret, err
}

// GrantList selects grants of one kind: those that the caller has made, or, with a Capsule, those
// of that capsule. Of these a caller sees all if it may Manage the capsule, or is an admin, and
// else its own.
type GrantList struct {
	Kind    catalog.GrantKind
	Capsule string
	Cursor  string
	Limit   int // 1 to 1,000
}

// ListGrants gives a page of grants, the oldest first, without those that have ended.
func (s *Service) ListGrants(
	ctx context.Context, by Caller, q GrantList,
) (page []catalog.Grant, next string, err error) {
	after, err := afterCursor(q.Cursor)
	if err != nil {
		return nil, "", err
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		now, holder, maker := s.clock.Now(), catalog.MadeBy(by.Principal), by.Principal
		if err := AllowAny(r, by, false, now); err != nil {
			return err
		}
		if q.Capsule != "" {
			row, err := Allow(r, by, Inspect, q.Capsule, now)
			if err != nil {
				return err
			}
			holder = catalog.GrantsOf(q.Capsule)
			if by.Admin || slices.Contains(row.Owners, by.Principal) || slices.Contains(row.Controllers, by.Principal) {
				maker = ""
			}
		}
		page, next, err = pageOf(grantsIn(r, catalog.GrantListKey{Holder: holder, ID: after}, q.Kind, maker, now),
			q.Limit, func(g catalog.Grant) (string, bool) { return g.ID, g.ID != "" })
		return err
	})
	return page, next, err
}

// grantsIn gives the live grants behind a key of their list, of a kind and, unless it is "", a
// maker. It ends with one that has no id.
func grantsIn(
	r catalog.Reader, from catalog.GrantListKey, kind catalog.GrantKind, maker string, now time.Time,
) func(func(catalog.Grant, error) bool) {
	return func(yield func(catalog.Grant, error) bool) {
		for ref, err := range catalog.GrantLists.After(r, from) {
			if err == nil && ref.Holder != from.Holder {
				yield(catalog.Grant{}, nil)
				return
			}
			var g catalog.Grant
			if err == nil {
				if ref.Kind != kind || maker != "" && ref.Maker != maker {
					continue
				}
				g, err = catalog.Grants.Get(r, catalog.Name(ref.ID))
				if errors.Is(err, catalog.ErrNotFound) || err == nil && !now.Before(g.Expires) {
					continue
				}
			}
			if !yield(g, err) {
				return
			}
		}
	}
}

// RevokeGrant ends a ticket or a link. Its maker may, those who may Manage its capsule, and an
// admin. What a ticket has under way is due to be aborted: the keeper sees to it. It gives
// catalog.ErrNotFound to others, and if there is no such grant.
func (s *Service) RevokeGrant(ctx context.Context, by Caller, kind catalog.GrantKind, id string) error {
	return s.store.Update(ctx, func(tx catalog.Tx) error {
		now := s.clock.Now()
		if err := AllowAny(tx, by, true, now); err != nil {
			return err
		}
		g, err := catalog.Grants.Get(tx, catalog.Name(id))
		if err == nil && g.Kind != kind {
			g, err = catalog.Grant{}, catalog.ErrNotFound
		}
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		// A grant that is not there takes as many look-ups as one that the caller may not know of.
		if g.Maker != by.Principal && AllowAdmin(tx, by, true, now) != nil {
			_, manage := Allow(tx, by, Manage, g.Capsule, now)
			switch {
			case err != nil:
			case errors.Is(manage, ErrForbidden):
				err = errHidden
			default:
				err = manage
			}
		}
		if err != nil {
			return err
		}
		return catalog.EndGrant(tx, id)
	})
}

// Grant gives the caller's own ticket or link as it is now.
func (s *Service) Grant(ctx context.Context, c Caller) (g catalog.Grant, err error) {
	err = s.store.View(ctx, func(r catalog.Reader) error {
		g, _, err = reauthenticateGrant(r, c, s.clock.Now())
		return err
	})
	return g, err
}

// OpenLink gives the caller that the secret of a read link belongs to. It gives
// catalog.ErrNotFound, with ErrHidden, if there is no such link, or none any more.
func (s *Service) OpenLink(ctx context.Context, secret string) (c Caller, err error) {
	hash, ok := hashOf(secret)
	if !ok {
		return c, errHidden
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		c, err = s.authenticateGrant(r, hash, catalog.Link)
		if errors.Is(err, ErrUnauthenticated) {
			err = errHidden
		}
		return err
	})
	return c, err
}

// authenticateGrant gives the caller that a grant's secret belongs to.
func (s *Service) authenticateGrant(
	r catalog.Reader, hash catalog.SHA256, kind catalog.GrantKind,
) (c Caller, err error) {
	ref, err := catalog.GrantSecrets.Get(r, catalog.TokenKey(hash))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && ref.Kind != kind {
		return c, ErrUnauthenticated
	}
	if err != nil {
		return c, err
	}
	c = Caller{Principal: ref.ID, Token: hash, TokenID: ref.ID, Grant: kind}
	g, _, err := reauthenticateGrant(r, c, s.clock.Now())
	c.Maker, c.Memory = g.Maker, g.Memory
	return c, err
}

// Promise counts n bytes that a read link is about to give out of a memory of size bytes. It gives
// catalog.ErrNotFound if its downloads are used up, as if it had ended.
func (s *Service) Promise(ctx context.Context, c Caller, n, size int64) error {
	err := s.store.Update(ctx, func(tx catalog.Tx) error {
		if _, _, err := reauthenticateGrant(tx, c, s.clock.Now()); err != nil {
			return err
		}
		return catalog.Promise(tx, c.Principal, n, size)
	})
	if errors.Is(err, ErrUnauthenticated) || errors.Is(err, catalog.ErrUsedUp) {
		return catalog.ErrNotFound
	}
	return err
}

// Unread gives back n bytes of a Promise that were not given out.
func (s *Service) Unread(ctx context.Context, c Caller, n int64) error {
	return s.store.Update(ctx, func(tx catalog.Tx) error { return catalog.Unread(tx, c.Principal, n) })
}
