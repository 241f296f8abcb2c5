package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// Every view gives what its snapshot has, from the cache or not, in any order of commits and reads.
// An Update also gives its own writes.
func TestTheCacheGivesWhatTheViewHas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		db := opened(t, vfs.NewMem(), Options{})
		var taken []*view
		defer func() { // also if rapid abandons a run
			for _, v := range taken {
				db.views.release(v)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		takeView := func() {
			v, err := db.views.atLeast(t.Context(), 0)
			if err != nil {
				rt.Fatal(err)
			}
			taken = append(taken, v)
		}
		takeView()
		keys := rapid.SampledFrom([]catalog.Name{"a", "b", "c"})
		compare := func(cached, direct catalog.Reader, key catalog.Name) {
			got, ok, err := catalog.Capsules.Find(cached, key)
			want, there, err2 := catalog.Capsules.Find(direct, key)
			if diff := cmp.Diff(want, got); ok != there || err != nil || err2 != nil || diff != "" {
				rt.Errorf("capsule %s: %s, %v, %v", key, diff, err, err2)
			}
		}
		n := int64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				wrote := rapid.SliceOfN(keys, 1, 3).Draw(rt, "wrote")
				read := keys.Draw(rt, "read")
				refused := rapid.Bool().Draw(rt, "refused")
				remove := rapid.Bool().Draw(rt, "remove")
				refusal := errors.New("refused")
				owners := rapid.SampledFrom([][]string{nil, {}, {"o"}}).Draw(rt, "owners")
				err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
					for _, key := range wrote {
						compare(tx, reader{Reader: tx.(*txn).rows}, read)
						n++
						err := catalog.Capsules.Put(tx, key,
							catalog.Capsule{ID: string(key), Memories: n, Owners: owners, Created: time.Unix(n, n)})
						if remove {
							err = catalog.Capsules.Delete(tx, key)
						}
						if err != nil {
							return err
						}
						compare(tx, reader{Reader: tx.(*txn).rows}, read)
					}
					if refused {
						return refusal
					}
					return nil
				})
				if err != nil && !(refused && err == refusal) {
					rt.Fatal(err)
				}
			},
			"take a view": func(*rapid.T) { takeView() },
			"read": func(rt *rapid.T) {
				v := rapid.SampledFrom(taken).Draw(rt, "view")
				compare(reader{v, db, db.cache, v.seq}, reader{Reader: v, db: db}, keys.Draw(rt, "key"))
			},
		})
	})
}

// The same holds for sessions, and for a txn that changes one twice: a loaded session is what the
// rows say, to the last field.
func TestTheCacheGivesTheSessionsOfTheView(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		db := opened(t, vfs.NewMem(), Options{Durability: durable.Process})
		var taken []*view
		defer func() {
			for _, v := range taken {
				db.views.release(v)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		store, ctx := db.Sessions(), t.Context()
		ids := rapid.Custom(func(rt *rapid.T) session.SessionID {
			return session.SessionID(rapid.IntRange(1, 3).Draw(rt, "id"))
		})
		same := func(v *view, id session.SessionID) {
			got, err := db.sessionAt(v, id, v.seq)
			want, err2 := loadSession(v, id)
			if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, err2) {
				rt.Errorf("session %s: %s, %v, %v", id, diff, err, err2)
			}
		}
		takeView := func() {
			v, err := db.views.atLeast(ctx, 0)
			if err != nil {
				rt.Fatal(err)
			}
			taken = append(taken, v)
			for id := range session.SessionID(4) {
				same(v, id)
			}
		}
		takeView()
		seen, finished := int64(0), int64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(rt *rapid.T) {
				seen++
				_, _, _ = store.Create(ctx, session.Session{
					ID: ids.Draw(rt, "which"), State: session.Open, Gen: 1, Rev: 1, Seen: seen,
					Began: time.Unix(seen, 999), LastSeen: time.Unix(seen, 999),
					Spec: session.Spec{
						ChunkSize: 4, BytesExpected: 40,
						Note: rapid.SampledFrom([][]byte{nil, {}, {1}}).Draw(rt, "note"),
					},
				})
			},
			"record": func(rt *rapid.T) {
				id := ids.Draw(rt, "which")
				s, err := store.Load(ctx, id)
				if err != nil {
					return
				}
				seen++
				c := session.Change{Length: session.Unknown, Seen: seen, Now: seen}
				off := rapid.Int64Range(0, 9).Draw(rt, "chunk") * 4
				r := session.Range{Off: off, End: off + 4}
				if session.Covers(s.Received, r) {
					c.Remove, c.Drop = []session.Range{r}, r
				} else {
					c.Add = []session.Entry{{Range: r, Note: []byte("n")}}
				}
				_, _ = store.Record(ctx, id, s.Gen, c)
			},
			"move": func(rt *rapid.T) {
				id := ids.Draw(rt, "which")
				s, err := store.Load(ctx, id)
				if err != nil {
					return
				}
				to := rapid.SampledFrom([]session.State{
					session.Open, session.Sealed, session.Aborted, session.Gone,
				}).Draw(rt, "to")
				_, _ = store.Move(ctx, id, session.Step{Gen: s.Gen, To: to, Next: s.Gen + 1, Seen: seen})
			},
			"end together": func(rt *rapid.T) {
				id := ids.Draw(rt, "which")
				s, err := store.Load(ctx, id)
				if err != nil || s.State != session.Sealed {
					return
				}
				refusal := errors.New("refused")
				refused := rapid.Bool().Draw(rt, "refused")
				err = db.Catalog().Update(ctx, func(tx catalog.Tx) error {
					for range 2 { // the second call finds the session ended
						if err := tx.EndSession(id, s.Gen, session.Finished); err != nil {
							return err
						}
					}
					if refused {
						return refusal
					}
					return nil
				})
				if refused != errors.Is(err, refusal) {
					rt.Fatal(err)
				}
				if !refused {
					finished++
				}
				if st, err := store.Stats(ctx); err != nil || st.Finished != finished {
					rt.Errorf("%d are finished, and %d are counted, %v", finished, st.Finished, err)
				}
			},
			"take a view": func(*rapid.T) { takeView() },
			"": func(rt *rapid.T) {
				same(rapid.SampledFrom(taken).Draw(rt, "view"), ids.Draw(rt, "which"))
			},
		})
	})
}

// † I20: A row is shown when the commit that wrote it is durable, even if a later Update has it in
// the cache already.
func TestTheCacheShowsNothingBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		name := func(r catalog.Reader) (string, error) {
			p, err := catalog.Principals.Get(r, "p")
			return p.Name, err
		}
		see := func(want string) {
			t.Helper()
			err := db.Catalog().View(context.Background(), func(r catalog.Reader) error {
				got, err := name(r)
				if got != want {
					t.Errorf("%q is shown instead of %q", got, want)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		rename := func(to string) {
			err := db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
				return catalog.Principals.Put(tx, "p", catalog.Principal{ID: "p", Name: to})
			})
			if err != nil {
				t.Error(err)
			}
		}
		rename("old")
		see("old")
		disk.stop()
		var wg sync.WaitGroup
		wg.Go(func() { rename("new") })
		synctest.Wait()
		wg.Go(func() {
			err := db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
				got, err := name(tx)
				if got != "new" {
					t.Errorf("an Update reads %q", got)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		see("old")
		disk.resume()
		wg.Wait()
		see("new")
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Nobody else sees the changes that a closure makes to a row that it was given.
func TestNobodyChangesWhatTheCacheHas(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	capsule := catalog.Capsule{ID: "c", Owners: []string{"o"}, Controllers: []string{"k"}, MIMETypes: []string{"a/b"}}
	memory := catalog.Memory{ID: memoryID(1), Capsule: "c", Meta: catalog.Meta{Tags: []string{"t"}}}
	content := catalog.Content{Capsule: "c", Extents: []catalog.Extent{{Place: "p", Len: 1}}, Inline: []byte("inline")}
	err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
		return errors.Join(
			catalog.Capsules.Put(tx, "c", capsule),
			catalog.Memories.Put(tx, catalog.MemoryKey(memory.ID), memory),
			catalog.Contents.Put(tx, catalog.ContentKey{Capsule: "c"}, content),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The first View reads from the database, and each later one reads what the earlier ones have
	// cached.
	for range 3 {
		err := db.Catalog().View(t.Context(), func(r catalog.Reader) error {
			c, err1 := catalog.Capsules.Get(r, "c")
			m, err2 := catalog.Memories.Get(r, catalog.MemoryKey(memory.ID))
			d, err3 := catalog.Contents.Get(r, catalog.ContentKey{Capsule: "c"})
			if diff := cmp.Diff(capsule, c) + cmp.Diff(memory, m) + cmp.Diff(content, d); diff != "" {
				t.Error(diff)
			}
			c.Owners[0], c.Controllers[0], c.MIMETypes[0] = "x", "x", "x"
			m.Tags[0], d.Extents[0].Place, d.Inline[0] = "x", "x", 'x'
			return errors.Join(err1, err2, err3)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if row, ok := db.cache.get(catalog.CapsuleTable, []byte("c"), db.applied).(catalog.Capsule); !ok {
		t.Error("nothing was cached")
	} else if row.Owners[0] != "o" {
		t.Errorf("%+v", row)
	}
}

func TestALargeRowIsNotKept(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	for _, n := range []int{cacheLargest / 2, cacheLargest} {
		p := catalog.Principal{ID: "p", Name: strings.Repeat("n", n)}
		err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error { return catalog.Principals.Put(tx, "p", p) })
		if err != nil {
			t.Fatal(err)
		}
		err = db.Catalog().View(t.Context(), func(r catalog.Reader) error {
			_, err := catalog.Principals.Get(r, "p")
			return err
		})
		cached := db.cache.get(catalog.PrincipalTable, []byte("p"), db.applied) != nil
		if err != nil || cached != (n < cacheLargest) {
			t.Errorf("%d bytes: cached %v, %v", n, cached, err)
		}
	}
	// A row that is kept when it is written, and not only when it is read.
	for _, n := range []int{cacheLargest / 2, cacheLargest} {
		c := catalog.Capsule{ID: "c", Owners: []string{strings.Repeat("o", n)}}
		err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error { return catalog.Capsules.Put(tx, "c", c) })
		kept := db.cache.get(catalog.CapsuleTable, []byte("c"), db.applied) != nil
		if err != nil || kept != (n < cacheLargest) {
			t.Errorf("%d bytes, written: kept %v, %v", n, kept, err)
		}
	}
}

// versions is how many rows the cache has for one key.
func versions(c *cache, table catalog.TableID, key []byte) (n int) {
	r, _ := c.set(table, key).find(table, key)
	for ; r != nil; r = r.previous.Load() {
		n++
	}
	return n
}

// The rows that commits replace are kept only until these commits are shown.
func TestTheCacheForgetsReplacedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		s := create(t, db, 1, "")
		disk.stop()
		var wg sync.WaitGroup
		for i := range int64(50) {
			wg.Go(func() {
				if _, err := record(db, s, i); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		disk.resume()
		wg.Wait()
		if n := versions(db.cache, sessionTable, cacheKey(s.ID)); n != 1 {
			t.Errorf("%d rows are kept of a session that no commit is changing", n)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Readers and writers run at once. Nobody reads less than what was acknowledged before, and no two
// Updates read the same row as the newest.
func TestTheCacheAmongReadersAndWriters(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	const writers, readers, each = 4, 4, 100
	var acknowledged atomic.Int64
	var wg sync.WaitGroup
	increment := func() error {
		wrote := int64(0)
		err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
			c, _, err := catalog.Capsules.Find(tx, "c")
			c.ID, c.Memories = "c", c.Memories+1
			wrote = c.Memories
			return errors.Join(err, catalog.Capsules.Put(tx, "c", c))
		})
		old := acknowledged.Load()
		for old < wrote && !acknowledged.CompareAndSwap(old, wrote) {
			old = acknowledged.Load()
		}
		return err
	}
	for range writers {
		wg.Go(func() {
			for range each {
				if err := increment(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range readers {
		wg.Go(func() {
			for last := int64(0); last < writers*each && !t.Failed(); {
				least := max(last, acknowledged.Load())
				err := db.Catalog().View(t.Context(), func(r catalog.Reader) error {
					c, _, err := catalog.Capsules.Find(r, "c")
					if last = c.Memories; last < least {
						err = fmt.Errorf("%d is shown, and %d was", last, least)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := acknowledged.Load(); n != writers*each {
		t.Errorf("%d increments made %d", writers*each, n)
	}
}
