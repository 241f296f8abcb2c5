package access

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/catalog"
)

// Allow decides whether the caller may do a to a capsule, and gives the capsule. It looks up the
// token and the principal again. Inside the transaction that commits, it therefore decides by their
// state at the commit.
//
// Errors: ErrUnauthenticated if the token or the principal is gone; catalog.ErrNotFound if the
// capsule is absent or the caller may not know of it; ErrForbidden.
func Allow(r catalog.Reader, c Caller, a Action, capsule string, now time.Time) (catalog.Capsule, error) {
	admin, err := reauthenticate(r, c, now)
	if err != nil {
		return catalog.Capsule{}, err
	}
	row, err := catalog.Capsules.Get(r, catalog.Name(capsule))
	if err != nil {
		return row, err
	}
	owner := slices.Contains(row.Owners, c.Principal)
	controller := owner || slices.Contains(row.Controllers, c.Principal)
	member := controller || row.Subject == c.Principal
	if !member && !admin {
		return catalog.Capsule{}, catalog.ErrNotFound
	}
	if c.ReadOnly && a != Read && a != Inspect {
		return catalog.Capsule{}, fmt.Errorf("%w: the token is read-only", ErrForbidden)
	}
	var allowed bool
	switch a {
	case Read, Write:
		allowed = member
	case Delete, Manage:
		allowed = controller
	case Own:
		allowed = owner || admin && len(row.Owners) == 0
	case Inspect:
		allowed = true
	case Quota:
		allowed = admin
	}
	if !allowed {
		return catalog.Capsule{}, fmt.Errorf("%w: your role in capsule %s is not enough", ErrForbidden, capsule)
	}
	return row, nil
}

// AllowAny decides whether the caller may do something that concerns no existing capsule. change
// says that it changes something.
func AllowAny(r catalog.Reader, c Caller, change bool, now time.Time) error {
	if _, err := reauthenticate(r, c, now); err != nil {
		return err
	}
	if change && c.ReadOnly {
		return fmt.Errorf("%w: the token is read-only", ErrForbidden)
	}
	return nil
}

// AllowAdmin decides whether the caller has the admin right. change says that it changes something.
func AllowAdmin(r catalog.Reader, c Caller, change bool, now time.Time) error {
	admin, err := reauthenticate(r, c, now)
	if err != nil {
		return err
	}
	if !admin {
		return fmt.Errorf("%w: only an admin may", ErrForbidden)
	}
	if change && c.ReadOnly {
		return fmt.Errorf("%w: the token is read-only", ErrForbidden)
	}
	return nil
}

// reauthenticate gives ErrUnauthenticated unless the caller's token and principal are still valid.
// admin says whether the principal is an admin, or its token makes it one.
func reauthenticate(r catalog.Reader, c Caller, now time.Time) (admin bool, err error) {
	if c.External {
		return reauthenticateExternal(r, c, now)
	}
	t, err := catalog.Tokens.Get(r, catalog.TokenKey(c.Token))
	if errors.Is(err, catalog.ErrNotFound) {
		return false, ErrUnauthenticated
	}
	if err != nil {
		return false, err
	}
	p, err := catalog.Principals.Get(r, catalog.Name(t.Principal))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && (expired(t, now) || t.Principal != c.Principal) {
		return false, ErrUnauthenticated
	}
	return p.Admin, err
}

func expired(t catalog.Token, now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}
