package upload_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// Replaced bytes are freed when no put can be writing to their place any more. Reclaim waits for a
// put that began before, and keeps what that put has written.
func TestAPlaceThatIsWrittenIsNotReclaimed(t *testing.T) {
	w := newWorld(t)
	l := limits()
	const size = 4 << 20 // so large that the first bytes are written before the last are read
	l.ChunkSize = size
	w.rewire(w.blobs, l)
	b := random(3 * size)
	part := func(i int) []byte { return b[i*size : (i+1)*size] }
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 0, part(0)))
	body, send := io.Pipe()
	done := make(chan error)
	go func() {
		done <- w.PutChunk(t.Context(), w.me, up.ID, 1, body, upload.Put{Length: size})
	}()
	_, err := send.Write(part(1)[:3<<20])
	w.check(err)
	w.check(w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(part(0)), upload.Put{Length: size, Replace: true}))
	for range 3 {
		w.check(w.Reclaim(t.Context(), true))
	}
	_, err = send.Write(part(1)[3<<20:])
	w.check(err)
	w.check(send.Close())
	w.check(<-done)
	w.check(w.Reclaim(t.Context(), true))
	w.check(w.put(up.ID, 2, part(2)))
	w.finishes(up.ID, b)
	w.check(w.Reclaim(t.Context(), true))
	if all, err := w.blobs.Places(t.Context(), "", 10); err != nil || len(all) != 2 {
		t.Errorf("%d places, %v", len(all), err)
	}
}

// A replacement frees the bytes that it has withdrawn. These may differ from the bytes that were
// there when it began. Several at once leave nothing.
func TestReplacementsAtOnceLeaveNothing(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b := random(chunk)
	up := w.begin(chunk)
	w.check(w.put(up.ID, 0, random(chunk)))
	w.check(second(w.Status(t.Context(), w.me, up.ID))) // the entries are checked from here on
	replace := func(b []byte) {
		w.check(w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b), upload.Put{Length: chunk, Replace: true}))
	}
	other := func() { replace(random(chunk)) }
	e.list.Store(&other) // before the first one lists the entries
	replace(random(chunk))
	e.drop.Store(&other) // between the listing and the drop
	replace(random(chunk))
	replace(b)
	w.finishes(up.ID, b)
	w.check(w.Reclaim(t.Context(), true))
	if all, err := w.blobs.Places(t.Context(), "", 10); err != nil || len(all) != 1 {
		t.Errorf("%d places, %v", len(all), err)
	}
}

// Bytes that a failed put has left at a place to which the next puts write stay until the session
// ends. Then they go, recorded or not.
func TestWhatAFailedPutLeftGoesWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		places := func(want int) {
			t.Helper()
			w.check(w.Reclaim(t.Context(), true))
			if all, err := w.blobs.Places(t.Context(), "", 10); err != nil || len(all) != want {
				t.Errorf("%d places, not %d; %v", len(all), want, err)
			}
		}
		wrong := &catalog.SHA256{1}
		b := random(2 * chunk)
		up := w.begin(2 * chunk)
		p := upload.Put{Length: chunk, SHA256: wrong}
		if err := w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b[:chunk]), p); err == nil {
			t.Error("a wrong digest was taken")
		}
		places(1)
		w.check(w.put(up.ID, 1, b[chunk:]))
		places(1)
		w.check(w.put(up.ID, 0, b[:chunk]))
		w.finishes(up.ID, b)
		places(1)
		up = w.begin(2 * chunk)
		_ = w.PutChunk(
			t.Context(), w.me, up.ID, 0, bytes.NewReader(b[:chunk]), upload.Put{Length: chunk, SHA256: wrong},
		)
		places(2)
		w.check(w.Abort(t.Context(), w.me, up.ID))
		places(1)
		if s, err := w.sessions.Status(t.Context(), up.ID); err != nil || s.State != session.Aborted {
			t.Errorf("%v, %v", s.State, err)
		}
		w.Close()
	})
}
