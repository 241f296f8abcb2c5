package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/keeper"
	"sluice/session"
	"sluice/upload"
)

// stubborn is a content store that refuses deletions: all, or those of one place.
type stubborn struct {
	*blobtest.Mem
	fails bool
	place string
}

var errStubborn = errors.New("EIO")

func (s *stubborn) Delete(ctx context.Context, place string) error {
	if s.fails || s.place == place {
		return errStubborn
	}
	return s.Mem.Delete(ctx, place)
}

// A place whose bytes could not be deleted stays due.
func TestWhatCannotBeDeletedIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	up := w.begun()
	w.check(w.uploads.Abort(t.Context(), w.me, up.ID)) // the next Service knows it from the records alone
	blobs := &stubborn{Mem: w.blobs, fails: true}
	w.uploads = upload.New(upload.Config{
		Sessions: w.sessions, Catalog: w.catalog, Blobs: blobs, Clock: w.clock,
		Limits: upload.DefaultLimits(),
	})
	t.Cleanup(w.uploads.Close)
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: blobs,
		Clock: w.clock,
	})
	var failed error
	for range 2 * time.Hour / minute {
		w.clock.set(w.clock.Now().Add(minute))
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

// An orphan that can't be deleted does not stop the others, and is tried again itself.
func TestOneBadOrphanKeepsNoOther(t *testing.T) {
	w := newWorld(t)
	for id := range session.SessionID(3) {
		writer, err := w.blobs.Writer(t.Context(), id+1, 99, -1)
		w.check(err)
		_, err = writer.WriteAt([]byte("x"), 0)
		w.check(errors.Join(err, writer.Close()))
	}
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	blobs := &stubborn{Mem: w.blobs, place: places[0].Name}
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: blobs,
		Clock: w.clock,
	})
	sweep := func(want int, fails error) {
		t.Helper()
		if n, err := w.keeper.Sweep(t.Context()); n != want || !errors.Is(err, fails) {
			t.Errorf("%d deleted, want %d: %v", n, want, err)
		}
	}
	sweep(0, nil)
	w.pass(time.Hour)
	sweep(2, errStubborn)
	blobs.place = ""
	sweep(1, nil)
	if w.places() != 0 {
		t.Errorf("%d are left", w.places())
	}
}

// A create in one request has no session, and nothing names its place until it is published. It may
// take long.
func TestACreateThatTakesLongKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	const size = 1 << 20
	r, send := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := w.uploads.Create(t.Context(), w.me,
			upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: size}}, r)
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
