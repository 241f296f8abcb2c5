package api_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/access"
	"sluice/access/oidc"
	"sluice/api"
	"sluice/catalog"
	"sluice/internal/test/issuer"
	"sluice/session"
)

// guests is a world whose server trusts an issuer. log has what the server logs.
type guests struct {
	*world
	issuer *issuer.Issuer
	log    *lockedBuffer
}

func newGuests(t *testing.T, change func(*oidc.Config)) *guests {
	t.Helper()
	g := &guests{issuer: issuer.New("http://localhost:9998"), log: &lockedBuffer{}}
	config := oidc.Config{
		Issuer: g.issuer.URL, Audience: issuer.Client, PrincipalClaim: "sub", AdminClaim: "roles", AdminValue: "boss",
		Clock: clock{}, Log: slog.New(slog.DiscardHandler), Transport: g.issuer.Transport(),
	}
	if change != nil {
		change(&config)
	}
	verifier, err := oidc.New(config)
	if err != nil {
		t.Fatal(err)
	}
	g.world = openWorldWith(t, api.Config{
		Log:    slog.New(slog.NewTextHandler(g.log, nil)),
		SignIn: &api.SignIn{Issuer: g.issuer.URL, Audience: issuer.Client, Client: "cli", Scopes: []string{"openid"}},
	}, session.Config{}, verifier)
	return g
}

// The first token of a subject makes a principal, without a role. All others are the same one's.
func TestSigningInWithAnIssuersToken(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	ada := g.as(g.issuer.Token("ada", nil))
	me, err := ada.WhoAmI(ctx)
	g.check(err)
	if me.PrincipalID == "" || me.Name != "Name of ada" || me.Admin || me.TokenID != "" || me.Issuer != g.issuer.URL ||
		me.Subject != "ada" || me.ExpiresAt.IsZero() {
		t.Errorf("%+v", me)
	}
	_, err = ada.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}})
	g.codeIs(err, api.CodeNotFound)
	_, err = ada.ListPrincipals(ctx, "", 0)
	g.codeIs(err, api.CodeForbidden)

	again, err := g.as(g.issuer.Token("ada", map[string]any{"name": "Another", "jti": "2"})).WhoAmI(ctx)
	g.check(err)
	if again.PrincipalID != me.PrincipalID || again.Name != me.Name {
		t.Errorf("%+v, then %+v", me, again)
	}
	bob, err := g.as(g.issuer.Token("bob", nil)).WhoAmI(ctx)
	g.check(err)
	if bob.PrincipalID == me.PrincipalID {
		t.Error("two subjects are one principal")
	}
	list, err := g.client.ListPrincipals(ctx, "", 0)
	g.check(err)
	i := slices.IndexFunc(list.Principals, func(p api.Principal) bool { return p.PrincipalID == me.PrincipalID })
	if i < 0 || list.Principals[i].Issuer != g.issuer.URL || list.Principals[i].Subject != "ada" {
		t.Errorf("%+v", list)
	}
	capsule, err := g.client.ReadCapsule(ctx, "default")
	g.check(err)
	_, err = g.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{
		CapsuleID: "default", Controllers: &[]string{me.PrincipalID}, Owners: &capsule.Owners,
	})
	g.check(err)
	_, err = ada.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}})
	g.check(err)
}

// A hundred first requests of one subject at once make one principal.
func TestAFirstSignInRaces(t *testing.T) {
	g := newGuests(t, nil)
	if _, err := g.access.Authenticate(t.Context(), g.issuer.Token("bob", nil)); err != nil {
		t.Fatal(err) // the keys are known from here on
	}
	token := g.issuer.Token("ada", nil)
	var mu sync.Mutex
	ids := map[string]int{}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			c, err := g.access.Authenticate(t.Context(), token)
			mu.Lock()
			defer mu.Unlock()
			ids[c.Principal]++
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := g.client.ListPrincipals(t.Context(), "", 0)
	g.check(err)
	if len(ids) != 1 || len(list.Principals) != 4 { // the admin, the stranger, bob, and this one
		t.Errorf("%v; %d principals", ids, len(list.Principals))
	}
}

// The admin right of a claim lives as long as the token that has it.
func TestAnAdminByAClaim(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	boss := g.issuer.Token("ada", map[string]any{"roles": []string{"staff", "boss"}})
	me, err := g.as(boss).WhoAmI(ctx)
	g.check(err)
	if !me.Admin {
		t.Errorf("%+v", me)
	}
	list, err := g.as(boss).ListPrincipals(ctx, "", 0)
	g.check(err)
	for _, p := range list.Principals {
		if p.PrincipalID == me.PrincipalID && p.Admin {
			t.Error("the principal is an admin for ever")
		}
	}
	staff := g.as(g.issuer.Token("ada", map[string]any{"roles": []string{"staff"}}))
	_, err = staff.ListPrincipals(ctx, "", 0)
	g.codeIs(err, api.CodeForbidden)
	// The only admin by row can't go: the claim of another one may be gone tomorrow.
	g.codeIs(g.as(boss).DeletePrincipal(ctx, g.me.Principal), api.CodeForbidden)
	// And the right of the row is one of its own.
	yes := true
	_, err = g.client.UpdatePrincipal(ctx, api.UpdatePrincipalRequest{PrincipalID: me.PrincipalID, Admin: &yes})
	g.check(err)
	_, err = staff.ListPrincipals(ctx, "", 0)
	g.check(err)
	// A token that it made for itself has no more than the row.
	no := false
	_, err = g.client.UpdatePrincipal(ctx, api.UpdatePrincipalRequest{PrincipalID: me.PrincipalID, Admin: &no})
	g.check(err)
	made, err := g.as(boss).CreateToken(ctx, api.CreateTokenRequest{})
	g.check(err)
	_, err = g.as(made.Token).ListPrincipals(ctx, "", 0)
	g.codeIs(err, api.CodeForbidden)
}

// A token that was made with one of the issuer ends when that is not taken any more: whoever is
// removed at the issuer is out.
func TestATokenMadeWithAnIssuersToken(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	end := time.Now().Add(2 * time.Minute).Truncate(time.Second)
	ada := g.as(g.issuer.Token("ada", map[string]any{"exp": end.Unix()}))
	day := int64(86400)
	for _, seconds := range []*int64{nil, &day} {
		made, err := ada.CreateToken(ctx, api.CreateTokenRequest{ExpiresInSeconds: seconds})
		g.check(err)
		if !made.ExpiresAt.Equal(end.Add(access.ClockSkew)) {
			t.Errorf("it ends at %s, and the issuer's at %s", made.ExpiresAt, end)
		}
	}
	minute := int64(60)
	made, err := ada.CreateToken(ctx, api.CreateTokenRequest{ExpiresInSeconds: &minute})
	g.check(err)
	if time.Until(made.ExpiresAt.Time) > time.Minute {
		t.Errorf("it ends at %s", made.ExpiresAt)
	}
}

// A principal that is deleted is gone with its identity. The next token makes another principal,
// without any role of the former.
func TestAPrincipalOfAnIssuerIsDeleted(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	token := g.issuer.Token("ada", nil)
	before, err := g.access.Authenticate(ctx, token)
	g.check(err)
	_, err = g.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{
		CapsuleID: "default", Controllers: &[]string{before.Principal},
	})
	g.check(err)
	g.check(g.client.DeletePrincipal(ctx, before.Principal))
	// A running request is refused at its commit.
	err = g.catalog.View(ctx, func(r catalog.Reader) error {
		return access.AllowAny(r, before, false, time.Now())
	})
	if !errors.Is(err, access.ErrUnauthenticated) {
		t.Errorf("a running request: %v", err)
	}
	after, err := g.as(token).WhoAmI(ctx)
	g.check(err)
	if after.PrincipalID == before.Principal {
		t.Error("the principal is back")
	}
	_, err = g.as(token).Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}})
	g.codeIs(err, api.CodeNotFound)
}

// A put that is under way when its token ends is refused at its record.
func TestATokenOfAnIssuerEndsInTheMiddle(t *testing.T) {
	g := newGuests(t, nil)
	c, err := g.access.Authenticate(t.Context(), g.issuer.Token("ada", map[string]any{
		"roles": "boss", "exp": time.Now().Add(time.Minute).Unix(),
	}))
	g.check(err)
	if !c.Admin {
		t.Errorf("%+v", c)
	}
	for late, want := range map[time.Duration]error{
		0: nil, time.Minute + access.ClockSkew - 2*time.Second: nil,
		time.Minute + access.ClockSkew: access.ErrUnauthenticated,
	} {
		err := g.catalog.View(t.Context(), func(r catalog.Reader) error {
			return access.AllowAdmin(r, c, true, time.Now().Add(late))
		})
		if !errors.Is(err, want) {
			t.Errorf("after %s: %v, want %v", late, err, want)
		}
	}
}

// A client is told nothing of why its token is refused. The log says it, with the id of the request
// and without the token.
func TestTheLogSaysWhyATokenIsRefused(t *testing.T) {
	g := newGuests(t, nil)
	plain := g.do("GET", "/v1/whoami", "", "Authorization", "Bearer nonsense")
	for why, token := range map[string]string{
		"expected audience": g.issuer.Token("ada", map[string]any{"aud": "other"}),
		"8192 are allowed":  g.issuer.Token("ada", map[string]any{"more": strings.Repeat("a", access.MaxExternalToken)}),
		"has no key":        issuer.NewKey().Sign(g.issuer.Claims("ada", nil), nil),
	} {
		a := g.do("GET", "/v1/whoami", "", "Authorization", "Bearer "+token)
		g.problem(a, api.CodeUnauthenticated)
		if !bytes.Equal(a.body, plain.body) {
			t.Errorf("%s: %s, and a token that is none: %s", why, a.body, plain.body)
		}
		log := g.log.String()
		if !strings.Contains(log, why) || !strings.Contains(log, "request_id="+a.Header.Get("X-Request-Id")) {
			t.Errorf("the log does not say %q: %s", why, log)
		}
		if strings.Contains(log, token) || strings.Contains(log, token[strings.LastIndex(token, "."):]) {
			t.Error("the log has the token")
		}
	}
	before := g.log.String()
	a := g.do("GET", "/v1/whoami", "", "Authorization", "Bearer "+g.issuer.Token("ada", map[string]any{
		"exp": time.Now().Add(-time.Hour).Unix(),
	}))
	g.problem(a, api.CodeUnauthenticated)
	if log := g.log.String(); log != before {
		t.Errorf("the end of a token is no trouble: %s", log[len(before):])
	}
}

// While the issuer is away a token of an unknown key is answered 503. Tokens of the server's own go
// on.
func TestTheIssuerIsAwayFromTheServer(t *testing.T) {
	g := newGuests(t, nil)
	g.issuer.Down(true)
	a := g.do("GET", "/v1/whoami", "", "Authorization", "Bearer "+g.issuer.Token("ada", nil))
	g.saysWhen(a, api.CodeUnavailable)
	if a := g.do("GET", "/v1/whoami", ""); a.StatusCode != http.StatusOK {
		t.Errorf("a token of the server: %d", a.StatusCode)
	}
}

// Without an issuer a JWT is as unknown as anything else.
func TestWithoutAnIssuer(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.as(issuer.New("http://localhost:9998").Token("ada", nil)).WhoAmI(t.Context())
	w.codeIs(err, api.CodeUnauthenticated)
	_, err = w.as("").ProtectedResource(t.Context())
	w.codeIs(err, api.CodeNotFound)
	g := newGuests(t, nil)
	at, err := g.as("").ProtectedResource(t.Context())
	g.check(err)
	if at.Resource != issuer.Client || !slices.Equal(at.AuthorizationServers, []string{g.issuer.URL}) ||
		at.ClientID != "cli" || !slices.Equal(at.ScopesSupported, []string{"openid"}) {
		t.Errorf("%+v", at)
	}
}

// Names come from a claim that may be anything, and a principal always has one.
func TestAPrincipalWithoutAName(t *testing.T) {
	g := newGuests(t, nil)
	me, err := g.as(g.issuer.Token("ada", map[string]any{"name": nil})).WhoAmI(context.Background())
	g.check(err)
	if me.Name != me.PrincipalID {
		t.Errorf("%+v", me)
	}
}
