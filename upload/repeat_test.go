package upload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

// limitedStore is a content store with so much free space.
type limitedStore struct {
	*blobtest.Mem
	free int64
}

func (s *limitedStore) Free(context.Context) (int64, error) { return s.free, nil }

// A repeat and a resume need nothing that only a first request needs: free space, the metadata's
// reserve, a limit that is lower by now, a place among the open sessions, a server that takes new
// uploads.
func TestARepeatPaysForNothingNew(t *testing.T) {
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{MaxSessions: 2}, clock{}))
	w := newWorldOn(t, stores)
	blobs := &limitedStore{Mem: w.blobs, free: 1 << 40}
	w.rewire(blobs, limits())
	b := random(2 * chunk)
	begin := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(len(b)), Chunks: -1, Idem: "open"}
	create := upload.CreateRequest{Meta: catalog.Meta{Name: "b"}, Idem: "made", Put: upload.Put{Length: 3 * chunk}}
	done := begin
	done.Idem = "done"
	up, err := w.Begin(t.Context(), w.me, begin)
	w.check(err)
	w.check(w.put(up.ID, 0, b[:chunk]))
	finished, err := w.Begin(t.Context(), w.me, done)
	w.check(err)
	w.putAll(finished.ID, b)
	w.finishes(finished.ID, b)
	made, err := w.Create(t.Context(), w.me, create, strings.NewReader(strings.Repeat("x", 3*chunk)))
	w.check(err)
	w.begin(1) // and no third may be open

	noSpace, draining := errors.New("full"), errors.New("draining")
	l := limits()
	for name, c := range map[string]struct {
		change func()
		refuse error
		want   error
	}{
		"nothing is free":        {func() { blobs.free = 0 }, nil, blob.ErrNoSpace},
		"less is free":           {func() { blobs.free = chunk }, nil, blob.ErrNoSpace},
		"the metadata has none":  {func() { w.CheckSpace = func() error { return noSpace } }, nil, noSpace},
		"the limit is lower":     {func() { l.MaxBytes = chunk }, nil, upload.ErrTooLarge},
		"the server drains":      {func() {}, draining, draining},
		"no more may be open":    {func() {}, nil, catalog.ErrTooManySessions},
		"the quota is too small": {func() { w.quota(1) }, nil, catalog.ErrQuota},
	} {
		blobs.free, l = 1<<40, limits()
		w.quota(0)
		c.change()
		check := w.CheckSpace
		w.rewire(blobs, l)
		w.CheckSpace = check
		fresh, open, ended, again := begin, begin, done, create
		fresh.Idem = "fresh"
		fresh.Refuse, open.Refuse, ended.Refuse, again.Refuse = c.refuse, c.refuse, c.refuse, c.refuse
		if _, err := w.Begin(t.Context(), w.me, fresh); !errors.Is(err, c.want) {
			t.Errorf("%s: a first begin: %v, not %v", name, err, c.want)
		}
		if got, err := w.Begin(t.Context(), w.me, open); err != nil || got.ID != up.ID || got.Bytes() != chunk {
			t.Errorf("%s: a resume: %s with %d bytes, %v", name, got.ID, got.Bytes(), err)
		}
		if got, err := w.Begin(t.Context(), w.me, ended); err != nil || got.State != session.Finished {
			t.Errorf("%s: a begin of what has finished: %v, %v", name, got.State, err)
		}
		if m, err := w.Create(t.Context(), w.me, again, unreadable{t}); err != nil || m.ID != made.ID {
			t.Errorf("%s: a repeated create: %s, %v", name, m.ID, err)
		}
		if err := w.put(up.ID, 0, b[:chunk]); err != nil {
			t.Errorf("%s: a chunk that is there already: %v", name, err)
		}
		w.CheckSpace = func() error { return nil }
	}
}

// Bytes that a repeat brings behind recorded ones are new, and need space.
func TestWhatComesBehindARepeatNeedsRoom(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 0, b[:chunk]))
	full := errors.New("full")
	w.CheckSpace = func() error { return full }
	if _, err := w.PutRange(
		t.Context(), w.me, up.ID, 0, strings.NewReader(string(b)), upload.Put{Length: -1},
	); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("put: %v", err)
	}
	if s, err := w.sessions.Status(t.Context(), up.ID); err != nil || s.Bytes() != chunk {
		t.Errorf("%d bytes, %v", s.Bytes(), err)
	}
}

// Quota for an unknown length is taken in steps, or as much as is left if that is less. Bytes that
// fit the quota are never refused because of their step.
func TestAnUnknownLengthTakesWhatIsLeft(t *testing.T) {
	const mib = 1 << 20
	w := newWorld(t)
	l := limits()
	l.ChunkSize = mib
	w.rewire(w.blobs, l)
	reserved := func(want int64) {
		t.Helper()
		w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
			c, err := catalog.Capsules.Get(r, "default")
			if c.Reserved != want {
				t.Errorf("%d bytes are reserved, not %d", c.Reserved, want)
			}
			return err
		}))
	}
	w.quota(20 * mib)
	b := random(10 * mib)
	putAll := func(id session.SessionID) {
		t.Helper()
		for i := range int64(10) {
			w.check(w.put(id, i, b[i*mib:(i+1)*mib]))
		}
	}
	up := w.begin(session.Unknown)
	reserved(20 * mib)
	putAll(up.ID)
	w.finishes(up.ID, b)
	up = w.begin(session.Unknown)
	reserved(10 * mib)
	if _, err := w.Begin(
		t.Context(), w.me, upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: session.Unknown, Chunks: -1},
	); !errors.Is(err, catalog.ErrQuota) {
		t.Errorf("a begin where not a byte is left: %v", err)
	}
	putAll(up.ID)
	if err := w.put(up.ID, 10, b[:mib]); !errors.Is(err, catalog.ErrQuota) {
		t.Errorf("a chunk past the quota: %v", err)
	}

	// Whole steps take exactly that quota, and a known length takes its own.
	w.check(w.Abort(t.Context(), w.me, up.ID))
	w.quota(200 * mib)
	up = w.begin(session.Unknown)
	for i := range int64(64) {
		w.check(w.put(up.ID, i, b[:mib]))
	}
	reserved(64 * mib)
	w.check(w.put(up.ID, 64, b[:mib]))
	reserved(128 * mib)
	w.check(w.put(up.ID, 65, b[:5]))
	reserved(65*mib + 5)
}

// If the content of a finished key is damaged, the same request brings the bytes again. It heals
// them, and answers with their memory.
func TestARepeatHealsWhatIsDamaged(t *testing.T) {
	for _, n := range []int{10, 1000, 3 * chunk} {
		for _, how := range []string{"begin", "create", "create of unknown length"} {
			t.Run(fmt.Sprint(how, " ", n), func(t *testing.T) {
				w := newWorld(t)
				b := random(n)
				store := func() (catalog.Memory, error) {
					if how != "begin" {
						length := int64(n)
						if how != "create" {
							length = -1
						}
						return w.Create(t.Context(), w.me, upload.CreateRequest{
							Meta: catalog.Meta{Name: "a"}, Idem: "key", Put: upload.Put{Length: length},
						}, bytes.NewReader(b))
					}
					up, err := w.Begin(
						t.Context(),
						w.me,
						upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(n), Chunks: -1, Idem: "key"},
					)
					w.check(err)
					if up.State != session.Open {
						t.Fatalf("it is %s", up.State)
					}
					again, err := w.Begin(
						t.Context(),
						w.me,
						upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(n), Chunks: -1, Idem: "key"},
					)
					if w.check(err); again.ID != up.ID {
						t.Errorf("a repeat has session %s, not %s", again.ID, up.ID)
					}
					w.putAll(up.ID, b)
					return w.finish(up.ID, b)
				}
				content := func(m catalog.Memory, change func(*catalog.Content)) (c catalog.Content) {
					key := catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}
					w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) (err error) {
						if c, err = catalog.Contents.Get(tx, key); err != nil || change == nil {
							return err
						}
						change(&c)
						return catalog.Contents.Put(tx, key, c)
					}))
					return c
				}
				counters := func() (c catalog.Capsule) {
					w.check(w.catalog.View(t.Context(), func(r catalog.Reader) (err error) {
						c, err = catalog.Capsules.Get(r, "default")
						return err
					}))
					return c
				}
				m, err := store()
				w.check(err)
				before := counters()
				was := content(m, func(c *catalog.Content) { c.Damaged = time.Now() })
				healed, err := store()
				w.check(err)
				if healed.ID != m.ID {
					t.Errorf("memory %s, not %s", healed.ID, m.ID)
				}
				is := content(m, nil)
				if !is.Damaged.IsZero() || is.Refs != was.Refs ||
					len(was.Extents) > 0 && is.Extents[0].Place == was.Extents[0].Place {
					t.Errorf("from %+v to %+v", was, is)
				}
				if !bytes.Equal(w.content(m), b) {
					t.Error("other bytes are read")
				}
				w.check(w.Reclaim(t.Context(), true))
				if !bytes.Equal(w.content(m), b) {
					t.Error("other bytes are read once what was left is given back")
				}
				if now := counters(); now.Memories != before.Memories || now.Bytes != before.Bytes ||
					now.Sessions != 0 ||
					now.Reserved != 0 {
					t.Errorf("counters from %+v to %+v", before, now)
				}
				up, err := w.Begin(
					t.Context(),
					w.me,
					upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: int64(n), Chunks: -1, Idem: "key"},
				)
				if how != "create of unknown length" &&
					(err != nil || up.State != session.Finished || up.Memory != m.ID) {
					t.Errorf("the key has %s %s, %v", up.State, up.Memory, err)
				}
			})
		}
	}
}
