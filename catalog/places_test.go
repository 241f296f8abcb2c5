package catalog_test

import (
	"testing"

	"github.com/google/uuid"

	"sluice/catalog"
)

// publishing gives a store with a capsule, and a function that publishes the same content from some
// place.
func publishing(t *testing.T) (*catalog.Mem, func(place string) error) {
	store := catalog.NewMem()
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, catalog.Moment{})
		return err
	}))
	return store, func(place string) error {
		return store.Update(t.Context(), func(tx catalog.Tx) error {
			_, err := catalog.Publish(tx, catalog.Publication{
				Memory:  catalog.Memory{ID: uuid.New(), Capsule: "c", Owner: "o", Bytes: 1},
				Content: catalog.Content{Capsule: "c", Bytes: 1, Extents: []catalog.Extent{{Place: place, Len: 1}}},
			})
			return err
		})
	}
}

// A place that is garbage stays garbage: the collector may be deleting it at this moment.
func TestGarbageNeverComesBack(t *testing.T) {
	store, publish := publishing(t)
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Discard(tx, []string{"p"}, catalog.Moment{})
	}))
	if err := publish("p"); err == nil {
		t.Error("garbage is published")
	}
	must(t, publish("q"))
	must(t, publish("r")) // takes q's last reference
	if err := publish("q"); err == nil {
		t.Error("what became garbage is published")
	}
}

// A place that several contents name becomes garbage when the last of them is gone, and not before.
func TestAPlaceLivesAsLongAsItIsNamed(t *testing.T) {
	store, publish := publishing(t)
	must(t, publish("shared"))
	other := catalog.Memory{ID: uuid.New(), Capsule: "c", Owner: "o", Bytes: 2, SHA256: catalog.SHA256{1}}
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.Publish(tx, catalog.Publication{Memory: other, Content: catalog.Content{
			Capsule: "c", SHA256: other.SHA256, Bytes: 2,
			Extents: []catalog.Extent{{Place: "shared", Len: 1}, {Place: "own", Len: 1}},
		}})
		return err
	}))
	look := func(refs int64, garbage int) {
		t.Helper()
		must(t, store.View(t.Context(), func(r catalog.Reader) error {
			place, err := catalog.Places.Get(r, "shared")
			if err != nil || place.Refs != refs {
				t.Errorf("%+v, %v; want %d references", place, err, refs)
			}
			due, err := catalog.DueBy(r, catalog.DueKey{}, catalog.PlaceGrace.Milliseconds(), 10)
			early, err2 := catalog.DueBy(r, catalog.DueKey{}, catalog.PlaceGrace.Milliseconds()-1, 10)
			if len(due) != garbage || len(early) > 0 || err2 != nil {
				t.Errorf("due are %v, and %v without grace, %v", due, early, err2)
			}
			return err
		}))
	}
	look(2, 0)
	must(t, publish("newer")) // the first content moves to another copy
	look(1, 0)
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Purge(tx, other.ID, catalog.Moment{})
	}))
	look(0, 2)
}

// The copy that was verified last counts, because the older one may be corrupt.
func TestAGoodCopyReplacesTheOlderOne(t *testing.T) {
	store, publish := publishing(t)
	must(t, publish("old"))
	must(t, publish("good"))
	must(t, store.View(t.Context(), func(r catalog.Reader) error {
		content, err := catalog.Contents.Get(r, catalog.ContentKey{Capsule: "c"})
		if err != nil || content.Refs != 2 || len(content.Extents) != 1 || content.Extents[0].Place != "good" {
			t.Errorf("%+v, %v", content, err)
		}
		for name, refs := range map[catalog.Name]int64{"old": 0, "good": 1} {
			if place, err := catalog.Places.Get(r, name); err != nil || place.Refs != refs {
				t.Errorf("place %s: %+v, %v", name, place, err)
			}
		}
		return nil
	}))
}
