package keeper_test

import (
	"errors"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/keeper"
)

// A ticket or a link that is not sure is void: it may have been revoked.
func TestAGrantThatIsNotSureIsVoid(t *testing.T) {
	r := newRescued(t)
	g := catalog.Grant{ID: "g1", Name: "for Ada", Maker: "p", Kind: catalog.Ticket}
	if r.rescue.Keep(g, false) {
		t.Error("it is kept")
	}
	if !r.says(keeper.KindLost, `grant g1 ("for Ada" of principal p) is void`) {
		t.Errorf("%+v", r.found)
	}
	if !r.rescue.Keep(g, true) {
		t.Error("a sure one is not kept")
	}
	if r.rescue.Keep(catalog.GrantRef{ID: "g1"}, false) { // the lists are made anew
		t.Error("a row of a list is kept though it may be older")
	}
}

// A grant that is left is found by its secret and in its lists again. What leads to one that is
// lost is removed, and what is under way with it will be aborted.
func TestTheListsOfGrantsAreMadeAnew(t *testing.T) {
	r := newRescued(t)
	grants := map[string]catalog.Grant{}
	for i, id := range []string{"stays", "lost"} {
		grants[id] = catalog.Grant{
			ID: id, Kind: catalog.Ticket, Hash: catalog.SHA256{byte(i + 1)}, Maker: "p", Capsule: "c", MaxBytes: 10,
			Uploads: 2, Created: r.at.Now, Expires: r.at.Now.Add(time.Hour),
		}
	}
	r.update(func(tx catalog.Tx) (err error) {
		for i, id := range []string{"stays", "lost"} {
			v := catalog.Reservation{Session: uint64(i + 1), Capsule: "c", Owner: id, Bytes: 5}
			err = errors.Join(err, catalog.NewGrant(tx, grants[id], r.at), catalog.Reserve(tx, v, 5, catalog.Bounds{}))
		}
		return errors.Join(
			err,
			catalog.GrantSecrets.Delete(tx, catalog.TokenKey(grants["stays"].Hash)),
			catalog.GrantLists.Delete(tx, catalog.GrantListKey{Holder: catalog.MadeBy("p"), ID: "stays"}),
			catalog.GrantLists.Delete(tx, catalog.GrantListKey{Holder: catalog.GrantsOf("c"), ID: "stays"}),
			catalog.Grants.Delete(tx, "lost"),
		)
	})
	r.reconcile()
	err := r.rows.View(t.Context(), func(rows catalog.Reader) error {
		var errs []error
		look := func(what string, want bool, find func(id string) (bool, error)) {
			for id := range grants {
				there, err := find(id)
				errs = append(errs, err)
				if there != (want == (id == "stays")) {
					t.Errorf("%s of %q: %v", what, id, there)
				}
			}
		}
		look("the secret", true, func(id string) (bool, error) {
			ref, there, err := catalog.GrantSecrets.Find(rows, catalog.TokenKey(grants[id].Hash))
			return there && ref.ID == id && ref.Kind == catalog.Ticket, err
		})
		for _, h := range []catalog.GrantHolder{catalog.MadeBy("p"), catalog.GrantsOf("c")} {
			look("the list "+string(h), true, func(id string) (bool, error) {
				ref, there, err := catalog.GrantLists.Find(rows, catalog.GrantListKey{Holder: h, ID: id})
				return there && ref.Holder == h && ref.Maker == "p", err
			})
		}
		look("the end of its uploads", false, func(id string) (bool, error) {
			_, there, err := catalog.Dues.Find(rows, catalog.DueKey{Kind: catalog.DueTicket, Key: id})
			return there, err
		})
		return errors.Join(errs...)
	})
	if err != nil {
		t.Error(err)
	}
}
