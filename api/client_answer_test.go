package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sluice/api"
)

// answering returns a client whose requests are all answered 200 with this JSON.
func answering(body string) *api.Client {
	return api.NewClient("http://there", "", &http.Client{Transport: answers(func(r *http.Request) *http.Response {
		return &http.Response{
			Request: r, StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
	})})
}

// operationsOf returns each operation of a client by its name, with a good answer, or "" if that is
// 204. Content is not among them: its answer is no JSON.
func operationsOf(ctx context.Context) map[string]struct {
	call func(*api.Client) error
	good any
} {
	type row = struct {
		call func(*api.Client) error
		good any
	}
	body := func() io.Reader { return bytes.NewReader([]byte("abc")) }
	memory, session := api.Memory{MemoryID: "m"}, api.Session{SessionID: "1", State: "open"}
	return map[string]row{
		"UploadConfig": {func(c *api.Client) error { _, err := c.UploadConfig(ctx); return err }, api.UploadConfig{}},
		"Begin":        {func(c *api.Client) error { _, err := c.Begin(ctx, api.BeginRequest{}); return err }, session},
		"PutChunk":     {func(c *api.Client) error { return c.PutChunk(ctx, "1", 0, body(), 3, api.PutOptions{}) }, ""},
		"PutRange": {func(c *api.Client) error {
			_, err := c.PutRange(ctx, "1", 0, body(), 3, api.PutOptions{})
			return err
		}, ""},
		"Finish": {func(c *api.Client) error { _, err := c.Finish(ctx, api.FinishRequest{}); return err }, memory},
		"FinishBatch": {func(c *api.Client) error {
			_, err := c.FinishBatch(ctx, make([]api.FinishRequest, 1))
			return err
		}, api.MemoryBatch{Memories: []api.Memory{memory}}},
		"Abort":   {func(c *api.Client) error { return c.Abort(ctx, "1") }, ""},
		"Status":  {func(c *api.Client) error { _, err := c.Status(ctx, "1", true); return err }, session},
		"Uploads": {func(c *api.Client) error { _, err := c.Uploads(ctx, "", 0); return err }, api.SessionList{Sessions: []api.Session{session}}},
		"Create": {func(c *api.Client) error {
			_, err := c.Create(ctx, api.CreateRequest{}, body(), 3)
			return err
		}, memory},
		"ReadMemory": {func(c *api.Client) error { _, err := c.ReadMemory(ctx, "m"); return err }, memory},
		"ListMemories": {func(c *api.Client) error {
			_, err := c.ListMemories(ctx, api.MemoryQuery{})
			return err
		}, api.MemoryList{Memories: []api.Memory{memory}}},
		"UpdateMemory": {func(c *api.Client) error {
			_, err := c.UpdateMemory(ctx, api.UpdateMemoryRequest{})
			return err
		}, memory},
		"DeleteMemory":  {func(c *api.Client) error { return c.DeleteMemory(ctx, "m", true) }, ""},
		"RestoreMemory": {func(c *api.Client) error { _, err := c.RestoreMemory(ctx, "m"); return err }, memory},
		"Ping":          {func(c *api.Client) error { _, err := c.Ping(ctx, []string{"m"}); return err }, api.PingResponse{}},
		"CreateCapsule": {func(c *api.Client) error {
			_, err := c.CreateCapsule(ctx, api.CreateCapsuleRequest{})
			return err
		}, api.Capsule{}},
		"ReadCapsule":  {func(c *api.Client) error { _, err := c.ReadCapsule(ctx, "c"); return err }, api.Capsule{}},
		"ListCapsules": {func(c *api.Client) error { _, err := c.ListCapsules(ctx, "", 0); return err }, api.CapsuleList{}},
		"UpdateCapsule": {func(c *api.Client) error {
			_, err := c.UpdateCapsule(ctx, api.UpdateCapsuleRequest{})
			return err
		}, api.Capsule{}},
		"DeleteCapsule": {func(c *api.Client) error { return c.DeleteCapsule(ctx, "c") }, ""},
		"AdminSessions": {func(c *api.Client) error {
			_, err := c.AdminSessions(ctx, "", "", "", 0)
			return err
		}, api.AdminSessionList{Sessions: make([]api.AdminSession, 1)}},
		"AdminStats":          {func(c *api.Client) error { _, err := c.AdminStats(ctx); return err }, api.SessionStats{}},
		"AdminClearAll":       {func(c *api.Client) error { _, err := c.AdminClearAll(ctx); return err }, api.Cleared{}},
		"AdminCleanupExpired": {func(c *api.Client) error { _, err := c.AdminCleanupExpired(ctx); return err }, api.CleanedUp{}},
		"Ready":               {func(c *api.Client) error { return c.Ready(ctx) }, api.Health{Status: "ok"}},
	}
}

// No operation takes JSON of a web server for the server's answer. The client says at once that it
// is no Sluice server.
func TestNoForeignJSONIsTakenForAnAnswer(t *testing.T) {
	for name, op := range operationsOf(t.Context()) {
		for _, body := range []string{
			`{}`, `{"status":"ok"}`, `{"error":"x"}`, `{"memories":null}`, `{"memories":{}}`, `{"memories":[{}]}`,
			`{"memories":[null]}`, `{"sessions":[{"session_id":"1"}]}`,
			`{"capsules":null,"sessions":null,"present":null,"cleared":null,"expired":null,"status":null}`,
			`{"present":[],"cleared":"1","expired":true,"status":{}}`,
			`[]`, `null`, `"ok"`, `1`, ``, `{"`, `{"status":"ok"`,
		} {
			err := op.call(answering(body))
			if name == "Ready" && body == `{"status":"ok"}` {
				continue // that is the server's answer
			}
			var refused *api.Error
			if !errors.As(err, &refused) || !refused.Foreign || api.ClassOf(err) != api.Permanent ||
				!api.NoServer(err) || !strings.Contains(err.Error(), "is no Sluice server") {
				t.Errorf("%s takes %s: %v", name, body, err)
			}
		}
	}
	for _, want := range []string{
		"AdminStats: its answer lacks open", "Begin: its answer lacks session_id",
		"ListMemories: its answer lacks memories",
	} {
		name, says, _ := strings.Cut(want, ": ")
		if err := operationsOf(t.Context())[name].call(answering(`{"status":"ok"}`)); err == nil ||
			!strings.Contains(err.Error(), says+" (answer 200 OK)") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An answer with unknown members is taken. An answer is not taken if it lacks a member that it must
// have: if the member is absent, or null although null means nothing.
func TestAnAnswerHasAllItsMembers(t *testing.T) {
	for name, op := range operationsOf(t.Context()) {
		if op.good == "" {
			continue
		}
		b, err := json.Marshal(op.good)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]jsontext.Value
		if err := json.Unmarshal(b, &members); err != nil || len(members) == 0 {
			t.Fatalf("%s: %v", b, err)
		}
		members["new_since"] = jsontext.Value(`{"a":[1,{}],"b":null}`)
		if b, err = json.Marshal(members); err != nil {
			t.Fatal(err)
		}
		if err := op.call(answering(string(b))); err != nil {
			t.Errorf("%s refuses %s: %v", name, b, err)
		}
		for member, was := range members {
			if member == "new_since" {
				continue
			}
			members[member] = jsontext.Value("null")
			if b, err = json.Marshal(members); err != nil {
				t.Fatal(err)
			}
			if err := op.call(answering(string(b))); (err == nil) != (string(was) == "null") {
				t.Errorf("%s with %s null: %v", name, member, err)
			}
			delete(members, member)
			if b, err = json.Marshal(members); err != nil {
				t.Fatal(err)
			}
			if err := op.call(answering(string(b))); err == nil || !strings.Contains(err.Error(), "lacks "+member) {
				t.Errorf("%s without %s: %v", name, member, err)
			}
			members[member] = was
		}
	}
}

// A put's promise has a number. A server that answers 204 to everything promises nothing.
func TestARangeIsNotRecordedWithoutANumber(t *testing.T) {
	client := api.NewClient("http://there", "", &http.Client{Transport: answers(func(r *http.Request) *http.Response {
		return &http.Response{Request: r, StatusCode: 204, Header: http.Header{}, Body: http.NoBody}
	})})
	_, err := client.PutRange(t.Context(), "1", 0, strings.NewReader("abc"), 3, api.PutOptions{})
	if err == nil || api.ClassOf(err) != api.Permanent ||
		!strings.Contains(err.Error(), "its answer lacks Upload-Received") {
		t.Error(err)
	}
}
