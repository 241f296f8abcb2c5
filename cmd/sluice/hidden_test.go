package main

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

var hiddenRounds = flag.Int("hidden.rounds", 0, "how often TestHowLongRefusalsTake asks for each; 0: it is skipped")

// TestHowLongRefusalsTake measures whether the time of an answer tells if a thing is hidden or was
// never there. It asks for both in turn, and prints the ratio of the medians. It has no opinion:
// docs/access.md has its figures.
//
//	go test ./cmd/sluice -run TestHowLongRefusalsTake -v -hidden.rounds 3000
func TestHowLongRefusalsTake(t *testing.T) {
	if *hiddenRounds == 0 {
		t.Skip("it measures: give -hidden.rounds")
	}
	c := startServer(t, filepath.Join(t.TempDir(), "data"))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	p, err := c.client.CreatePrincipal(ctx, "stranger", false)
	check(err)
	stranger, err := c.client.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: p.PrincipalID})
	check(err)
	one := int64(1)
	m, err := c.client.Create(ctx, api.CreateRequest{Name: "a"}, bytes.NewReader([]byte("x")), one)
	check(err)
	s, err := c.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a", Bytes: &one}})
	check(err)
	ticket, err := c.client.CreateTicket(ctx, api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 1, ExpiresInSeconds: 3600,
	})
	check(err)
	const nobody = "01a23223-5b25-7af3-9014-8323f7b92ee7"
	for _, row := range []struct{ name, method, path, body, hidden, absent string }{
		{"memories_read", "GET", "/v1/memories_read/", "", m.MemoryID, nobody},
		{"memories_content", "GET", "/v1/memories_content/", "", m.MemoryID, nobody},
		{"memories_delete", "POST", "/v1/memories_delete", `{"memory_id":"ID"}`, m.MemoryID, nobody},
		{"uploads_status", "GET", "/v1/uploads_status/", "", s.SessionID, "4611686018427387905"},
		{"uploads_put_chunk", "PUT", "/v1/uploads_put_chunk/ID/0", "x", s.SessionID, "4611686018427387905"},
		{"capsules_read", "GET", "/v1/capsules_read/", "", "default", "defaulu"},
		{"upload_tickets_revoke", "POST", "/v1/upload_tickets_revoke", `{"ticket_id":"ID"}`, ticket.TicketID, nobody},
	} {
		ask := func(id string) time.Duration {
			path := strings.ReplaceAll(row.path, "ID", id)
			if strings.HasSuffix(path, "/") {
				path += id
			}
			body := strings.NewReader(strings.ReplaceAll(row.body, "ID", id))
			req, err := http.NewRequestWithContext(ctx, row.method, c.url+path, body)
			check(err)
			req.Header.Set("Authorization", "Bearer "+stranger.Token)
			began := time.Now()
			res, err := http.DefaultClient.Do(req)
			check(err)
			_, err = io.Copy(io.Discard, res.Body)
			took := time.Since(began)
			check(err)
			res.Body.Close()
			if res.StatusCode != http.StatusNotFound {
				t.Fatalf("%s: %s", row.name, res.Status)
			}
			return took
		}
		var hidden, absent []time.Duration
		for i := range *hiddenRounds {
			if i%2 == 0 { // so that being the second is nobody's advantage
				hidden = append(hidden, ask(row.hidden))
			}
			absent = append(absent, ask(row.absent))
			if i%2 == 1 {
				hidden = append(hidden, ask(row.hidden))
			}
		}
		slices.Sort(hidden)
		slices.Sort(absent)
		n := len(hidden)
		t.Logf("%-22s %.3f (hidden %s, absent %s; tenths: %s–%s, %s–%s)", row.name,
			float64(hidden[n/2])/float64(absent[n/2]), hidden[n/2], absent[n/2],
			hidden[n/10], hidden[n*9/10], absent[n/10], absent[n*9/10])
	}
	http.DefaultClient.CloseIdleConnections()
}
