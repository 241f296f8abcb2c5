package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/catalog"
	"sluice/session"
)

// † I20: While a commit is not synced, nobody sees any of it. A call that repeats it, or is refused
// because of it, gets no answer.
func TestNobodySeesWhatACrashCouldTakeBack(t *testing.T) {
	type world struct {
		db               *DB
		a, sealed, ended session.Session
	}
	for name, c := range map[string]struct {
		commit func(w world) error
		// readers are calls whose answers depend on the commit.
		readers map[string]func(w world) error
	}{
		"create": {
			func(w world) error { create(t, w.db, 10, "new"); return nil },
			map[string]func(w world) error{
				"the same idem": func(w world) error { create(t, w.db, 11, "new"); return nil },
				"the same id": func(w world) error {
					_, _, err := w.db.Sessions().Create(context.Background(),
						session.Session{ID: 10, Spec: session.Spec{ChunkSize: 1}})
					return err
				},
				"a record": func(w world) error { _, err := record(w.db, session.Session{ID: 10, Gen: 5}, 1); return err },
			},
		},
		"record": {
			func(w world) error { _, err := record(w.db, w.a, 7); return err },
			map[string]func(w world) error{
				"a repeat": func(w world) error { _, err := record(w.db, w.a, 7); return err },
				"another":  func(w world) error { _, err := record(w.db, w.a, 9); return err },
				"a seal": func(w world) error {
					_, err := w.db.Sessions().Move(context.Background(), w.a.ID,
						session.Step{Gen: w.a.Gen, To: session.Sealed, Next: 99})
					return err
				},
			},
		},
		"finish": {
			func(w world) error {
				return w.db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
					return errors.Join(tx.EndSession(w.sealed.ID, w.sealed.Gen, session.Finished),
						catalog.Places.Put(tx, "memory", catalog.Place{Name: "memory"}))
				})
			},
			map[string]func(w world) error{
				"the engine's own step": func(w world) error {
					_, err := w.db.Sessions().Move(context.Background(), w.sealed.ID,
						session.Step{Gen: w.sealed.Gen, To: session.Finished})
					return err
				},
				"an abort": func(w world) error {
					_, err := w.db.Sessions().Move(context.Background(), w.sealed.ID,
						session.Step{Gen: w.sealed.Gen, To: session.Aborted})
					return err
				},
				"a repeat": func(w world) error {
					return w.db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
						return tx.EndSession(w.sealed.ID, w.sealed.Gen, session.Finished)
					})
				},
				"a refusal by the catalog": func(w world) error {
					return w.db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
						_, err := catalog.Places.Get(tx, "memory")
						return errors.Join(err, errors.New("it is there"))
					})
				},
				"an update that writes nothing": func(w world) error {
					return w.db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
						_, err := catalog.Places.Get(tx, "memory")
						return err
					})
				},
			},
		},
		"the running time": {
			func(w world) error { _, err := w.db.Sessions().KeepTime(context.Background(), 77); return err },
			map[string]func(w world) error{
				"a smaller one": func(w world) error { _, err := w.db.Sessions().KeepTime(context.Background(), 76); return err },
			},
		},
		"reopening": {
			func(w world) error {
				_, err := w.db.Sessions().Move(context.Background(), w.sealed.ID,
					session.Step{Gen: w.sealed.Gen, To: session.Open, Next: w.sealed.Gen + 1})
				return err
			},
			map[string]func(w world) error{"a repeat": func(w world) error {
				_, err := w.db.Sessions().Move(context.Background(), w.sealed.ID,
					session.Step{Gen: w.sealed.Gen, To: session.Open, Next: w.sealed.Gen + 1})
				return err
			}},
		},
		"going": {
			func(w world) error {
				_, err := w.db.Sessions().Move(context.Background(), w.ended.ID,
					session.Step{Gen: w.ended.Gen, To: session.Gone})
				return err
			},
			map[string]func(w world) error{"a record": func(w world) error {
				_, err := record(w.db, w.ended, 0)
				return err
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newSlowDisk()
				w := world{db: opened(t, disk, Options{})}
				w.a = create(t, w.db, 1, "a")
				w.sealed = create(t, w.db, 2, "b")
				w.ended = create(t, w.db, 3, "c")
				step := func(s *session.Session, step session.Step) {
					var err error
					if *s, err = w.db.Sessions().Move(t.Context(), s.ID, step); err != nil {
						t.Fatal(err)
					}
				}
				step(&w.ended, session.Step{Gen: w.ended.Gen, To: session.Aborted})
				if err := putRow(w.db, "row", 1); err != nil {
					t.Fatal(err)
				}
				step(&w.sealed, session.Step{Gen: w.sealed.Gen, To: session.Sealed, Next: 10})
				before := all(t, w.db)

				disk.stop()
				var wg sync.WaitGroup
				var mu sync.Mutex
				var answered []string
				call := func(name string, f func(w world) error) {
					wg.Go(func() {
						_ = f(w) // some are refused
						mu.Lock()
						defer mu.Unlock()
						answered = append(answered, name)
					})
					synctest.Wait()
				}
				call("the commit itself", c.commit)
				if disk.syncs == 0 {
					t.Error("nothing waits for the disk")
				}
				if diff := cmp.Diff(before, all(t, w.db), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("shown before it was synced:\n%s", diff)
				}
				for name, f := range c.readers {
					call(name, f)
				}
				if len(answered) > 0 {
					t.Errorf("answered before it was synced: %v", answered)
				}
				crashed := disk.mem.CrashClone(vfs.CrashCloneCfg{})

				disk.resume()
				wg.Wait()
				if len(answered) != 1+len(c.readers) {
					t.Errorf("only %v are answered", answered)
				}
				after := all(t, w.db)
				if diff := cmp.Diff(before, after, cmpopts.EquateEmpty()); diff == "" {
					t.Error("the commit changes nothing: the test is blind")
				}
				if err := w.db.Close(); err != nil {
					t.Error(err)
				}

				// After the crash the database has what was shown, except for the seal.
				left := opened(t, crashed, Options{})
				defer left.Close()
				for i := range before.Sessions {
					if s := &before.Sessions[i]; s.State == session.Sealed {
						s.State, s.Gen, s.Rev = session.Open, 1, 1
					}
				}
				got := all(t, left)
				sortByID(before.Sessions)
				sortByID(got.Sessions)
				if diff := cmp.Diff(before.Sessions, got.Sessions, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("after a crash (-shown +left):\n%s", diff)
				}
				if diff := cmp.Diff(before.Rows, got.Rows); diff != "" {
					t.Errorf("after a crash (-shown +left):\n%s", diff)
				}
			})
		})
	}
}

// † I21: Everything that was acknowledged is there after a crash at any moment.
func TestAnAcknowledgedCommitSurvivesAnyCrash(t *testing.T) {
	disk := vfs.NewCrashableMem()
	db := open(t, disk, Options{})
	var mu sync.Mutex
	acked := map[string]bool{}
	ack := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		acked[what] = true
	}
	const writers, writes = 4, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			s := create(t, db, session.SessionID(w+1), "")
			ack(fmt.Sprint("session ", s.ID))
			for i := range int64(writes) {
				if _, err := record(db, s, i); err != nil {
					t.Error(err)
				}
				ack(fmt.Sprint("entry ", s.ID, " ", i))
				name := fmt.Sprint("row ", w, " ", i)
				if err := putRow(db, name, i); err != nil {
					t.Error(err)
				}
				ack(name)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		mu.Lock()
		must := make([]string, 0, len(acked))
		for what := range acked {
			must = append(must, what)
		}
		mu.Unlock()
		left := opened(t, disk.CrashClone(vfs.CrashCloneCfg{}), Options{})
		has := map[string]bool{}
		got := all(t, left)
		for i, s := range got.Sessions {
			has[fmt.Sprint("session ", s.ID)] = true
			for _, e := range got.Entries[i] {
				has[fmt.Sprint("entry ", s.ID, " ", e.Off)] = true
			}
		}
		for _, p := range got.Rows {
			has[p.Name] = true
		}
		for _, what := range must {
			if !has[what] {
				t.Errorf("%s was acknowledged, and is lost", what)
			}
		}
		if err := left.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A start after the death of the process shows rows that the dead process had not synced. These
// rows survive a power loss that follows.
func TestWhatANewStartShowsIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		dead := opened(t, disk, Options{})
		create(t, dead, 1, "a")
		disk.stop()
		var wg sync.WaitGroup
		wg.Go(func() { create(t, dead, 2, "b") })
		synctest.Wait()
		// The new process works on the same files, with a disk of its own that syncs.
		next := opened(t, &slowDisk{FS: disk.mem, mem: disk.mem}, Options{})
		before := all(t, next)
		if len(before.Sessions) != 2 {
			t.Errorf("%d sessions are left: the test is blind", len(before.Sessions))
		}
		left := opened(t, disk.mem.CrashClone(vfs.CrashCloneCfg{}), Options{})
		if diff := cmp.Diff(before, all(t, left), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-shown +left):\n%s", diff)
		}
		if err := errors.Join(left.Close(), next.Close()); err != nil {
			t.Error(err)
		}
		disk.resume()
		wg.Wait()
		_ = dead.Close() // another database has its files now
	})
}
