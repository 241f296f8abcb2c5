package catalog

import "errors"

// Identity is somebody as an issuer of tokens (OpenID Connect) names them. The zero Identity is
// nobody's. It is the key of its row, too.
type Identity struct{ Issuer, Subject string }

// AppendKey appends the ordered encoding.
func (k Identity) AppendKey(b []byte) []byte {
	return append(appendString(b, k.Issuer), k.Subject...)
}

// IdentityRef says which principal an identity is.
type IdentityRef struct {
	Identity
	Principal string
}

// PrincipalOf gives the principal of p's identity. If there is none, p is stored and becomes it. It
// gives a *FieldError if the identity or the name of p is malformed.
func PrincipalOf(tx Tx, p Principal) (Principal, error) {
	for _, s := range []struct{ field, text string }{{"issuer", p.Identity.Issuer}, {"subject", p.Identity.Subject}} {
		if err := checkText(s.field, s.text, 1, maxName, false); err != nil {
			return p, err
		}
	}
	there, ok, err := FindPrincipal(tx, p.Identity)
	if err != nil || ok {
		return there, err
	}
	if err := NewPrincipal(tx, p); err != nil {
		return p, err
	}
	return p, IndexIdentity(tx, p)
}

// FindPrincipal finds the principal of an identity.
func FindPrincipal(r Reader, id Identity) (p Principal, ok bool, err error) {
	ref, ok, err := Identities.Find(r, id)
	if err != nil || !ok {
		return p, false, err
	}
	return Principals.Find(r, Name(ref.Principal))
}

// IndexIdentity makes the identity of a principal lead to it.
func IndexIdentity(tx Tx, p Principal) error {
	return Identities.Put(tx, p.Identity, IdentityRef{Identity: p.Identity, Principal: p.ID})
}

// deleteIdentity removes the row of a principal's identity, unless it leads to another one. A
// damaged row is removed too.
func deleteIdentity(tx Tx, p Principal) error {
	if p.Identity == (Identity{}) {
		return nil
	}
	ref, ok, err := Identities.Find(tx, p.Identity)
	if errors.Is(err, ErrDamaged) || err == nil && ok && ref.Principal == p.ID {
		return Identities.Delete(tx, p.Identity)
	}
	return err
}
