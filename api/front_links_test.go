package api_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// The secret of a read link may be in a URL, in its one place. Anywhere else it is burnt.
func TestOnlyALinkMayBeInAURL(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	m := w.store("a", "text/plain", []byte("abc"))
	link, err := w.client.CreateLink(ctx, api.CreateLinkRequest{MemoryID: m.MemoryID, ExpiresInSeconds: 60})
	w.check(err)
	for _, method := range []string{"GET", "HEAD"} {
		if a := w.do(method, link.URL, "", "Authorization", ""); a.StatusCode != 200 {
			t.Errorf("%s: %d %s", method, a.StatusCode, a.body)
		}
	}
	secret := strings.TrimPrefix(link.URL, "/r/")
	for _, path := range []string{
		link.URL + "/" + secret, link.URL + "?x=" + secret, link.URL + "?token=x", "/r/x/" + secret, "/R/" + secret,
		"/rr/" + secret, "/r//" + secret, "/r/x%2F" + secret, "/v1/r/" + secret,
	} {
		a := w.do("GET", path, "", "Authorization", "")
		w.problem(a, api.CodeUnauthenticated)
		if !strings.Contains(a.problem.Detail, "revoke it") {
			t.Errorf("%s: %s", path, a.problem.Detail)
		}
	}
}

// Who guesses links is slowed down like one who guesses tokens. A link that is valid is read all
// the same, and one that was good until now counts as no guess.
func TestTheRateOfFailedLinks(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		c.FailedAuthRate, c.Clock = 1, &steps{from: time.Now()}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	m := w.store("a", "text/plain", []byte("abc"))
	make := func(downloads *int64) string {
		link, err := w.client.CreateLink(t.Context(), api.CreateLinkRequest{
			MemoryID: m.MemoryID, ExpiresInSeconds: 60, Downloads: downloads,
		})
		w.check(err)
		return link.URL
	}
	one := int64(1)
	good, once := make(nil), make(&one)
	read := func(url, address string) answer {
		return w.do("GET", url, "", "X-Forwarded-For", address, "Authorization", "")
	}
	for i := range 10 {
		a := read(once, "192.0.2.1")
		if i == 0 && a.StatusCode != 200 {
			t.Fatal(a.StatusCode)
		}
		if i > 0 {
			w.problem(a, api.CodeNotFound)
		}
	}
	for range 5 {
		w.problem(read("/r/"+other(good, len(good)-1)[len("/r/"):], "192.0.2.1"), api.CodeNotFound)
	}
	w.waits(read("/r/x", "192.0.2.1"), time.Second)
	w.problem(read("/r/x", "192.0.2.2"), api.CodeNotFound)
	if a := read(good, "192.0.2.1"); a.StatusCode != 200 {
		t.Errorf("a valid link: %d", a.StatusCode)
	}
}

// The audit log has the address of the client as a trusted proxy says it, and has each refusal of a
// URL with a token and of a link.
func TestTheFrontIsAudited(t *testing.T) {
	w, records := auditedWorld(t, func(c *api.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	w.problem(w.do("GET", "/v1/whoami?token="+w.secret, "", "X-Forwarded-For", "192.0.2.1"), api.CodeUnauthenticated)
	w.problem(w.do("GET", "/r/x", "", "X-Forwarded-For", "192.0.2.2"), api.CodeNotFound)
	if a := w.do("GET", "/v1/whoami", "", "X-Forwarded-For", "192.0.2.3"); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	all := records()
	for _, want := range []struct{ client, event, action, code string }{
		{"192.0.2.1", "refused", "", "Unauthenticated"},
		{"192.0.2.2", "refused", "read_link", "NotFound"},
		{"192.0.2.3", "sign_in", "whoami", ""},
	} {
		r := only(t, all, want.client, func(r record) bool { return r.Client == want.client })
		if r.Event != want.event || r.Action != want.action || r.Code != want.code {
			t.Errorf("%+v, want %+v", r, want)
		}
	}
}
