package upload_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// While the metadata's disk has no space left, nothing is begun or put, and no body is read.
// Recorded sessions can be finished and aborted, and memories deleted.
func TestAFullMetadataDiskTakesNothingNew(t *testing.T) {
	w := newWorld(t)
	b := make([]byte, chunk)
	whole, partial, other := w.begin(chunk), w.begin(chunk), w.begin(chunk)
	w.check(w.put(whole.ID, 0, b))
	noSpace := errors.New("full")
	w.CheckSpace = func() error { return noSpace }
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, blob.ErrNoSpace) || !errors.Is(err, noSpace) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.Begin(
		t.Context(),
		w.me,
		upload.BeginRequest{Capsule: "default", Meta: catalog.Meta{Name: "new"}, Bytes: 1, Chunks: -1},
	)
	refused("begin", err)
	refused("put", w.PutChunk(t.Context(), w.me, partial.ID, 0, unreadable{t}, upload.Put{Length: chunk}))
	_, err = w.PutRange(t.Context(), w.me, partial.ID, 0, unreadable{t}, upload.Put{Length: chunk})
	refused("range", err)
	_, err = w.Create(
		t.Context(),
		w.me,
		upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: "new"}, Put: upload.Put{Length: 5}},
		unreadable{t},
	)
	refused("create", err)
	if _, err := w.finish(whole.ID, b); err != nil {
		t.Errorf("finish: %v", err)
	}
	w.check(w.Abort(t.Context(), w.me, other.ID))
	w.CheckSpace = func() error { return nil }
	w.check(w.put(partial.ID, 0, b))
	if s, err := w.sessions.Status(t.Context(), partial.ID); err != nil || s.State != session.Open {
		t.Errorf("%v, %v", s.State, err)
	}
	_, err = w.Create(
		t.Context(),
		w.me,
		upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: "new"}, Put: upload.Put{Length: 5}},
		strings.NewReader("small"),
	)
	w.check(err)
}

// unreadable is a body that must not be read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, errors.New("not to be read")
}
