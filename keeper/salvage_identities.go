package keeper

import "sluice/catalog"

// readIdentities notes which principals are known to sign in with tokens of an issuer. Only sure
// rows are there: an older one may be of a principal that was deleted.
func (s *Salvage) readIdentities(rows catalog.Reader) error {
	s.identities = map[string]catalog.Identity{}
	for v, err := range catalog.Identities.After(rows, catalog.Identity{}) {
		if err != nil {
			return err
		}
		s.identities[v.Principal] = v.Identity
		if err := s.ensurePrincipal(rows, v.Principal, "an identity"); err != nil {
			return err
		}
	}
	return nil
}

// identityList makes the list of identities agree with the principals.
func (s *Salvage) identityList(rows catalog.Reader) error {
	for v, err := range catalog.Identities.After(rows, catalog.Identity{}) {
		if err != nil {
			return err
		}
		if p, ok, err := catalog.Principals.Find(rows, catalog.Name(v.Principal)); err != nil {
			return err
		} else if !ok || p.Identity != v.Identity {
			s.change(func(tx catalog.Tx) error { return catalog.Identities.Delete(tx, v.Identity) })
		}
	}
	for p, err := range catalog.Principals.After(rows, "") {
		if err != nil {
			return err
		}
		if p.Identity != (catalog.Identity{}) && s.identities[p.ID] != p.Identity {
			s.change(func(tx catalog.Tx) error { return catalog.IndexIdentity(tx, p) })
		}
	}
	return nil
}
