package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/catalog"
	"sluice/keeper"
	"sluice/session"
	"sluice/upload"
	"sluice/upload/uploadtest"
)

// aged is a content store of which some places are of an earlier life, and which can't tell whose those are whose name begins with a ?.
type aged struct {
	*uploadtest.Blobs
	holds map[string]string // stretch: the place that it is of
}

func (a aged) Places(ctx context.Context, after string, n int) ([]upload.PlaceInfo, error) {
	if after >= "~" {
		return nil, nil
	}
	all, err := a.Blobs.Places(ctx, after, n)
	if len(all) > 0 || err != nil {
		for i := range all {
			all[i].Old = true
		}
		return all, err
	}
	for name, of := range a.holds {
		all = append(all, upload.PlaceInfo{Name: name, Old: true, Holds: func(place string) bool { return place == of }})
	}
	slices.SortFunc(all, func(a, b upload.PlaceInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (a aged) Delete(ctx context.Context, place string) error {
	delete(a.holds, place)
	return a.Blobs.Delete(ctx, place)
}

// stray makes a place of an id, which no session need have.
func (w *world) stray(id session.SessionID) {
	w.t.Helper()
	writer, err := w.blobs.Writer(w.t.Context(), id, 99, -1)
	w.check(err)
	_, err = writer.WriteAt([]byte("x"), 0)
	w.check(errors.Join(err, writer.Close()))
}

func (w *world) on(blobs upload.Blobs) {
	w.keeper = keeper.New(keeper.Config{Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: blobs, Clock: w.clock})
}

// However many places a life that was killed has left, the first look takes them all; what an open session or a memory has stays.
func TestWhatAnEarlierLifeLeftGoesAtOnce(t *testing.T) {
	w := newWorld(t)
	up := w.begun()
	w.stray(up.ID)
	for id := range session.SessionID(12_000) {
		w.stray(id + 1)
	}
	w.on(aged{Blobs: w.blobs})
	if n, err := w.keeper.Sweep(t.Context()); n != 12_000 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	if n := w.places(); n != 2 {
		t.Errorf("%d places are left", n)
	}
}

// What the store can't recognise is kept where a session or a memory names a place that may be there, and goes where none does.
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
