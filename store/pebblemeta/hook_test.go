package pebblemeta

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/metadata"
	"sluice/session"
)

// No row is left of a session that is gone, except the totals.
func TestNothingIsLeftBehind(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	for i, to := range []session.State{session.Finished, session.Aborted, session.Expired} {
		s := create(t, db, session.SessionID(i+1), "idem")
		s, err := record(db, s, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []session.Step{
			{Gen: 1, To: session.Sealed, Next: 2}, {Gen: 2, To: to, Seen: 99}, {Gen: 2, To: session.Gone},
		} {
			if _, err := db.Sessions().Move(t.Context(), s.ID, step); err != nil {
				t.Fatal(err)
			}
		}
	}
	it, err := db.peb.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()) != string(totalsKey) {
			t.Errorf("row %x is left", it.Key())
		}
	}
	if n := len(db.seals.byID); n != 0 {
		t.Errorf("%d seals are left", n)
	}
}

// Without a hook nothing would reserve quota for sessions. Such a store is for reading only.
func TestAStoreNeedsAHook(t *testing.T) {
	disk := vfs.NewMem()
	if _, err := Open("data/meta", Options{FS: disk}); !errors.Is(err, metadata.ErrNoHook) {
		t.Errorf("opened without a hook: %v", err)
	}
	if names, err := disk.List(""); err != nil || len(names) > 0 {
		t.Errorf("it has left %v, %v", names, err)
	}
	if err := opened(t, disk, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open("data/meta", Options{FS: disk, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
