package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/keeper"
	"sluice/upload"
	"sluice/upload/uploadtest"
)

// stubborn is a content store that deletes nothing while it is told so.
type stubborn struct {
	*uploadtest.Blobs
	fails bool
}

var errStubborn = errors.New("EIO")

func (s *stubborn) Delete(ctx context.Context, place string) error {
	if s.fails {
		return errStubborn
	}
	return s.Blobs.Delete(ctx, place)
}

// A place whose bytes could not be deleted stays due.
func TestWhatCannotBeDeletedIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	blobs := &stubborn{w.blobs, true}
	w.keeper = keeper.New(keeper.Config{Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: blobs, Clock: w.clock})
	up := w.begun()
	w.check(w.uploads.Abort(t.Context(), w.me, up.ID))
	var failed error
	for range 2 * time.Hour / minute {
		w.clock.now = w.clock.now.Add(minute)
		_, err := w.keeper.Tick(t.Context())
		failed = errors.Join(failed, err)
	}
	if !errors.Is(failed, errStubborn) || w.places() != 1 {
		t.Errorf("%d places, %v", w.places(), failed)
	}
	blobs.fails = false
	w.pass(minute)
	if w.places() != 0 {
		t.Error("the bytes are left for ever")
	}
}

// A create in one request has no session, and nothing names its place until it is published; it may take its time.
func TestACreateThatTakesLongKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	const size = 1 << 20
	r, send := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := w.uploads.Create(t.Context(), w.me, upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: size}}, r)
		done <- err
	}()
	_, err := send.Write(make([]byte, size/2))
	w.check(err)
	for w.places() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		n, err := w.keeper.Sweep(t.Context())
		if w.check(err); n != 0 {
			t.Errorf("swept %d", n)
		}
		w.pass(2 * time.Hour)
	}
	_, err = io.Copy(send, bytes.NewReader(make([]byte, size/2)))
	w.check(errors.Join(err, send.Close()))
	w.check(<-done)
	if w.places() != 1 {
		t.Errorf("%d places", w.places())
	}
}
