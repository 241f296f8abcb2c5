package keeper

import (
	"fmt"
	"math"
	"slices"

	"github.com/google/uuid"

	"sluice/catalog"
)

// principals makes the principals of tokens again. It makes an admin if there is none: without one,
// nobody has access.
func (s *Salvage) principals(rows catalog.Reader) error {
	admin := false
	for p, err := range catalog.Principals.After(rows, "") {
		if err != nil {
			return err
		}
		admin = admin || p.Admin
	}
	for t, err := range catalog.Tokens.After(rows, catalog.TokenKey{}) {
		if err == nil {
			err = s.ensurePrincipal(rows, t.Principal, "a token")
		}
		if err != nil {
			return err
		}
	}
	if !admin {
		id, err := uuid.NewV7FromReader(s.random)
		if err != nil {
			return err
		}
		s.report(KindLost, "every admin: principal %s is one from now on; remove the file admin-token, and the "+
			"next start writes a token for it", id)
		s.putPrincipal(catalog.Principal{ID: id.String(), Name: "admin", Admin: true, Created: s.now.Now})
	}
	return nil
}

// rolePrincipals makes the principals of roles again.
func (s *Salvage) rolePrincipals(rows catalog.Reader) error {
	for c, err := range catalog.Capsules.After(rows, "") {
		if err != nil {
			return err
		}
		for _, p := range c.Members() {
			if err := s.ensurePrincipal(rows, p, "a role in capsule "+c.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// ensurePrincipal makes a principal that something names, if it is not there.
func (s *Salvage) ensurePrincipal(rows catalog.Reader, id, what string) error {
	_, ok, err := catalog.Principals.Find(rows, catalog.Name(id))
	if err != nil || ok || s.made[id] {
		return err
	}
	due := catalog.DueKey{Kind: catalog.DuePrincipal, Key: id}
	if _, deleted, err := catalog.Dues.Find(rows, due); err != nil || deleted {
		return err
	}
	s.made[id] = true
	if p, ok := s.principalsUnsure[id]; ok {
		s.report(KindOlder, "principal %s (%q), who has %s: the record may be older than it was; it is taken without "+
			"the admin right", id, p.Name, what)
		p.Admin, p.Identity = false, s.identities[id] // an identity may be another's since
		s.putPrincipal(p)
		return nil
	}
	s.report(KindLost, "principal %s, who has %s: the record; it is made anew without its name, its bounds and, if "+
		"it had it, the admin right", id, what)
	s.putPrincipal(catalog.Principal{ID: id, Name: "recovered", Created: s.now.Now, Identity: s.identities[id]})
	return nil
}

// tokenLists makes the lists of tokens agree with the tokens.
func (s *Salvage) tokenLists(rows catalog.Reader) error {
	for t, err := range catalog.Tokens.After(rows, catalog.TokenKey{}) {
		if err != nil {
			return err
		}
		s.change(func(tx catalog.Tx) error { return catalog.IndexToken(tx, t) })
	}
	for ref, err := range catalog.TokenIDs.After(rows, "") {
		if err != nil {
			return err
		}
		if err := s.dropDangling(rows, ref, func(tx catalog.Tx) error {
			return catalog.TokenIDs.Delete(tx, catalog.Name(ref.ID))
		}); err != nil {
			return err
		}
	}
	for ref, err := range catalog.PrincipalTokens.After(rows, catalog.PrincipalTokenKey{}) {
		if err != nil {
			return err
		}
		if err := s.dropDangling(rows, ref, func(tx catalog.Tx) error {
			return catalog.PrincipalTokens.Delete(tx, catalog.PrincipalTokenKey{Principal: ref.Principal, ID: ref.ID})
		}); err != nil {
			return err
		}
	}
	return nil
}

// dropDangling plans the deletion of a row of a list of tokens if its token is not there.
func (s *Salvage) dropDangling(rows catalog.Reader, ref catalog.TokenRef, drop func(catalog.Tx) error) error {
	_, ok, err := catalog.Tokens.Find(rows, catalog.TokenKey(ref.Hash))
	if err == nil && !ok {
		s.change(drop)
	}
	return err
}

func (s *Salvage) putPrincipal(p catalog.Principal) {
	s.change(func(tx catalog.Tx) error { return catalog.Principals.Put(tx, catalog.Name(p.ID), p) })
}

// recoverCapsules makes the capsules again that are in use, or were not sure. The index of roles
// must confirm each role there.
func (s *Salvage) recoverCapsules(rows catalog.Reader) error {
	roles := map[string][]string{}
	for k, err := range catalog.Roles.After(rows, catalog.RoleKey{}) {
		if err != nil {
			return err
		}
		roles[k.Capsule] = append(roles[k.Capsule], k.Principal)
	}
	admin := ""
	for p, err := range catalog.Principals.After(rows, "") {
		if err != nil {
			return err
		}
		if p.Admin && admin == "" {
			admin = p.ID
		}
	}
	used, err := s.usedCapsules(rows)
	if err != nil {
		return err
	}
	for id := range s.capsules {
		used[id] = used[id] || len(roles[id]) > 0
	}
	for id := range roles {
		used[id] = true
	}
	for _, id := range sorted(used) {
		if _, there, err := catalog.Capsules.Find(rows, catalog.Name(id)); err != nil || there {
			if err != nil {
				return err
			}
			continue
		}
		if !used[id] {
			continue // it was deleted: it has no content and no roles
		}
		if c, err := s.capsule(rows, id, roles[id], admin); err != nil {
			return err
		} else if catalog.ValidCapsuleID(id) {
			s.change(func(tx catalog.Tx) error { return catalog.Capsules.Put(tx, catalog.Name(id), c) })
		}
	}
	return nil
}

// usedCapsules gives the capsules that have content or reservations.
func (s *Salvage) usedCapsules(rows catalog.Reader) (map[string]bool, error) {
	used := map[string]bool{}
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return nil, err
		}
		used[m.Capsule] = true
	}
	for v, err := range catalog.Reservations.After(rows, catalog.Number(0)) {
		if err != nil {
			return nil, err
		}
		used[v.Capsule] = true
	}
	return used, nil
}

// capsule makes one again. confirmed are the principals that have a role in it.
func (s *Salvage) capsule(rows catalog.Reader, id string, confirmed []string, admin string) (catalog.Capsule, error) {
	c, old := s.capsules[id]
	f := Finding{Kind: KindOlder, Capsule: id, Text: fmt.Sprintf("capsule %s: its record may be older than it was", id)}
	if !old {
		c = catalog.Capsule{ID: id, Name: id, Created: s.now.Now}
		f.Kind, f.Text = KindLost, fmt.Sprintf(
			"capsule %s: its record, with its name, its quotas, its types and who has which role in it", id)
	}
	for _, p := range confirmed {
		if err := s.ensurePrincipal(rows, p, "a role in capsule "+id); err != nil {
			return c, err
		}
	}
	was := c.Members()
	gone := func(p string) bool { return !slices.Contains(confirmed, p) }
	c.Owners = slices.DeleteFunc(slices.Clone(c.Owners), gone)
	c.Controllers = slices.DeleteFunc(slices.Clone(c.Controllers), gone)
	if c.Subject != "" && gone(c.Subject) {
		c.Subject = ""
	}
	if len(c.Owners) == 0 {
		c.Owners = []string{admin}
		f.Text += fmt.Sprintf("; the admin %s owns it now, and can give it back", admin)
	}
	if is := c.Members(); !slices.Equal(is, was) {
		f.Text += fmt.Sprintf("; roles had: %q then, and now: %q; known to have had one in the end: %q",
			was, is, confirmed)
	}
	for e, err := range catalog.Events.Back(rows, catalog.EventKey{Capsule: id},
		catalog.EventKey{Capsule: id, Seq: math.MaxUint64}) {
		if err != nil {
			return c, err
		}
		c.Seq = max(c.Seq, e.Seq)
		break
	}
	s.Found(f)
	return c, nil
}
