package catalog_test

import (
	"testing"
	"time"

	"sluice/catalog"
)

// A capsule keeps its newest events: each new one removes the oldest. The surplus of an older
// program, which kept all events, is removed step by step.
func TestEventsAreForgotten(t *testing.T) {
	store := catalog.NewMem()
	at := catalog.Moment{Now: time.Now()}
	update := func(f func(tx catalog.Tx) error) {
		t.Helper()
		must(t, store.Update(t.Context(), f))
	}
	update(func(tx catalog.Tx) error {
		_, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, at)
		return err
	})
	kept := func(first, last uint64) {
		t.Helper()
		must(t, store.View(t.Context(), func(r catalog.Reader) error {
			n := uint64(0)
			for e, err := range catalog.Events.After(r, catalog.EventKey{Capsule: "c"}) {
				if err != nil {
					return err
				}
				if n++; n == 1 && e.Seq != first {
					t.Errorf("the oldest is %d, not %d", e.Seq, first)
				}
				if e.Seq != first+n-1 {
					t.Fatalf("event %d where %d belongs", e.Seq, first+n-1)
				}
			}
			if n != last-first+1 {
				t.Errorf("%d are kept, not %d", n, last-first+1)
			}
			return nil
		}))
	}
	rename := func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(tx, "c", func(c *catalog.Capsule) error { return nil }, at)
		return err
	}
	// As an older program has left it: with all events.
	const old = catalog.MostEvents + 500
	update(func(tx catalog.Tx) error {
		c, err := catalog.Capsules.Get(tx, "c")
		for n := uint64(2); n <= old; n++ {
			must(t, catalog.Events.Put(tx, catalog.EventKey{Capsule: "c", Seq: n}, catalog.Event{Capsule: "c", Seq: n}))
		}
		c.Seq = old
		must(t, catalog.Capsules.Put(tx, "c", c))
		return err
	})
	for more := true; more; {
		update(func(tx catalog.Tx) (err error) {
			more, err = catalog.ForgetEvents(tx, "c", 200)
			return err
		})
	}
	kept(501, old)
	for range 3 {
		update(rename)
	}
	kept(504, old+3)
}
