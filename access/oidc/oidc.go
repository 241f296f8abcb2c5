// Package oidc verifies the tokens of one OpenID Connect issuer: it is the access.Issuer of a
// server. It owns the issuer's keys, how they are fetched and cached, and what a token's claims
// mean. It decides no access, and keeps nothing on a disk.
//
// A token is a JWT (RFC 7519), an access token (RFC 9068) or an ID token (OpenID Connect Core §2),
// that is signed with a public-key algorithm and made for the server's audience.
package oidc

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"sluice/access"
)

// Config says whom a Verifier trusts.
type Config struct {
	// Issuer is the issuer's URL, exactly as it stands in its tokens. Audience must be among the
	// audiences of a token.
	Issuer, Audience string
	// Clients are the clients whose tokens are taken: one of them, or Audience, must be the token's
	// azp, or its client_id, where it has one. Empty: any.
	Clients []string
	// PrincipalClaim names the claim that says who the bearer is. It must never be given to
	// somebody else.
	PrincipalClaim string
	// NameClaim names the claim with a name for people; empty: name, preferred_username, email.
	NameClaim string
	// AdminClaim and AdminValue say which claim makes an admin; empty: none does.
	AdminClaim, AdminValue string

	Clock access.Clock
	Log   *slog.Logger
	// Transport carries the requests to the issuer; nil: a new one of net/http.
	Transport http.RoundTripper
}

// Verifier verifies tokens of one issuer. It is safe for concurrent use. Without Run it fetches the
// issuer's keys when the first token needs one, and never again until a token names another key.
type Verifier struct {
	Config
	keys     *keys
	verified cache
}

var _ access.Issuer = (*Verifier)(nil)

// New makes a Verifier. It makes no request. An error says which part of the configuration is
// wrong.
func New(c Config) (*Verifier, error) {
	if err := CheckURL(c.Issuer); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	v := &Verifier{Config: c}
	ctx, stop := context.WithCancel(context.Background())
	v.keys = &keys{
		ctx: ctx, stop: stop,
		issuer: c.Issuer, client: NewHTTPClient(c.Transport), clock: c.Clock, log: c.Log, changed: v.verified.clear,
	}
	return v, nil
}

// signatures lists the algorithms that are taken: those with public keys. With any other, whoever
// knows the public key could sign.
var signatures = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// types lists what the head of a token may say that it is, in lower case. Other JWTs of the issuer,
// such as logout tokens, are no proof of who the bearer is.
var types = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// Verify gives what the token says once all of it has been verified.
func (v *Verifier) Verify(ctx context.Context, raw string) (access.External, error) {
	id := sha256.Sum256([]byte(raw))
	who, epoch, ok := v.verified.get(id, v.Clock.Now())
	if ok {
		return who, nil
	}
	signed, err := jose.ParseSignedCompact(raw, signatures)
	if err != nil {
		return who, refusal("it is malformed, or signed in a way that is not taken: %.200s", err)
	}
	if len(signed.Signatures) != 1 {
		return who, refusal("it has %d signatures", len(signed.Signatures))
	}
	head := signed.Signatures[0].Protected
	if typ, _ := head.ExtraHeaders[jose.HeaderType].(string); !slices.Contains(types, strings.ToLower(typ)) {
		return who, refusal("it is a %.60q, and no access token", typ)
	}
	key, err := v.keys.find(ctx, head.KeyID, head.Algorithm)
	if err != nil {
		return who, err
	}
	token, err := oidc.NewVerifier(v.Issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key}}, &oidc.Config{
		ClientID: v.Audience, SupportedSigningAlgs: []string{head.Algorithm}, SkipExpiryCheck: true,
	}).Verify(ctx, raw)
	if err != nil {
		return who, refusal("%.300s", err)
	}
	claims := claims{}
	if err := token.Claims(&claims); err != nil {
		return who, refusal("its claims: %.200s", err)
	}
	if who, err = v.read(claims); err != nil {
		return access.External{}, err
	}
	v.verified.put(id, who, epoch)
	return who, nil
}

// refreshEvery is how long a key that the issuer has withdrawn may still be taken, while the issuer
// can be reached. retryFirst and retryLast are the shortest and the longest pause after a failure.
const (
	refreshEvery          = 15 * time.Minute
	retryFirst, retryLast = 5 * time.Second, time.Minute
)

// Run fetches the issuer's keys at once and again from time to time, until ctx ends. While the
// issuer can't be reached, the known keys go on. When Run has returned, no keys are fetched any
// more.
func (v *Verifier) Run(ctx context.Context) {
	defer v.keys.end()
	pause := retryFirst
	for {
		wait := refreshEvery
		if err := v.keys.fetch(ctx); err != nil {
			wait, pause = pause, min(2*pause, retryLast)
		} else {
			pause = retryFirst
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// refusal makes the error of a token that is not taken.
func refusal(format string, args ...any) error {
	return &access.RefusalError{Why: fmt.Sprintf(format, args...)}
}

// errAway adds to access.ErrIssuerAway why the issuer could not be reached.
func errAway(err error) error { return fmt.Errorf("%w: %w", access.ErrIssuerAway, err) }
