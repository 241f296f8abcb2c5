package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"sluice/api"
	"sluice/audit"
	"sluice/session"
)

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// record is a line of the audit log.
type record struct {
	Time        time.Time         `json:"time"`
	Event       string            `json:"event"`
	Origin      string            `json:"origin"`
	Action      string            `json:"action"`
	RequestID   string            `json:"request_id"`
	Client      string            `json:"client"`
	PrincipalID string            `json:"principal_id"`
	TokenID     string            `json:"token_id"`
	Target      map[string]string `json:"target"`
	Outcome     string            `json:"outcome"`
	Status      int               `json:"status"`
	Code        string            `json:"code"`
	Changed     []string          `json:"changed"`
	New         map[string]any    `json:"new"`
	Count       int64             `json:"count"`
	Detail      string            `json:"detail"`
}

// auditedWorld gives a world and the records of its audit log, which are complete once it has
// stopped.
func auditedWorld(t *testing.T, change func(*api.Config)) (w *world, records func() []record) {
	t.Helper()
	to := &lockedBuffer{}
	w = newWorld(t, func(cfg *api.Config) {
		cfg.Audit = audit.New(to, nil)
		if change != nil {
			change(cfg)
		}
	})
	return w, func() (out []record) {
		t.Helper()
		w.check(w.stop())
		for line := range strings.Lines(to.String()) {
			var r record
			if err := json.Unmarshal([]byte(line), &r, json.RejectUnknownMembers(true)); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			out = append(out, r)
		}
		return out
	}
}

// only gives the one record for which is holds.
func only(t *testing.T, all []record, what string, is func(record) bool) record {
	t.Helper()
	var found []record
	for _, r := range all {
		if is(r) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s: %d records: %+v", what, len(found), found)
		return record{}
	}
	return found[0]
}

func TestTheAuditLogTellsWhoDidWhat(t *testing.T) {
	w, records := auditedWorld(t, nil)
	ctx := t.Context()
	ada, err := w.client.CreatePrincipal(ctx, "Ada", false)
	w.check(err)
	n := int64(600)
	token, err := w.client.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: ada.PrincipalID, ExpiresInSeconds: &n})
	w.check(err)
	m := w.store("secret-name.txt", "", []byte("some content"))
	quota := int64(1 << 20)
	owners := []string{w.me.Principal, ada.PrincipalID}
	_, err = w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{
		CapsuleID: "default", Owners: &owners, QuotaBytes: &quota,
	})
	w.check(err)
	_, err = w.as(token.Token).ListMemories(ctx, api.MemoryQuery{CapsuleID: "default"})
	w.check(err)
	made, err := w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{})
	w.check(err)
	w.check(w.client.DeleteMemory(ctx, m.MemoryID, false))
	a := w.do("POST", "/v1/memories_delete", `{"memory_id":"`+m.MemoryID+`","purge":true}`,
		"Content-Type", "application/json")
	w.begin(10)
	_, err = w.client.AdminClearAll(ctx)
	w.check(err)
	_, err = w.stranger.ReadMemory(ctx, m.MemoryID) // is gone: no refusal
	w.codeIs(err, api.CodeNotFound)
	_, err = w.stranger.ReadCapsule(ctx, "default")
	w.codeIs(err, api.CodeNotFound)
	_, err = w.stranger.CreatePrincipal(ctx, "me", true)
	w.codeIs(err, api.CodeForbidden)
	_, err = w.client.ReadCapsule(ctx, "default")
	w.check(err)
	w.codeIs(w.client.DeleteCapsule(ctx, "none"), api.CodeNotFound)
	w.check(w.client.DeletePrincipal(ctx, ada.PrincipalID))

	all := records()
	admin := func(r record) bool { return r.PrincipalID == w.me.Principal && r.TokenID == w.me.TokenID }
	for _, want := range []struct {
		action, outcome string
		status          int
		target          map[string]string
		changed         []string
		new             map[string]any
		count           int64
	}{
		{"principals_create", "ok", 200, map[string]string{"principal_id": ada.PrincipalID}, []string{"name"}, nil, 0},
		{
			"tokens_create", "ok", 200,
			map[string]string{"principal_id": ada.PrincipalID, "token_id": token.TokenID},
			[]string{"expires_in_seconds"},
			map[string]any{
				"expires_in_seconds": 600.0, "expires_at": token.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000Z"),
			},
			0,
		},
		{
			"capsules_update", "ok", 200,
			map[string]string{"capsule_id": "default"},
			[]string{"owners", "quota_bytes"},
			map[string]any{"owners": []any{owners[0], owners[1]}, "quota_bytes": float64(quota)},
			0,
		},
		{
			"capsules_create", "ok", 200,
			map[string]string{"capsule_id": made.CapsuleID},
			nil,
			map[string]any{"owners": []any{w.me.Principal}},
			0,
		},
		{"memories_delete", "ok", 204, map[string]string{"memory_id": m.MemoryID}, nil, nil, 0},
		{
			"memories_delete", "ok", 204,
			map[string]string{"memory_id": m.MemoryID},
			[]string{"purge"},
			map[string]any{"purge": true},
			0,
		},
		{"sessions_clear_all", "ok", 200, nil, nil, nil, 1},
		{"capsules_read", "ok", 200, map[string]string{"capsule_id": "default"}, nil, nil, 0},
		{"capsules_delete", "refused", 404, map[string]string{"capsule_id": "none"}, nil, nil, 0},
		{"principals_delete", "ok", 204, map[string]string{"principal_id": ada.PrincipalID}, nil, nil, 0},
	} {
		r := only(t, all, want.action, func(r record) bool {
			return r.Event == "act" && r.Action == want.action && admin(r) && slices.Equal(r.Changed, want.changed)
		})
		if r.Outcome != want.outcome || r.Status != want.status || r.Count != want.count || r.Client != "127.0.0.1" ||
			!reflect.DeepEqual(r.Target, want.target) || !reflect.DeepEqual(r.New, want.new) || r.RequestID == "" {
			t.Errorf("%s: %+v", want.action, r)
		}
		if want.changed != nil && want.new["purge"] == true && r.RequestID != a.Header.Get("X-Request-Id") {
			t.Errorf("the record of request %s has %s", a.Header.Get("X-Request-Id"), r.RequestID)
		}
	}
	refused := func(action, code string, status int) record {
		return only(t, all, action, func(r record) bool {
			return r.Event == "refused" && r.Action == action && r.Code == code && r.Status == status && r.TokenID != ""
		})
	}
	if r := refused("capsules_read", "NotFound", 404); r.Target["capsule_id"] != "default" {
		t.Errorf("%+v", r)
	}
	if r := refused("principals_create", "Forbidden", 403); r.PrincipalID == "" || r.New != nil {
		t.Errorf("%+v", r)
	}
	for _, id := range []string{w.me.TokenID, token.TokenID} {
		only(t, all, "sign_in", func(r record) bool { return r.Event == "sign_in" && r.TokenID == id })
	}
	only(t, all, "principal_ended", func(r record) bool {
		return r.Origin == "keeper" && r.Action == "principal_ended" && r.Target["principal_id"] == ada.PrincipalID
	})
	for _, r := range all {
		if r.Action == "memories_read" && r.Event != "sign_in" {
			t.Errorf("a memory that is not there makes a record: %+v", r)
		}
	}
}

// Quotas, tokens that have ended, and tokens that are none.
func TestRefusalsAreAudited(t *testing.T) {
	w, records := auditedWorld(t, nil)
	w.limit(1, 0)
	_, err := w.client.Create(t.Context(), api.CreateRequest{Name: "a"}, strings.NewReader("12"), 2)
	w.codeIs(err, api.CodeQuotaExceeded)
	w.limit(0, 0)
	s := w.begin(10)
	w.codeIs(w.stranger.PutChunk(t.Context(), s.SessionID, 0, strings.NewReader("1234567890"), 10, api.PutOptions{}),
		api.CodeNotFound)
	w.do("GET", "/v1/whoami", "", "Authorization", "")
	one := int64(60)
	token, err := w.client.CreateToken(t.Context(), api.CreateTokenRequest{ExpiresInSeconds: &one})
	w.check(err)
	w.pass(2 * time.Minute)
	_, err = w.keeper.Tick(t.Context())
	w.check(err)
	_, err = w.as(token.Token).WhoAmI(t.Context())
	w.codeIs(err, api.CodeUnauthenticated)

	all := records()
	is := func(action, code string, target string) func(record) bool {
		return func(r record) bool {
			return r.Event == "refused" && r.Action == action && r.Code == code && r.Outcome == "refused" &&
				(target == "" || r.Target["session_id"] == target)
		}
	}
	only(t, all, "quota", is("memories_create", "QuotaExceeded", ""))
	only(t, all, "another's session", is("uploads_put_chunk", "NotFound", s.SessionID))
	only(t, all, "expiry", func(r record) bool {
		return r.Origin == "keeper" && r.Action == "token_expired" && r.Target["token_id"] == token.TokenID
	})
	anonymous := 0
	for _, r := range all {
		if is("whoami", "Unauthenticated", "")(r) && r.PrincipalID == "" {
			anonymous++
		}
	}
	if anonymous != 2 {
		t.Errorf("%d records of whoami without a valid token", anonymous)
	}
}

// stopped is a clock that stands still.
type stopped struct{ at time.Time }

func (s stopped) Now() time.Time { return s.at }

func TestAFloodOfRefusalsIsBounded(t *testing.T) {
	w, records := auditedWorld(t, func(cfg *api.Config) { cfg.Clock = stopped{time.Now()} })
	for range 50 {
		if a := w.do("GET", "/v1/whoami", "", "Authorization", "Bearer slc_none"); a.StatusCode != 401 {
			t.Fatal(a.StatusCode)
		}
	}
	_, err := w.stranger.AdminStats(t.Context())
	w.codeIs(err, api.CodeForbidden)
	var refused, leftOut int64
	all := records()
	for _, r := range all {
		switch {
		case r.Event == "refused" && r.Code == "Unauthenticated":
			refused++
		case r.Event == "left_out" && r.Code == "Unauthenticated":
			leftOut += r.Count
		}
	}
	if refused != 10 || leftOut != 40 {
		t.Errorf("%d refusals, %d left out", refused, leftOut)
	}
	only(t, all, "another kind", func(r record) bool { return r.Event == "refused" && r.Code == "Forbidden" })
}

// Every route is called, and neither log has a secret, the header that carried it, content, or the
// name of a file.
func TestNoLogHasASecret(t *testing.T) {
	var log lockedBuffer
	var audited lockedBuffer
	w := newWorld(t, func(cfg *api.Config) {
		cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.Audit = audit.New(&audited, nil)
	})
	const content, name = "confidential-bytes", "confidential-name\u202e.txt"
	m := w.store(name, "", []byte(content))
	s := w.begin(int64(len(content)))
	token, err := w.client.CreateToken(t.Context(), api.CreateTokenRequest{Name: name})
	w.check(err)
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	w.check(json.Unmarshal(w.do("GET", "/openapi.json", "").body, &doc))
	ids := strings.NewReplacer(
		"{session_id}", s.SessionID, "{memory_id}", m.MemoryID, "{capsule_id}", "default", "{chunk_idx}", "0",
		"{offset}", "0", "{name}", "confidential-name", "{principal_id}", uuid.Max.String(),
	)
	bodies := []string{
		content, `{}`, `{"name":"confidential-name","admin":true}`, `{"memory_id":"` + m.MemoryID + `"}`,
		`{"token_id":"` + token.TokenID + `","name":"` + token.Token + `"}`, `{"token_id":"` + token.Token + `"}`,
		`{"capsule_id":"photos","name":"confidential-name","owners":["` + token.Token + `"]}`,
		`{"principal_id":"` + token.Token + `"}`,
		`{"principal_id":"` + uuid.Max.String() + `","name":"confidential-name"}`,
	}
	// These come first, before the records of what fails are throttled.
	for path, body := range map[string]string{
		"/v1/tokens_revoke":     `{"token_id":"` + token.Token + `"}`,
		"/v1/principals_delete": `{"principal_id":"` + token.Token + `"}`,
		"/v1/memories_delete":   `{"memory_id":"` + token.Token + `"}`,
		"/v1/capsules_delete":   `{"capsule_id":"` + token.Token + `"}`,
		"/v1/capsules_create":   `{"name":"confidential-name","owners":["` + token.Token + `"]}`,
		"/v1/tokens_create":     `{"name":"confidential-name"}`,
	} {
		w.do("POST", path, body, "Content-Type", "application/json")
	}
	called := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			called++
			for _, secret := range []string{w.secret, w.foreign, token.Token, token.Token + "x"} {
				for _, body := range bodies {
					if method == "get" {
						body = ""
					}
					kind := "application/json"
					if strings.Contains(path, "_put_") || strings.Contains(path, "memories_create") {
						kind = "text/plain"
					}
					w.do(strings.ToUpper(method), ids.Replace(path), body,
						"Authorization", "Bearer "+secret, "Content-Type", kind)
					if method == "get" {
						break
					}
				}
			}
			w.do(strings.ToUpper(method), ids.Replace(path)+"?token="+token.Token+"&owner="+token.Token, "")
		}
	}
	if called < 38 {
		t.Errorf("%d operations were called", called)
	}
	w.check(w.stop())
	for which, text := range map[string]string{"log": log.String(), "audit log": audited.String()} {
		if !strings.Contains(text, "principals_list") {
			t.Errorf("the %s has nothing", which)
		}
		text = strings.NewReplacer("slc_[hidden]", "", "Authorization: Bearer TOKEN", "").Replace(text)
		for _, bad := range []string{"slc_", "Authorization", "Bearer", "confidential"} {
			if which == "log" && bad == "confidential" {
				continue // what a client sent may be part of what is told about its fault
			}
			if i := strings.Index(text, bad); i >= 0 {
				t.Errorf("the %s has %q: %s", which, bad, text[max(i-200, 0):min(i+100, len(text))])
			}
		}
		hash := fmt.Sprintf("%x", w.me.Token)
		if strings.Contains(text, hash) || strings.Contains(text, content) {
			t.Errorf("the %s has the hash of a token, or content", which)
		}
	}
}

// A server without an audit log works as one with it.
func TestWithoutAnAuditLog(t *testing.T) {
	w := openWorld(t, api.Config{}, session.Config{})
	a := w.do("POST", "/v1/capsules_create", `{}`, "Content-Type", "application/json")
	if a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
