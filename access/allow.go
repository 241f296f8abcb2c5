package access

import (
	"context"
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
// capsule is absent or, with ErrHidden, if the caller may not know of it; ErrForbidden.
func Allow(r catalog.Reader, c Caller, a Action, capsule string, now time.Time) (catalog.Capsule, error) {
	if c.Grant != 0 {
		return allowGrant(r, c, a, capsule, now)
	}
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
		return catalog.Capsule{}, errHidden
	}
	if c.ReadOnly && a != Read && a != Look && a != Inspect {
		return catalog.Capsule{}, fmt.Errorf("%w: the token is read-only", ErrForbidden)
	}
	var allowed bool
	switch a {
	case Read, Write, Upload, Look:
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

// allowGrant decides about a ticket or a link. What it may not do at all it may do nowhere, so that
// the refusal says nothing about the capsule.
func allowGrant(r catalog.Reader, c Caller, a Action, capsule string, now time.Time) (catalog.Capsule, error) {
	g, row, err := reauthenticateGrant(r, c, now)
	switch {
	case err != nil:
		return catalog.Capsule{}, err
	case !may(c.Grant, a):
		return catalog.Capsule{}, ErrTicketOnly
	case g.Capsule != capsule:
		return catalog.Capsule{}, errHidden
	}
	return row, nil
}

// may reports whether grants of a kind may do a at all.
func may(kind catalog.GrantKind, a Action) bool {
	switch kind {
	case catalog.Ticket:
		return a == Upload || a == Look
	case catalog.Link:
		return a == Read
	}
	return false
}

// ErrTicketOnly: an upload ticket, or a read link, is used for what it is not for.
var ErrTicketOnly = fmt.Errorf("%w: an upload ticket may upload, and nothing else", ErrForbidden)

// reauthenticateGrant gives the grant of a caller and its capsule, or ErrUnauthenticated if it has
// ended: by itself, with its maker, or with the maker's role.
func reauthenticateGrant(r catalog.Reader, c Caller, now time.Time) (g catalog.Grant, row catalog.Capsule, err error) {
	g, err = catalog.Grants.Get(r, catalog.Name(c.Principal))
	if err == nil && (g.Kind != c.Grant || g.Hash != catalog.SHA256(c.Token) || !now.Before(g.Expires)) {
		err = ErrUnauthenticated
	}
	if err == nil {
		_, err = catalog.Principals.Get(r, catalog.Name(g.Maker))
	}
	if err == nil {
		row, err = catalog.Capsules.Get(r, catalog.Name(g.Capsule))
	}
	if errors.Is(err, catalog.ErrNotFound) || err == nil && !slices.Contains(row.Members(), g.Maker) {
		err = ErrUnauthenticated
	}
	return g, row, err
}

// AllowOwn decides whether the caller may come in at all: to look at what it has begun itself, for
// example.
func AllowOwn(r catalog.Reader, c Caller, now time.Time) error {
	if c.Grant != 0 {
		_, _, err := reauthenticateGrant(r, c, now)
		return err
	}
	return AllowAny(r, c, false, now)
}

// Claim is what a request needs for as long as it runs: that its caller may come in, and, with an
// Action, that it may do that to a capsule.
type Claim struct {
	Caller  Caller
	Action  Action // 0: none
	Capsule string
}

// StillAllowed decides about each of the claims by one state. The error at its index is nil, or
// what AllowAny or Allow gives. err says that the state can't be read: then nothing is known.
func (s *Service) StillAllowed(ctx context.Context, claims []Claim) (refused []error, err error) {
	err = s.store.View(ctx, func(r catalog.Reader) error {
		refused = make([]error, len(claims))
		for i, claim := range claims {
			var err error
			if claim.Action == 0 {
				err = AllowOwn(r, claim.Caller, s.clock.Now())
			} else {
				_, err = Allow(r, claim.Caller, claim.Action, claim.Capsule, s.clock.Now())
			}
			switch {
			case err == nil, errors.Is(err, catalog.ErrDamaged): // of a row that can't be read nothing is known
			case isRefusal(err):
				refused[i] = err
			default:
				return err
			}
		}
		return nil
	})
	return refused, err
}

// isRefusal reports whether an error says that the caller may not.
func isRefusal(err error) bool {
	return errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrForbidden) || errors.Is(err, catalog.ErrNotFound)
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
// admin says whether the principal is an admin, or its token makes it one. A grant gets
// ErrForbidden.
func reauthenticate(r catalog.Reader, c Caller, now time.Time) (admin bool, err error) {
	if c.Grant != 0 {
		if _, _, err := reauthenticateGrant(r, c, now); err != nil {
			return false, err
		}
		return false, ErrTicketOnly
	}
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
