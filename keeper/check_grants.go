package keeper

import (
	"bytes"
	"slices"

	"sluice/catalog"
)

// checkGrants reads the tickets and the links, and compares them with their lists. It makes sure
// that each of them will end.
func (exp *expected) checkGrants() {
	exp.tickets = map[string]*ticketCount{}
	secrets, lists := &rowList[catalog.GrantRef]{}, &rowList[catalog.GrantRef]{}
	each(exp, catalog.Grants, "tickets and links", func(g catalog.Grant) catalog.Name { return catalog.Name(g.ID) },
		func(g catalog.Grant) {
			if g.Kind == catalog.Ticket {
				exp.tickets[g.ID] = &ticketCount{row: g}
			}
			ref := catalog.GrantRef{ID: g.ID, Kind: g.Kind, Hash: g.Hash, Maker: g.Maker}
			listed := secrets.has(exp.r, catalog.GrantSecretTable, catalog.TokenKey(g.Hash), ref)
			for _, h := range []catalog.GrantHolder{catalog.MadeBy(g.Maker), catalog.GrantsOf(g.Capsule)} {
				ref.Holder = h
				key := catalog.GrantListKey{Holder: h, ID: g.ID}
				listed = lists.has(exp.r, catalog.GrantListTable, key, ref) && listed
			}
			if !listed {
				exp.check.wrong(KindIndex, "grant %s of %s is not in the lists of grants", g.ID, g.Maker).
					mend(exp.check, "it is listed again", func(tx catalog.Tx) error {
						return catalog.IndexGrant(tx, g)
					})
			}
			if !exp.dues.grants[g.ID] && !exp.check.unreadable {
				exp.check.wrong(KindDue, "grant %s of %s has an end, and nothing will remove it", g.ID, g.Maker).
					mend(exp.check, "it is left to the collector", func(tx catalog.Tx) error {
						return exp.check.later(tx, max(g.Expires.Sub(exp.check.now.Now), 0), catalog.DueGrant, g.ID)
					})
			}
		})
	for table, list := range map[catalog.TableID]*rowList[catalog.GrantRef]{
		catalog.GrantSecretTable: secrets, catalog.GrantListTable: lists,
	} {
		if countRows(exp.r, table) != list.there {
			slices.SortFunc(list.keys, bytes.Compare)
			exp.reportOrphans(table, list.keys, "a list of grants leads to one that is not there")
		}
	}
}

// ticketCount is a ticket, and how many uploads are under way with it.
type ticketCount struct {
	row  catalog.Grant
	open int64
}

// payer gives the principal that a session of this owner counts for, if it is not the owner itself.
// known is false if the owner may be a ticket that has ended.
func (exp *expected) payer(owner string) (payer string, known bool) {
	if t := exp.tickets[owner]; t != nil {
		return t.row.Maker, true
	}
	_, is, err := catalog.Principals.Find(exp.r, catalog.Name(owner))
	return "", err == nil && is
}

// countForTicket counts an open session for the ticket that owns it. If that has ended, its
// sessions have to end too.
func (exp *expected) countForTicket(r catalog.Reservation) {
	if t := exp.tickets[r.Owner]; t != nil {
		t.open++
		return
	}
	if r.Payer == "" || exp.dues.tickets[r.Owner] || exp.check.unreadable {
		return
	}
	exp.dues.tickets[r.Owner] = true
	exp.check.wrong(KindDue, "ticket %s has ended, and nothing will abort what is under way with it", r.Owner).
		mend(exp.check, "that is left to the collector", func(tx catalog.Tx) error {
			d := catalog.Due{Kind: catalog.DueTicket, Key: r.Owner}
			return catalog.Dues.Put(tx, catalog.DueKey(d), d)
		})
}

// checkTickets compares the counts of the tickets.
func (exp *expected) checkTickets() {
	for _, id := range sorted(exp.tickets) {
		t := exp.tickets[id]
		if t.open == t.row.Open {
			continue
		}
		exp.check.wrong(KindCounter, "ticket %s counts %d uploads under way, and there are %d", id, t.row.Open, t.open).
			mend(exp.check, "it is counted anew", func(tx catalog.Tx) error {
				g, err := catalog.Grants.Get(tx, catalog.Name(id))
				if err != nil {
					return err
				}
				g.Open = t.open
				return catalog.Grants.Put(tx, catalog.Name(id), g)
			})
	}
}
