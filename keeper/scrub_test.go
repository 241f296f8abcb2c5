package keeper_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/keeper"
	"sluice/memories"
	"sluice/upload"
)

// peeked is a content store whose checks a test sees.
type peeked struct {
	blob.Store
	check atomic.Pointer[func(e catalog.Extent) error] // runs before each check; its error is the answer
}

func (p *peeked) onCheck(f func(e catalog.Extent) error) { p.check.Store(&f) }

func (p *peeked) Check(ctx context.Context, e catalog.Extent, policy blob.CheckPolicy) error {
	if check := p.check.Load(); check != nil {
		if err := (*check)(e); err != nil {
			return err
		}
	}
	return p.Store.Check(ctx, e, policy)
}

// peekedRows is a catalog whose transactions a test sees.
type peekedRows struct {
	catalog.Store
	update atomic.Pointer[func()] // runs before the next
}

func (p *peekedRows) Update(ctx context.Context, f func(catalog.Tx) error) error {
	if update := p.update.Swap(nil); update != nil {
		(*update)()
	}
	return p.Store.Update(ctx, f)
}

// scrubbed is a world with a Scrub that runs until the test ends, and its log.
type scrubbed struct {
	*world
	blobs *peeked
	rows  *peekedRows
	mu    sync.Mutex
	log   bytes.Buffer
}

func (s *scrubbed) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *scrubbed) said(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.log.String(), what)
}

func scrub(t *testing.T, perSecond int64) *scrubbed { return scrubOf(t, perSecond, nil) }

func scrubOf(t *testing.T, perSecond int64, inPlace func() error) *scrubbed {
	w := newWorld(t)
	s := &scrubbed{world: w, blobs: &peeked{Store: w.blobs}, rows: &peekedRows{Store: w.catalog}}
	k := keeper.New(keeper.Config{
		Sessions: w.sessions, Uploads: w.uploads, Catalog: s.rows, Blobs: s.blobs, Clock: wall{}, InPlace: inPlace,
		Log: slog.New(slog.NewTextHandler(s, nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { k.Scrub(ctx, perSecond, func(n int64) int64 { return n / 2 }) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return s
}

// rest lets time pass, and lets the other goroutines work.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// store stores bytes in one request.
func (s *scrubbed) store(b []byte) catalog.Memory {
	s.t.Helper()
	m, err := s.uploads.Create(s.t.Context(), s.me,
		upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: int64(len(b))}}, bytes.NewReader(b))
	s.check(err)
	return m
}

func (s *scrubbed) content(m catalog.Memory) (c catalog.Content) {
	s.t.Helper()
	s.check(s.catalog.View(s.t.Context(), func(r catalog.Reader) (err error) {
		c, err = catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
		return err
	}))
	return c
}

// Corrupt content is logged and marked. Readers get an error, and a new upload of the same bytes
// heals it.
func TestScrubFindsRot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 1<<30)
		good, bad := s.store(text(1, 9000)), s.store(sample)
		s.world.blobs.Corrupt(s.content(bad).Extents[0].Place, 77)
		time.Sleep(2 * time.Minute)
		if s.content(bad).Damaged.IsZero() || !s.content(good).Damaged.IsZero() {
			t.Fatalf("marked: %v, %v", s.content(bad).Damaged, s.content(good).Damaged)
		}
		if !s.said(bad.ID.String()) || !s.said("is damaged") || s.said(good.ID.String()) {
			t.Errorf("the log: %s", s.log.String())
		}
		reader := memories.New(memories.Config{
			Catalog: s.catalog, Content: s.blobs, Clock: wall{},
			Running: s.sessions.Running,
		})
		if _, err := reader.Open(t.Context(), s.me, bad.ID); !errors.Is(err, memories.ErrDamaged) {
			t.Errorf("reading it: %v", err)
		}
		s.store(sample)
		if !s.content(bad).Damaged.IsZero() {
			t.Error("the upload did not heal it")
		}
		if f, err := reader.Open(t.Context(), s.me, bad.ID); err != nil {
			t.Error(err)
		} else if b, err := f.Body(t.Context(), 0, bad.Bytes); err != nil {
			t.Error(err)
		} else {
			b.Close()
		}
		time.Sleep(25 * time.Hour) // the next pass
		if !s.content(bad).Damaged.IsZero() {
			t.Error("marked again")
		}
	})
}

// A content at which the store panics does not stop the scrub of the others.
func TestScrubSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 1<<30)
		var stored []catalog.Memory
		for i := range 4 {
			stored = append(stored, s.store(text(i, 9000)))
		}
		broken, bad := s.content(stored[1]).Extents[0], stored[2]
		s.blobs.onCheck(func(e catalog.Extent) error {
			if e == broken {
				panic("the store is broken")
			}
			return nil
		})
		s.world.blobs.Corrupt(s.content(bad).Extents[0].Place, 77)
		time.Sleep(2 * time.Minute)
		if s.content(bad).Damaged.IsZero() || !s.said("the store is broken") ||
			!s.said("all stored content was read again") {
			t.Errorf("marked: %v; the log: %s", s.content(bad).Damaged, s.log.String())
		}
	})
}

// A content that has changed between the look at its row and the look at its bytes is not reported,
// whatever the bytes are by then.
func TestScrubLooksAgainBeforeItSpeaks(t *testing.T) {
	for what, change := range map[string]func(s *scrubbed, m catalog.Memory){
		"stored again": func(s *scrubbed, _ catalog.Memory) { s.store(sample) },
		"purged": func(s *scrubbed, m catalog.Memory) {
			s.check(s.catalog.Update(s.t.Context(), func(tx catalog.Tx) error {
				return catalog.Purge(tx, m.ID, catalog.Moment{Now: time.Now(), Running: s.sessions.Running()})
			}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := scrub(t, 1<<30)
				m := s.store(sample)
				place, once := s.content(m).Extents[0].Place, false
				s.blobs.onCheck(func(e catalog.Extent) error {
					if e.Place != place || once {
						return nil
					}
					once = true
					change(s, m)
					s.check(s.blobs.Delete(t.Context(), place))
					return nil
				})
				rest(2 * time.Minute)
				if !once {
					t.Fatal("it was not looked at")
				}
				if s.said("level=ERROR") {
					t.Errorf("the log: %s", s.log.String())
				}
				if what == "stored again" && !s.content(m).Damaged.IsZero() {
					t.Error("the new copy was marked")
				}
			})
		})
	}
}

// The same holds for a change between the second look and the mark.
func TestScrubMarksOnlyWhatItHasLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 1<<30)
		m := s.store(sample)
		s.world.blobs.Corrupt(s.content(m).Extents[0].Place, 77)
		update := func() { s.store(sample) }
		s.rows.update.Store(&update)
		rest(2 * time.Minute)
		if s.rows.update.Load() != nil {
			t.Fatal("nothing was to be marked")
		}
		if !s.content(m).Damaged.IsZero() || s.said("level=ERROR") {
			t.Errorf("the new copy was marked; the log: %s", s.log.String())
		}
	})
}

// Content that comes and goes while it is scrubbed and collected is never called damaged.
func TestScrubAmongUploadsAndTheCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 100_000)
		for i := range 200 {
			m := s.store(text(i%3, 8000))
			time.Sleep(50 * time.Millisecond)
			if i%2 == 0 {
				s.check(s.catalog.Update(t.Context(), func(tx catalog.Tx) error {
					return catalog.Purge(tx, m.ID, catalog.Moment{Now: time.Now(), Running: s.sessions.Running()})
				}))
			}
			if i%20 == 0 {
				s.pass(70 * minute)
			}
			if i == 100 {
				time.Sleep(24 * time.Hour)
			}
		}
		time.Sleep(24 * time.Hour)
		if s.said("level=ERROR") || !s.said("all stored content was read again") {
			t.Errorf("the log: %s", s.log.String())
		}
	})
}

// The scrub reads no faster than its rate.
func TestScrubKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 1000)
		var last time.Time
		n := 0
		s.blobs.onCheck(func(catalog.Extent) error { last, n = time.Now(), n+1; return nil })
		for i := range 10 {
			s.store(text(i, 6000))
		}
		began := time.Now()
		rest(time.Hour)
		if took := last.Sub(began); n != 10 || took < time.Minute+54*time.Second || took > time.Minute+60*time.Second {
			t.Errorf("%d contents of 6 s each were read in %v", n, took)
		}
	})
}

// A read that fails for another reason does not prove corruption.
func TestScrubDoesNotMarkWhatItCouldNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scrub(t, 1<<30)
		m := s.store(sample)
		s.blobs.onCheck(func(catalog.Extent) error { return errors.New("EIO") })
		rest(2 * time.Minute)
		if !s.content(m).Damaged.IsZero() || !s.said("could not be read") ||
			!s.said(fmt.Sprintf("%x", sha256.Sum256(sample))) {
			t.Errorf("%v; the log: %s", s.content(m).Damaged, s.log.String())
		}
	})
}
