package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"sluice/api"
)

// checked is a transport that compares every request and answer with the server's own document.
type checked struct {
	t     *testing.T
	valid validator.Validator

	mu   sync.Mutex
	seen map[string]bool // "GET /v1/…" with the path as the document writes it
}

func (c *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	forged := r.Clone(r.Context())
	forged.Host = "forged.example"
	forged.Header.Set("X-Forwarded-Host", "forged.example")
	forged.Header.Set("X-Forwarded-Proto", "forged")
	forged.Header.Set("Forwarded", "host=forged.example;proto=forged")
	res, err := http.DefaultTransport.RoundTrip(forged)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if strings.Contains(fmt.Sprint(res.Header)+string(got), "forged") {
		c.t.Errorf("%s %s: the answer says where the request was sent: %v %s", r.Method, r.URL, res.Header, got)
	}
	res.Body.Close()
	r.Body, res.Body = io.NopCloser(bytes.NewReader(sent)), io.NopCloser(bytes.NewReader(got))
	if ok, errs := c.valid.ValidateHttpRequestResponse(r, res); !ok {
		for _, e := range errs {
			c.t.Errorf("%s %s: %s: %s %v", r.Method, r.URL.Path, e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
	res.Body = io.NopCloser(bytes.NewReader(got))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[r.Method+" "+shape(r.URL.Path)] = true
	return res, nil
}

// shape turns a path into the number of its parts, which tells the routes apart.
func shape(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i := range parts {
		if i >= 2 || i == 1 && parts[0] == "r" {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

func (w *world) document() (validator.Validator, map[string]map[string]any) {
	w.t.Helper()
	doc, err := libopenapi.NewDocument(w.do("GET", "/openapi.json", "", "Authorization", "").body)
	w.check(err)
	valid, errs := validator.NewValidator(doc)
	w.check(errors.Join(errs...))
	return valid, w.documented()
}

// documented returns what the document has for each path and method.
func (w *world) documented() map[string]map[string]any {
	w.t.Helper()
	var out struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	raw := w.do("GET", "/openapi.json", "", "Authorization", "").body
	w.check(json.Unmarshal(raw, &out, json.MatchCaseInsensitiveNames(true)))
	if !strings.HasPrefix(out.OpenAPI, "3.1") {
		w.t.Fatalf("version %q", out.OpenAPI)
	}
	return out.Paths
}

func TestTheDocumentIsValidOpenAPI(t *testing.T) {
	w := newWorld(t, nil)
	valid, paths := w.document()
	if ok, errs := valid.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s %v", e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
	for _, frozen := range []string{
		"uploads_begin", "uploads_put_chunk/{session_id}/{chunk_idx}", "uploads_finish", "uploads_abort",
		"sessions_list", "sessions_stats", "sessions_clear_all", "sessions_cleanup_expired",
	} {
		if paths["/v1/"+frozen] == nil {
			t.Errorf("%s is not documented", frozen)
		}
	}
}

// The document says for what a request is refused as it is read: how long a list may be, and the
// form of its elements.
func TestTheDocumentBoundsLists(t *testing.T) {
	w := newWorld(t, nil)
	doc := string(w.do("GET", "/openapi.json", "", "Authorization", "").body)
	for path, want := range map[string]string{
		"FinishRequest.properties.chunk_crc32c.maxItems":                                "16384",
		"FinishRequest.properties.chunk_crc32c.items.pattern":                           "^[0-9a-fA-F]{8}$",
		"FinishBatchRequest.properties.finishes.maxItems":                               "1000",
		"PrecheckRequest.properties.files.maxItems":                                     "1000",
		"FinishBatchRequest.properties.finishes.items.properties.chunk_crc32c.maxItems": "16384",
	} {
		at := any(nil)
		w.check(json.Unmarshal([]byte(doc), &at))
		for _, name := range append([]string{"components", "schemas"}, strings.Split(path, ".")...) {
			members, _ := at.(map[string]any)
			at = members[name]
		}
		if got := fmt.Sprint(at); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
}

// docs/api.md has a section for each operation, and no other sections. Their examples are run by
// cmd/sluice.
func TestTheContractHasEveryOperation(t *testing.T) {
	w := newWorld(t, nil)
	served := map[string]bool{}
	for path, methods := range w.documented() {
		for method := range methods {
			if method != "head" { // wherever GET is
				served[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	text, err := os.ReadFile("../docs/api.md")
	w.check(err)
	described := map[string]bool{}
	for _, heading := range regexp.MustCompile("(?m)^### `([A-Z]+ /[^`]*)`$").FindAllStringSubmatch(string(text), -1) {
		if described[heading[1]] {
			t.Errorf("%s is described twice", heading[1])
		}
		described[heading[1]] = true
	}
	if diff := cmp.Diff(served, described); diff != "" || len(served) < 20 {
		t.Errorf("(-served +described):\n%s", diff)
	}
	for code, status := range statuses {
		if row := fmt.Sprintf("| `%s` | %d", code, status); !strings.Contains(string(text), row) {
			t.Errorf("no row begins with %q", row)
		}
	}
}

// Every route is called, and every request and answer is as the document says.
func TestEveryRouteAnswersAsDocumented(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		c.SignIn = &api.SignIn{
			Issuer: "https://issuer.test", Audience: "sluice", Client: "cli", Scopes: []string{"openid"},
		}
	})
	valid, paths := w.document()
	transport := &checked{t: t, valid: valid, seen: map[string]bool{}}
	c := api.NewClient(w.url, w.secret, &http.Client{Transport: transport})
	ctx := t.Context()
	b := random(3*chunk + 5)
	size := int64(len(b))
	chunks := int64(4)

	config, err := c.UploadConfig(ctx)
	w.check(err)
	if config.ChunkSize != chunk || config.SessionTTLSeconds != 7*24*3600 ||
		config.SessionMaxAgeSeconds != 30*24*3600 {
		t.Errorf("config %+v", config)
	}
	req := api.BeginRequest{
		CapsuleID: "default", ExpectedChunks: &chunks, ChunkSize: chunk, Idem: "one",
		Meta: api.Meta{
			Name: "ä.bin", Bytes: &size, Path: "a/b", Description: "d", Tags: []string{"x"}, Width: 3, Height: 4,
			MIMEType: "image/png",
		},
	}
	s, err := c.Begin(ctx, req)
	w.check(err)
	if len(s.Missing) != 1 || s.Missing[0] != (api.Range{0, 3}) || s.MissingBytes[0] != (api.Range{0, size - 1}) ||
		*s.ExpectedChunks != 4 {
		t.Errorf("begun: %+v", s)
	}
	for i := int64(1); i < 4; i++ {
		w.check(
			c.PutChunk(
				ctx, s.SessionID, i, bytes.NewReader(b[i*chunk:min(size, (i+1)*chunk)]), min(chunk, size-i*chunk),
				api.PutOptions{},
			),
		)
	}
	n, err := c.PutRange(ctx, s.SessionID, 0, bytes.NewReader(b[:chunk]), chunk, api.PutOptions{})
	w.check(err)
	if n != chunk {
		t.Errorf("recorded %d", n)
	}
	s, err = c.Status(ctx, s.SessionID, true)
	w.check(err)
	if len(s.Missing) != 0 || len(s.CRC32C) != 4 || s.BytesReceived != size {
		t.Errorf("status: %+v", s)
	}
	list, err := c.Uploads(ctx, "", 10)
	w.check(err)
	if len(list.Sessions) != 1 || list.Sessions[0].SessionID != s.SessionID || list.Sessions[0].Meta.Name != "ä.bin" {
		t.Errorf("list: %+v", list)
	}
	if all, err := c.AdminSessions(ctx, w.me.Principal, "open", "", 0); err != nil || len(all.Sessions) != 1 {
		t.Errorf("sessions: %+v %v", all, err)
	}
	m, err := c.Finish(ctx, finishOf(s.SessionID, b))
	w.check(err)
	if m.Name != "ä.bin" || m.Bytes != size || m.ContentURL != "/v1/memories_content/"+m.MemoryID ||
		m.SHA256 != hexSum(b) {
		t.Errorf("memory: %+v", m)
	}
	if again, err := c.Begin(ctx, req); err != nil || again.State != "finished" || again.MemoryID != m.MemoryID {
		t.Errorf("begun again: %+v %v", again, err)
	}
	checked, err := c.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", Files: []api.PrecheckFile{
		{Name: "new", Bytes: 1}, {Name: "there", Bytes: size, SHA256: hexSum(b)}, {Name: "", Bytes: 1},
	}})
	w.check(err)
	if !checked[0].OK || checked[0].MemoryID != "" || checked[1].MemoryID != m.MemoryID ||
		checked[2].OK || checked[2].Code != api.CodeInvalidArgument || checked[2].Status != 400 {
		t.Errorf("prechecked: %+v", checked)
	}
	second := w.filled(b)
	batch, err := c.FinishBatch(ctx, []api.FinishRequest{finishOf(second.SessionID, b)})
	w.check(err)
	third := w.begin(10)
	w.check(c.Abort(ctx, third.SessionID))
	w.check(c.Abort(ctx, third.SessionID))

	created, err := c.Create(
		ctx, api.CreateRequest{Name: "n", Idem: "two", MIMEType: "text/plain"}, strings.NewReader("hello"), 5,
	)
	w.check(err)
	named, err := http.NewRequestWithContext(
		ctx, "PUT", w.url+"/v1/memories_create/curl%20me", strings.NewReader("hello"),
	)
	w.check(err)
	named.Header.Set("Authorization", "Bearer "+w.secret)
	res, err := transport.RoundTrip(named)
	w.check(err)
	if a := w.read(res); a.StatusCode != 200 || !bytes.Contains(a.body, []byte(`"curl me"`)) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}

	read, err := c.ReadMemory(ctx, created.MemoryID)
	w.check(err)
	if read.Name != "n" || read.MIMEType != "text/plain" {
		t.Errorf("read: %+v", read)
	}
	page, err := c.ListMemories(ctx, api.MemoryQuery{Limit: 2})
	w.check(err)
	if len(page.Memories) != 2 || page.NextCursor == "" || page.Memories[0].Name != "curl me" {
		t.Errorf("page: %+v", page)
	}
	if page, err = c.ListMemories(ctx, api.MemoryQuery{Cursor: page.NextCursor, Limit: 2}); err != nil ||
		len(page.Memories) != 2 || page.NextCursor != "" {
		t.Errorf("page 2: %+v %v", page, err)
	}
	if page, err = c.ListMemories(ctx, api.MemoryQuery{
		SHA256: hexSum(b), PathPrefix: "a", Name: "ä.bin",
	}); err != nil || len(page.Memories) != 1 {
		t.Errorf("filtered: %+v %v", page, err)
	}
	name := "renamed"
	if read, err = c.UpdateMemory(ctx, api.UpdateMemoryRequest{MemoryID: created.MemoryID, Name: &name}); err != nil ||
		read.Name != name {
		t.Errorf("renamed: %+v %v", read, err)
	}
	w.check(c.DeleteMemory(ctx, created.MemoryID, false))
	if page, err = c.ListMemories(ctx, api.MemoryQuery{Trash: true}); err != nil || len(page.Memories) != 1 ||
		page.Memories[0].DeletedAt.IsZero() {
		t.Errorf("trash: %+v %v", page, err)
	}
	_, err = c.RestoreMemory(ctx, created.MemoryID)
	w.check(err)
	w.check(c.DeleteMemory(ctx, batch[0].MemoryID, true))
	there, err := c.Ping(ctx, []string{created.MemoryID, batch[0].MemoryID})
	w.check(err)
	if !there[created.MemoryID] || there[batch[0].MemoryID] || len(there) != 2 {
		t.Errorf("ping: %v", there)
	}
	body, info, err := c.Content(ctx, m.MemoryID, 0, -1)
	w.check(err)
	got, err := io.ReadAll(body)
	w.check(err)
	body.Close()
	if !bytes.Equal(got, b) || info.Bytes != size || info.MIMEType != "image/png" {
		t.Errorf("content differs: %+v", info)
	}

	capsule, err := c.CreateCapsule(ctx, api.CreateCapsuleRequest{
		CapsuleID: "second", Name: "S", Controllers: []string{w.me.Principal},
	})
	w.check(err)
	quota := int64(1 << 20)
	if capsule, err = c.UpdateCapsule(ctx, api.UpdateCapsuleRequest{
		CapsuleID: "second", QuotaBytes: &quota,
	}); err != nil || capsule.QuotaBytes != quota || capsule.Name != "S" {
		t.Errorf("capsule: %+v %v", capsule, err)
	}
	if capsules, err := c.ListCapsules(ctx, "", 0); err != nil || len(capsules.Capsules) != 2 {
		t.Errorf("capsules: %+v %v", capsules, err)
	}
	w.check(c.DeleteCapsule(ctx, "second"))
	capsule, err = c.ReadCapsule(ctx, "default")
	w.check(err)
	if capsule.Memories != 3 || capsule.Bytes != size+10 || capsule.OpenSessions != 0 {
		t.Errorf("default: %+v", capsule)
	}

	w.begin(10)
	if n, err := c.AdminCleanupExpired(ctx); err != nil || n != 0 {
		t.Errorf("%d %v", n, err)
	}
	stats, err := c.AdminStats(ctx)
	w.check(err)
	if stats.Open != 1 || stats.Begun != 4 || stats.Finished != 2 || stats.Aborted != 1 ||
		stats.OldestLastSeen.IsZero() {
		t.Errorf("stats: %+v", stats)
	}
	if n, err := c.AdminClearAll(ctx); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	w.check(c.Ready(ctx))
	_, err = c.ProtectedResource(ctx)
	w.check(err)
	for _, open := range []string{"/healthz", "/openapi.json"} {
		req, err := http.NewRequestWithContext(ctx, "GET", w.url+open, nil)
		w.check(err)
		_, err = transport.RoundTrip(req)
		w.check(err)
	}
	head, err := http.NewRequestWithContext(ctx, "HEAD", w.url+m.ContentURL, nil)
	w.check(err)
	head.Header.Set("Authorization", "Bearer "+w.secret)
	_, err = transport.RoundTrip(head)
	w.check(err)

	p, err := c.CreatePrincipal(ctx, "second", false)
	w.check(err)
	_, err = c.UpdatePrincipal(ctx, api.UpdatePrincipalRequest{PrincipalID: p.PrincipalID, QuotaBytes: &quota})
	w.check(err)
	_, err = c.ListPrincipals(ctx, "", 0)
	w.check(err)
	token, err := c.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: p.PrincipalID})
	w.check(err)
	_, err = c.ListTokens(ctx, p.PrincipalID, "", 0)
	w.check(err)
	_, err = c.WhoAmI(ctx)
	w.check(err)
	w.check(c.RevokeToken(ctx, token.TokenID))
	w.check(c.DeletePrincipal(ctx, p.PrincipalID))

	ticket, err := c.CreateTicket(ctx, api.CreateTicketRequest{
		CapsuleID: "default", Name: "t", MaxBytes: 1, MIMETypes: []string{"image/*"}, ExpiresInSeconds: 60,
	})
	w.check(err)
	limits, err := api.NewClient(w.url, ticket.Secret, &http.Client{Transport: transport}).UploadConfig(ctx)
	if err != nil || limits.MaxBytes != 1 || limits.Ticket == nil || limits.Ticket.UploadsLeft != 1 {
		t.Errorf("limits: %+v, %v", limits, err)
	}
	if tickets, err := c.ListTickets(ctx, "default", "", 0); err != nil || len(tickets.Tickets) != 1 ||
		tickets.Tickets[0].TicketID != ticket.TicketID {
		t.Errorf("tickets: %+v, %v", tickets, err)
	}
	w.check(c.RevokeTicket(ctx, ticket.TicketID))
	link, err := c.CreateLink(ctx, api.CreateLinkRequest{
		MemoryID: m.MemoryID, ExpiresInSeconds: 60, Downloads: &chunks,
	})
	w.check(err)
	body, _, err = c.Linked(ctx, link.URL, 0, -1)
	w.check(err)
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	body.Close()
	head, err = http.NewRequestWithContext(ctx, "HEAD", w.url+link.URL, nil)
	w.check(err)
	_, err = transport.RoundTrip(head)
	w.check(err)
	if links, err := c.ListLinks(ctx, "", "", 0); err != nil || len(links.Links) != 1 ||
		links.Links[0].LinkID != link.LinkID || links.Links[0].BytesRead != size {
		t.Errorf("links: %+v, %v", links, err)
	}
	w.check(c.RevokeLink(ctx, link.LinkID))

	// Refusals are documented too.
	_, err = c.Finish(ctx, finishOf(w.begin(10).SessionID, b[:10]))
	w.codeIs(err, api.CodeIncomplete)
	_, err = c.ReadMemory(ctx, "nothing")
	w.codeIs(err, api.CodeNotFound)

	for path, item := range paths {
		for method := range item {
			if want := strings.ToUpper(method) + " " + shape(path); !transport.seen[want] {
				t.Errorf("%s was not called", want)
			}
		}
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(transport.seen)))
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
