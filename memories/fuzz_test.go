package memories

import (
	"errors"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
)

// A cursor from a client is one that was given out, or it is refused.
func FuzzCursor(f *testing.F) {
	f.Add(cursorOf(1), uint64(0))
	f.Add(cursorOf(1<<64-1), uint64(7))
	f.Fuzz(func(t *testing.T, s string, seq uint64) {
		got, err := parseCursor(s)
		if err == nil && cursorOf(got) != s || err != nil && !errors.Is(err, ErrCursor) {
			t.Fatalf("%q: %d, %v", s, got, err)
		}
		if got, err := parseCursor(cursorOf(seq)); err != nil || got != seq {
			t.Fatalf("%d: %d, %v", seq, got, err)
		}
	})
}

type fuzzClock struct{}

func (fuzzClock) Now() time.Time { return time.Unix(1, 0) }

// The cursor of the list of capsules is a position in it. Any cursor gives only capsules after it,
// and the pages together give all.
func FuzzCapsuleCursor(f *testing.F) {
	store := catalog.NewMem()
	principals := access.New(store, fuzzClock{}, func() int64 { return 0 }, nil)
	secret, err := principals.Bootstrap(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	me, err := principals.Authenticate(f.Context(), secret)
	if err != nil {
		f.Fatal(err)
	}
	s := New(Config{Catalog: store, Clock: fuzzClock{}, Running: func() int64 { return 0 }})
	all := []string{"a", "a.b", "default", "z"}
	for _, id := range []string{"a", "a.b", "z"} {
		if _, err := s.CreateCapsule(f.Context(), me, CapsuleRequest{ID: id}); err != nil {
			f.Fatal(err)
		}
	}
	_, next, err := s.ListCapsules(f.Context(), me, "", 1)
	if err != nil || next == "" {
		f.Fatal(next, err)
	}
	f.Add(next)
	f.Fuzz(func(t *testing.T, cursor string) {
		after := ""
		var got []string
		for at := cursor; ; {
			page, next, err := s.ListCapsules(t.Context(), me, at, 1)
			if at == cursor && errors.Is(err, ErrCursor) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page {
				if c.ID <= after {
					t.Fatalf("%s comes after %s", c.ID, after)
				}
				after = c.ID
				got = append(got, c.ID)
			}
			if at = next; at == "" {
				break
			}
		}
		if tail := all[len(all)-len(got):]; len(got) > 0 && got[0] != tail[0] {
			t.Fatalf("%q gives %v of %v", cursor, got, all)
		}
	})
}
