package api

import (
	"net/url"
	"slices"
	"strings"

	"sluice/access"
)

// errTokenInURL: the request's URL has a token. It is in logs and histories by now.
var errTokenInURL = &refusal{
	code: CodeUnauthenticated,
	detail: "a token in a URL is not taken. URLs are kept in logs and histories, so others may know it by now: " +
		"revoke it, make another one, and send that in the header: Authorization: Bearer TOKEN",
}

// tokenParams are the query parameters in which other services take a token. No route has one of
// these.
var tokenParams = []string{
	"access_token", "api_key", "apikey", "auth", "auth_token", "authorization", "bearer", "secret", "token",
}

// checkURL refuses a URL with a token in it: a parameter that is named so, or anything that has the
// form of a secret, valid or not. The secret of a read link is meant to be in a URL: it may be the
// part of the path in which links have it.
func (s *Server) checkURL(c *call) error {
	if !hasToken(c.req.URL) {
		return nil
	}
	return s.noteFailure(c, errTokenInURL)
}

func hasToken(u *url.URL) bool {
	path := u.Path
	if link, ok := strings.CutPrefix(path, linkPath); ok {
		_, path, _ = strings.Cut(link, "/")
	}
	if access.HasSecret(path) {
		return true
	}
	for rest := u.RawQuery; rest != ""; {
		var pair string
		if i := strings.IndexAny(rest, "&;"); i >= 0 {
			pair, rest = rest[:i], rest[i+1:]
		} else {
			pair, rest = rest, ""
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if access.HasSecret(name) || access.HasSecret(value) ||
			value != "" && slices.Contains(tokenParams, strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// unescape decodes a part of a query. A malformed one stays as it is.
func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
