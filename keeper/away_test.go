package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/keeper"
	"sluice/upload"
)

// placed is a data folder that can be away.
type placed struct{ away atomic.Bool }

func (p *placed) inPlace() error {
	if p.away.Load() {
		return upload.ErrAway
	}
	return nil
}

// livedIn is a content store whose places were made in an incarnation.
type livedIn struct {
	blob.Store
	incarnation uint64
}

func (a livedIn) Places(ctx context.Context, after string, n int) ([]blob.PlaceInfo, error) {
	all, err := a.Store.Places(ctx, after, n)
	for i := range all {
		all[i].Incarnation = a.incarnation
	}
	return all, err
}

// orphan writes a place that nothing names.
func (w *world) orphan() {
	w.t.Helper()
	b, err := w.blobs.Writer(w.t.Context(), 99, 1, -1)
	w.check(err)
	_, err = b.WriteAt(sample, 0)
	w.check(err)
	_, err = b.Commit(w.t.Context(), 0, int64(len(sample)), 0)
	w.check(errors.Join(err, b.Close()))
}

// While the folder is not in its place nothing is ended or deleted, neither known garbage nor
// orphans. When it is back, all of them are.
func TestNothingIsDeletedWhileTheFolderIsAway(t *testing.T) {
	w, f := newWorld(t), &placed{}
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: w.blobs,
		Clock: w.clock, InPlace: f.inPlace,
	})
	w.begun()
	w.orphan()
	_, err := w.keeper.Sweep(t.Context())
	w.check(err)
	w.pass(11 * minute) // the session has expired, and its place is due
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		due, err := catalog.DueBy(r, catalog.DueKey{}, w.sessions.Running()+2*time.Hour.Milliseconds(), 10)
		if len(due) == 0 {
			t.Error("nothing is due")
		}
		return err
	}))
	f.away.Store(true)
	for range 3 {
		w.clock.set(w.clock.Now().Add(time.Hour))
		if _, err := w.keeper.Tick(t.Context()); !errors.Is(err, upload.ErrAway) {
			t.Errorf("tick: %v", err)
		}
		if n, err := w.keeper.Sweep(t.Context()); n != 0 || !errors.Is(err, upload.ErrAway) {
			t.Errorf("sweep: %d, %v", n, err)
		}
	}
	if w.places() != 2 {
		t.Fatalf("%d places are left", w.places())
	}
	f.away.Store(false)
	w.pass(2 * time.Hour)
	if n, err := w.keeper.Sweep(t.Context()); n != 1 || err != nil || w.places() != 0 {
		t.Errorf("swept %d, %v; %d places are left", n, err, w.places())
	}
}

// A folder that goes away in the middle of a pass ends the deletions.
func TestAFolderThatGoesAwayEndsAPass(t *testing.T) {
	w, good := newWorld(t), 1000
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: w.blobs, Clock: w.clock,
		InPlace: func() error {
			if good--; good < 0 {
				return upload.ErrAway
			}
			return nil
		},
	})
	w.orphan()
	_, err := w.keeper.Sweep(t.Context())
	w.check(err)
	w.pass(2 * time.Hour)
	good = 1 // the first look succeeds
	if n, err := w.keeper.Sweep(t.Context()); n != 0 || !errors.Is(err, upload.ErrAway) || w.places() != 1 {
		t.Errorf("swept %d, %v; %d places are left", n, err, w.places())
	}
}

// A place of an incarnation that the metadata does not know is no garbage for having no row: it is
// reported and stays. A place of another incarnation goes.
func TestWhatTheMetadataCanNotKnowStays(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	known := false
	w.keeper = keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: w.catalog, Blobs: livedIn{w.blobs, 7}, Clock: w.clock,
		KnownIncarnation: func(incarnation uint64) bool { return known || incarnation != 7 },
		Log:              slog.New(slog.NewTextHandler(&log, nil)),
	})
	w.orphan()
	for range 3 {
		if n, err := w.keeper.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
		w.pass(2 * time.Hour)
	}
	if w.places() != 1 || !strings.Contains(log.String(), "places=1") {
		t.Errorf("%d places, and the log: %s", w.places(), log.String())
	}
	known = true
	for range 2 {
		_, err := w.keeper.Sweep(t.Context())
		w.check(err)
		w.pass(2 * time.Hour)
	}
	if w.places() != 0 {
		t.Error("it is still there")
	}
}

// Nothing is marked as damaged while the folder is away, or if no content can be reached: the pass
// ends at the first one, and is repeated.
func TestScrubMarksNothingOfAFolderThatIsAway(t *testing.T) {
	for name, cause := range map[string]error{"away": blob.ErrMissing, "unreachable": blob.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &placed{}
				s := scrubOf(t, 1<<30, f.inPlace)
				var all []catalog.Memory
				for i := range 5 {
					all = append(all, s.store(text(i, 9000)))
				}
				checks := 0
				s.blobs.onCheck(func(catalog.Extent) error {
					checks++
					f.away.Store(name == "away")
					return cause
				})
				rest(10 * time.Minute)
				if checks == 0 || checks > 12 {
					t.Errorf("%d checks in ten minutes", checks)
				}
				if s.said("stored content could not be read") {
					t.Errorf("it went on to the next content: %s", s.log.String())
				}
				s.blobs.onCheck(func(catalog.Extent) error { return nil })
				f.away.Store(false)
				rest(5 * time.Minute)
				for _, m := range all {
					if !s.content(m).Damaged.IsZero() {
						t.Errorf("%s is marked", m.ID)
					}
				}
				if !s.said("all stored content was read again") {
					t.Errorf("the log: %s", s.log.String())
				}
			})
		})
	}
}
