package catalog

import (
	"errors"
	"slices"
)

// MostTokens bounds the tokens of one principal.
const MostTokens = 1000

// PrincipalChange is a change of a principal: a nil field stays.
type PrincipalChange struct {
	Name                        *string
	Admin                       *bool
	MaxOpenSessions, QuotaBytes *int64
}

// NewPrincipal stores a principal, which has an id.
func NewPrincipal(tx Tx, p Principal) error {
	if err := checkPrincipal(p); err != nil {
		return err
	}
	return Principals.Put(tx, Name(p.ID), p)
}

// ChangePrincipal changes a principal. It gives ErrLastAdmin if no admin would be left.
func ChangePrincipal(tx Tx, id string, change PrincipalChange) (Principal, error) {
	p, err := Principals.Get(tx, Name(id))
	if err != nil {
		return p, err
	}
	if p.Admin && change.Admin != nil && !*change.Admin {
		if err := checkOtherAdmin(tx, id); err != nil {
			return p, err
		}
	}
	set(&p.Name, change.Name)
	set(&p.Admin, change.Admin)
	set(&p.MaxOpenSessions, change.MaxOpenSessions)
	set(&p.QuotaBytes, change.QuotaBytes)
	if err := checkPrincipal(p); err != nil {
		return p, err
	}
	return p, Principals.Put(tx, Name(id), p)
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

func checkPrincipal(p Principal) error {
	if err := checkText("name", p.Name, 1, maxName, false); err != nil {
		return err
	}
	if p.MaxOpenSessions < 0 || p.QuotaBytes < 0 {
		return &FieldError{Field: "bounds", Problem: "must not be negative; 0 is the server's own setting"}
	}
	return nil
}

// checkOtherAdmin gives ErrLastAdmin unless there is an admin beside this one. A row that can't be
// read is not taken for an admin.
func checkOtherAdmin(r Reader, id string) error {
	for p, err := range Principals.After(r, "") {
		switch {
		case errors.Is(err, ErrDamaged):
		case err != nil:
			return err
		case p.Admin && p.ID != id:
			return nil
		}
	}
	return ErrLastAdmin
}

// DeletePrincipal removes a principal. Nobody is that principal from this commit on: its tokens and
// its rights have ended, and its identity is nobody's. What is left of it is due, and goes step by
// step: see endPrincipal. It gives ErrLastAdmin for the only admin.
func DeletePrincipal(tx Tx, id string) error {
	p, err := Principals.Get(tx, Name(id))
	if err != nil {
		return err
	}
	if p.Admin {
		if err := checkOtherAdmin(tx, id); err != nil {
			return err
		}
	}
	return errors.Join(Principals.Delete(tx, Name(id)), deleteIdentity(tx, p), due(tx, 0, DuePrincipal, id))
}

// endAtOnce is how many tokens, grants and roles, of each, one commit of endPrincipal removes.
const endAtOnce = 100

// endPrincipal removes some of the tokens, grants and roles that a deleted principal has left.
// more: there may be others. A capsule whose only owner it was is without one; an admin can give it
// another.
func endPrincipal(tx Tx, id string, at Moment) (more bool, err error) {
	refs, moreTokens, err := firstRows(PrincipalTokens.After(tx, PrincipalTokenKey{Principal: id}),
		func(t TokenRef) bool { return t.Principal == id })
	if err != nil {
		return false, err
	}
	for _, t := range refs {
		if err := deleteToken(tx, t); err != nil {
			return false, err
		}
	}
	moreGrants, err := endGrants(tx, MadeBy(id), endAtOnce, func(GrantRef) bool { return true })
	if err != nil {
		return false, err
	}
	roles, moreRoles, err := firstRows(Roles.After(tx, RoleKey{Principal: id}),
		func(k RoleKey) bool { return k.Principal == id })
	if err != nil {
		return false, err
	}
	for _, k := range roles {
		if err := removeRole(tx, k, at); err != nil {
			return false, err
		}
	}
	return moreTokens || moreGrants || moreRoles, nil
}

// firstRows gives the first rows for which is holds, endAtOnce at most. It leaves out rows that
// can't be read.
func firstRows[V any](rows func(func(V, error) bool), is func(V) bool) (out []V, more bool, err error) {
	for v, err := range rows {
		switch {
		case errors.Is(err, ErrDamaged):
			continue
		case err != nil:
			return nil, false, err
		case !is(v):
			return out, false, nil
		case len(out) == endAtOnce:
			return out, true, nil
		}
		out = append(out, v)
	}
	return out, false, nil
}

// removeRole takes all roles of a principal in one capsule away.
func removeRole(tx Tx, k RoleKey, at Moment) error {
	before, err := Capsules.Get(tx, Name(k.Capsule))
	if errors.Is(err, ErrNotFound) {
		return Roles.Delete(tx, k)
	}
	if err != nil {
		return err
	}
	c := before
	gone := func(p string) bool { return p == k.Principal }
	c.Owners = slices.DeleteFunc(slices.Clone(c.Owners), gone)
	c.Controllers = slices.DeleteFunc(slices.Clone(c.Controllers), gone)
	if gone(c.Subject) {
		c.Subject = ""
	}
	if err := emit(tx, &c, Event{Type: CapsuleUpdated, Time: at.Now}); err != nil {
		return err
	}
	return errors.Join(putRoles(tx, before, c), Capsules.Put(tx, Name(c.ID), c), Roles.Delete(tx, k))
}

// CheckNewToken checks a token before it is stored. It gives ErrTooManyTokens if the principal has
// MostTokens.
func CheckNewToken(r Reader, t Token) error {
	if err := checkText("name", t.Name, 0, maxName, false); err != nil {
		return err
	}
	n := 0
	for ref, err := range PrincipalTokens.After(r, PrincipalTokenKey{Principal: t.Principal}) {
		if err == nil && ref.Principal != t.Principal {
			break
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		if n++; n >= MostTokens {
			return &CountError{
				Err: ErrTooManyTokens, Of: "the principal", Things: "tokens", Limit: MostTokens, Used: int64(n),
				Remedy: "revoke some",
			}
		}
	}
	return nil
}

// PutToken stores a new token. A token with an end is deleted after as much running time as it was
// made for, so that a wall clock that is set back does not revive it.
func PutToken(tx Tx, t Token, at Moment) error {
	if err := errors.Join(Tokens.Put(tx, TokenKey(t.Hash), t), IndexToken(tx, t)); err != nil || t.Expires.IsZero() {
		return err
	}
	return due(tx, at.in(t.Expires.Sub(t.Created)), DueToken, string(t.Hash[:]))
}

// TokenRef says which token has an id.
type TokenRef struct {
	ID, Principal string
	Hash          SHA256
}

// IndexToken puts a token into the two lists of tokens.
func IndexToken(tx Tx, t Token) error {
	ref := TokenRef{ID: t.ID, Principal: t.Principal, Hash: t.Hash}
	return errors.Join(
		TokenIDs.Put(tx, Name(t.ID), ref),
		PrincipalTokens.Put(tx, PrincipalTokenKey{Principal: t.Principal, ID: t.ID}, ref),
	)
}

// IndexTokens makes the two lists of tokens if there are none, although there are tokens: older
// programs made none.
func IndexTokens(tx Tx) error {
	for _, err := range TokenIDs.After(tx, "") {
		if err == nil || errors.Is(err, ErrDamaged) {
			return nil
		}
		return err
	}
	for t, err := range Tokens.After(tx, TokenKey{}) {
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err == nil {
			err = IndexToken(tx, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteToken removes a token. A repeat does nothing.
func DeleteToken(tx Tx, hash SHA256) error {
	t, ok, err := Tokens.Find(tx, TokenKey(hash))
	if err != nil || !ok {
		return err
	}
	return deleteToken(tx, TokenRef{ID: t.ID, Principal: t.Principal, Hash: t.Hash})
}

func deleteToken(tx Tx, t TokenRef) error {
	return errors.Join(
		Tokens.Delete(tx, TokenKey(t.Hash)),
		TokenIDs.Delete(tx, Name(t.ID)),
		PrincipalTokens.Delete(tx, PrincipalTokenKey{Principal: t.Principal, ID: t.ID}),
	)
}
