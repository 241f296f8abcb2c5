package api_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"sluice/access"
	"sluice/api"
)

// scene is what one cell of the table of access is tried in: a capsule with its people, and a
// caller.
type scene struct {
	*world
	capsule                          string
	ids                              map[string]string // principals, by what they are
	secrets                          map[string]string
	session, memory, trashed, ticket string
	link, linkSecret, token, victim  string
	b                                []byte
}

// cast are the principals of a scene.
var cast = []string{"stranger", "subject", "controller", "owner", "creator", "former"}

// newScene makes everything anew, so that no cell sees what another has done. caller is the column.
func (w *world) newScene(caller string) *scene {
	w.t.Helper()
	s := &scene{
		world: w, capsule: "c" + strings.ReplaceAll(uuid.NewString(), "-", ""), ids: map[string]string{},
		secrets: map[string]string{"no token": "", "admin": w.secret}, b: random(2 * chunk),
	}
	for _, name := range cast {
		s.ids[name], s.secrets[name] = w.join(name, false)
	}
	_, err := w.client.CreateCapsule(w.t.Context(), api.CreateCapsuleRequest{
		CapsuleID: s.capsule, Subject: s.ids["subject"], Owners: []string{s.ids["owner"]},
		Controllers: []string{s.ids["controller"], s.ids["creator"], s.ids["former"]},
	})
	w.check(err)
	creator := "creator"
	if caller == "former" {
		creator = caller
	}
	maker := w.as(s.secrets[creator])
	t, err := maker.CreateTicket(w.t.Context(), api.CreateTicketRequest{
		CapsuleID: s.capsule, MaxBytes: 1 << 20, Uploads: ptr(100), ExpiresInSeconds: 3600,
	})
	w.check(err)
	s.ticket, s.secrets["ticket"] = t.TicketID, t.Secret
	if caller == "ticket" {
		creator = caller
	}
	reader, err := maker.CreateToken(w.t.Context(), api.CreateTokenRequest{ReadOnly: true})
	w.check(err)
	s.secrets["reader"] = reader.Token

	up := w.as(s.secrets[creator])
	begun, err := up.Begin(w.t.Context(), api.BeginRequest{
		CapsuleID: s.capsule, Meta: api.Meta{Name: "a", Bytes: ptr(2 * chunk)}, ChunkSize: chunk,
	})
	w.check(err)
	s.session = begun.SessionID
	for i := range int64(2) {
		part := s.b[i*chunk : (i+1)*chunk]
		w.check(up.PutChunk(w.t.Context(), s.session, i, bytes.NewReader(part), chunk, api.PutOptions{}))
	}
	owner := w.as(s.secrets["owner"])
	for _, id := range []*string{&s.memory, &s.trashed} {
		req := api.CreateRequest{CapsuleID: s.capsule, Name: "m"}
		m, err := owner.Create(w.t.Context(), req, bytes.NewReader(s.b), 2*chunk)
		w.check(err)
		*id = m.MemoryID
	}
	w.check(owner.DeleteMemory(w.t.Context(), s.trashed, false))
	l, err := maker.CreateLink(w.t.Context(), api.CreateLinkRequest{MemoryID: s.memory, ExpiresInSeconds: 3600})
	w.check(err)
	s.link = l.LinkID
	l, err = owner.CreateLink(w.t.Context(), api.CreateLinkRequest{MemoryID: s.memory, ExpiresInSeconds: 3600})
	w.check(err)
	s.linkSecret = strings.TrimPrefix(l.URL, "/r/")
	s.victim, _ = w.join("victim", false)
	other, err := w.client.CreateToken(w.t.Context(), api.CreateTokenRequest{PrincipalID: s.victim})
	w.check(err)
	s.token = other.TokenID
	if caller == "former" {
		rest := []string{s.ids["controller"], s.ids["creator"]}
		_, err = owner.UpdateCapsule(w.t.Context(), api.UpdateCapsuleRequest{CapsuleID: s.capsule, Controllers: &rest})
		w.check(err)
	}
	return s
}

// ghost is the scene with ids of things that were never there.
func (s *scene) ghost() *scene {
	g := *s
	g.capsule = "c" + strings.ReplaceAll(uuid.NewString(), "-", "")
	last := len(s.session) - 1
	g.session = s.session[:last] + string('0'+(s.session[last]-'0'+1)%10)
	g.ticket = uuid.Must(uuid.NewV7()).String()
	g.memory, g.trashed = uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	g.link, g.token = uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	return &g
}

// tried is the request of a row: path and body.
type tried struct{ path, body string }

// tries has a request for each row of the table: "method path" and what it is about.
func (s *scene) tries(caller string) map[string]tried {
	js := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	own := s.token // of the caller
	if secret := s.secrets[caller]; secret != "" && caller != "ticket" {
		if c, err := s.access.Authenticate(s.t.Context(), secret); err == nil && !c.ReadOnly {
			t, _, err := s.access.CreateToken(s.t.Context(), c, access.TokenRequest{})
			s.check(err)
			own = t.ID
		}
	}
	finish := finishBody(s.session, s.b)
	return map[string]tried{
		"GET /v1/upload_config ": {"/v1/upload_config", ""},
		"POST /v1/uploads_begin in the capsule": {
			"/v1/uploads_begin", js(`{"capsule_id":%q,"meta":{"name":"a","bytes":1}}`, s.capsule),
		},
		"POST /v1/uploads_precheck in the capsule": {
			"/v1/uploads_precheck", js(`{"capsule_id":%q,"files":[{"name":"a","bytes":1}]}`, s.capsule),
		},
		"PUT /v1/uploads_put_chunk/{session_id}/{chunk_idx} ": {chunkPath(s.session, 1), string(s.b[chunk:])},
		"PUT /v1/uploads_put_range/{session_id}/{offset} ":    {rangePath(s.session, chunk), string(s.b[chunk:])},
		"POST /v1/uploads_finish ":                            {"/v1/uploads_finish", finish},
		"POST /v1/uploads_finish_batch ":                      {"/v1/uploads_finish_batch", js(`{"finishes":[%s]}`, finish)},
		"POST /v1/uploads_abort ":                             {"/v1/uploads_abort", js(`{"session_id":%q}`, s.session)},
		"GET /v1/uploads_status/{session_id} ":                {"/v1/uploads_status/" + s.session, ""},
		"GET /v1/uploads_list one's own":                      {"/v1/uploads_list", ""},
		"POST /v1/memories_create in the capsule":             {"/v1/memories_create?name=a&capsule_id=" + s.capsule, "x"},
		"PUT /v1/memories_create/{name} in the capsule":       {"/v1/memories_create/a?capsule_id=" + s.capsule, "x"},
		"GET /v1/memories_read/{memory_id} ":                  {"/v1/memories_read/" + s.memory, ""},
		"GET /v1/memories_list of the capsule":                {"/v1/memories_list?capsule_id=" + s.capsule, ""},
		"POST /v1/memories_update ":                           {"/v1/memories_update", js(`{"memory_id":%q,"name":"b"}`, s.memory)},
		"POST /v1/memories_delete ":                           {"/v1/memories_delete", js(`{"memory_id":%q}`, s.memory)},
		"POST /v1/memories_restore ":                          {"/v1/memories_restore", js(`{"memory_id":%q}`, s.trashed)},
		"POST /v1/memories_ping says which one may read":      {"/v1/memories_ping", js(`{"memory_ids":[%q]}`, s.memory)},
		"GET /v1/memories_content/{memory_id} ":               {"/v1/memories_content/" + s.memory, ""},
		"POST /v1/capsules_create ":                           {"/v1/capsules_create", "{}"},
		"GET /v1/capsules_read/{capsule_id} ":                 {"/v1/capsules_read/" + s.capsule, ""},
		"GET /v1/capsules_list one's own; an admin sees all":  {"/v1/capsules_list", ""},
		"POST /v1/capsules_update name":                       {"/v1/capsules_update", js(`{"capsule_id":%q,"name":"b"}`, s.capsule)},
		"POST /v1/capsules_update roles": {
			"/v1/capsules_update", js(`{"capsule_id":%q,"subject":%q}`, s.capsule, s.ids["stranger"]),
		},
		"POST /v1/capsules_update quotas": {
			"/v1/capsules_update", js(`{"capsule_id":%q,"quota_memories":100}`, s.capsule),
		},
		"POST /v1/capsules_delete ":                  {"/v1/capsules_delete", js(`{"capsule_id":%q}`, s.capsule)},
		"GET /v1/whoami ":                            {"/v1/whoami", ""},
		"POST /v1/tokens_create one's own":           {"/v1/tokens_create", "{}"},
		"POST /v1/tokens_create another's":           {"/v1/tokens_create", js(`{"principal_id":%q}`, s.victim)},
		"GET /v1/tokens_list one's own":              {"/v1/tokens_list", ""},
		"GET /v1/tokens_list another's":              {"/v1/tokens_list?principal_id=" + s.victim, ""},
		"POST /v1/tokens_revoke one's own":           {"/v1/tokens_revoke", js(`{"token_id":%q}`, own)},
		"POST /v1/tokens_revoke another's":           {"/v1/tokens_revoke", js(`{"token_id":%q}`, s.token)},
		"GET /v1/upload_tickets_list one's own":      {"/v1/upload_tickets_list", ""},
		"GET /v1/upload_tickets_list of the capsule": {"/v1/upload_tickets_list?capsule_id=" + s.capsule, ""},
		"POST /v1/upload_tickets_create for the capsule": {
			"/v1/upload_tickets_create", js(`{"capsule_id":%q,"max_bytes":1,"expires_in_seconds":60}`, s.capsule),
		},
		"POST /v1/upload_tickets_revoke the creator's": {"/v1/upload_tickets_revoke", js(`{"ticket_id":%q}`, s.ticket)},
		"POST /v1/read_links_create ": {
			"/v1/read_links_create", js(`{"memory_id":%q,"expires_in_seconds":60}`, s.memory),
		},
		"GET /v1/read_links_list one's own":        {"/v1/read_links_list", ""},
		"GET /v1/read_links_list of the capsule":   {"/v1/read_links_list?capsule_id=" + s.capsule, ""},
		"POST /v1/read_links_revoke the creator's": {"/v1/read_links_revoke", js(`{"link_id":%q}`, s.link)},
		"GET /r/{link} the link is the secret":     {"/r/" + s.linkSecret, ""},
		"POST /v1/principals_create ":              {"/v1/principals_create", `{"name":"a"}`},
		"GET /v1/principals_list ":                 {"/v1/principals_list", ""},
		"POST /v1/principals_update ":              {"/v1/principals_update", js(`{"principal_id":%q,"name":"b"}`, s.victim)},
		"POST /v1/principals_delete ":              {"/v1/principals_delete", js(`{"principal_id":%q}`, s.victim)},
		"GET /v1/sessions_list ":                   {"/v1/sessions_list", ""},
		"GET /v1/sessions_stats ":                  {"/v1/sessions_stats", ""},
		"POST /v1/sessions_clear_all ":             {"/v1/sessions_clear_all", ""},
		"POST /v1/sessions_cleanup_expired ":       {"/v1/sessions_cleanup_expired", ""},
		"GET " + api.ResourcePath + " ":            {api.ResourcePath, ""},
		"GET /healthz ":                            {"/healthz", ""},
		"GET /readyz ":                             {"/readyz", ""},
		"GET /openapi.json ":                       {"/openapi.json", ""},
	}
}

// accessRow is a row of docs/access.md.
type accessRow struct {
	method, path, what string
	cells              map[string]string // by caller
}

// accessTable reads the table of docs/access.md.
func accessTable(t *testing.T) (callers []string, rows []accessRow) {
	t.Helper()
	text, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	operation := regexp.MustCompile("^`([A-Z]+) (/[^`]*)`$")
	for line := range strings.Lines(string(text)) {
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|\n"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		if cells[0] == "operation" {
			callers = cells[2:]
		}
		op := operation.FindStringSubmatch(cells[0])
		if op == nil {
			continue
		}
		row := accessRow{op[1], op[2], cells[1], map[string]string{}}
		for i, caller := range callers {
			row.cells[caller] = cells[2+i]
		}
		rows = append(rows, row)
	}
	return callers, rows
}

// Each cell of the table of docs/access.md holds, and each route has a row. What a caller may not
// know of looks as if it were not there.
func TestTheTableOfAccess(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.SignIn = &api.SignIn{Issuer: "https://issuer.example", Audience: "a"} })
	callers, rows := accessTable(t)
	served, tabled := map[string]bool{}, map[string]bool{}
	for path, methods := range w.documented() {
		for method := range methods {
			if method != "head" {
				served[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	for _, row := range rows {
		tabled[row.method+" "+row.path] = true
	}
	if diff := cmp.Diff(served, tabled); diff != "" {
		t.Errorf("(-served +in the table):\n%s", diff)
	}
	if len(callers) != 10 {
		t.Fatalf("callers: %q", callers)
	}
	for _, caller := range callers {
		t.Run(caller, func(t *testing.T) {
			w := w.in(t)
			for _, row := range rows {
				s := w.newScene(caller)
				for _, as := range s.bearers(caller) {
					s.try(row, caller, as, row.cells[caller])
				}
			}
		})
	}
}

// bearer is a value of Authorization.
type bearer struct{ name, field string }

// bearers gives what the caller of a column sends: one value, or all that are no valid token.
func (s *scene) bearers(caller string) []bearer {
	if caller != "no token" {
		return []bearer{{caller, "Bearer " + s.secrets[caller]}}
	}
	revoked, err := s.as(s.secrets["owner"]).CreateToken(s.t.Context(), api.CreateTokenRequest{})
	s.check(err)
	s.check(s.client.RevokeToken(s.t.Context(), revoked.TokenID))
	_, expired, err := s.access.CreateToken(s.t.Context(), s.me, access.TokenRequest{TTL: time.Nanosecond})
	s.check(err)
	gone, deleted := s.join("gone", false)
	s.check(s.client.DeletePrincipal(s.t.Context(), gone))
	spent, err := s.as(s.secrets["owner"]).CreateTicket(s.t.Context(), api.CreateTicketRequest{
		CapsuleID: s.capsule, MaxBytes: 1, ExpiresInSeconds: 60,
	})
	s.check(err)
	s.check(s.client.RevokeTicket(s.t.Context(), spent.TicketID))
	return []bearer{
		{"nobody", ""},
		{"an unknown token", "Bearer slc_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
		{"a token that was revoked", "Bearer " + revoked.Token},
		{"a token that has expired", "Bearer " + expired},
		{"a token of a deleted principal", "Bearer " + deleted},
		{"a ticket that was revoked", "Bearer " + spent.Secret},
		{"a read link", "Bearer " + s.linkSecret},
	}
}

// try sends the request of a row as a caller, and compares the answer with the cell.
func (s *scene) try(row accessRow, caller string, as bearer, want string) {
	s.t.Helper()
	key := row.method + " " + row.path + " " + row.what
	is, ok := s.tries(caller)[key]
	if !ok {
		s.t.Fatalf("no request for the row %q; there are %q", key, slices.Sorted(maps.Keys(s.tries(caller))))
	}
	a := s.do(row.method, is.path, is.body, "Authorization", as.field)
	got := fmt.Sprint(a.StatusCode)
	if a.StatusCode != 401 && a.StatusCode != 403 && a.StatusCode != 404 {
		got = "yes"
	}
	if a.StatusCode >= 500 || a.StatusCode == 400 || a.StatusCode == 405 {
		got = a.Status
	}
	if got != want {
		s.t.Errorf("%s as %s: %s, want %s; %s", key, as.name, got, want, a.body)
	}
	if want != "404" {
		return
	}
	ghost := s.ghost()
	absent := ghost.tries(caller)[key]
	b := s.do(row.method, absent.path, absent.body, "Authorization", as.field)
	if diff := cmp.Diff(ghost.plain(b), s.plain(a)); diff != "" {
		s.t.Errorf("%s as %s differs from that of a thing that is not there (-absent +hidden):\n%s", key, as.name, diff)
	}
}

// plain is an answer without what each answer has of its own, and without the id that was asked
// for.
func (s *scene) plain(a answer) map[string]any {
	h := http.Header(maps.Clone(a.Header))
	h.Del("X-Request-Id")
	h.Del("Date")
	return map[string]any{
		"status": a.StatusCode, "header": h, "body": strings.ReplaceAll(string(a.body), s.session, "ID"),
	}
}
