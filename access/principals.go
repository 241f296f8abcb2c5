package access

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"sluice/catalog"
)

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
		return catalog.NewPrincipal(tx, p)
	})
}

func (s *Service) principal(name string, admin bool) (catalog.Principal, error) {
	id, err := uuid.NewV7FromReader(s.rand)
	return catalog.Principal{ID: id.String(), Name: name, Admin: admin, Created: s.clock.Now()}, err
}

// ListPrincipals gives a page of the principals, the oldest first. Only admins may. limit is 1 to
// 1,000. ErrCursor: the cursor is not one of this list.
func (s *Service) ListPrincipals(
	ctx context.Context, by Caller, cursor string, limit int,
) (page []catalog.Principal, next string, err error) {
	after, err := afterCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	err = s.store.View(ctx, func(r catalog.Reader) error {
		if err := AllowAdmin(r, by, false, s.clock.Now()); err != nil {
			return err
		}
		page, next, err = pageOf(catalog.Principals.After(r, catalog.Name(after)), limit,
			func(p catalog.Principal) (string, bool) { return p.ID, true })
		return err
	})
	return page, next, err
}

// UpdatePrincipal changes a principal. Only admins may. It gives catalog.ErrLastAdmin if no admin
// would be left.
func (s *Service) UpdatePrincipal(
	ctx context.Context, by Caller, id string, change catalog.PrincipalChange,
) (p catalog.Principal, err error) {
	if change == (catalog.PrincipalChange{}) {
		return p, &catalog.FieldError{Field: "request", Problem: "names nothing to change"}
	}
	err = s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := AllowAdmin(tx, by, true, s.clock.Now()); err != nil {
			return err
		}
		p, err = catalog.ChangePrincipal(tx, id, change)
		return err
	})
	return p, err
}

// DeletePrincipal removes a principal. With the commit its tokens are void. What it leaves, open
// sessions included, is due: the keeper sees to it. Only admins may. It gives catalog.ErrLastAdmin
// for the only admin.
func (s *Service) DeletePrincipal(ctx context.Context, by Caller, id string) error {
	return s.store.Update(ctx, func(tx catalog.Tx) error {
		if err := AllowAdmin(tx, by, true, s.clock.Now()); err != nil {
			return err
		}
		return catalog.DeletePrincipal(tx, id)
	})
}

// Account is a caller with its principal, its token, and what it holds. Of a token of an issuer,
// Token has the end alone.
type Account struct {
	Principal catalog.Principal
	Admin     bool // the caller has the admin right, by its principal or its token
	Token     catalog.Token
	Usage     catalog.Usage
}

// WhoAmI describes the caller.
func (s *Service) WhoAmI(ctx context.Context, c Caller) (a Account, err error) {
	err = s.store.View(ctx, func(r catalog.Reader) error {
		var err error
		if a.Admin, err = reauthenticate(r, c, s.clock.Now()); err != nil {
			return err
		}
		var errs [3]error
		a.Principal, errs[0] = catalog.Principals.Get(r, catalog.Name(c.Principal))
		if a.Token.Expires = c.Expires; !c.External {
			a.Token, errs[1] = catalog.Tokens.Get(r, catalog.TokenKey(c.Token))
		}
		a.Usage, _, errs[2] = catalog.Usages.Find(r, catalog.Name(c.Principal))
		return errors.Join(errs[:]...)
	})
	return a, err
}

// ErrCursor: the cursor is not one that a list has given.
var ErrCursor = errors.New("the cursor is not one of this list")

// afterCursor reads a cursor: the id of the last row of the page before.
func afterCursor(cursor string) (string, error) {
	after, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return "", ErrCursor
	}
	if id, err := uuid.ParseBytes(after); len(after) > 0 && (err != nil || id.String() != string(after)) {
		return "", ErrCursor
	}
	return string(after), nil
}

// pageOf collects a page of rows. idOf gives a row's id, and false after the last row of the list.
// Rows that can't be read are left out.
func pageOf[V any](
	rows func(func(V, error) bool), limit int, idOf func(V) (string, bool),
) (page []V, next string, err error) {
	if limit < 1 || limit > 1000 {
		return nil, "", &catalog.FieldError{Field: "limit", Problem: "must be 1 to 1000"}
	}
	last := ""
	for row, err := range rows {
		if errors.Is(err, catalog.ErrDamaged) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		id, ok := idOf(row)
		if !ok {
			break
		}
		if len(page) == limit {
			return page, base64.RawURLEncoding.EncodeToString([]byte(last)), nil
		}
		page, last = append(page, row), id
	}
	return page, "", nil
}

// errPrincipal says that a request names a principal that does not exist.
func errPrincipal(id string) error {
	return &catalog.FieldError{
		Field: "principal_id", Problem: fmt.Sprintf("names a principal that does not exist: %.60q", id),
	}
}
