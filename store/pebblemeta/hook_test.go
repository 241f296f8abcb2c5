package pebblemeta

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/session"
)

// The hook is part of the commit that creates a session, and of each record while the length is unknown.
func TestChangedIsPartOfTheCommit(t *testing.T) {
	full := errors.New("quota exceeded")
	var limit int64 = 100
	var calls []string
	db := open(t, vfs.NewMem(), Options{Changed: func(tx catalog.Tx, before *session.Session, after session.Session) error {
		call := fmt.Sprint("new ", after.ID)
		if before != nil {
			call = fmt.Sprintf("%s from %d to %d", after.ID, before.Bytes(), after.Bytes())
		}
		calls = append(calls, call)
		name := catalog.Name(after.ID.String())
		if err := catalog.Places.Put(tx, name, catalog.Place{Name: string(name), Refs: after.Bytes()}); err != nil {
			return err
		}
		if after.Bytes() > limit {
			return full
		}
		// It has its own copy.
		clear(after.Received)
		copy(after.Note, "####")
		return nil
	}})
	st := db.Sessions()
	reserved := func(want int64) {
		t.Helper()
		err := db.Catalog().View(t.Context(), func(r catalog.Reader) error {
			p, ok, err := catalog.Places.Find(r, "1")
			if (want >= 0) != ok || ok && p.Refs != want {
				t.Errorf("%+v is reserved, not %d", p, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	spec := session.Spec{ChunkSize: 4, BytesExpected: session.Unknown, Owner: "o", Idem: "i", Note: []byte("note")}
	add := func(off, n int64) session.Change {
		return session.Change{Add: []session.Entry{{Range: session.Range{Off: off, End: off + n}}}, Length: session.Unknown}
	}

	limit = -1
	if _, _, err := st.Create(t.Context(), session.Session{ID: 1, Spec: spec}); err != full {
		t.Errorf("a create that is refused: %v", err)
	}
	reserved(-1)
	if _, err := st.Load(t.Context(), 1); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	limit = 10
	s, created, err := st.Create(t.Context(), session.Session{ID: 1, Spec: spec})
	if err != nil || !created || string(s.Note) != "note" {
		t.Fatalf("%+v, %v", s, err)
	}
	reserved(0)
	if _, created, err := st.Create(t.Context(), session.Session{ID: 2, Spec: spec}); err != nil || created {
		t.Errorf("created %v, %v", created, err)
	}
	if s, err = st.Record(t.Context(), 1, s.Gen, add(0, 8)); err != nil || s.Bytes() != 8 {
		t.Errorf("%+v, %v", s, err)
	}
	reserved(8)
	if _, err = st.Record(t.Context(), 1, s.Gen, add(8, 8)); err != full {
		t.Errorf("a record that is refused: %v", err)
	}
	reserved(8)
	if got, err := st.Load(t.Context(), 1); err != nil || got.Bytes() != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	// From the one on that gives the length, nobody asks any more.
	if s, err = st.Record(t.Context(), 1, s.Gen, session.Change{Length: 1000}); err != nil {
		t.Error(err)
	}
	if s, err = st.Record(t.Context(), 1, s.Gen, add(8, 500)); err != nil || s.Bytes() != 508 {
		t.Errorf("%+v, %v", s, err)
	}
	reserved(8)
	want := "[new 1 new 1 1 from 0 to 8 1 from 8 to 16 1 from 8 to 8]"
	if got := fmt.Sprint(calls); got != want {
		t.Errorf("calls %s, not %s", got, want)
	}
}

// Of a session that is gone no row is left but the totals.
func TestNothingIsLeftBehind(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	for i, to := range []session.State{session.Finished, session.Aborted, session.Expired} {
		s := create(t, db, session.SessionID(i+1), "idem")
		s, err := record(db, s, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []session.Step{{Gen: 1, To: session.Sealed, Next: 2}, {Gen: 2, To: to, Seen: 99}, {Gen: 2, To: session.Gone}} {
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
	if n := len(db.seals.of); n != 0 {
		t.Errorf("%d seals are left", n)
	}
}
