package metadatatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"sluice/catalog"
	"sluice/catalog/catalogtest"
	"sluice/metadata"
	"sluice/session"
	"sluice/session/sessiontest"
)

// TestStore is the suite that every store of metadata passes. open gives an empty store with a
// hook.
func TestStore(t *testing.T, open func(t *testing.T, hook metadata.Hook) metadata.Store) {
	plain := func(t *testing.T) metadata.Store { return open(t, noHook) }
	t.Run("sessions", func(t *testing.T) {
		sessiontest.TestStore(t, func(t *testing.T) session.Store { return plain(t).Sessions() })
	})
	t.Run("catalog", func(t *testing.T) {
		catalogtest.TestStore(t, func(t *testing.T) catalog.Store { return plain(t).Catalog() })
	})
	t.Run("joint commit", func(t *testing.T) { testJoint(t, plain) })
	t.Run("hook", func(t *testing.T) { testHook(t, open) })
	t.Run("decision", func(t *testing.T) { testDecision(t, open) })
	t.Run("decision that no longer holds", func(t *testing.T) { testLateChange(t, open) })
}

var noHook = metadata.Hook{
	Decide:  func(context.Context, catalog.Reader, session.Session) error { return nil },
	Reserve: func(catalog.Tx, *session.Session, session.Session) error { return nil },
}

// The hook is part of the commit that creates a session, and of each record while the length is
// unknown.
func testHook(t *testing.T, open func(t *testing.T, hook metadata.Hook) metadata.Store) {
	errQuota := errors.New("quota exceeded")
	var limit int64 = 100
	var calls []string
	db := open(t, metadata.Hook{Decide: noHook.Decide, Reserve: func(
		tx catalog.Tx, before *session.Session, after session.Session,
	) error {
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
			return errQuota
		}
		// The hook has its own copy.
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
		return session.Change{
			Add:    []session.Entry{{Range: session.Range{Off: off, End: off + n}}},
			Length: session.Unknown,
		}
	}

	limit = -1
	if _, _, err := st.Create(t.Context(), session.Session{ID: 1, Spec: spec}); err != errQuota {
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
	if _, err = st.Record(t.Context(), 1, s.Gen, add(8, 8)); err != errQuota {
		t.Errorf("a record that is refused: %v", err)
	}
	reserved(8)
	if got, err := st.Load(t.Context(), 1); err != nil || got.Bytes() != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	// From the record on that gives the length, no hook runs any more.
	if s, err = st.Record(t.Context(), 1, s.Gen, session.Change{Length: 1000}); err != nil {
		t.Error(err)
	}
	if s, err = st.Record(t.Context(), 1, s.Gen, add(8, 500)); err != nil || s.Bytes() != 508 {
		t.Errorf("%+v, %v", s, err)
	}
	reserved(8)
	want := "[new 1 1 from 0 to 8 1 from 8 to 16 1 from 8 to 8]"
	if got := fmt.Sprint(slices.Compact(calls)); got != want { // it may run several times for one commit
		t.Errorf("calls %s, not %s", got, want)
	}
}
