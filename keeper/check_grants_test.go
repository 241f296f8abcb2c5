package keeper_test

import (
	"context"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

// granted is a house with a ticket that has one upload under way and one finished, and with a link.
type granted struct {
	*house
	with    access.Caller // the ticket
	ticket  catalog.Grant
	link    catalog.Grant
	session session.SessionID
}

func grant(t *testing.T) *granted {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	f := furnish(t, disk, stores)
	h, err := enter(t.Context(), disk, stores, f.Secret)
	must(err)
	t.Cleanup(func() {
		h.ctx = context.WithoutCancel(h.ctx)
		if err := h.leave(); err != nil {
			t.Error(err)
		}
	})
	g := &granted{house: h}
	var secret string
	g.ticket, secret, err = h.world.Access.CreateGrant(h.ctx, h.me, access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Ticket, Capsule: "default", MaxBytes: 100, Uploads: 5}, TTL: time.Hour,
	})
	must(err)
	g.with, err = h.world.Access.Authenticate(h.ctx, secret)
	must(err)
	m, err := h.create("linked", text(20, 30))
	must(err)
	g.link, _, err = h.world.Access.CreateGrant(h.ctx, h.me, access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Link, Memory: m.ID, Downloads: 3}, TTL: time.Hour,
	})
	must(err)
	admin := h.me
	h.me = g.with
	b := text(21, 40)
	up, err := h.begin("finished with a ticket", b, 0, 1, 2)
	must(err)
	_, err = h.finish(up.ID, b)
	must(err)
	up, err = h.begin("under way with a ticket", b, 0)
	must(err)
	h.me, g.session = admin, up.ID
	if found, sum, err := h.check(false); err != nil || sum.Wrong > 0 {
		t.Fatalf("before anything is spoiled: %v, %s", err, list(found))
	}
	return g
}

// read gives the ticket's row as it is now.
func (g *granted) read(t *testing.T) (row catalog.Grant, there bool) {
	t.Helper()
	err := g.catalog.View(g.ctx, func(r catalog.Reader) (err error) {
		row, there, err = catalog.Grants.Find(r, catalog.Name(g.ticket.ID))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row, there
}

// Each contradiction between the rows of tickets and links, and those that follow from them, is
// found and repaired. Afterwards the ticket counts what there is, and nothing stays behind it.
func TestEachContradictionOfGrantsIsFoundAndRepaired(t *testing.T) {
	due := func(kind catalog.DueKind, id string) func(catalog.Tx) error {
		return func(tx catalog.Tx) error {
			for d, err := range catalog.Dues.After(tx, catalog.DueKey{}) {
				if err != nil {
					return err
				}
				if d.Kind == kind && d.Key == id {
					return catalog.Dues.Delete(tx, catalog.DueKey(d))
				}
			}
			t.Error("nothing is due")
			return nil
		}
	}
	counts := func(id string, change func(*catalog.Grant)) func(catalog.Tx) error {
		return func(tx catalog.Tx) error {
			row, err := catalog.Grants.Get(tx, catalog.Name(id))
			if err != nil {
				return err
			}
			change(&row)
			return catalog.Grants.Put(tx, catalog.Name(id), row)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*granted, catalog.Tx) error
		kind  keeper.Kind
		says  string
		gone  bool // the ticket ends, and what is under way with it
	}{
		{"a secret that leads nowhere", func(g *granted, tx catalog.Tx) error {
			return catalog.GrantSecrets.Delete(tx, catalog.TokenKey(g.ticket.Hash))
		}, keeper.KindIndex, "is not in the lists of grants", false},
		{"a secret of another kind", func(g *granted, tx catalog.Tx) error {
			ref, err := catalog.GrantSecrets.Get(tx, catalog.TokenKey(g.link.Hash))
			if err != nil {
				return err
			}
			ref.Kind = catalog.Ticket
			return catalog.GrantSecrets.Put(tx, catalog.TokenKey(g.link.Hash), ref)
		}, keeper.KindIndex, "is not in the lists of grants", false},
		{"not in the list of its maker", func(g *granted, tx catalog.Tx) error {
			k := catalog.GrantListKey{Holder: catalog.MadeBy(g.ticket.Maker), ID: g.ticket.ID}
			return catalog.GrantLists.Delete(tx, k)
		}, keeper.KindIndex, "is not in the lists of grants", false},
		{"not in the list of its capsule", func(g *granted, tx catalog.Tx) error {
			k := catalog.GrantListKey{Holder: catalog.GrantsOf("default"), ID: g.link.ID}
			return catalog.GrantLists.Delete(tx, k)
		}, keeper.KindIndex, "is not in the lists of grants", false},
		{"a list that leads nowhere", func(g *granted, tx catalog.Tx) error {
			k := catalog.GrantListKey{Holder: catalog.GrantsOf("default"), ID: "stray"}
			return catalog.GrantLists.Put(tx, k, catalog.GrantRef{ID: k.ID, Holder: k.Holder})
		}, keeper.KindIndex, "leads to one that is not there", false},
		{"more open than there are", func(g *granted, tx catalog.Tx) error {
			return counts(g.ticket.ID, func(row *catalog.Grant) { row.Open = 4 })(tx)
		}, keeper.KindCounter, "counts 4 uploads under way, and there are 1", false},
		{"fewer open than there are", func(g *granted, tx catalog.Tx) error {
			return counts(g.ticket.ID, func(row *catalog.Grant) { row.Open = 0 })(tx)
		}, keeper.KindCounter, "counts 0 uploads under way, and there are 1", false},
		{"a ticket without an end", func(g *granted, tx catalog.Tx) error {
			return due(catalog.DueGrant, g.ticket.ID)(tx)
		}, keeper.KindDue, "has an end, and nothing will remove it", false},
		{"a link without an end", func(g *granted, tx catalog.Tx) error {
			return due(catalog.DueGrant, g.link.ID)(tx)
		}, keeper.KindDue, "has an end, and nothing will remove it", false},
		{"nobody pays for a session", func(g *granted, tx catalog.Tx) error {
			r, err := catalog.Reservations.Get(tx, catalog.Number(g.session))
			if err != nil {
				return err
			}
			r.Payer = ""
			return catalog.Reservations.Put(tx, catalog.Number(g.session), r)
		}, keeper.KindReserved, "40 bytes are to be reserved for it, and are not", false},
		{"a session of a ticket that is gone", func(g *granted, tx catalog.Tx) error {
			if err := catalog.EndGrant(tx, g.ticket.ID); err != nil {
				return err
			}
			return due(catalog.DueTicket, g.ticket.ID)(tx)
		}, keeper.KindDue, "has ended, and nothing will abort what is under way with it", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := grant(t)
			if err := g.catalog.Update(g.ctx, func(tx catalog.Tx) error { return c.spoil(g, tx) }); err != nil {
				t.Fatal(err)
			}
			found, _, err := g.check(false)
			if err != nil || !found1(found, c.kind, c.says) {
				t.Fatalf("%v; found:\n%s", err, list(found))
			}
			if found, fixed, err := g.check(true); err != nil || fixed.Left() > 0 {
				t.Fatalf("the repair: %v, %+v\n%s", err, fixed, list(found))
			}
			if found, after, err := g.check(false); err != nil || after.Wrong > 0 {
				t.Errorf("afterwards: %v\n%s", err, list(found))
			}
			row, there := g.read(t)
			if there == c.gone || there && (row.Open != 1 || row.Done != 1) {
				t.Errorf("%v, %+v", there, row)
			}
			if _, err := g.world.Keeper.Tick(g.ctx); err != nil {
				t.Error(err)
			}
			s, err := g.sessions.Load(g.ctx, g.session)
			if want := map[bool]session.State{false: session.Open, true: session.Aborted}[c.gone]; s.State != want {
				t.Errorf("the session is %v, %v", s.State, err)
			}
			if c.gone {
				return
			}
			// The ticket works on.
			g.me = g.with
			if _, err := g.begin("one more", text(22, 40)); err != nil {
				t.Error(err)
			}
		})
	}
}
