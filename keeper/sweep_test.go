package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/panics"
	"sluice/keeper"
	"sluice/session"
)

// aged is a content store with some places of an earlier incarnation. It can't tell whose the
// places are whose names begin with a ?.
type aged struct {
	*blobtest.Mem
	holds map[string]string // by stretch: the place that it belongs to
}

func (a aged) Places(ctx context.Context, after string, n int) ([]blob.PlaceInfo, error) {
	if after >= "~" {
		return nil, nil
	}
	all, err := a.Mem.Places(ctx, after, n)
	if len(all) > 0 || err != nil {
		for i := range all {
			all[i].Earlier = true
		}
		return all, err
	}
	for name, of := range a.holds {
		all = append(all, blob.PlaceInfo{Name: name, Earlier: true, Holds: func(place string) bool {
			return place == of
		}})
	}
	slices.SortFunc(all, func(a, b blob.PlaceInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (a aged) Delete(ctx context.Context, place string) error {
	delete(a.holds, place)
	return a.Mem.Delete(ctx, place)
}

// placeOf makes a place of an id, which need not be that of a session.
func (w *world) placeOf(id session.SessionID) {
	w.t.Helper()
	writer, err := w.blobs.Writer(w.t.Context(), id, 99, -1)
	w.check(err)
	_, err = writer.WriteAt([]byte("x"), 0)
	w.check(errors.Join(err, writer.Close()))
}

func (w *world) on(blobs blob.Store) {
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: blobs,
		Clock: w.clock,
	})
}

// The first look takes all places that a killed incarnation has left, however many. Places of an
// open session or a memory stay.
func TestWhatAnEarlierLifeLeftGoesAtOnce(t *testing.T) {
	w := newWorld(t)
	up := w.begun()
	w.placeOf(up.ID)
	for id := range session.SessionID(12_000) {
		w.placeOf(id + 1)
	}
	w.on(aged{Mem: w.blobs})
	if n, err := w.keeper.Sweep(t.Context()); n != 12_000 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	if n := w.places(); n != 2 {
		t.Errorf("%d places are left", n)
	}
}

// A stretch that the store can't recognise is kept if a session or a memory names a place that may
// be there, and goes otherwise.
func TestWhatCannotBeRecognisedIsKeptWhereItIsNamed(t *testing.T) {
	w := newWorld(t)
	w.begun()
	all, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Places.Put(tx, "published", catalog.Place{Name: "published", Refs: 1})
	}))
	blobs := aged{w.blobs, map[string]string{"~1": all[0].Name, "~2": "published", "~3": "nobody's"}}
	w.on(blobs)
	for range 2 {
		_, err := w.keeper.Sweep(t.Context())
		w.check(err)
		if got := fmt.Sprint(blobs.holds); len(blobs.holds) != 2 || blobs.holds["~3"] != "" {
			t.Errorf("left are %s", got)
		}
	}
}

// panicking is a content store that panics at the deletion of one of its places.
type panicking struct {
	blob.Store
	at string
}

func (p panicking) Delete(ctx context.Context, place string) error {
	if place == p.at {
		panic("the store is broken")
	}
	return p.Store.Delete(ctx, place)
}

// A place at which the store panics does not stop the deletion of others, by a sweep or by a tick.
func TestAPanicAtOnePlaceKeepsNoOther(t *testing.T) {
	w := newWorld(t)
	for id := range session.SessionID(5) {
		w.placeOf(1000 + id)
	}
	all, err := w.blobs.Places(t.Context(), "", 100)
	w.check(err)
	w.on(panicking{aged{Mem: w.blobs}, all[2].Name})
	var lost *panics.Error
	if n, err := w.keeper.Sweep(t.Context()); n != 4 || !errors.As(err, &lost) {
		t.Errorf("%d deleted, %v", n, err)
	}

	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		for i := range 5 {
			d := catalog.Due{Kind: catalog.DuePlace, Key: fmt.Sprint("place", i)}
			if err := catalog.Dues.Put(tx, catalog.DueKey(d), d); err != nil {
				return err
			}
		}
		return nil
	}))
	w.on(panicking{w.blobs, "place2"})
	if _, err := w.keeper.Tick(t.Context()); !errors.As(err, &lost) {
		t.Errorf("%v", err)
	}
	left := 0
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		for d, err := range catalog.Dues.After(r, catalog.DueKey{}) {
			if left++; err != nil || d.Key != "place2" {
				t.Errorf("left to do: %+v, %v", d, err)
			}
		}
		return nil
	}))
	if left != 1 {
		t.Errorf("%d are left to do", left)
	}
}

// holed is a catalog that has lost the first capsule's row for readers of the whole table.
type holed struct{ catalog.Store }

func (h holed) View(ctx context.Context, f func(catalog.Reader) error) error {
	return h.Store.View(ctx, func(r catalog.Reader) error { return f(holedReader{r}) })
}

type holedReader struct{ catalog.Reader }

func (r holedReader) Scan(t catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		bad := t == catalog.CapsuleTable
		for row, err := range r.Reader.Scan(t, lo, hi, desc) {
			if bad {
				row, err, bad = nil, catalog.ErrHole, false
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// A capsule whose row can't be read does not stop others from forgetting their old events.
func TestABadCapsuleKeepsNoOtherFromForgetting(t *testing.T) {
	w := newWorld(t)
	const old = catalog.MostEvents + 10
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		for _, id := range []string{"a", "zz"} {
			w.check(catalog.Capsules.Put(tx, catalog.Name(id), catalog.Capsule{ID: id, Seq: old}))
			for n := uint64(1); n <= 20; n++ {
				w.check(catalog.Events.Put(tx, catalog.EventKey{Capsule: id, Seq: n},
					catalog.Event{Capsule: id, Seq: n}))
			}
		}
		return nil
	}))
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: holed{w.catalog},
		Blobs: w.blobs, Clock: w.clock,
	})
	_, err := w.keeper.Sweep(t.Context())
	w.check(err)
	for id, want := range map[string]uint64{"a": 1, "zz": 11} {
		w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
			for e, err := range catalog.Events.After(r, catalog.EventKey{Capsule: id}) {
				if err != nil || e.Capsule != id || e.Seq != want {
					t.Errorf("the oldest event of %s is %+v, %v; want %d", id, e, err, want)
				}
				break
			}
			return nil
		}))
	}
}
