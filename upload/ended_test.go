package upload_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// The records of ended sessions are bounded. An owner that aborts without end is refused new
// sessions, and no other owner is.
func TestEndedSessionsAreBounded(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.MaxEnded = 5
	w.rewire(w.blobs, l)
	last := w.begin(1)
	for range l.MaxEnded {
		w.check(w.Abort(t.Context(), w.me, w.begin(1).ID))
	}
	req := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: 1, Chunks: -1}
	if _, err := w.Begin(t.Context(), w.me, req); !errors.Is(err, upload.ErrTooManyEnded) {
		t.Errorf("a begin: %v", err)
	}
	if _, err := w.Create(
		t.Context(), w.me,
		upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: session.Unknown}},
		strings.NewReader("x"),
	); !errors.Is(err, upload.ErrTooManyEnded) {
		t.Errorf("a create: %v", err)
	}
	// Open sessions go on, and a create without a session is stored.
	w.check(w.put(last.ID, 0, []byte("x")))
	w.finishes(last.ID, []byte("x"))
	_, err := w.Create(
		t.Context(),
		w.me,
		upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: 1}},
		strings.NewReader("x"),
	)
	w.check(err)
	_, err = w.access.CreatePrincipal(t.Context(), w.me, "other", false)
	w.check(err)
	if _, err := w.Begin(t.Context(), w.stranger, req); errors.Is(err, upload.ErrTooManyEnded) {
		t.Errorf("somebody else: %v", err)
	}
}

// The uploads of all tickets of a principal count for it together, and with its own.
func TestTheEndedUploadsOfTicketsCountForTheirMaker(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.MaxEnded = 4
	w.rewire(w.blobs, l)
	ticket := func() access.Caller {
		g := catalog.Grant{Kind: catalog.Ticket, Capsule: "default", MaxBytes: 10, Uploads: 100}
		_, secret, err := w.access.CreateGrant(t.Context(), w.me, access.GrantRequest{Grant: g, TTL: time.Hour})
		w.check(err)
		c, err := w.access.Authenticate(t.Context(), secret)
		w.check(err)
		return c
	}
	req := upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: 1, Chunks: -1}
	for _, c := range []access.Caller{ticket(), ticket(), w.me, ticket()} {
		up, err := w.Begin(t.Context(), c, req)
		w.check(err)
		w.check(w.Abort(t.Context(), c, up.ID))
	}
	for _, c := range []access.Caller{ticket(), w.me} {
		if _, err := w.Begin(t.Context(), c, req); !errors.Is(err, upload.ErrTooManyEnded) {
			t.Errorf("one more: %v", err)
		}
	}
}
