package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/access"
	"sluice/api"
	"sluice/memories"
)

// steps is a clock that stands still between the steps of a test.
type steps struct {
	from time.Time
	by   atomic.Int64
}

func (s *steps) Now() time.Time { return s.from.Add(time.Duration(s.by.Load())) }

func (s *steps) pass(d time.Duration) { s.by.Add(int64(d)) }

// waits checks that a refusal says when to come again, to the millisecond.
func (w *world) waits(a answer, d time.Duration) {
	w.t.Helper()
	w.problem(a, api.CodeResourceExhausted)
	ms := d.Milliseconds()
	if got := a.problem.RetryAfterMS; got < ms || got > ms+1 {
		w.t.Errorf("retry_after_ms %d, want %d", got, ms)
	}
	if got := a.Header.Get("Retry-After"); got != strconv.FormatInt((ms+999)/1000, 10) {
		w.t.Errorf("Retry-After %s, want %d s", got, (ms+999)/1000)
	}
}

// A principal has so many requests in a second, with all of its tokens. It is told when the next
// one is taken, and that is true.
func TestTheRateOfAPrincipal(t *testing.T) {
	now := &steps{from: time.Now()}
	w := newWorld(t, func(c *api.Config) { c.RequestRate, c.Clock = 2, now })
	_, second, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{Principal: w.me.Principal})
	w.check(err)
	ask := func(secret string) answer {
		return w.do("GET", "/v1/upload_config", "", "Authorization", "Bearer "+secret)
	}
	for i := range 4 {
		if a := ask([]string{w.secret, second}[i%2]); a.StatusCode != 200 ||
			!strings.Contains(string(a.body), `"requests_per_second":2`) {
			t.Fatalf("%d: %d %s", i, a.StatusCode, a.body)
		}
	}
	w.waits(ask(w.secret), 500*time.Millisecond)
	w.waits(ask(second), 500*time.Millisecond)
	w.waits(w.do("PUT", creates+"/a", "x"), 500*time.Millisecond)
	if a := ask(w.foreign); a.StatusCode != 200 {
		t.Errorf("another principal: %d", a.StatusCode)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		if a := w.do("GET", path, ""); a.StatusCode != 200 {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	now.pass(499 * time.Millisecond)
	w.waits(ask(w.secret), time.Millisecond)
	now.pass(time.Millisecond)
	if a := ask(second); a.StatusCode != 200 {
		t.Errorf("after the wait: %d", a.StatusCode)
	}
	w.waits(ask(w.secret), 500*time.Millisecond)
	if got := w.refusedTotal(); got["request_rate"] != "5" || got["failed_auth_rate"] != "0" {
		t.Errorf("%v", got)
	}
	now.pass(time.Second)
	me, err := w.client.WhoAmI(t.Context())
	if err != nil || me.RequestsPerSecond != 2 {
		t.Errorf("%+v %v", me, err)
	}
}

// Requests without a valid token are bounded for each address. Valid tokens are taken from there
// all the same.
func TestTheRateOfFailuresOfAnAddress(t *testing.T) {
	now := &steps{from: time.Now()}
	w := newWorld(t, func(c *api.Config) {
		c.FailedAuthRate, c.Clock = 1, now
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	revoked, gone, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{Principal: w.me.Principal})
	w.check(err)
	w.check(w.access.RevokeToken(t.Context(), w.me, revoked.ID))
	ask := func(address, authorization string) answer {
		return w.do("GET", "/v1/upload_config", "", "X-Forwarded-For", address, "Authorization", authorization)
	}
	bad := []string{"", "Bearer x", "Bearer " + gone, "Basic eDp4", "Bearer " + w.secret + "a"}
	for _, authorization := range bad {
		w.problem(ask("192.0.2.1", authorization), api.CodeUnauthenticated)
	}
	for _, authorization := range bad {
		w.waits(ask("192.0.2.1", authorization), time.Second)
	}
	w.waits(w.do("GET", "/v1/no?token=x", "", "X-Forwarded-For", "9.9.9.9, 192.0.2.1"), time.Second)
	if a := ask("192.0.2.1", "Bearer "+w.secret); a.StatusCode != 200 {
		t.Errorf("a valid token: %d", a.StatusCode)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		if a := w.do("GET", path, "", "X-Forwarded-For", "192.0.2.1"); a.StatusCode != 200 {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	if a := w.do("GET", "/healthz?token=x", "", "X-Forwarded-For", "192.0.2.1"); a.StatusCode != 401 {
		t.Errorf("health: %d", a.StatusCode)
	}
	for _, address := range []string{"192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"} {
		w.problem(ask(address, ""), api.CodeUnauthenticated)
	}
	for i := range 5 {
		a := ask(fmt.Sprintf("2001:db8::%d", i+2), "")
		if i < 4 {
			w.problem(a, api.CodeUnauthenticated)
		} else {
			w.waits(a, time.Second)
		}
	}
	now.pass(time.Second)
	w.problem(ask("192.0.2.1", ""), api.CodeUnauthenticated)
	w.waits(ask("192.0.2.1", ""), time.Second)
	if got := w.refusedTotal(); got["failed_auth_rate"] != "8" || got["request_rate"] != "0" {
		t.Errorf("%v", got)
	}
}

// The log has the address of the client, as trusted proxies say it. No other fields are believed.
func TestTheLogHasTheAddress(t *testing.T) {
	var out bytes.Buffer
	logged := func(c *api.Config) {
		c.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, row := range []struct{ proxy, want string }{
		{"192.0.2.0/24", "127.0.0.1"}, {"127.0.0.0/8", "198.51.100.7"},
	} {
		out.Reset()
		w := newWorld(t, func(c *api.Config) {
			logged(c)
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(row.proxy)}
		})
		w.do("GET", "/v1/whoami", "", "X-Forwarded-For", "198.51.100.7", "X-Real-Ip", "9.9.9.9", "Client-Ip", "9.9.9.9")
		w.check(w.stop())
		if !strings.Contains(out.String(), " client="+row.want+" ") || strings.Contains(out.String(), "9.9.9.9") {
			t.Errorf("no %s: %s", row.want, out.String())
		}
	}
}

// Settings that would let in more than they say are refused.
func TestALaxFrontIsRefused(t *testing.T) {
	for name, change := range map[string]func(*api.Config){
		"any origin":    func(c *api.Config) { c.Origins = []string{"*"} },
		"null":          func(c *api.Config) { c.Origins = []string{"null"} },
		"upper case":    func(c *api.Config) { c.Origins = []string{"https://A.example"} },
		"any proxy":     func(c *api.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::/0")} },
		"a loose proxy": func(c *api.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
		"no rate":       func(c *api.Config) { c.RequestRate = -1 },
		"every rate":    func(c *api.Config) { c.FailedAuthRate = api.MaxRate + 1 },
	} {
		w := newWorld(t, nil)
		cfg := api.Config{
			Uploads: w.uploads, Sessions: w.sessions, Access: w.access, Memories: memories.New(memories.Config{Catalog: w.catalog, Content: w.blobs}),
			Expire: w.keeper.Tick, EndOwner: w.keeper.EndOwner,
		}
		if _, err := api.New(cfg); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if _, err := api.New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

const listed = "https://app.example.com"

// granted returns the origin that an answer lets in, and fails if it says more than it should.
func (w *world) granted(a answer) string {
	w.t.Helper()
	h := a.Header
	if !slices.Equal(h.Values("Vary"), []string{"Origin"}) {
		w.t.Errorf("Vary %q", h.Values("Vary"))
	}
	if h.Get("Access-Control-Allow-Credentials") != "" || len(h.Values("Access-Control-Allow-Origin")) > 1 {
		w.t.Errorf("%v", h)
	}
	origin := h.Get("Access-Control-Allow-Origin")
	if (origin == "") != (h.Get("Access-Control-Expose-Headers") == "") {
		w.t.Errorf("%q %v", origin, h)
	}
	return origin
}

// The pages of listed origins, and of no others, may read all answers.
func TestOnlyListedOriginsReadAnswers(t *testing.T) {
	now := &steps{from: time.Now()}
	w := newWorld(t, func(c *api.Config) {
		c.Origins, c.RequestRate, c.Clock = []string{listed, "http://localhost:3000"}, 100, now
	})
	m := w.store("a", "", []byte("a"))
	for _, row := range []struct {
		status             int
		method, path, body string
		headers            []string
	}{
		{200, "GET", "/v1/whoami", "", nil},
		{200, "GET", m.ContentURL, "", nil},
		{206, "GET", m.ContentURL, "", []string{"Range", "bytes=0-0"}},
		{304, "GET", m.ContentURL, "", []string{"If-None-Match", "*"}},
		{416, "GET", m.ContentURL, "", []string{"Range", "bytes=9-"}},
		{412, "GET", m.ContentURL, "", []string{"If-Match", `"x"`}},
		{200, "HEAD", m.ContentURL, "", nil},
		{200, "GET", "/healthz", "", nil},
		{400, "GET", "/v1/whoami?x=1", "", nil},
		{401, "GET", "/v1/whoami", "", []string{"Authorization", ""}},
		{401, "GET", "/v1/whoami?token=x", "", nil},
		{403, "GET", "/v1/sessions_stats", "", []string{"Authorization", "Bearer " + w.foreign}},
		{404, "GET", "/v1/nothing", "", nil},
		{404, "GET", "/v1//whoami", "", nil},
		{404, "GET", "/v1/uploads_status/1", "", nil},
		{405, "DELETE", "/v1/whoami", "", nil},
		{413, "POST", begins, beginBody(strings.Repeat("a", 2<<20), 1, ""), nil},
		{415, "PUT", creates + "/a", "x", []string{"Content-Encoding", "gzip"}},
		{204, "OPTIONS", "/v1/whoami", "", nil},
	} {
		ask := func(origin ...string) answer {
			headers := row.headers
			for _, o := range origin {
				headers = append(headers, "Origin", o)
			}
			now.pass(time.Second)
			a := w.do(row.method, row.path, row.body, headers...)
			if a.StatusCode != row.status {
				t.Fatalf("%s %s: %d %s", row.method, row.path, a.StatusCode, a.body)
			}
			return a
		}
		for _, origin := range []string{listed, "http://localhost:3000"} {
			if got := w.granted(ask(origin)); got != origin {
				t.Errorf("%s %s of %s: %q", row.method, row.path, origin, got)
			}
		}
		for _, origin := range []string{
			"null", "*", "https://app.example.com.evil.example", "https://evilapp.example.com", "https://app.example.co",
			"http://app.example.com", "https://app.example.com:8443", "https://app.example.com/", "https://example.com",
			"https://x.app.example.com", "HTTPS://APP.EXAMPLE.COM", "http://localhost", "http://localhost:30000",
			listed + " ", listed + ", " + listed, "file://",
		} {
			if got := w.granted(ask(origin)); got != "" && origin != listed+" " { // HTTP takes spaces away
				t.Errorf("%s %s of %s: %q", row.method, row.path, origin, got)
			}
		}
		for _, origins := range [][]string{nil, {listed, listed}, {listed, "https://evil.example"}} {
			if got := w.granted(ask(origins...)); got != "" {
				t.Errorf("%s %s of %q: %q", row.method, row.path, origins, got)
			}
		}
	}
	// Too many requests are told to a page too.
	for range 300 {
		if a := w.do("GET", "/v1/whoami", "", "Origin", listed); a.StatusCode == 429 {
			if w.granted(a) != listed {
				t.Errorf("429: %v", a.Header)
			}
			return
		}
	}
	t.Error("no request was refused")
}

// exposed are the fields that any page may read (the Fetch standard §2.2.2), and those that are
// for the browser or the connection alone.
var exposed = []string{
	"Cache-Control", "Content-Language", "Content-Length", "Content-Type", "Expires", "Last-Modified", "Pragma",
	"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Connection", "Content-Security-Policy",
	"Cross-Origin-Resource-Policy", "Date", "Referrer-Policy", "Vary", "X-Content-Type-Options",
}

// A preflight is answered without a token: for listed origins with the methods of the path and the
// fields of all requests, for others with nothing.
func TestPreflights(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Origins = []string{listed} })
	for path, item := range w.documented() {
		preflight := func(origin string) answer {
			a := w.do("OPTIONS", path, "", "Authorization", "", "Origin", origin,
				"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization,range")
			if a.StatusCode != 204 || len(a.body) > 0 {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
			}
			return a
		}
		a := preflight(listed)
		if w.granted(a) != listed || a.Header.Get("Access-Control-Max-Age") != "7200" {
			t.Errorf("%s: %v", path, a.Header)
		}
		for method, op := range item {
			may := strings.Split(a.Header.Get("Access-Control-Allow-Methods"), ", ")
			if !slices.Contains(may, strings.ToUpper(method)) || slices.Contains(may, "DELETE") {
				t.Errorf("%s: %q", path, may)
			}
			may = strings.Split(strings.ToLower(a.Header.Get("Access-Control-Allow-Headers")), ", ")
			for _, p := range op.(map[string]any)["parameters"].([]any) {
				p := p.(map[string]any)
				if name := strings.ToLower(p["name"].(string)); p["in"] == "header" && !slices.Contains(may, name) {
					t.Errorf("%s takes %s, and no page may send it", path, name)
				}
			}
			if !slices.Contains(may, "authorization") || !slices.Contains(may, "content-type") {
				t.Errorf("%s: %q", path, may)
			}
		}
		for _, origin := range []string{"null", "https://evil.example", listed + ".evil.example"} {
			a := preflight(origin)
			for name := range a.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s of %s: %s", path, origin, name)
				}
			}
			w.granted(a)
		}
	}
	// A page reads all that a program reads.
	m := w.store("a", "text/plain", []byte("abc"))
	id := w.begin(2 * chunk).SessionID
	for _, a := range []answer{
		w.do("GET", m.ContentURL, "", "Origin", listed, "Range", "bytes=0-0"),
		w.do("PUT", rangePath(id, 0), string(random(chunk)), "Origin", listed),
		w.do("GET", "/v1/whoami", "", "Origin", listed, "Authorization", ""),
		w.do("PUT", "/v1/whoami", "", "Origin", listed),
	} {
		may := strings.Split(a.Header.Get("Access-Control-Expose-Headers"), ", ")
		for name := range a.Header {
			if !slices.Contains(exposed, name) && !slices.ContainsFunc(may, func(s string) bool {
				return strings.EqualFold(s, name)
			}) {
				t.Errorf("no page may read %s", name)
			}
		}
	}
}

// Without a listed origin no answer says anything of origins.
func TestOriginsAreClosed(t *testing.T) {
	w := newWorld(t, nil)
	for _, a := range []answer{
		w.do("GET", "/v1/whoami", "", "Origin", listed),
		w.do("OPTIONS", "/v1/whoami", "", "Origin", listed, "Access-Control-Request-Method", "GET"),
		w.do("OPTIONS", "/v1/whoami", "", "Origin", "null", "Access-Control-Request-Method", "GET"),
	} {
		for name := range a.Header {
			if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s", name)
			}
		}
	}
}

// A token in a URL is refused and said to be burnt, wherever it is. No answer and no line of the
// log repeats it.
func TestATokenInAURLIsBurnt(t *testing.T) {
	var out bytes.Buffer
	w := newWorld(t, func(c *api.Config) {
		c.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	secret := strings.TrimPrefix(w.secret, "slc_")
	escaped := "%73lc%5F" + secret
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
	paths := []string{
		"/v1/upload_config?" + w.secret, "/v1/upload_config?" + w.secret + "=x", "/v1/upload_config?x=" + escaped,
		"/v1/memories_list?capsule_id=" + w.secret, "/v1/memories_list?limit=1;x=" + w.secret,
		"/v1/memories_list?limit=1&cursor=x" + w.secret + "y", "/v1/upload_config?%zz=" + w.secret,
		"/v1/memories_list?name=" + other(w.secret, 9), "/v1/capsules_read/" + w.secret, "/v1/capsules_read/" + escaped,
		"/v1/uploads_status/" + w.secret, "/v1/" + w.secret, "/" + w.secret + "/", "//" + w.secret,
		"/healthz?" + w.secret,
		"/v1/memories_list?name=" + jwt, "/v1/capsules_read/" + jwt,
		"/readyz?token=x", "/openapi.json?token=x", "/nothing?token=x",
	}
	for _, name := range []string{
		"token", "access_token", "auth", "Authorization", "api_key", "apikey", "auth_token", "bearer", "secret", "TOKEN",
		"%74oken",
	} {
		paths = append(paths, "/v1/upload_config?"+name+"=x", "/v1/upload_config?limit=1&"+name+"="+w.secret)
	}
	before := w.look()
	for _, path := range paths {
		for _, authorization := range []string{"", "Bearer " + w.secret} {
			for _, method := range []string{"GET", "POST", "PUT", "OPTIONS"} {
				a := w.do(method, path, "", "Authorization", authorization)
				w.problem(a, api.CodeUnauthenticated)
				if !strings.Contains(a.problem.Detail, "revoke it") {
					t.Errorf("%s: %s", path, a.problem.Detail)
				}
				if strings.Contains(fmt.Sprint(a.Header)+string(a.body), secret) {
					t.Errorf("%s %s is repeated: %s", method, path, a.body)
				}
			}
		}
	}
	w.problem(w.do("PUT", creates+"/"+w.secret, "x"), api.CodeUnauthenticated)
	w.unchanged(before)
	for _, name := range []string{"slc_", "token", "slc_x", "eyJ.eyJ.x"} {
		if a := w.do("GET", "/v1/memories_list?name="+name, ""); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	w.check(w.stop())
	if strings.Contains(out.String(), secret) || strings.Contains(out.String(), other(w.secret, 9)) {
		t.Error("the log has the secret")
	}
}
