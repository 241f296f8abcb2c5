package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/access"
	"sluice/access/oidc"
	"sluice/internal/system"
	"sluice/internal/test/issuer"
)

const issuerURL = "http://localhost:9998"

func newVerifier(t *testing.T, i *issuer.Issuer, change func(*oidc.Config)) *oidc.Verifier {
	t.Helper()
	c := oidc.Config{
		Issuer: i.URL, Audience: issuer.Client, PrincipalClaim: "sub", Clock: system.Clock{},
		Log: slog.New(slog.DiscardHandler), Transport: i.Transport(),
	}
	if change != nil {
		change(&c)
	}
	v, err := oidc.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// refused checks that a token is refused, and that the reason has a text.
func refused(t *testing.T, v *oidc.Verifier, name, token, why string) {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	var refusal *access.RefusalError
	if !errors.As(err, &refusal) || !errors.Is(err, access.ErrUnauthenticated) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v, want %q", name, err, why)
	}
	if err != nil && strings.Contains(err.Error(), token) {
		t.Errorf("%s: the reason has the token", name)
	}
}

func TestATokenOfTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		v := newVerifier(t, i, nil)
		who, err := v.Verify(t.Context(), i.Token("ada", nil))
		if err != nil {
			t.Fatal(err)
		}
		if who.Issuer != issuerURL || who.Subject != "ada" || who.Name != "Name of ada" || who.Admin ||
			!who.Expires.Equal(time.Now().Add(5*time.Minute)) {
			t.Errorf("%+v", who)
		}
		for name, change := range map[string]map[string]any{
			"an audience in a list":     {"aud": []string{"other", issuer.Client}},
			"a party that is not asked": {"azp": "another", "aud": []string{issuer.Client, "another"}},
			"no beginning":              {"iat": nil},
			"fractions of seconds":      {"exp": float64(time.Now().Unix()) + 0.5},
		} {
			if _, err := v.Verify(t.Context(), i.Token("ada", change)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt"} {
			token := i.Keys()[0].Sign(i.Claims("ada", nil), map[jose.HeaderKey]any{jose.HeaderType: typ})
			if _, err := v.Verify(t.Context(), token); err != nil {
				t.Errorf("%s: %v", typ, err)
			}
		}
		if n := i.Fetches(); n != 1 {
			t.Errorf("the keys were fetched %d times", n)
		}
	})
}

// Each kind of signature that is taken.
func TestSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		rsaKey := i.Keys()[0].Private
		p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		_, ed, _ := ed25519.GenerateKey(rand.Reader)
		keys := []issuer.Key{
			{Name: "r", Alg: jose.RS256, Private: rsaKey},
			{Name: "p", Alg: jose.PS384, Private: rsaKey},
			{Name: "e", Alg: jose.ES256, Private: p256},
			{Name: "f", Alg: jose.ES512, Private: p521},
			{Name: "d", Alg: jose.EdDSA, Private: ed},
		}
		i.UseKeys(keys...)
		v := newVerifier(t, i, nil)
		for _, k := range keys {
			if _, err := v.Verify(t.Context(), k.Sign(i.Claims("ada", nil), nil)); err != nil {
				t.Errorf("%s: %v", k.Alg, err)
			}
		}
		// A key is for its own algorithm alone.
		refused(t, v, "another algorithm", issuer.Key{Name: "r", Alg: jose.PS256, Private: rsaKey}.Sign(
			i.Claims("ada", nil), nil,
		), `no key "r"`)
		// With several keys a token must say which one it means.
		i.UseKeys(keys[0], issuer.Key{Name: "s", Alg: jose.RS256, Private: rsaKey})
		v = newVerifier(t, i, nil)
		unnamed := issuer.Key{Alg: jose.RS256, Private: rsaKey}.Sign(i.Claims("ada", nil), nil)
		refused(t, v, "no name", unnamed, "several keys")
		i.UseKeys(keys[0])
		v = newVerifier(t, i, nil)
		if _, err := v.Verify(t.Context(), unnamed); err != nil {
			t.Errorf("no name, and one key: %v", err)
		}
		// A short key of RSA could be broken.
		short, err := rsa.GenerateKey(rand.Reader, 1024)
		if err == nil { // GODEBUG may refuse to make one
			weak := issuer.Key{Name: "weak", Alg: jose.RS256, Private: short}
			i.UseKeys(keys[0], weak)
			refused(t, newVerifier(t, i, nil), "a short key", weak.Sign(i.Claims("ada", nil), nil), `no key "weak"`)
		}
	})
}

// Forged tokens are refused, and so are good ones that come too early or too late.
func TestTokensThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		v := newVerifier(t, i, nil)
		now, key, other := time.Now(), i.Keys()[0], issuer.NewKey()
		for name, c := range map[string]struct {
			change map[string]any
			why    string
		}{
			"another audience":    {map[string]any{"aud": "other"}, "audience"},
			"no audience":         {map[string]any{"aud": nil}, "audience"},
			"a part of it":        {map[string]any{"aud": []string{issuer.Client + "2", "x"}}, "audience"},
			"another issuer":      {map[string]any{"iss": "https://other.example"}, "different provider"},
			"a slash more":        {map[string]any{"iss": issuerURL + "/"}, "different provider"},
			"no end":              {map[string]any{"exp": nil}, "exp"},
			"an end that is none": {map[string]any{"exp": 1e300}, "exp"},
			"over":                {map[string]any{"exp": now.Add(-time.Minute).Unix()}, "ended"},
			"not yet":             {map[string]any{"nbf": now.Add(61 * time.Second).Unix()}, "begins"},
			"made in the future":  {map[string]any{"iat": now.Add(61 * time.Second).Unix()}, "begins"},
			"no subject":          {map[string]any{"sub": nil}, "sub"},
			"an empty subject":    {map[string]any{"sub": ""}, "sub"},
			"a long subject":      {map[string]any{"sub": strings.Repeat("a", 256)}, "sub"},
			"a number":            {map[string]any{"sub": 7}, ""},
			"a NUL":               {map[string]any{"sub": "a\x00b"}, "sub"},
		} {
			refused(t, v, name, i.Token("ada", c.change), c.why)
		}
		good := i.Token("ada", nil)
		parts := strings.Split(good, ".")
		claims, _ := json.Marshal(i.Claims("root", nil))
		encode := base64.RawURLEncoding.EncodeToString
		public, _ := x509.MarshalPKIXPublicKey(key.Private.Public())
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
		hmac := func(secret []byte) string {
			return issuer.Sign(jose.SigningKey{
				Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: key.Name},
			}, i.Claims("root", nil), nil)
		}
		for name, c := range map[string]struct{ token, why string }{
			"another payload": {parts[0] + "." + encode(claims) + "." + parts[2], "signature"},
			"no signature":    {parts[0] + "." + parts[1] + ".", "signature"},
			"none":            {encode([]byte(`{"alg":"none"}`)) + "." + encode(claims) + ".", "signed in a way"},
			"None": {
				encode([]byte(`{"alg":"nOnE","kid":"`+key.Name+`"}`)) + "." + encode(claims) + ".", "signed in a way",
			},
			"HS256 with the public key": {hmac(block), "signed in a way"},
			"HS256 with its bytes":      {hmac(public), "signed in a way"},
			"another's key of the same name": {
				issuer.Key{Name: key.Name, Alg: jose.RS256, Private: other.Private}.Sign(i.Claims("root", nil), nil),
				"signature",
			},
			"a key of its own": {
				issuer.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: other.Private}, i.Claims("root", nil),
					map[jose.HeaderKey]any{"jku": "https://evil.example", "kid": key.Name}), "signature",
			},
			"a logout token": {
				key.Sign(i.Claims("root", nil), map[jose.HeaderKey]any{jose.HeaderType: "logout+jwt"}),
				"no access token",
			},
			"nothing": {"a.b.c", "malformed"},
		} {
			refused(t, v, name, c.token, c.why)
		}
		if n := i.Fetches(); n > 2 {
			t.Errorf("the keys were fetched %d times", n)
		}
	})
}

// The clocks may be a minute apart, in both directions, and no more. A token that was verified ends
// too.
func TestClockSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		v := newVerifier(t, i, nil)
		now := time.Now()
		begin := now.Add(access.ClockSkew).Unix()
		early := i.Token("ada", map[string]any{"nbf": begin, "iat": begin, "exp": now.Add(2 * time.Minute).Unix()})
		if _, err := v.Verify(t.Context(), early); err != nil {
			t.Errorf("a minute early: %v", err)
		}
		time.Sleep(3*time.Minute - time.Second)
		if _, err := v.Verify(t.Context(), early); err != nil {
			t.Errorf("59 seconds late: %v", err)
		}
		time.Sleep(time.Second)
		refused(t, v, "a minute late", early, "ended")
		refused(t, newVerifier(t, i, nil), "a minute late, to another", early, "ended")
	})
}

// A key that the issuer changes to is found at once. One that it withdraws is taken for
// quarter of an hour at most.
func TestKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		v := newVerifier(t, i, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			v.Run(ctx)
			close(ended)
		}()
		defer func() {
			stop()
			<-ended
		}()
		old := i.Token("ada", map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
		if _, err := v.Verify(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		i.Rotate()
		if _, err := v.Verify(t.Context(), i.Token("ada", nil)); err != nil {
			t.Errorf("the new key: %v", err)
		}
		refused(t, v, "the old key, once the new one is known", old, "no key")
		newer := i.Token("ada", map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
		if _, err := v.Verify(t.Context(), newer); err != nil {
			t.Error(err)
		}
		i.Rotate() // and no token tells
		time.Sleep(15*time.Minute + time.Second)
		refused(t, v, "a withdrawn key", newer, "no key")
		// At the start by Run and perhaps by the first token too, twice for unknown keys, once in
		// time.
		if n := i.Fetches(); n > 5 {
			t.Errorf("the keys were fetched %d times", n)
		}
	})
}

// Tokens that name keys at random make the server fetch keys once in ten seconds at most.
func TestUnknownKeysCauseNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		v := newVerifier(t, i, nil)
		good, forger := i.Token("ada", nil), issuer.NewKey()
		const seconds = 60
		for range seconds {
			var wg sync.WaitGroup
			for n := range 10 {
				wg.Go(func() {
					forger := forger
					forger.Name = fmt.Sprint("k", n, time.Now().UnixNano())
					refused(t, v, "a key that is not there", forger.Sign(i.Claims("root", nil), nil), "no key")
				})
			}
			wg.Go(func() {
				if _, err := v.Verify(t.Context(), good); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			time.Sleep(time.Second)
		}
		if n := i.Fetches(); n < 2 || n > seconds/10+1 {
			t.Errorf("the keys were fetched %d times in %d seconds", n, seconds)
		}
	})
}

// While the issuer is away, known keys go on, and a token of an unknown one is asked to wait.
func TestTheIssuerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		i.Down(true)
		v := newVerifier(t, i, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			v.Run(ctx)
			close(ended)
		}()
		defer func() {
			stop()
			<-ended
		}()
		synctest.Wait()
		for range 3 {
			if _, err := v.Verify(t.Context(), i.Token("ada", nil)); !errors.Is(err, access.ErrIssuerAway) {
				t.Errorf("from the start: %v", err)
			}
			time.Sleep(time.Second)
		}
		i.Down(false)
		time.Sleep(time.Minute) // no token asks
		if n := i.Fetches(); n == 0 {
			t.Error("it was not tried again")
		}
		i.Down(true)
		if _, err := v.Verify(t.Context(), i.Token("ada", nil)); err != nil {
			t.Errorf("a known key: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := v.Verify(t.Context(), i.Token("ada", nil)); err != nil {
			t.Errorf("a known key, an hour later: %v", err)
		}
		old := i.Keys()[0]
		i.Rotate()
		if _, err := v.Verify(t.Context(), i.Token("ada", nil)); !errors.Is(err, access.ErrIssuerAway) {
			t.Errorf("an unknown key: %v", err)
		}
		i.Down(false)
		time.Sleep(time.Minute)
		if _, err := v.Verify(t.Context(), i.Token("ada", nil)); err != nil {
			t.Errorf("it is back: %v", err)
		}
		refused(t, v, "the key before", old.Sign(i.Claims("ada", nil), nil), "no key")
	})
}

// Few requests wait for an issuer that does not answer, and for a bounded time.
func TestAnIssuerThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		hang := roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		v := newVerifier(t, i, func(c *oidc.Config) { c.Transport = hang })
		began := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		atOnce := 0
		for n := range 100 {
			wg.Go(func() {
				_, err := v.Verify(t.Context(), i.Token(fmt.Sprint(n), nil))
				if !errors.Is(err, access.ErrIssuerAway) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if time.Since(began) == 0 {
					atOnce++
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 15*time.Second || atOnce != 100-32 {
			t.Errorf("%d did not wait, and the others for %s", atOnce, took)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The answers of an issuer are bounded. They must name that issuer. The address of its keys must be
// one that keys may come from.
func TestAnswersOfAnIssuer(t *testing.T) {
	for name, c := range map[string]struct {
		discovery, keys string
		why             string
	}{
		"another issuer":    {`{"issuer":"https://evil.example","jwks_uri":"` + issuerURL + `/keys"}`, "", "did not match"},
		"keys over http":    {`{"issuer":"` + issuerURL + `","jwks_uri":"http://keys.example/keys"}`, "", "must be https"},
		"no keys":           {`{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/keys"}`, `{"keys":[]}`, "no key"},
		"secrets for keys":  {`{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/keys"}`, `{"keys":[{"kty":"oct","k":"AAAA","kid":"a"}]}`, "no key"},
		"an endless answer": {`{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/keys"}`, strings.Repeat(" ", 1<<20+1), "more than"},
		"no JSON":           {`<html>`, "", "issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := issuer.New(issuerURL)
				v := newVerifier(t, i, func(config *oidc.Config) {
					config.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
						body := c.discovery
						if r.URL.Path == "/keys" {
							body = c.keys
						}
						return &http.Response{
							StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
							Body: io.NopCloser(strings.NewReader(body)), Request: r,
						}, nil
					})
				})
				_, err := v.Verify(t.Context(), i.Token("ada", nil))
				if !errors.Is(err, access.ErrIssuerAway) || !strings.Contains(err.Error(), c.why) {
					t.Errorf("%v, want %q", err, c.why)
				}
			})
		})
	}
}

func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := issuer.New(issuerURL)
		admin := func(claim, value string) func(*oidc.Config) {
			return func(c *oidc.Config) { c.AdminClaim, c.AdminValue = claim, value }
		}
		for name, c := range map[string]struct {
			config func(*oidc.Config)
			claims map[string]any
			want   access.External
		}{
			"a text":         {admin("role", "boss"), map[string]any{"role": "boss"}, access.External{Admin: true}},
			"another text":   {admin("role", "boss"), map[string]any{"role": "bosses"}, access.External{}},
			"a list":         {admin("roles", "boss"), map[string]any{"roles": []any{"a", "boss"}}, access.External{Admin: true}},
			"no such":        {admin("roles", "boss"), map[string]any{"roles": []any{"a", 7, "bos"}}, access.External{}},
			"a truth":        {admin("admin", "true"), map[string]any{"admin": true}, access.External{Admin: true}},
			"no truth":       {admin("admin", "true"), map[string]any{"admin": false}, access.External{}},
			"missing":        {admin("admin", "true"), nil, access.External{}},
			"an object":      {admin("admin", "true"), map[string]any{"admin": map[string]any{"true": true}}, access.External{}},
			"deep":           {admin("realm.roles", "boss"), map[string]any{"realm": map[string]any{"roles": []any{"boss"}}}, access.External{Admin: true}},
			"a dotted name":  {admin("https://a.b/roles", "boss"), map[string]any{"https://a.b/roles": []any{"boss"}}, access.External{Admin: true}},
			"nobody":         {nil, map[string]any{"": "", "admin": true}, access.External{}},
			"another name":   {func(c *oidc.Config) { c.NameClaim = "nick" }, map[string]any{"nick": "A."}, access.External{Name: "A."}},
			"its absence":    {func(c *oidc.Config) { c.NameClaim = "nick" }, nil, access.External{Name: "-"}},
			"user name":      {nil, map[string]any{"name": "a\nb", "preferred_username": "ada"}, access.External{Name: "ada"}},
			"an address":     {nil, map[string]any{"name": nil, "email": "a@b.c"}, access.External{Name: "a@b.c"}},
			"no name at all": {nil, map[string]any{"name": nil}, access.External{Name: "-"}},
		} {
			v := newVerifier(t, i, c.config)
			who, err := v.Verify(t.Context(), i.Token("ada", c.claims))
			switch c.want.Name {
			case "":
				c.want.Name = "Name of ada"
			case "-":
				c.want.Name = ""
			}
			if err != nil || who.Admin != c.want.Admin || who.Name != c.want.Name || who.Subject != "ada" {
				t.Errorf("%s: %+v, %v", name, who, err)
			}
		}
		v := newVerifier(t, i, func(c *oidc.Config) { c.PrincipalClaim = "email" })
		for _, verified := range []any{nil, false, "true"} {
			refused(t, v, "an address that is not verified", i.Token("ada", map[string]any{
				"email": "a@b.c", "email_verified": verified,
			}), "not verified")
		}
		who, err := v.Verify(t.Context(), i.Token("ada", map[string]any{"email": "a@b.c", "email_verified": true}))
		if err != nil || who.Subject != "a@b.c" {
			t.Errorf("%+v, %v", who, err)
		}
		v = newVerifier(t, i, func(c *oidc.Config) { c.Clients = []string{"web", "phone"} })
		for claim, clients := range map[string][]string{"azp": {"web", issuer.Client}, "client_id": {"phone"}} {
			for _, client := range clients {
				if _, err := v.Verify(t.Context(), i.Token("ada", map[string]any{claim: client})); err != nil {
					t.Errorf("%s %s: %v", claim, client, err)
				}
			}
			refused(t, v, claim, i.Token("ada", map[string]any{claim: "another"}), "made for the client")
			refused(t, v, claim, i.Token("ada", map[string]any{claim: []any{"web"}}), "made for the client")
		}
	})
}

func TestURLs(t *testing.T) {
	for s, ok := range map[string]bool{
		"https://issuer.example": true, "https://issuer.example/realms/a": true, "http://127.0.0.1:1": true,
		"http://localhost": true, "http://[::1]:80/a": true,
		"http://issuer.example": false, "http://127.0.0.1.example": false, "ftp://a": false, "issuer": false, "": false,
		"https://u:p@issuer.example": false, "https://issuer.example#a": false, "https://" + strings.Repeat("a", 255): false,
		"http://localhost.example": false,
	} {
		if err := oidc.CheckURL(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
