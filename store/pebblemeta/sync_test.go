package pebblemeta

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"sluice/session"
)

// † I20: A sync makes its own commit durable, and not a commit that was applied behind it.
func TestASyncShowsItsOwnCommitAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		disk.stop()
		var wg sync.WaitGroup
		wg.Go(func() { create(t, db, 1, "") })
		synctest.Wait()
		wg.Go(func() { create(t, db, 2, "") })
		synctest.Wait()
		disk.one()
		synctest.Wait()
		got := all(t, db)
		if len(got.Sessions) != 1 || got.Sessions[0].ID != 1 || got.Stats.Begun != 1 {
			t.Errorf("%d sessions are shown, and one is synced: %+v", len(got.Sessions), got)
		}
		disk.resume()
		wg.Wait()
		if got := all(t, db); len(got.Sessions) != 2 {
			t.Errorf("%+v", got)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// † I22: A seal, which is in memory, is shown no sooner than the record before it.
func TestASealIsShownWithWhatItSeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		s := create(t, db, 1, "")
		disk.stop()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := record(db, s, 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		sealed := false
		wg.Go(func() {
			step := session.Step{Gen: s.Gen, To: session.Sealed, Next: 9}
			if _, err := db.Sessions().Move(context.Background(), 1, step); err != nil {
				t.Error(err)
			}
			sealed = true
		})
		synctest.Wait()
		if sealed {
			t.Error("the seal was answered, and what it seals is not durable")
		}
		see := func(got session.Session) {
			if got.State == session.Sealed && got.Bytes() != 1 {
				t.Errorf("sealed without its byte: %+v", got)
			}
		}
		wg.Go(func() {
			got, err := db.Sessions().Load(context.Background(), 1)
			if see(got); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, _, err := db.Sessions().List(context.Background(), session.Query{Limit: 10})
			if err != nil || len(got) != 1 {
				t.Errorf("%v, %v", got, err)
				return
			}
			see(got[0])
		})
		synctest.Wait()
		disk.resume()
		wg.Wait()
		got, err := db.Sessions().Load(t.Context(), 1)
		if err != nil || got.State != session.Sealed || got.Bytes() != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Commits that come while one waits for the disk share the next sync.
func TestCommitsShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		const n = 50
		var of [n]session.Session
		for i := range of {
			of[i] = create(t, db, session.SessionID(i+1), "")
		}
		disk.stop()
		var wg sync.WaitGroup
		for i, s := range of {
			wg.Go(func() {
				if _, err := record(db, s, 1); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := putRow(db, fmt.Sprint(i), 1); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		disk.resume()
		wg.Wait()
		if disk.syncs > 3 {
			t.Errorf("%d commits took %d syncs", 2*n, disk.syncs)
		}
		if got := all(t, db); got.Stats.BytesReceived != n || len(got.Rows) != n {
			t.Errorf("%+v, %d rows", got.Stats, len(got.Rows))
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
