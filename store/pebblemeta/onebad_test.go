package pebblemeta

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/session"
)

// ticks is a clock that a test sets.
type ticks struct{ now time.Time }

func (c *ticks) Now() time.Time { return c.now }

// One row of each kind can't be read. All other sessions are listed and end in time, other due work
// is done, and a start succeeds and counts the totals anew.
func TestOneBadRowHarmsItselfAlone(t *testing.T) {
	disk := vfs.NewMem()
	db := opened(t, disk, Options{})
	for i := range 5 {
		create(t, db, session.SessionID(i+1), "")
	}
	if err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
		for i := range 3 {
			d := catalog.Due{At: int64(i + 1), Kind: catalog.DuePlace, Key: "p"}
			if err := catalog.Dues.Put(tx, catalog.DueKey(d), d); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bad := catalogKey(catalog.DueTable, catalog.DueKey{At: 1, Kind: catalog.DuePlace, Key: "p"}.AppendKey(nil))
	for _, key := range [][]byte{sessionKey(1), totalsKey, bad} {
		if err := db.peb.Set(key, []byte{1, 0xff}, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, disk, Options{})
	clock := &ticks{time.UnixMilli(1e12)}
	engine, err := session.New(t.Context(), db.Sessions(),
		session.Config{TTL: time.Minute, MaxStep: time.Minute, Clock: clock})
	if err != nil {
		t.Fatalf("the start: %v", err)
	}
	if st, err := engine.Stats(t.Context()); err != nil || st.Open != 4 {
		t.Errorf("%+v, %v", st, err)
	}
	ended := 0
	for range 4 {
		clock.now = clock.now.Add(time.Minute)
		n, err := engine.TickTTL(t.Context(), clock.now,
			func(context.Context, []session.Session) (bool, error) { return false, nil })
		if err != nil {
			t.Errorf("a tick: %v", err)
		}
		ended += n
	}
	if ended != 4 {
		t.Errorf("%d sessions have ended", ended)
	}
	if err := db.Catalog().View(t.Context(), func(r catalog.Reader) error {
		due, err := catalog.DueBy(r, catalog.DueKey{}, 10, 10)
		if len(due) != 2 {
			t.Errorf("%v is due", due)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if reads, what := db.Damaged(); reads < 2 || len(what) < 2 {
		t.Errorf("%d: %q", reads, what)
	}
}
