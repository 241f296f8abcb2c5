package catalog_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"sluice/catalog"
)

// machine plays random histories against a simple model of one capsule: its memories, its trash,
// and its reservations.
type machine struct {
	store   *catalog.Mem
	now     catalog.Moment
	visible map[catalog.MemoryID]catalog.Memory
	trash   map[catalog.MemoryID]catalog.Memory
	open    map[uint64]int64
	deleted []string // places that were deleted when that was due
	next    uint64
}

var bounds = catalog.Bounds{MaxSessions: 5}

func (m *machine) update(t *rapid.T, f func(catalog.Tx) error) error {
	return m.store.Update(context.Background(), f)
}

func must(t interface{ Fatal(...any) }, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) pick(t *rapid.T, from map[catalog.MemoryID]catalog.Memory) catalog.Memory {
	if len(from) == 0 {
		t.Skip("none")
	}
	seqs := map[uint64]catalog.Memory{}
	var order []uint64
	for _, mem := range from {
		seqs[mem.Seq] = mem
		order = append(order, mem.Seq)
	}
	// Map order is random, and rapid needs the same choice again.
	least := uint64(math.MaxUint64)
	k := rapid.IntRange(0, len(order)-1).Draw(t, "which")
	for range k + 1 {
		least = math.MaxUint64
		for s := range seqs {
			least = min(least, s)
		}
		if len(seqs) > 1 && k > 0 {
			k--
			delete(seqs, least)
		}
	}
	return seqs[least]
}

func (m *machine) Begin(t *rapid.T) {
	m.next++
	n := rapid.Int64Range(0, 100).Draw(t, "bytes")
	err := m.update(t, func(tx catalog.Tx) error {
		return catalog.Reserve(tx, catalog.Reservation{Session: m.next, Capsule: "c", Owner: "o", Bytes: n}, n, bounds)
	})
	if len(m.open) == 5 {
		if !errors.Is(err, catalog.ErrTooManySessions) {
			t.Fatalf("the sixth session: %v", err)
		}
		return
	}
	must(t, err)
	m.open[m.next] = n
}

func (m *machine) oneOpen(t *rapid.T) uint64 {
	for id := range m.next + 1 {
		if _, ok := m.open[id]; ok {
			return id
		}
	}
	t.Skip("none")
	return 0
}

func (m *machine) Abort(t *rapid.T) {
	id := m.oneOpen(t)
	must(t, m.update(t, func(tx catalog.Tx) error {
		_, err := catalog.SessionEnded(tx, id, catalog.SessionAborted, m.now)
		return errors.Join(
			err, catalog.Discard(tx, []string{fmt.Sprintf("p%d", id)}, m.now),
		)
	}))
	delete(m.open, id)
}

func (m *machine) Finish(t *rapid.T) {
	id := m.oneOpen(t)
	n := m.open[id]
	sum := catalog.SHA256(sha256.Sum256([]byte{byte(rapid.IntRange(0, 3).Draw(t, "content"))}))
	var got, again catalog.Memory
	publish := func(to *catalog.Memory) error {
		return m.update(t, func(tx catalog.Tx) (err error) {
			*to, err = catalog.Publish(tx, catalog.Publication{
				Memory: catalog.Memory{
					ID:      uuid.New(),
					Capsule: "c",
					Owner:   "o",
					Bytes:   n,
					SHA256:  sum,
					By:      id,
					Created: m.now.Now,
				},
				Content: catalog.Content{
					Capsule: "c",
					SHA256:  sum,
					Bytes:   n,
					Extents: []catalog.Extent{{Place: fmt.Sprintf("p%d", id), Len: n}},
				},
				At: m.now,
			})
			return err
		})
	}
	must(t, publish(&got))
	must(t, publish(&again))
	if got.ID != again.ID {
		t.Fatal("a repeat made another memory")
	}
	delete(m.open, id)
	m.visible[got.ID] = got
}

func (m *machine) Trash(t *rapid.T) {
	mem := m.pick(t, m.visible)
	must(t, m.update(t, func(tx catalog.Tx) error { return catalog.Trash(tx, mem.ID, time.Minute, m.now) }))
	delete(m.visible, mem.ID)
	mem.PurgeAt = m.now.Running + time.Minute.Milliseconds()
	m.trash[mem.ID] = mem
}

func (m *machine) Untrash(t *rapid.T) {
	mem := m.pick(t, m.trash)
	must(t, m.update(t, func(tx catalog.Tx) error { _, err := catalog.Untrash(tx, mem.ID, m.now); return err }))
	delete(m.trash, mem.ID)
	m.visible[mem.ID] = mem
}

func (m *machine) Purge(t *rapid.T) {
	mem := m.pick(t, m.visible)
	must(t, m.update(t, func(tx catalog.Tx) error { return catalog.Purge(tx, mem.ID, m.now) }))
	delete(m.visible, mem.ID)
}

func (m *machine) Time(t *rapid.T) {
	m.now.Running += rapid.Int64Range(1, 2*3600_000).Draw(t, "ms")
	for id, mem := range m.trash {
		if mem.PurgeAt <= m.now.Running {
			delete(m.trash, id)
		}
	}
	for {
		var due []catalog.Due
		must(t, m.store.View(context.Background(), func(r catalog.Reader) (err error) {
			due, err = catalog.DueBy(r, catalog.DueKey{}, m.now.Running, 3)
			return err
		}))
		if len(due) == 0 {
			return
		}
		for _, d := range due {
			if d.Kind == catalog.DuePlace {
				m.deleted = append(m.deleted, d.Key)
			}
			must(t, m.update(t, func(tx catalog.Tx) error {
				_, err := catalog.RunDue(tx, d, m.now)
				return err
			}))
		}
	}
}

// Check compares the rows with the model.
func (m *machine) Check(t *rapid.T) {
	must(t, m.store.View(context.Background(), func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, "c")
		must(t, err)
		var bytes, reserved int64
		refs := map[catalog.SHA256]int64{}
		for _, set := range []map[catalog.MemoryID]catalog.Memory{m.visible, m.trash} {
			for _, mem := range set {
				bytes += mem.Bytes
				refs[mem.SHA256]++
			}
		}
		for _, n := range m.open {
			reserved += n
		}
		if c.Memories != int64(len(m.visible)+len(m.trash)) || c.Bytes != bytes || c.Trashed != int64(len(m.trash)) ||
			c.Sessions != int64(len(m.open)) ||
			c.Reserved != reserved {
			t.Fatalf("counters %+v", c)
		}
		used := map[string]bool{}
		from, to := catalog.ContentKey{Capsule: "c"}, catalog.ContentKey{Capsule: "d"}
		for content, err := range catalog.Contents.Scan(r, from, to) {
			must(t, err)
			if content.Refs != refs[content.SHA256] || content.Refs == 0 {
				t.Fatalf("content has %d references, not %d", content.Refs, refs[content.SHA256])
			}
			delete(refs, content.SHA256)
			for _, p := range content.Places() {
				used[p] = true
				if place, err := catalog.Places.Get(r, catalog.Name(p)); err != nil || place.Refs != 1 {
					t.Fatalf("place %+v of a content: %v", place, err)
				}
			}
		}
		if len(refs) > 0 {
			t.Fatalf("%d contents are gone", len(refs))
		}
		for _, p := range m.deleted {
			if used[p] {
				t.Fatalf("place %s was deleted and is used", p)
			}
		}
		for place, err := range catalog.Places.After(r, "") {
			must(t, err)
			if !used[place.Name] && place.Refs != 0 {
				t.Fatalf("place %+v is used by nobody", place)
			}
		}
		for trash, set := range map[bool]map[catalog.MemoryID]catalog.Memory{false: m.visible, true: m.trash} {
			last, n := uint64(math.MaxUint64), 0
			from := catalog.OrderKey{Capsule: "c", Trash: trash}
			to := catalog.OrderKey{Capsule: "c", Trash: trash, Seq: math.MaxUint64}
			for id, err := range catalog.Order.Back(r, from, to) {
				must(t, err)
				mem, ok := set[id]
				if !ok || mem.Seq >= last {
					t.Fatalf("order (trash %v) has %s, known %v", trash, id, ok)
				}
				last = mem.Seq
				n++
			}
			if n != len(set) {
				t.Fatalf("order (trash %v) has %d of %d", trash, n, len(set))
			}
		}
		seq := uint64(0)
		for e, err := range catalog.Events.Scan(r, catalog.EventKey{Capsule: "c"}, catalog.EventKey{Capsule: "d"}) {
			must(t, err)
			if seq++; e.Seq != seq {
				t.Fatalf("event %d comes after %d", e.Seq, seq-1)
			}
		}
		if seq != c.Seq {
			t.Fatalf("the last event is %d, the capsule says %d", seq, c.Seq)
		}
		return nil
	}))
}

func TestHistoriesKeepTheBooks(t *testing.T) {
	histories, steps := 0, 0
	defer func() { t.Logf("%d histories, %d steps", histories, steps) }()
	rapid.Check(t, func(t *rapid.T) {
		histories++
		m := &machine{
			store: catalog.NewMem(), now: catalog.Moment{Now: time.UnixMilli(1e12).UTC(), Running: 1},
			visible: map[catalog.MemoryID]catalog.Memory{}, trash: map[catalog.MemoryID]catalog.Memory{},
			open: map[uint64]int64{},
		}
		must(t, m.update(t, func(tx catalog.Tx) error {
			_, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, m.now)
			return err
		}))
		t.Repeat(map[string]func(*rapid.T){
			"begin": m.Begin, "abort": m.Abort, "finish": m.Finish, "trash": m.Trash, "untrash": m.Untrash,
			"purge": m.Purge, "time": m.Time,
			"": func(t *rapid.T) { steps++; m.Check(t) },
		})
	})
}

func TestQuotasCountWhatIsReserved(t *testing.T) {
	store := catalog.NewMem()
	at := catalog.Moment{Now: time.Now()}
	reserve := func(id uint64, n int64) error {
		return store.Update(t.Context(), func(tx catalog.Tx) error {
			return catalog.Reserve(
				tx,
				catalog.Reservation{Session: id, Capsule: "c", Owner: "o", Bytes: n},
				n,
				catalog.Bounds{QuotaBytes: 1000},
			)
		})
	}
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.NewCapsule(
			tx, catalog.Capsule{ID: "c", Owners: []string{"o"}, QuotaBytes: 100, QuotaMemories: 2}, at,
		)
		return err
	}))
	must(t, reserve(1, 60))
	var quota *catalog.QuotaError
	if err := reserve(2, 41); !errors.As(err, &quota) || quota.Of != "capsule" || quota.Used != 60 {
		t.Errorf("41 bytes past 60 of 100: %v", err)
	}
	must(t, reserve(2, 40))
	if err := reserve(3, 0); !errors.As(err, &quota) || !quota.Count {
		t.Errorf("the third of two memories: %v", err)
	}
	if err := reserve(1, 61); !errors.As(err, &quota) {
		t.Errorf("growing past the quota: %v", err)
	}
	must(t, reserve(1, 60))
}

func TestACapsuleThatIsMadeAgainGoesOnCountingItsEvents(t *testing.T) {
	store := catalog.NewMem()
	at := catalog.Moment{Now: time.Now()}
	var seqs []uint64
	for range 2 {
		must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
			c, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, at)
			if err != nil {
				return err
			}
			if _, err := catalog.NewCapsule(
				tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, at,
			); !errors.Is(err, catalog.ErrExists) {
				t.Errorf("twice: %v", err)
			}
			seqs = append(seqs, c.Seq)
			return nil
		}))
		must(t, store.Update(t.Context(), func(tx catalog.Tx) error { return catalog.DeleteCapsule(tx, "c", at) }))
	}
	if last := seqs[len(seqs)-1]; last != 3 {
		t.Errorf("the second life begins with event %d", last)
	}
}

// A place that no row names any more is garbage for ever. A later reference to it is refused.
func TestGarbageIsNeverReferredToAgain(t *testing.T) {
	store := catalog.NewMem()
	at := catalog.Moment{Now: time.Now()}
	must(t, store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Owners: []string{"o"}}, at)
		return errors.Join(err, catalog.Discard(tx, []string{"place"}, at))
	}))
	err := store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.Publish(tx, catalog.Publication{
			Memory: catalog.Memory{
				ID:      catalog.MemoryID{1},
				Capsule: "c",
				Meta:    catalog.Meta{Name: "a"},
				Bytes:   1,
				SHA256:  catalog.SHA256{1},
				Created: at.Now,
				Owner:   "o",
			},
			Content: catalog.Content{
				Capsule: "c",
				SHA256:  catalog.SHA256{1},
				Bytes:   1,
				Extents: []catalog.Extent{{Place: "place", Len: 1}},
			},
			At: at,
		})
		return err
	})
	if err == nil {
		t.Error("content names a place that is about to be deleted")
	}
}
