package api_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/access"
	"sluice/access/oidc"
	"sluice/api"
	"sluice/audit"
	"sluice/internal/test/issuer"
	"sluice/session"
)

// A ticket that is made with a token of an issuer ends with that token at the latest.
func TestATicketEndsWithTheIssuersToken(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	ada := g.as(g.issuer.Token("ada", nil))
	me, err := ada.WhoAmI(ctx)
	g.check(err)
	_, err = g.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{
		CapsuleID: "default", Controllers: &[]string{me.PrincipalID},
	})
	g.check(err)
	ticket, err := ada.CreateTicket(ctx, api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 1, ExpiresInSeconds: 30 * 24 * 3600,
	})
	g.check(err)
	if end := me.ExpiresAt.Add(access.ClockSkew); ticket.ExpiresAt.Sub(end).Abs() > time.Second {
		t.Errorf("the ticket ends at %v, and the token at %v", ticket.ExpiresAt, end)
	}
	_, err = g.as(ticket.Secret).Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}})
	g.check(err)
}

// The audit log has a sign-in for each principal of an issuer, and not for each of its tokens. No
// token of an issuer gets into a log.
func TestSignInsAtAnIssuerAreAudited(t *testing.T) {
	var log, audited lockedBuffer
	from := issuer.New("http://localhost:9998")
	verifier, err := oidc.New(oidc.Config{
		Issuer: from.URL, Audience: issuer.Client, PrincipalClaim: "sub", Clock: clock{},
		Log: slog.New(slog.DiscardHandler), Transport: from.Transport(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := openWorldWith(t, api.Config{
		Log:   slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Audit: audit.New(&audited, nil),
	}, session.Config{}, verifier)
	ids := map[string]bool{}
	var tokens []string
	for _, who := range []string{"ada", "bob", "ada"} {
		token := from.Token(who, map[string]any{"jti": string(rune('a' + len(tokens)))})
		tokens = append(tokens, token)
		me, err := w.as(token).WhoAmI(t.Context())
		w.check(err)
		ids[me.PrincipalID] = true
		w.do("POST", "/v1/memories_ping", `{"`+token+`":1}`, "Content-Type", "application/json")
	}
	w.check(w.stop())
	for id := range ids {
		if n := strings.Count(audited.String(), `"event":"sign_in"`); n != 3 { // and the admin's
			t.Fatalf("%d sign-ins: %s", n, audited.String())
		}
		if n := strings.Count(audited.String(), id); n != 1 {
			t.Errorf("%d records of %s", n, id)
		}
	}
	if !strings.Contains(log.String(), "eyJ[hidden]") {
		t.Error("the log does not have the refusals")
	}
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(log.String(), part) || strings.Contains(audited.String(), part) {
				t.Errorf("a log has %s", part)
			}
		}
	}
}
