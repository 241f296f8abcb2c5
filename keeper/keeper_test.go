package keeper_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"sluice/access"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/test/leak"
	"sluice/keeper"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// clock is moved by hand.
type clock struct{ now atomic.Pointer[time.Time] }

func (c *clock) Now() time.Time { return *c.now.Load() }

func (c *clock) set(now time.Time) { c.now.Store(&now) }

const minute = time.Minute

type world struct {
	t        *testing.T
	keeper   *keeper.Keeper
	uploads  *upload.Service
	sessions *session.Service
	catalog  catalog.Store
	blobs    *blobtest.Mem
	clock    *clock
	me       access.Caller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	w := &world{t: t, clock: &clock{}, blobs: blobtest.NewMem(), catalog: stores.Catalog()}
	w.clock.set(time.Now())
	var err error
	w.sessions, err = session.New(t.Context(), stores.Sessions(),
		upload.EngineConfig(session.Config{Clock: w.clock, TTL: 10 * minute}))
	w.check(err)
	w.uploads = upload.New(upload.Config{
		Sessions: w.sessions, Catalog: w.catalog, Blobs: w.blobs, Clock: w.clock,
		Limits: upload.DefaultLimits(),
	})
	t.Cleanup(w.uploads.Close)
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: w.blobs,
		Clock: w.clock,
	})
	a := access.New(w.catalog, w.clock, w.sessions.Running, nil)
	secret, err := a.Bootstrap(t.Context())
	w.check(err)
	w.me, err = a.Authenticate(t.Context(), secret)
	w.check(err)
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// pass lets the engine run for d, a minute at a time, and gives the number of sessions that
// expired.
func (w *world) pass(d time.Duration) (expired int) {
	w.t.Helper()
	for range d / minute {
		w.clock.set(w.clock.Now().Add(minute))
		n, err := w.keeper.Tick(w.t.Context())
		w.check(err)
		expired += n
	}
	return expired
}

func (w *world) places() int {
	w.t.Helper()
	all, err := w.blobs.Places(w.t.Context(), "", 1000)
	w.check(err)
	return len(all)
}

var sample = bytes.Repeat([]byte("sluice"), 2000)

func (w *world) begun() upload.Upload {
	w.t.Helper()
	up, err := w.uploads.Begin(w.t.Context(), w.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(len(sample)), Chunks: -1})
	w.check(err)
	w.check(w.uploads.PutChunk(w.t.Context(), w.me, up.ID, 0, bytes.NewReader(sample), upload.Put{Length: -1}))
	return up
}

func TestAnAbandonedSessionGoesWithItsBytes(t *testing.T) {
	w := newWorld(t)
	up := w.begun()
	if n := w.pass(9 * minute); n != 0 || w.places() != 1 {
		t.Fatalf("%d expired early", n)
	}
	if n := w.pass(2 * minute); n != 1 {
		t.Fatalf("%d expired", n)
	}
	if err := w.uploads.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(sample),
		upload.Put{Length: -1}); !errors.Is(err, session.ErrExpired) {
		t.Errorf("put: %v", err)
	}
	if w.places() != 1 {
		t.Error("the bytes went without grace")
	}
	w.pass(2 * time.Hour)
	if w.places() != 0 {
		t.Error("the bytes are still there")
	}
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, "default")
		if c.Sessions != 0 || c.Reserved != 0 {
			t.Errorf("%+v", c)
		}
		return err
	}))
}

func TestAClockThatJumpsEndsNothing(t *testing.T) {
	w := newWorld(t)
	w.begun()
	w.clock.set(w.clock.Now().AddDate(1, 0, 0))
	if n, err := w.keeper.Tick(t.Context()); n != 0 || err != nil {
		t.Errorf("%d expired, %v", n, err)
	}
}

func TestTheTrashIsEmptied(t *testing.T) {
	w := newWorld(t)
	up := w.begun()
	m, err := w.uploads.Finish(t.Context(), w.me,
		upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(sample), Length: int64(len(sample))})
	w.check(err)
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Trash(tx, m.ID, time.Hour, catalog.Moment{Now: w.clock.Now(), Running: w.sessions.Running()})
	}))
	there := func() (ok bool) {
		w.check(w.catalog.View(t.Context(), func(r catalog.Reader) (err error) {
			_, ok, err = catalog.Memories.Find(r, catalog.MemoryKey(m.ID))
			return err
		}))
		return ok
	}
	w.pass(59 * minute)
	if !there() {
		t.Error("purged early")
	}
	w.pass(minute)
	if there() || w.places() != 1 {
		t.Errorf("still there: %v; places %d", there(), w.places())
	}
	w.pass(minute) // the grace
	if w.places() != 0 {
		t.Error("the bytes are still there")
	}
	w.pass(50 * time.Hour)
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		for d, err := range catalog.Dues.After(r, catalog.DueKey{}) {
			t.Errorf("left to do: %+v, %v", d, err)
		}
		for o, err := range catalog.Outcomes.After(r, 0) {
			t.Errorf("left: %+v, %v", o, err)
		}
		return nil
	}))
}

func TestOrphansAreSweptWhenNobodyCanBeAboutToNameThem(t *testing.T) {
	w := newWorld(t)
	stray := func(id session.SessionID) {
		writer, err := w.blobs.Writer(t.Context(), id, 99, -1)
		w.check(err)
		_, err = writer.WriteAt([]byte("x"), 0)
		w.check(err)
		w.check(writer.Close())
	}
	up := w.begun()
	stray(up.ID) // a place of an open session stays
	stray(12345) // a place of no session
	sweep := func(want int) {
		t.Helper()
		n, err := w.keeper.Sweep(t.Context())
		if w.check(err); n != want {
			t.Errorf("swept %d, want %d", n, want)
		}
	}
	sweep(0)
	sweep(0)
	for range 6 {
		w.pass(9 * minute)
		w.check(w.uploads.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(sample), upload.Put{Length: -1}))
		_, err := w.uploads.Status(t.Context(), w.me, up.ID)
		w.check(err)
	}
	w.pass(9 * minute)
	sweep(1)
	if w.places() != 2 {
		t.Errorf("%d places", w.places())
	}
}
