package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"sluice/catalog"
	"sluice/internal/system"
)

// Clock tells the wall-clock time.
type Clock interface{ Now() time.Time }

// Service keeps principals and tokens. It is safe for concurrent use and keeps no state in memory,
// so that a revocation takes effect with the next request.
type Service struct {
	store   catalog.Store
	clock   Clock
	running func() int64
	rand    io.Reader
}

// New makes a Service; a nil random takes crypto/rand. running is the running time of the session
// engine in ms, which does not follow a clock that jumps.
func New(store catalog.Store, clock Clock, running func() int64, random io.Reader) *Service {
	if random == nil {
		random = system.Random{}
	}
	return &Service{store, clock, running, random}
}

// Authenticate gives the caller that the secret belongs to, or ErrUnauthenticated.
func (s *Service) Authenticate(ctx context.Context, secret string) (c Caller, err error) {
	hash, ok := hashOf(secret)
	if !ok {
		return c, ErrUnauthenticated
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		t, err := catalog.Tokens.Get(r, catalog.TokenKey(hash))
		if errors.Is(err, catalog.ErrNotFound) {
			return ErrUnauthenticated
		}
		if err != nil {
			return err
		}
		c = Caller{Principal: t.Principal, Token: hash, ReadOnly: t.ReadOnly}
		c.Admin, err = reauthenticate(r, c, s.clock.Now())
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
// principal, Bootstrap does nothing and gives "".
func (s *Service) Bootstrap(ctx context.Context) (string, error) {
	p, err := s.principal("admin", true)
	if err != nil {
		return "", err
	}
	t, secret, err := s.token(p.ID, "first", false, 0)
	if err != nil {
		return "", err
	}
	made := false
	err = s.store.Update(ctx, func(tx catalog.Tx) error {
		made = false
		for _, err := range catalog.Principals.After(tx, "") {
			if errors.Is(err, catalog.ErrDamaged) {
				return nil // the damaged row was a principal
			}
			return err
		}
		made = true
		_, err := catalog.NewCapsule(
			tx, catalog.Capsule{ID: "default", Name: "default", Owners: []string{p.ID}}, catalog.Moment{Now: p.Created},
		)
		return errors.Join(
			err, catalog.Principals.Put(tx, catalog.Name(p.ID), p), catalog.Tokens.Put(tx, catalog.TokenKey(t.Hash), t),
		)
	})
	if err != nil || !made {
		return "", err
	}
	return secret, nil
}

// AdminToken makes one more token for the oldest admin. With it, the owner of the data folder gets
// back in after the loss of the token.
func (s *Service) AdminToken(ctx context.Context) (secret string, err error) {
	var t catalog.Token
	if t, secret, err = s.token("", "found again", false, 0); err != nil {
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
				return catalog.Tokens.Put(tx, catalog.TokenKey(t.Hash), t)
			}
		}
		return errors.New("there is no admin")
	})
}

// CreatePrincipal makes a principal without a role. Only admins may.
func (s *Service) CreatePrincipal(ctx context.Context, by Caller, name string, admin bool) (catalog.Principal, error) {
	p, err := s.principal(name, admin)
	if err != nil {
		return p, err
	}
	return p, s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := AllowAdmin(tx, by, true, s.clock.Now()); err != nil {
			return err
		}
		return catalog.Principals.Put(tx, catalog.Name(p.ID), p)
	})
}

func (s *Service) principal(name string, admin bool) (catalog.Principal, error) {
	id, err := uuid.NewV7FromReader(s.rand)
	return catalog.Principal{ID: id.String(), Name: name, Admin: admin, Created: s.clock.Now()}, err
}

// CreateToken makes a token and gives its secret, which is not kept. Only an admin may name another
// principal than its own. ttl 0: the token has no end.
func (s *Service) CreateToken(
	ctx context.Context, by Caller, principal, name string, readOnly bool, ttl time.Duration,
) (catalog.Token, string, error) {
	t, secret, err := s.token(principal, name, readOnly, ttl)
	if err != nil {
		return t, "", err
	}
	return t, secret, s.store.Update(ctx, func(tx catalog.Tx) error {
		allowed := AllowAdmin(tx, by, true, s.clock.Now())
		if principal == by.Principal {
			allowed = AllowAny(tx, by, true, s.clock.Now())
		}
		if allowed != nil {
			return allowed
		}
		if _, err := catalog.Principals.Get(tx, catalog.Name(principal)); err != nil {
			return fmt.Errorf("principal: %w", err)
		}
		return catalog.PutToken(tx, t, catalog.Moment{Now: t.Created, Running: s.running()})
	})
}

func (s *Service) token(
	principal, name string, readOnly bool, ttl time.Duration,
) (t catalog.Token, secret string, err error) {
	if secret, err = newSecret(s.rand); err != nil {
		return t, "", err
	}
	id, err := uuid.NewV7FromReader(s.rand)
	if err != nil {
		return t, "", err
	}
	hash, _ := hashOf(secret)
	t = catalog.Token{
		Hash:      hash,
		ID:        id.String(),
		Name:      name,
		Principal: principal,
		ReadOnly:  readOnly,
		Created:   s.clock.Now(),
	}
	if ttl > 0 {
		t.Expires = t.Created.Add(ttl)
	}
	return t, secret, nil
}

// RevokeToken ends a token of the caller, or any token if the caller is an admin. It gives
// catalog.ErrNotFound if there is no such token.
func (s *Service) RevokeToken(ctx context.Context, by Caller, id string) error {
	return s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := AllowAny(tx, by, true, s.clock.Now()); err != nil {
			return err
		}
		for t, err := range catalog.Tokens.After(tx, catalog.TokenKey{}) {
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if t.ID == id && (t.Principal == by.Principal || AllowAdmin(tx, by, true, s.clock.Now()) == nil) {
				return catalog.Tokens.Delete(tx, catalog.TokenKey(t.Hash))
			}
		}
		return catalog.ErrNotFound
	})
}
