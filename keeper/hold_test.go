package keeper_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/catalog"
)

// Places on hold stay, however long they are due, and go after the last release. All other due work
// is done meanwhile.
func TestHeldPlacesStay(t *testing.T) {
	w := newWorld(t)
	w.begun()
	first, second := w.keeper.Hold(), w.keeper.Hold()
	if n := w.pass(3 * time.Hour); n != 1 {
		t.Errorf("%d expired", n)
	}
	first()
	first() // once is enough
	w.pass(5 * minute)
	if w.places() != 1 {
		t.Fatal("a held place is gone")
	}
	second()
	w.pass(minute)
	if w.places() != 0 {
		t.Error("it is still there")
	}
}

// Places on hold do not stop other due work, however many and however old they are.
func TestHeldPlacesKeepNothingElse(t *testing.T) {
	w := newWorld(t)
	defer w.keeper.Hold()()
	idem := catalog.IdemKey{Capsule: "default", Owner: w.me.Principal, Key: "k"}
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		for i := range 5000 {
			w.check(catalog.Discard(tx, []string{fmt.Sprintf("garbage-%d", i)}, catalog.Moment{}))
		}
		d := catalog.Due{
			At: 2 * catalog.PlaceGrace.Milliseconds(), Kind: catalog.DueIdem,
			Key: string(idem.AppendKey(nil)),
		}
		w.check(catalog.Dues.Put(tx, catalog.DueKey(d), d))
		return catalog.Idems.Put(tx, idem, catalog.Idem{Capsule: idem.Capsule, Owner: idem.Owner, Key: idem.Key})
	}))
	w.pass(3 * minute)
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		if _, there, err := catalog.Idems.Find(r, idem); err != nil || there {
			t.Errorf("what is due behind held places is still there; %v", err)
		}
		due, err := catalog.DueBy(r, catalog.DueKey{}, w.sessions.Running(), 10_000)
		if len(due) != 5000 {
			t.Errorf("%d places are due still, of 5000 that are held", len(due))
		}
		return err
	}))
}
