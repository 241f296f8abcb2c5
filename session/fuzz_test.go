package session_test

import (
	"errors"
	"testing"

	"sluice/session"
)

// An id has one form: ParseID accepts only texts that String writes.
func FuzzParseID(f *testing.F) {
	f.Add("1")
	f.Add("18446744073709551615")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := session.ParseID(s)
		if err == nil && (id == 0 || id.String() != s) {
			t.Fatalf("%q is taken for %s", s, id)
		}
	})
}

// Mem's List refuses a cursor as such, or returns the sessions after it, whatever a client sends.
func FuzzMemCursor(f *testing.F) {
	st := session.NewMem()
	for id := range session.SessionID(3) {
		if _, _, err := st.Create(
			f.Context(), session.Session{ID: id + 1, Spec: session.Spec{ChunkSize: 1}},
		); err != nil {
			f.Fatal(err)
		}
	}
	_, next, err := st.List(f.Context(), session.Query{Limit: 1})
	if err != nil || next == "" {
		f.Fatal(next, err)
	}
	f.Add(next, int64(0))
	f.Fuzz(func(t *testing.T, after string, due int64) {
		_, _, err := st.List(t.Context(), session.Query{After: after, Due: due, Limit: 2})
		if err != nil && !errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%q: %v", after, err)
		}
	})
}
