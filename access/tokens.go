package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluice/catalog"
)

// MaxTokenTTL is the longest time that a token with an end may live.
const MaxTokenTTL = 10 * 365 * 24 * time.Hour

// ErrTokenTTL: a new token would live longer than MaxTokenTTL, or not at all.
var ErrTokenTTL error = &catalog.FieldError{
	Field: "expires_in_seconds", Problem: fmt.Sprintf("must be 1 to %d", int64(MaxTokenTTL/time.Second)),
}

// TokenRequest describes a new token. An empty Principal is the caller's own. TTL 0: no end.
type TokenRequest struct {
	Principal, Name string
	ReadOnly        bool
	TTL             time.Duration
}

// CreateToken makes a token and gives its secret, which is not kept. Only an admin may name another
// principal than its own. A token that was made with one that has an end does not end later: else
// whoever finds a token could keep it for ever. It gives catalog.ErrTooManyTokens if the principal
// has catalog.MostTokens.
func (s *Service) CreateToken(ctx context.Context, by Caller, req TokenRequest) (catalog.Token, string, error) {
	if req.TTL < 0 || req.TTL > MaxTokenTTL {
		return catalog.Token{}, "", ErrTokenTTL
	}
	if req.Principal == "" {
		req.Principal = by.Principal
	}
	t, secret, err := s.token(req)
	if err != nil {
		return t, "", err
	}
	err = s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := s.allowFor(tx, by, req.Principal, true); err != nil {
			return err
		}
		if _, ok, err := catalog.Principals.Find(tx, catalog.Name(req.Principal)); err != nil {
			return err
		} else if !ok {
			return errPrincipal(req.Principal)
		}
		end, err := endOf(tx, by)
		if err != nil {
			return err
		}
		if !end.IsZero() && req.Principal == by.Principal &&
			(t.Expires.IsZero() || t.Expires.After(end)) {
			t.Expires = end
		}
		if err := catalog.CheckNewToken(tx, t); err != nil {
			return err
		}
		return catalog.PutToken(tx, t, catalog.Moment{Now: t.Created, Running: s.running()})
	})
	return t, secret, err
}

// endOf gives the end of the caller's own token; zero: none.
func endOf(r catalog.Reader, c Caller) (time.Time, error) {
	if c.External {
		return c.end(), nil
	}
	t, err := catalog.Tokens.Get(r, catalog.TokenKey(c.Token))
	return t.Expires, err
}

// allowFor decides whether the caller may see, or change, the tokens of a principal: its own, or
// any if it is an admin.
func (s *Service) allowFor(r catalog.Reader, by Caller, principal string, change bool) error {
	if principal == by.Principal {
		return AllowAny(r, by, change, s.clock.Now())
	}
	return AllowAdmin(r, by, change, s.clock.Now())
}

func (s *Service) token(req TokenRequest) (t catalog.Token, secret string, err error) {
	secret, hash, id, err := s.draw()
	if err != nil {
		return t, "", err
	}
	t = catalog.Token{
		Hash: hash, ID: id, Name: req.Name, Principal: req.Principal, ReadOnly: req.ReadOnly,
		Created: s.clock.Now(),
	}
	if req.TTL > 0 {
		t.Expires = t.Created.Add(req.TTL)
	}
	return t, secret, nil
}

// draw gives a new secret, its hash, and a new id, for a token or a grant.
func (s *Service) draw() (secret string, hash catalog.SHA256, id string, err error) {
	if secret, err = newSecret(s.rand); err != nil {
		return "", hash, "", err
	}
	v7, err := uuid.NewV7FromReader(s.rand)
	if err != nil {
		return "", hash, "", err
	}
	hash, _ = hashOf(secret)
	return secret, hash, v7.String(), nil
}

// ListTokens gives a page of a principal's tokens, the oldest first, without those that have
// expired. An empty principal is the caller's own. Only an admin may name another one.
func (s *Service) ListTokens(
	ctx context.Context, by Caller, principal, cursor string, limit int,
) (page []catalog.Token, next string, err error) {
	if principal == "" {
		principal = by.Principal
	}
	after, err := afterCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		now := s.clock.Now()
		if err := s.allowFor(r, by, principal, false); err != nil {
			return err
		}
		from := catalog.PrincipalTokenKey{Principal: principal, ID: after}
		page, next, err = pageOf(tokensOf(r, from, now), limit, func(t catalog.Token) (string, bool) {
			return t.ID, t.Principal == principal
		})
		return err
	})
	return page, next, err
}

// tokensOf gives the live tokens behind a key of their list.
func tokensOf(
	r catalog.Reader, from catalog.PrincipalTokenKey, now time.Time,
) func(func(catalog.Token, error) bool) {
	return func(yield func(catalog.Token, error) bool) {
		for ref, err := range catalog.PrincipalTokens.After(r, from) {
			t := catalog.Token{ID: ref.ID, Principal: ref.Principal}
			if err == nil && ref.Principal == from.Principal {
				t, err = catalog.Tokens.Get(r, catalog.TokenKey(ref.Hash))
				if errors.Is(err, catalog.ErrNotFound) || err == nil && expired(t, now) {
					continue
				}
			}
			if !yield(t, err) {
				return
			}
		}
	}
}

// RevokeToken ends a token of the caller, or any token if the caller is an admin. It gives
// catalog.ErrNotFound if there is no such token.
func (s *Service) RevokeToken(ctx context.Context, by Caller, id string) error {
	return s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := AllowAny(tx, by, true, s.clock.Now()); err != nil {
			return err
		}
		ref, err := catalog.TokenIDs.Get(tx, catalog.Name(id))
		if err != nil {
			return err
		}
		if ref.Principal != by.Principal {
			err := AllowAdmin(tx, by, true, s.clock.Now())
			if errors.Is(err, ErrForbidden) {
				return errHidden
			}
			if err != nil {
				return err
			}
		}
		return catalog.DeleteToken(tx, ref.Hash)
	})
}
