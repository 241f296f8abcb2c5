package keeper

import "sluice/catalog"

// grantLists makes the lists of grants agree with the grants. Grants whose capsule or maker is lost
// are good for nothing, and end by themselves.
func (s *Salvage) grantLists(rows catalog.Reader) error {
	for g, err := range catalog.Grants.After(rows, "") {
		if err != nil {
			return err
		}
		s.change(func(tx catalog.Tx) error { return catalog.IndexGrant(tx, g) })
	}
	for ref, err := range catalog.GrantSecrets.After(rows, catalog.TokenKey{}) {
		if err == nil {
			err = s.dropUnlessGrant(rows, ref.ID, func(tx catalog.Tx) error {
				return catalog.GrantSecrets.Delete(tx, catalog.TokenKey(ref.Hash))
			})
		}
		if err != nil {
			return err
		}
	}
	for ref, err := range catalog.GrantLists.After(rows, catalog.GrantListKey{}) {
		if err == nil {
			err = s.dropUnlessGrant(rows, ref.ID, func(tx catalog.Tx) error {
				return catalog.GrantLists.Delete(tx, catalog.GrantListKey{Holder: ref.Holder, ID: ref.ID})
			})
		}
		if err != nil {
			return err
		}
	}
	for v, err := range catalog.Reservations.After(rows, 0) {
		if err == nil && v.Payer != "" {
			err = s.dropUnlessGrant(rows, v.Owner, func(tx catalog.Tx) error {
				d := catalog.Due{Kind: catalog.DueTicket, Key: v.Owner}
				return catalog.Dues.Put(tx, catalog.DueKey(d), d)
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropUnlessGrant plans a change if the grant is not there.
func (s *Salvage) dropUnlessGrant(rows catalog.Reader, id string, change func(catalog.Tx) error) error {
	_, ok, err := catalog.Grants.Find(rows, catalog.Name(id))
	if err == nil && !ok {
		s.change(change)
	}
	return err
}
