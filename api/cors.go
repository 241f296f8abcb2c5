package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Cross-origin requests (CORS, the Fetch standard §3.2). A browser lets the page of another origin
// read an answer only if the answer names that origin. Which origins get that is configured, each
// by its whole name. Tokens are sent by the page itself, so no answer allows credentials of the
// browser's own.
//
// This is not github.com/rs/cors: its answers to methods that a path does not have (405) carry no
// headers, so a page could not read them; and the methods of each path are known to the route table
// alone.

// corsMaxAge is how many seconds a browser may remember a preflight.
const corsMaxAge = "7200"

// conditionFields are the fields of a request for a content.
var conditionFields = []string{
	"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
}

// The fields that a page may send and read beside those that any page may. Nothing changes the
// lists.
var (
	corsRequestFields = []string{strings.Join(
		slices.Concat([]string{"Authorization", "Content-Type"}, digestFields, conditionFields), ", ",
	)}
	corsAnswerFields = []string{strings.Join([]string{
		"Accept-Ranges", "Allow", "Content-Disposition", "Content-Length", "Content-Range", "ETag", "Repr-Digest",
		"Retry-After", receivedHeader, "WWW-Authenticate", "X-Request-Id",
	}, ", ")}
	varyOrigin = []string{"Origin"}
)

// setCORS sets what every answer has, refusals included.
func (s *Server) setCORS(h http.Header, r *http.Request) {
	if len(s.cfg.Origins) == 0 {
		return
	}
	h["Vary"] = varyOrigin
	if origin := r.Header["Origin"]; len(origin) == 1 && slices.Contains(s.cfg.Origins, origin[0]) {
		h["Access-Control-Allow-Origin"] = origin
		h["Access-Control-Expose-Headers"] = corsAnswerFields
	}
}

// setPreflight sets what the answer to a preflight has beside that. methods are those of the path.
func setPreflight(h http.Header, r *http.Request, methods string) {
	if h["Access-Control-Allow-Origin"] == nil || r.Header["Access-Control-Request-Method"] == nil {
		return
	}
	h.Set("Access-Control-Allow-Methods", methods)
	h["Access-Control-Allow-Headers"] = corsRequestFields
	h.Set("Access-Control-Max-Age", corsMaxAge)
}

// ParseOrigin reads an origin, scheme://host[:port], and returns it as browsers write it: in lower
// case, and without a port that the scheme has anyway. It refuses null and all that stands for more
// than one origin.
func ParseOrigin(s string) (string, error) {
	fail := func(why string) (string, error) { return "", fmt.Errorf("%q can't be an origin: %s", s, why) }
	if strings.Contains(s, "*") {
		return fail("each origin must be named in full, without *")
	}
	if strings.EqualFold(s, "null") {
		return fail("null is the origin of any local file and of any sandboxed frame")
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || !strings.EqualFold(s, u.Scheme+"://"+u.Host) {
		return fail("it must be scheme://host or scheme://host:port alone, like https://app.example.com, " +
			"with no / behind")
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if n, ok := decimal(port); strings.HasSuffix(u.Host, ":") || port != "" && (!ok || n < 1 || n > 65535) {
		return fail("the port must be 1 to 65535, or absent")
	}
	switch {
	case strings.HasPrefix(u.Host, "["):
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return fail("in brackets there must be an address of IPv6")
		}
		host = "[" + addr.String() + "]"
	case strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "":
		return fail("the host must be written as browsers send it, in ASCII (xn--…)")
	}
	scheme := strings.ToLower(u.Scheme)
	if port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return scheme + "://" + host, nil
	}
	return scheme + "://" + host + ":" + port, nil
}
