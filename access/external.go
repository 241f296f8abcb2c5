package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/catalog"
)

// ClockSkew is how far the clocks of the server and of an issuer may be apart. A token of an issuer
// is taken so much before its beginning and after its end.
const ClockSkew = time.Minute

// MaxExternalToken is how many bytes a token of an issuer may have.
const MaxExternalToken = 8 << 10

// ErrIssuerAway: the issuer's keys can't be had now, and without them the token can't be judged. It
// is worth another try in a few seconds.
var ErrIssuerAway = errors.New("the issuer of the token can't be reached")

// RefusalError says why a token of an issuer is not taken. It is an ErrUnauthenticated. Why is for
// the log: a client is told nothing of it.
type RefusalError struct {
	Why string
	// Usual: this happens to honest clients, such as the end of a token.
	Usual bool
}

func (e *RefusalError) Error() string { return "a token of an issuer is refused: " + e.Why }

// Unwrap makes errors.Is(err, ErrUnauthenticated) true.
func (e *RefusalError) Unwrap() error { return ErrUnauthenticated }

// External is what a token of an issuer says of its bearer.
type External struct {
	catalog.Identity
	Name    string    // for people; may be empty
	Admin   bool      // the bearer is an admin as long as this token lives
	Expires time.Time // as the token says
}

// Issuer verifies tokens of the issuer that the server trusts. It is safe for concurrent use.
type Issuer interface {
	// Verify gives what a token says once all of it has been verified. raw has the form of a JWT
	// and at most MaxExternalToken bytes. The errors are *RefusalError and ErrIssuerAway.
	Verify(ctx context.Context, raw string) (External, error)
}

// SetIssuer makes the service take tokens of an issuer too. It comes before the first request.
func (s *Service) SetIssuer(i Issuer) { s.issuer = i }

// isJWT reports whether a secret has the form of a JWT: three parts in base64url. No secret of this
// server has.
func isJWT(secret string) bool {
	parts := strings.Split(secret, ".")
	if len(parts) != 3 {
		return false
	}
	for _, part := range parts {
		if strings.IndexFunc(part, notBase64URL) >= 0 {
			return false
		}
	}
	return parts[0] != "" && parts[1] != ""
}

func notBase64URL(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// authenticateExternal gives the caller of a token of the issuer. The first token of an identity
// makes its principal, which has no role. Of two that come at once, both get the same one.
func (s *Service) authenticateExternal(ctx context.Context, raw string) (c Caller, err error) {
	if len(raw) > MaxExternalToken {
		return c, &RefusalError{Why: fmt.Sprintf("it has %d bytes, and %d are allowed", len(raw), MaxExternalToken)}
	}
	who, err := s.issuer.Verify(ctx, raw)
	if err != nil {
		return c, err
	}
	c = Caller{External: true, Expires: who.Expires, AdminByToken: who.Admin}
	found := false
	err = s.store.View(ctx, func(r catalog.Reader) error {
		p, ok, err := catalog.FindPrincipal(r, who.Identity)
		if err != nil || !ok {
			return err
		}
		found, c.Principal = true, p.ID
		c.Admin, err = reauthenticate(r, c, s.clock.Now())
		return err
	})
	if err != nil || found {
		return c, err
	}
	fresh, err := s.principal(who.Name, false)
	if err != nil {
		return c, err
	}
	if fresh.Identity = who.Identity; fresh.Name == "" {
		fresh.Name = fresh.ID
	}
	return c, s.store.Update(ctx, func(tx catalog.Tx) error {
		p, err := catalog.PrincipalOf(tx, fresh)
		if err != nil {
			return err
		}
		c.Principal = p.ID
		c.Admin, err = reauthenticate(tx, c, s.clock.Now())
		return err
	})
}

// reauthenticateExternal is reauthenticate for the caller of a token of the issuer.
func reauthenticateExternal(r catalog.Reader, c Caller, now time.Time) (admin bool, err error) {
	if !now.Before(c.end()) {
		return false, &RefusalError{Why: "it ended at " + c.Expires.UTC().Format(time.RFC3339), Usual: true}
	}
	p, err := catalog.Principals.Get(r, catalog.Name(c.Principal))
	if errors.Is(err, catalog.ErrNotFound) {
		return false, ErrUnauthenticated
	}
	return p.Admin || c.AdminByToken, err
}

// end is when a token of the issuer is not taken any more.
func (c Caller) end() time.Time { return c.Expires.Add(ClockSkew) }
