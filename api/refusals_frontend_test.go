package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"sluice/access"
	"sluice/api"
)

// anOperation is a documented operation with its path filled in.
type anOperation struct{ method, path string }

// operations returns all operations except those that are open to anybody.
func (w *world) operations() (out []anOperation) {
	w.t.Helper()
	for path, item := range w.documented() {
		if slices.Contains([]string{"/healthz", "/readyz", "/openapi.json", "/r/{link}", api.ResourcePath}, path) {
			continue
		}
		for method := range item {
			out = append(out, anOperation{
				strings.ToUpper(method), regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "1"),
			})
		}
	}
	if len(out) < 25 {
		w.t.Fatalf("%d operations", len(out))
	}
	return out
}

// other changes one character.
func other(s string, at int) string {
	c := "a"
	if s[at:at+1] == c {
		c = "b"
	}
	return s[:at] + c + s[at+1:]
}

// Without exactly one valid bearer token every operation is refused, before anything of the request
// is looked at.
func TestNothingWithoutAToken(t *testing.T) {
	w := newWorld(t, nil)
	token, secret, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{
		Principal: w.me.Principal, Name: "revoked",
	})
	w.check(err)
	w.check(w.as(secret).Abort(t.Context(), w.begin(1).SessionID))
	w.check(w.access.RevokeToken(t.Context(), w.me, token.ID))
	_, expired, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{
		Principal: w.me.Principal, Name: "expired", TTL: time.Nanosecond,
	})
	w.check(err)
	basic := base64.StdEncoding.EncodeToString([]byte("admin:" + w.secret))
	const auth = "Authorization"
	operations := w.operations()
	for name, headers := range map[string][]string{
		"none":              {auth, ""},
		"empty":             {auth, " "},
		"no token":          {auth, "Bearer "},
		"no scheme":         {auth, w.secret},
		"basic":             {auth, "Basic " + basic},
		"two":               {auth, "Bearer " + w.secret, auth, "Bearer " + w.secret},
		"two in one":        {auth, "Bearer " + w.secret + ", Bearer " + w.secret},
		"one more":          {auth, "Bearer " + w.secret + "a"},
		"one less":          {auth, "Bearer " + w.secret[:len(w.secret)-1]},
		"another":           {auth, "Bearer " + other(w.secret, 10)},
		"upper case":        {auth, "Bearer " + strings.ToUpper(w.secret)},
		"revoked":           {auth, "Bearer " + secret},
		"expired":           {auth, "Bearer " + expired},
		"in another header": {auth, "", "X-Authorization", "Bearer " + w.secret},
		"in a cookie":       {auth, "", "Cookie", "token=" + w.secret},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			before := w.look()
			for _, op := range operations {
				a := w.do(op.method, op.path+"?access_token="+w.secret, "{", headers...)
				if op.method == "HEAD" {
					continue
				}
				w.problem(a, api.CodeUnauthenticated)
			}
			w.unchanged(before)
		})
	}
	for _, scheme := range []string{"bearer ", "BEARER ", "Bearer  "} { // RFC 9110 §11.1
		if a := w.do("GET", "/v1/upload_config", "", auth, scheme+w.secret); a.StatusCode != 200 {
			t.Errorf("%q: %d", scheme, a.StatusCode)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		if a := w.do("GET", path, "", auth, ""); a.StatusCode != 200 {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
}

// A read-only token may see all that its principal may see, and change nothing.
func TestAReadOnlyToken(t *testing.T) {
	w := newWorld(t, nil)
	_, secret, err := w.access.CreateToken(t.Context(), w.me, access.TokenRequest{
		Principal: w.me.Principal, Name: "reads", ReadOnly: true,
	})
	w.check(err)
	auth := []string{"Authorization", "Bearer " + secret}
	id, b := w.partial()
	whole := w.filled(b).SessionID
	m := w.store("a", "", b)
	for _, row := range []struct{ method, path, body string }{
		{"POST", begins, beginBody("a", 1, "")},
		{"PUT", chunkPath(id, 1), string(b[chunk : 2*chunk])},
		{"PUT", rangePath(id, chunk), "x"},
		{"POST", finishes, finishBody(whole, b)},
		{"POST", batches, `{"finishes":[` + finishBody(whole, b) + `]}`},
		{"POST", aborts, `{"session_id":"` + id + `"}`},
		{"POST", creates + "?name=a", "x"},
		{"PUT", creates + "/a", "x"},
		{"POST", "/v1/memories_update", `{"memory_id":"` + m.MemoryID + `","name":"b"}`},
		{"POST", "/v1/memories_delete", `{"memory_id":"` + m.MemoryID + `"}`},
		{"POST", "/v1/memories_restore", `{"memory_id":"` + m.MemoryID + `"}`},
		{"POST", "/v1/capsules_create", `{}`},
		{"POST", "/v1/capsules_update", `{"capsule_id":"default","name":"b"}`},
		{"POST", "/v1/capsules_delete", `{"capsule_id":"default"}`},
		{"POST", "/v1/sessions_clear_all", ``},
		{"POST", "/v1/sessions_cleanup_expired", ``},
	} {
		w.refused(api.CodeForbidden, row.method, row.path, row.body, auth...)
	}
	for _, path := range []string{
		"/v1/upload_config", "/v1/uploads_status/" + id, "/v1/uploads_status/" + id + "?crc=true",
		"/v1/memories_read/" + m.MemoryID, "/v1/memories_list", m.ContentURL, "/v1/capsules_read/default",
		"/v1/capsules_list", "/v1/sessions_list", "/v1/sessions_stats",
	} {
		if a := w.do("GET", path, "", auth...); a.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	if list, err := w.as(secret).Uploads(t.Context(), "", 0); err != nil || len(list.Sessions) != 2 {
		t.Errorf("uploads: %+v %v", list.Sessions, err)
	}
	if there, err := w.as(secret).Ping(t.Context(), []string{m.MemoryID}); err != nil || !there[m.MemoryID] {
		t.Errorf("ping: %v %v", there, err)
	}
}

// A thing that a stranger may not know of is answered exactly like one that is not there.
func TestAStrangerLearnsNothing(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	whole, done := w.filled(b).SessionID, w.filled(b).SessionID
	m, err := w.client.Finish(t.Context(), finishOf(done, b))
	w.check(err)
	gone := w.store("gone", "", []byte("gone"))
	w.check(w.client.DeleteMemory(t.Context(), gone.MemoryID, false))
	sessions, memories := []string{id, whole, done}, []string{m.MemoryID, gone.MemoryID}
	absent := map[string]string{"session": "12345", "memory": uuid.Must(uuid.NewV7()).String(), "capsule": "absent"}

	// ask returns all that the stranger can see of an answer, apart from the name that he asked by.
	ask := func(method, path, body, name string, headers []string) string {
		a := w.refused(
			api.CodeNotFound, method, strings.ReplaceAll(path, "@", name), strings.ReplaceAll(body, "@", name),
			append(headers, "Authorization", "Bearer "+w.foreign)...,
		)
		h := a.Header.Clone()
		h.Del("Date")
		h.Del("X-Request-Id")
		h.Del("Content-Length") // the name may be in the body
		return strings.ReplaceAll(fmt.Sprint(a.StatusCode, h, string(a.body)), name, "@")
	}
	sum, bytes := hexSum(b), string(b[chunk:2*chunk])
	for _, row := range []struct {
		of, method, path, body string
		headers                []string
	}{
		{"session", "GET", "/v1/uploads_status/@", "", nil},
		{"session", "GET", "/v1/uploads_status/@?crc=true", "", nil},
		{"session", "PUT", chunkPath("@", 0), bytes, nil},
		{"session", "PUT", chunkPath("@", 1), bytes, nil},
		{"session", "PUT", chunkPath("@", 1), "short", chunked},
		{"session", "PUT", chunkPath("@", 99), bytes, nil},
		{"session", "PUT", chunkPath("@", 1) + "?replace=true", bytes, []string{"Content-Digest", "crc32c=:AAAAAA==:"}},
		{"session", "PUT", rangePath("@", 0), bytes, nil},
		{"session", "PUT", rangePath("@", 1<<30), bytes, nil},
		{"session", "POST", finishes, `{"session_id":"@","sha256":"` + sum + `","total_len":` + fmt.Sprint(len(b)) + `}`, nil},
		{"session", "POST", finishes, `{"session_id":"@","sha256":"` + sum + `","total_len":1}`, nil},
		{"session", "POST", batches, `{"finishes":[{"session_id":"@","sha256":"` + sum + `","total_len":1}]}`, nil},
		{"session", "POST", aborts, `{"session_id":"@"}`, nil},
		{"memory", "GET", "/v1/memories_read/@", "", nil},
		{"memory", "GET", "/v1/memories_content/@", "", nil},
		{"memory", "GET", "/v1/memories_content/@", "", []string{"If-None-Match", "*"}},
		{"memory", "GET", "/v1/memories_content/@", "", []string{"Range", "bytes=9999999-"}},
		{"memory", "POST", "/v1/memories_update", `{"memory_id":"@","name":"x"}`, nil},
		{"memory", "POST", "/v1/memories_delete", `{"memory_id":"@"}`, nil},
		{"memory", "POST", "/v1/memories_delete", `{"memory_id":"@","purge":true}`, nil},
		{"memory", "POST", "/v1/memories_restore", `{"memory_id":"@"}`, nil},
		{"capsule", "GET", "/v1/capsules_read/@", "", nil},
		{"capsule", "GET", "/v1/memories_list?capsule_id=@", "", nil},
		{"capsule", "GET", "/v1/memories_list?capsule_id=@&sha256=" + sum, "", nil},
		{"capsule", "POST", "/v1/capsules_update", `{"capsule_id":"@","name":"x"}`, nil},
		{"capsule", "POST", "/v1/capsules_update", `{"capsule_id":"@","quota_bytes":1}`, nil},
		{"capsule", "POST", "/v1/capsules_delete", `{"capsule_id":"@"}`, nil},
		{"capsule", "POST", begins, `{"capsule_id":"@","meta":{"name":"a","bytes":1}}`, nil},
		{"capsule", "POST", creates + "?name=a&capsule_id=@", "x", nil},
	} {
		real := map[string][]string{"session": sessions, "memory": memories, "capsule": {"default"}}[row.of]
		want := ask(row.method, row.path, row.body, absent[row.of], row.headers)
		for _, name := range real {
			if got := ask(row.method, row.path, row.body, name, row.headers); got != want {
				t.Errorf("%s %s %s tells that it is there:\n%s\n%s", row.method, row.path, row.body, got, want)
			}
		}
	}
	there, err := w.stranger.Ping(t.Context(), append(memories, absent["memory"]))
	w.check(err)
	for id, yes := range there {
		if yes {
			t.Errorf("ping tells of %s", id)
		}
	}
	uploads, err := w.stranger.Uploads(t.Context(), "", 0)
	w.check(err)
	capsules, err := w.stranger.ListCapsules(t.Context(), "", 0)
	w.check(err)
	if len(there) != 3 || len(uploads.Sessions) != 0 || len(capsules.Capsules) != 0 {
		t.Errorf("%v %v %v", there, uploads.Sessions, capsules.Capsules)
	}
}

// A creator who has lost the role learns that, on a session that he knows of. A refused request of
// anybody else does not keep it alive.
func TestARoleThatWasTakenAway(t *testing.T) {
	w := newWorld(t, nil)
	principal, secret := w.join("former", false)
	former, ctx := w.as(secret), t.Context()
	_, err := w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{
		CapsuleID: "shared", Controllers: []string{principal},
	})
	w.check(err)
	n := int64(1)
	s, err := former.Begin(ctx, api.BeginRequest{CapsuleID: "shared", Meta: api.Meta{Name: "a", Bytes: &n}})
	w.check(err)
	_, err = w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "shared", Controllers: &[]string{}})
	w.check(err)
	for who, code := range map[string]api.Code{
		secret: api.CodeForbidden, w.foreign: api.CodeNotFound, w.secret: api.CodeNotFound,
	} {
		auth := []string{"Authorization", "Bearer " + who}
		w.pass(2 * time.Minute)
		w.refused(code, "GET", "/v1/uploads_status/"+s.SessionID, "", auth...)
		w.refused(code, "GET", "/v1/uploads_status/"+s.SessionID+"?crc=true", "", auth...)
		w.refused(code, "PUT", chunkPath(s.SessionID, 0), "x", auth...)
		w.refused(code, "PUT", rangePath(s.SessionID, 0), "x", auth...)
		w.refused(code, "POST", finishes, finishBody(s.SessionID, []byte("x")), auth...)
		w.refused(code, "POST", batches, `{"finishes":[`+finishBody(s.SessionID, []byte("x"))+`]}`, auth...)
		w.refused(code, "POST", aborts, `{"session_id":"`+s.SessionID+`"}`, auth...)
	}
	if list, err := former.Uploads(ctx, "", 0); err != nil || len(list.Sessions) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}

// Admin operations, and other rights of an admin alone, are refused to everybody else.
func TestOnlyAnAdminMay(t *testing.T) {
	w := newWorld(t, nil)
	w.begin(1)
	auth := []string{"Authorization", "Bearer " + w.foreign}
	for _, op := range []string{
		"GET sessions_list", "GET sessions_stats", "POST sessions_clear_all", "POST sessions_cleanup_expired",
	} {
		method, name, _ := strings.Cut(op, " ")
		w.refused(api.CodeForbidden, method, "/v1/"+name, "", auth...)
		w.refused(api.CodeForbidden, method, "/v1/"+name+"?x=1", "{", auth...) // whatever else is wrong with it
	}
	own, err := w.stranger.CreateCapsule(t.Context(), api.CreateCapsuleRequest{})
	w.check(err)
	w.refused(
		api.CodeForbidden, "POST", "/v1/capsules_update", `{"capsule_id":"`+own.CapsuleID+`","quota_bytes":1}`, auth...,
	)
	w.refused(api.CodeForbidden, "POST", "/v1/capsules_create", `{"owners":["`+w.me.Principal+`"]}`, auth...)
	// An admin may see a capsule's counters, and none of its content.
	if _, err := w.client.ReadCapsule(t.Context(), own.CapsuleID); err != nil {
		t.Error(err)
	}
	secret, err := w.stranger.Create(
		t.Context(), api.CreateRequest{CapsuleID: own.CapsuleID, Name: "a"}, http.NoBody, 0,
	)
	w.check(err)
	w.refused(api.CodeForbidden, "GET", secret.ContentURL, "")
	w.refused(api.CodeForbidden, "GET", "/v1/memories_list?capsule_id="+own.CapsuleID, "")
}
