package access

import (
	"context"
	"errors"
	"io"
	"time"

	"sluice/catalog"
	"sluice/internal/system"
)

// Clock tells the wall-clock time.
type Clock interface{ Now() time.Time }

// Service keeps principals and tokens. It is safe for concurrent use. Of rights it keeps nothing in
// memory, so that a revocation takes effect with the next request.
type Service struct {
	store   catalog.Store
	clock   Clock
	running func() int64
	rand    io.Reader
	used    lastUses
	issuer  Issuer // nil: none
}

// New makes a Service; a nil random takes crypto/rand. running is the running time of the session
// engine in ms, which does not follow a clock that jumps.
func New(store catalog.Store, clock Clock, running func() int64, random io.Reader) *Service {
	if random == nil {
		random = system.Random{}
	}
	return &Service{store: store, clock: clock, running: running, rand: random}
}

// Authenticate gives the caller that the secret of a token or of an upload ticket belongs to, or
// ErrUnauthenticated. With that error it still says whose it was, if it is there and has expired.
// The secret may also be a token of the issuer. Then ErrIssuerAway is possible too.
func (s *Service) Authenticate(ctx context.Context, secret string) (c Caller, err error) {
	if s.issuer != nil && isJWT(secret) {
		return s.authenticateExternal(ctx, secret)
	}
	hash, ok := hashOf(secret)
	if !ok {
		return c, ErrUnauthenticated
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		t, err := catalog.Tokens.Get(r, catalog.TokenKey(hash))
		if errors.Is(err, catalog.ErrNotFound) {
			c, err = s.authenticateGrant(r, hash, catalog.Ticket)
			return err
		}
		if err != nil {
			return err
		}
		c = Caller{Principal: t.Principal, Token: hash, TokenID: t.ID, ReadOnly: t.ReadOnly}
		now := s.clock.Now()
		if c.Admin, err = reauthenticate(r, c, now); err == nil {
			s.used.note(t, now)
		}
		return err
	})
	return c, err
}

// Admin returns nil if the caller has the admin right. change says that the caller is about to
// change something. Otherwise it gives ErrForbidden or ErrUnauthenticated.
func (s *Service) Admin(ctx context.Context, c Caller, change bool) error {
	return s.store.View(ctx, func(r catalog.Reader) error { return AllowAdmin(r, c, change, s.clock.Now()) })
}

// Bootstrap makes, in an empty catalog, the admin principal, its token, and the capsule "default"
// that it owns. All of that is one commit. It gives the token's secret. If the catalog has a
// principal, Bootstrap gives "", and makes the lists of tokens if an older program has made none.
func (s *Service) Bootstrap(ctx context.Context) (string, error) {
	p, err := s.principal("admin", true)
	if err != nil {
		return "", err
	}
	t, secret, err := s.token(TokenRequest{Principal: p.ID, Name: "first"})
	if err != nil {
		return "", err
	}
	made := false
	err = s.store.Update(ctx, func(tx catalog.Tx) error {
		for _, err := range catalog.Principals.After(tx, "") {
			if err == nil || errors.Is(err, catalog.ErrDamaged) { // the damaged row was a principal
				made = false
				return catalog.IndexTokens(tx)
			}
			return err
		}
		made = true
		_, err := catalog.NewCapsule(
			tx, catalog.Capsule{ID: "default", Name: "default", Owners: []string{p.ID}}, catalog.Moment{Now: p.Created},
		)
		return errors.Join(
			err, catalog.Principals.Put(tx, catalog.Name(p.ID), p), catalog.PutToken(tx, t, catalog.Moment{}),
		)
	})
	if err != nil || !made {
		return "", err
	}
	return secret, nil
}

// TokenOf gives the token that a secret belongs to, or ErrUnauthenticated. It counts as no use.
func (s *Service) TokenOf(ctx context.Context, secret string) (t catalog.Token, err error) {
	hash, ok := hashOf(secret)
	if !ok {
		return t, ErrUnauthenticated
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		t, err = catalog.Tokens.Get(r, catalog.TokenKey(hash))
		if errors.Is(err, catalog.ErrNotFound) {
			return ErrUnauthenticated
		}
		return err
	})
	return t, err
}

// AdminToken makes one more token for the oldest admin. With it, the owner of the data folder gets
// back in after the loss of the token.
func (s *Service) AdminToken(ctx context.Context) (secret string, err error) {
	var t catalog.Token
	if t, secret, err = s.token(TokenRequest{Name: "found again"}); err != nil {
		return "", err
	}
	return secret, s.store.Update(ctx, func(tx catalog.Tx) error {
		for p, err := range catalog.Principals.After(tx, "") { // ids are sorted by time
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if p.Admin {
				t := t
				t.Principal = p.ID
				return catalog.PutToken(tx, t, catalog.Moment{})
			}
		}
		return errors.New("there is no admin")
	})
}
