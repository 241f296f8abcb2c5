package oidc

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/access"
	"sluice/catalog"
)

// maxText bounds a subject and a name in bytes.
const maxText = 255

// claims are what a token says.
type claims map[string]any

// lookup finds a claim. If none has just that name, dots lead into objects, as in
// realm_access.roles.
func (c claims) lookup(name string) any {
	if v, ok := c[name]; ok {
		return v
	}
	var at any = map[string]any(c)
	for part := range strings.SplitSeq(name, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[part]
	}
	return at
}

// text gives a claim that can be shown and stored: UTF-8 of 1 to maxText bytes without control
// characters.
func (c claims) text(name string) (string, bool) {
	s, ok := c.lookup(name).(string)
	ok = ok && s != "" && len(s) <= maxText && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
	return s, ok
}

// instant gives a claim that is a number of seconds since 1970, up to the year 9999. there says
// that the token has such a claim at all.
func (c claims) instant(name string) (t time.Time, there, ok bool) {
	v, there := c[name]
	n, ok := v.(float64)
	if ok = ok && n >= 0 && n < 253402300800; !ok {
		return t, there, false
	}
	whole, part := math.Modf(n)
	return time.Unix(int64(whole), int64(part*1e9)), there, true
}

// read gives what the claims of a token say, whose signature, issuer and audience are verified.
func (v *Verifier) read(c claims) (access.External, error) {
	who := access.External{Identity: catalog.Identity{Issuer: v.Issuer}}
	now := v.Clock.Now()
	end, _, ok := c.instant("exp")
	if !ok {
		return who, refusal("it does not say when it ends (exp)")
	}
	if who.Expires = end; !now.Before(end.Add(access.ClockSkew)) {
		return who, &access.RefusalError{Why: "it ended at " + end.UTC().Format(time.RFC3339), Usual: true}
	}
	for _, name := range []string{"nbf", "iat"} {
		begin, there, ok := c.instant(name)
		if there && !ok {
			return who, refusal("its %s is no time", name)
		}
		if begin.After(now.Add(access.ClockSkew)) {
			return who, refusal("it begins at %s (%s)", begin.UTC().Format(time.RFC3339), name)
		}
	}
	if err := v.checkClient(c); err != nil {
		return who, err
	}
	if who.Subject, ok = c.text(v.PrincipalClaim); !ok {
		return who, refusal("its claim %q, which names the principal, is no text of 1 to %d bytes without control "+
			"characters", v.PrincipalClaim, maxText)
	}
	// A user may write any address into a profile. Only a verified one is the user's own.
	if verified, _ := c["email_verified"].(bool); v.PrincipalClaim == "email" && !verified {
		return who, refusal("its email is not verified (email_verified)")
	}
	who.Name = v.name(c)
	who.Admin = v.AdminClaim != "" && has(c.lookup(v.AdminClaim), v.AdminValue)
	return who, nil
}

// checkClient compares the client that the token was made for, where the token names one.
func (v *Verifier) checkClient(c claims) error {
	if len(v.Clients) == 0 {
		return nil
	}
	for _, name := range []string{"azp", "client_id"} {
		claim, there := c[name]
		client, _ := claim.(string)
		if there && client != v.Audience && !slices.Contains(v.Clients, client) {
			return refusal("it was made for the client %.80q (%s)", client, name)
		}
	}
	return nil
}

// name gives a name for people; empty: there is none.
func (v *Verifier) name(c claims) string {
	names := []string{"name", "preferred_username", "email"}
	if v.NameClaim != "" {
		names = []string{v.NameClaim}
	}
	for _, name := range names {
		if s, ok := c.text(name); ok {
			return s
		}
	}
	return ""
}

// has reports whether a claim is the value, or a list with it. A truth value is true or false.
func has(claim any, value string) bool {
	switch claim := claim.(type) {
	case string:
		return claim == value
	case bool:
		return claim && value == "true" || !claim && value == "false"
	case []any:
		return slices.ContainsFunc(claim, func(one any) bool {
			s, ok := one.(string)
			return ok && s == value
		})
	}
	return false
}
