package upload_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// large is a chunk that may be recorded in two entries.
const large = 64 << 10

// ofTwoEntries are limits with such chunks.
func ofTwoEntries() upload.Limits {
	l := limits()
	l.ChunkSize = large
	return l
}

// A corrupt entry is merged with its neighbour after it was found and before it is dropped. It is
// checked once more, and asked for again.
func TestARottenPieceThatIsMergedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		blobs := &gatedCheck{Store: w.blobs}
		w.rewire(blobs, ofTwoEntries())
		b := random(2 * large)
		up := w.begin(int64(len(b)))
		put := func(from, to int64) {
			_, err := w.PutRange(
				t.Context(), w.me, up.ID, from, bytes.NewReader(b[from:to]), upload.Put{Length: to - from},
			)
			w.check(err)
		}
		put(large, large*3/2)
		places, err := w.blobs.Places(t.Context(), "", 10)
		w.check(err)
		w.blobs.Corrupt(places[0].Name, large+7)
		done := make(chan error, 1)
		blobs.check = func() {
			blobs.check = nil
			put(large*3/2, 2*large) // merges
			go func() {
				_, err := w.finish(up.ID, b)
				done <- err
			}()
			time.Sleep(time.Second) // the finish waits for the background hasher
		}
		put(0, large)
		var inc *session.IncompleteError
		if err := <-done; !errors.As(err, &inc) {
			t.Errorf("%v", err)
		}
		w.check(w.put(up.ID, 1, b[large:]))
		w.finishes(up.ID, b)
	})
}

// Bytes that a failed sync has lost are replaced before they are dropped. The finish then tries the
// new ones.
func TestWhatASyncLostIsReplacedMeanwhile(t *testing.T) {
	w := newWorld(t)
	e := w.rewire(w.blobs, limits())
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	failed := false
	w.blobs.FailPersist(func(es []catalog.Extent) error {
		if failed {
			return nil
		}
		failed = true
		replace := func() {
			for i, c := range chunks(b) {
				w.check(
					w.PutChunk(
						t.Context(),
						w.me,
						up.ID,
						int64(i),
						bytes.NewReader(c),
						upload.Put{Length: chunk, Replace: true},
					),
				)
			}
		}
		e.list.Store(&replace)
		return &blob.PersistError{Lost: es, Err: errors.New("EIO")}
	})
	m, err := w.finish(up.ID, b)
	w.check(err)
	if !failed || !bytes.Equal(w.content(m), b) {
		t.Error("content differs")
	}
}

// A put repeats recorded bytes, half of which are dropped before they are read back. It is told to
// look at the status, because nothing can tell whether its bytes are right.
func TestAComparisonWithWhatIsDroppedMeanwhile(t *testing.T) {
	for name, change := range map[string]byte{"the same bytes": 0, "others": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.rewire(w.blobs, ofTwoEntries())
				b := random(2 * large)
				up := w.begin(int64(len(b)))
				w.check(w.put(up.ID, 0, b[:large]))
				_, err := w.PutRange(
					t.Context(),
					w.me,
					up.ID,
					large/2,
					bytes.NewReader(b[large/2:large]),
					upload.Put{Length: large / 2, Replace: true},
				)
				w.check(err)
				es, err := w.sessions.Entries(t.Context(), up.ID, session.All(), 0)
				w.check(err)
				if len(es) != 2 {
					t.Fatalf("%d entries", len(es))
				}
				body, writer := io.Pipe()
				done := make(chan error, 1)
				start := func() {
					go func() { done <- w.PutChunk(t.Context(), w.me, up.ID, 0, body, upload.Put{Length: large}) }()
					synctest.Wait()
				}
				e.drop.Store(&start)
				_, err = w.sessions.DropEntry(t.Context(), up.ID, es[1])
				w.check(err)
				sent := bytes.Clone(b[:large])
				sent[large-1] ^= change
				go func() {
					_, err := writer.Write(sent)
					_ = writer.CloseWithError(err)
				}()
				if err := <-done; !errors.Is(err, session.ErrSuperseded) {
					t.Error(err)
				}
				_ = body.Close()
			})
		})
	}
}

// A chunk is replaced while the background hasher still has the older session, and goes on from the
// hash that the replacing put has set. The entries that it finds begin behind a gap, and are not
// hashed as if there were none.
func TestTheHashLeavesNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		blobs := &hookedRead{Store: w.blobs}
		e := w.rewire(blobs, limits())
		b := random(4 * chunk)
		up := w.begin(int64(len(b)))
		w.check(w.put(up.ID, 1, random(chunk)))
		w.check(w.put(up.ID, 2, b[2*chunk:3*chunk]))
		body, writer := io.Pipe()
		done := make(chan error, 1)
		send := func() {
			_, err := writer.Write(b[chunk : 2*chunk])
			w.check(errors.Join(err, writer.Close(), <-done))
		}
		replace := func() {
			go func() {
				done <- w.PutChunk(t.Context(), w.me, up.ID, 1, body, upload.Put{Length: chunk, Replace: true})
			}()
			time.Sleep(time.Second) // the put has dropped the chunk, and waits for its body
		}
		inTurn := func() { e.loaded.Store(&replace) }
		again := func() { e.loaded.Store(&inTurn) }
		more := func() { // the background hasher reads chunks 1 and 2
			w.check(w.put(up.ID, 3, b[3*chunk:]))
			blobs.read.Store(&send)
			e.loaded.Store(&again) // it loads the session after the slice, before the next, and under its slot
		}
		blobs.read.Store(&more)
		w.check(w.put(up.ID, 0, b[:chunk]))
		time.Sleep(time.Minute)
		blobs.read.fire() // the hasher has seen the gap, and has not read on
		w.finishes(up.ID, b)
	})
}
