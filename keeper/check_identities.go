package keeper

import "sluice/catalog"

// checkIdentities compares the principals that sign in with tokens of an issuer with the list of
// identities. Two principals with one identity can only be damage: the one that the list leads to
// keeps it, or else the older one.
func (exp *expected) checkIdentities(all []catalog.Principal) {
	of, claimed := map[string]catalog.Identity{}, map[catalog.Identity]bool{}
	for _, p := range all {
		of[p.ID], claimed[p.Identity] = p.Identity, true
	}
	owner := map[catalog.Identity]string{}
	each(exp, catalog.Identities, "identities", func(v catalog.IdentityRef) catalog.Identity { return v.Identity },
		func(v catalog.IdentityRef) {
			switch {
			case of[v.Principal] == v.Identity:
				owner[v.Identity] = v.Principal
			case !claimed[v.Identity] && !exp.check.unreadable:
				exp.check.wrong(KindIndex, "the identity %q of %s leads to principal %s, who has not got it",
					v.Subject, v.Issuer, v.Principal).
					mend(exp.check, "it leads nowhere now", func(tx catalog.Tx) error {
						return catalog.Identities.Delete(tx, v.Identity)
					})
			}
		})
	for _, p := range all {
		if p.Identity == (catalog.Identity{}) || owner[p.Identity] == p.ID {
			continue
		}
		if other := owner[p.Identity]; other != "" {
			exp.check.wrong(KindIndex, "principal %s has the identity %q of %s, as principal %s has",
				p.ID, p.Identity.Subject, p.Identity.Issuer, other).
				mend(exp.check, "it is taken from the former", func(tx catalog.Tx) error {
					p := p
					p.Identity = catalog.Identity{}
					return catalog.Principals.Put(tx, catalog.Name(p.ID), p)
				})
			continue
		}
		owner[p.Identity] = p.ID
		exp.check.wrong(KindIndex, "principal %s is not in the list of identities", p.ID).
			mend(exp.check, "it is listed again", func(tx catalog.Tx) error { return catalog.IndexIdentity(tx, p) })
	}
}
