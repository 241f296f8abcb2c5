package catalog_test

import (
	"errors"
	"testing"

	"sluice/catalog"
)

// An identity leads to one principal, and to nobody once that is deleted.
func TestAnIdentityGoesWithItsPrincipal(t *testing.T) {
	store := catalog.NewMem()
	ada := catalog.Identity{Issuer: "https://issuer.test", Subject: "ada"}
	err := store.Update(t.Context(), func(tx catalog.Tx) error {
		p, err := catalog.PrincipalOf(tx, catalog.Principal{ID: "p1", Name: "Ada", Identity: ada})
		if err != nil || p.ID != "p1" {
			t.Errorf("%+v, %v", p, err)
		}
		p, err = catalog.PrincipalOf(tx, catalog.Principal{ID: "p2", Name: "Other", Identity: ada})
		if err != nil || p.ID != "p1" || p.Name != "Ada" {
			t.Errorf("again: %+v, %v", p, err)
		}
		if _, ok, err := catalog.Principals.Find(tx, "p2"); ok || err != nil {
			t.Errorf("a second principal was made: %v", err)
		}
		if err := catalog.DeletePrincipal(tx, "p1"); err != nil {
			return err
		}
		if _, ok, err := catalog.Identities.Find(tx, ada); ok || err != nil {
			t.Errorf("the identity is still there: %v", err)
		}
		p, err = catalog.PrincipalOf(tx, catalog.Principal{ID: "p3", Name: "Ada", Identity: ada})
		if err != nil || p.ID != "p3" {
			t.Errorf("after the deletion: %+v, %v", p, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []catalog.Identity{
		{}, {Issuer: "i"}, {Subject: "s"}, {Issuer: "i\x00j", Subject: "s"}, {Issuer: "i", Subject: "s\x00"},
	} {
		err := store.Update(t.Context(), func(tx catalog.Tx) error {
			_, err := catalog.PrincipalOf(tx, catalog.Principal{ID: "p4", Name: "x", Identity: bad})
			return err
		})
		if !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
