package api_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/api"
)

// Each attack on the front of the server has the answer that it is to have, changes nothing, and
// leaves a server that answers the next good request.
func TestAttacksOnTheFront(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Origins = []string{listed} })
	id, _ := w.partial()
	m := w.store("a", "text/plain", []byte("abc"))
	reads, err := w.client.CreateToken(t.Context(), api.CreateTokenRequest{ReadOnly: true})
	w.check(err)
	const auth = "Authorization"
	good := "Bearer " + w.secret
	foreign := "Bearer " + w.foreign
	abort := `{"session_id":"` + id + `"}`
	long := strings.Repeat("x", 1<<20)
	many := []string{}
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("X-%d", i), "x")
	}
	type attack struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     api.Code // "": no problem is answered
	}
	all := []attack{
		{"1 no token", "GET", "/v1/whoami", "", []string{auth, ""}, 401, api.CodeUnauthenticated},
		{"1 an empty token", "POST", aborts, abort, []string{auth, "Bearer "}, 401, api.CodeUnauthenticated},
		{"1 Basic", "POST", aborts, abort, []string{auth, "Basic " + w.secret}, 401, api.CodeUnauthenticated},
		{"2 one character more", "POST", aborts, abort, []string{auth, good + "a"}, 401, api.CodeUnauthenticated},
		{"2 another check sum", "POST", aborts, abort, []string{auth, "Bearer " + other(w.secret, len(w.secret)-1)}, 401, api.CodeUnauthenticated},
		{"4 in the query", "POST", aborts + "?token=" + w.secret, abort, []string{auth, ""}, 401, api.CodeUnauthenticated},
		{"4 in the query too", "POST", aborts + "?token=" + w.secret, abort, nil, 401, api.CodeUnauthenticated},
		{"5 two tokens", "POST", aborts, abort, []string{auth, good, auth, good}, 401, api.CodeUnauthenticated},
		{"5 a good one and a bad one", "POST", aborts, abort, []string{auth, good, auth, "Bearer x"}, 401, api.CodeUnauthenticated},
		{"6 a read-only token", "POST", aborts, abort, []string{auth, "Bearer " + reads.Token}, 403, api.CodeForbidden},
		{"9 another's session", "POST", aborts, abort, []string{auth, foreign}, 404, api.CodeNotFound},
		{"12 everybody's sessions", "POST", "/v1/sessions_clear_all", "", []string{auth, foreign}, 403, api.CodeForbidden},
		{"13 on a preflight", "OPTIONS", m.ContentURL, "", []string{auth, "", "X-HTTP-Method-Override", "DELETE"}, 204, ""},
		{"15 HEAD of an admin's", "HEAD", "/v1/sessions_stats", "", []string{auth, foreign}, 403, ""},
		{"15 HEAD of another's", "HEAD", m.ContentURL, "", []string{auth, foreign}, 404, ""},
		{"16 an escaped way", "GET", "/v1/x/..%2fsessions_list", "", nil, 404, api.CodeNotFound},
		{"17 more slashes", "GET", "//v1//", "", nil, 404, api.CodeNotFound},
		{"17 escaped dots", "GET", "/v1/%2e%2e/v1/whoami", "", nil, 404, api.CodeNotFound},
		{"17 a parameter of the path", "GET", "/v1/whoami;a", "", nil, 404, api.CodeNotFound},
		{"18 a capsule above", "GET", "/v1/memories_list?capsule_id=../x", "", nil, 400, api.CodeInvalidArgument},
		{"18 a capsule above is made", "POST", "/v1/capsules_create", `{"capsule_id":"../x"}`, nil, 400, api.CodeInvalidArgument},
		{"18 in upper case", "POST", "/v1/capsules_create", `{"capsule_id":"A"}`, nil, 400, api.CodeInvalidArgument},
		{"18 of 64 characters", "POST", "/v1/capsules_create", `{"capsule_id":"` + long[:64] + `"}`, nil, 400, api.CodeInvalidArgument},
		{"30 a long field", "GET", "/v1/whoami", "", []string{"X-Long", long}, 431, api.CodeTooLarge},
		{"30 many fields", "GET", "/v1/whoami", "", many, 431, api.CodeTooLarge},
		{"53 a large limit", "GET", "/v1/memories_list?limit=2147483648", "", nil, 400, api.CodeInvalidArgument},
		{"53 a forged cursor", "GET", "/v1/memories_list?cursor=x", "", nil, 400, api.CodeInvalidArgument},
		{"60 no origin", "GET", "/v1/whoami", "", []string{"Origin", "null"}, 200, ""},
		{"60 a longer origin", "GET", "/v1/whoami", "", []string{"Origin", listed + ".evil.example"}, 200, ""},
		{"metrics", "GET", "/metrics", "", nil, 404, api.CodeNotFound},
		{"metrics, unescaped", "GET", "/%6detrics", "", nil, 404, api.CodeNotFound},
	}
	for _, path := range []string{
		"/debug", "/debug/", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline",
		"/debug/pprof/profile?seconds=1", "/debug/pprof/trace", "/debug/pprof/symbol", "/debug/vars",
		"/v1/../debug/pprof/",
	} {
		for _, method := range []string{"GET", "POST"} {
			all = append(all, attack{"debug", method, path, "", nil, 404, api.CodeNotFound})
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		all = append(
			all,
			attack{"13", "GET", m.ContentURL, "", []string{name, "DELETE"}, 400, api.CodeInvalidArgument},
			attack{"13", "POST", aborts, abort, []string{name, "GET"}, 400, api.CodeInvalidArgument},
			attack{"13", "GET", "/v1/sessions_stats", "", []string{name, "PUT", auth, foreign}, 403, api.CodeForbidden},
			attack{"13", "GET", m.ContentURL, "", []string{name, "DELETE", auth, ""}, 401, api.CodeUnauthenticated},
		)
	}
	for _, bad := range []string{"0", "-1", "18446744073709551616", "1e3", "01", "+1", "0x1"} {
		all = append(all, attack{"19 " + bad, "GET", "/v1/uploads_status/" + bad, "", nil, 404, api.CodeNotFound})
	}
	for _, bad := range []string{"-1", "9223372036854775808", "0x1", "01", "1.0"} {
		all = append(all, attack{"20 " + bad, "PUT", chunkPath(id, bad), "x", nil, 400, api.CodeInvalidArgument})
	}
	for path := range w.documented() {
		all = append(all, attack{"14 " + path, "OPTIONS", path, "", []string{auth, ""}, 204, ""})
	}
	for _, a := range all {
		t.Run(a.name, func(t *testing.T) {
			w := w.in(t)
			before := w.look()
			got := w.do(a.method, a.path, a.body, a.headers...)
			switch {
			case got.StatusCode != a.status || got.problem.Code != a.code:
				t.Errorf("%d %.300s, want %d %s", got.StatusCode, got.body, a.status, a.code)
			case a.code != "" && a.status != 431:
				w.problem(got, a.code)
			case got.StatusCode == 204 && len(got.body) > 0:
				t.Errorf("it has data: %s", got.body)
			}
			if origin := got.Header.Get("Access-Control-Allow-Origin"); origin != "" {
				t.Errorf("%s is let in", origin)
			}
			w.unchanged(before)
		})
	}
}

// A token that ends in the middle of a body takes the chunk with it (attack 3).
func TestATokenThatEndsInMidBody(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	first := w.secret
	for _, path := range []string{chunkPath(id, 1), rangePath(id, chunk)} {
		made, err := w.client.CreateToken(t.Context(), api.CreateTokenRequest{})
		w.check(err)
		w.secret = made.Token
		c := w.send("PUT", path, chunk, b[chunk:chunk+chunk/2])
		w.secret = first
		w.until("it has a principal", func() bool { return w.server.Owned() == 1 })
		w.check(w.access.RevokeToken(t.Context(), w.me, made.TokenID))
		_, err = c.Write(b[chunk+chunk/2 : 2*chunk])
		w.check(err)
		w.problem(c.answer(), api.CodeUnauthenticated)
		w.until("it is over", func() bool { return w.server.Owned() == 0 })
	}
	s, err := w.client.Status(t.Context(), id, false)
	if err != nil || s.BytesReceived != chunk {
		t.Errorf("%d bytes, %v", s.BytesReceived, err)
	}
	w.check(w.put(id, 1, b[chunk:2*chunk]))
}

// A client without a valid token that waits for 100 Continue is refused without it (attack 34).
func TestNobodyIsToldToGoOnWithoutAToken(t *testing.T) {
	w := newWorld(t, nil)
	for _, authorization := range []string{"", "Authorization: Bearer " + other(w.secret, 9) + "\r\n"} {
		for _, target := range []string{"PUT " + creates + "/a", "PUT " + creates + "/a?token=x", "POST " + begins} {
			c := w.send("GET", "/healthz", 0, nil)
			if a := c.answer(); a.StatusCode != 200 {
				t.Fatal(a.StatusCode)
			}
			_, err := fmt.Fprintf(
				c, "%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", target,
				authorization,
			)
			w.check(err)
			res, err := http.ReadResponse(c.from, nil)
			w.check(err)
			w.problem(w.read(res), api.CodeUnauthenticated)
			w.check(c.CloseWrite())
			if rest, err := io.ReadAll(c.from); err != nil || len(rest) > 0 {
				t.Errorf("%s: %q behind the answer, %v", target, rest, err)
			}
		}
	}
}
