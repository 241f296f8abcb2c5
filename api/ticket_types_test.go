package api_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// ticket makes an upload ticket for the default capsule, and gives a client that has it.
func (w *world) ticket(req api.CreateTicketRequest) (api.NewTicket, *api.Client) {
	w.t.Helper()
	req.CapsuleID, req.ExpiresInSeconds = "default", 60
	t, err := w.client.CreateTicket(w.t.Context(), req)
	w.check(err)
	return t, w.as(t.Secret)
}

// A ticket with a list of types bounds what its bearer declares, at the begin, and what the bytes
// are, at the finish, in a capsule that takes everything.
func TestATicketWithTypes(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	uploads := int64(2)
	made, bearer := w.ticket(api.CreateTicketRequest{
		MaxBytes: 1000, Uploads: &uploads, MIMETypes: []string{"Image/*", "image/*"},
	})
	if want := []string{"image/*"}; !slices.Equal(made.MIMETypes, want) {
		t.Errorf("the ticket has the types %q", made.MIMETypes)
	}
	begin := func(mime string) (api.Session, error) {
		return bearer.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a", MIMEType: mime}})
	}
	refused := func(what string, err error) {
		t.Helper()
		w.codeIs(err, api.CodeUnsupportedMediaType)
		if err != nil && !strings.Contains(err.Error(), "image/*") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := begin("application/pdf")
	refused("the begin", err)
	const page, picture = "<html><script>alert(1)</script></html>", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	for _, content := range []string{page, picture} {
		s, err := begin("image/png")
		w.check(err)
		put := strings.NewReader(content)
		w.check(bearer.PutChunk(ctx, s.SessionID, 0, put, int64(len(content)), api.PutOptions{}))
		_, err = bearer.Finish(ctx, finishOf(s.SessionID, []byte(content)))
		if content == page {
			refused("the finish", err)
			w.check(bearer.Abort(ctx, s.SessionID))
		} else {
			w.check(err)
		}
	}
	_, err = w.client.CreateTicket(ctx, api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 1, ExpiresInSeconds: 60, MIMETypes: []string{"image"},
	})
	w.codeIs(err, api.CodeInvalidArgument)
}

// A precheck with a ticket knows the ticket's limits. It tells of no memory, which a ticket may not
// read.
func TestAPrecheckWithATicket(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	content := "there already"
	m, err := w.client.Create(
		ctx, api.CreateRequest{CapsuleID: "default", Name: "a"}, strings.NewReader(content), int64(len(content)),
	)
	w.check(err)
	uploads := int64(2)
	_, bearer := w.ticket(api.CreateTicketRequest{MaxBytes: 100, Uploads: &uploads, MIMETypes: []string{"image/*"}})
	req := api.PrecheckRequest{CapsuleID: "default", Files: []api.PrecheckFile{
		{Name: "a", Bytes: 101, MIMEType: "image/png"},
		{Name: "b", Bytes: 1, MIMEType: "text/plain"},
		{Name: "c", Bytes: int64(len(content)), MIMEType: "image/png", SHA256: m.SHA256},
		{Name: "d", Bytes: 1, MIMEType: "image/png"},
		{Name: "e", Bytes: 1, MIMEType: "image/png"},
	}}
	got, err := bearer.Precheck(ctx, req)
	w.check(err)
	for i, want := range []struct {
		code        api.Code
		limit, left int64 // -1: none
	}{
		{api.CodeTooLarge, 100, -1},
		{api.CodeUnsupportedMediaType, -1, -1},
		{"", -1, -1},
		{"", -1, -1},
		{api.CodeQuotaExceeded, 2, 0},
	} {
		r := got[i]
		if r.Code != want.code || r.MemoryID != "" || valueOf(r.Limit) != want.limit || valueOf(r.Left) != want.left {
			t.Errorf("file %d: %+v, limit %d, left %d", i, r, valueOf(r.Limit), valueOf(r.Left))
		}
	}
	req.EarlierFiles = 1
	got, err = bearer.Precheck(ctx, req)
	w.check(err)
	if got[2].Code != "" || got[3].Code != api.CodeQuotaExceeded {
		t.Errorf("behind an earlier file: %+v, then %+v", got[2], got[3])
	}
	req.CapsuleID = "another"
	_, err = bearer.Precheck(ctx, req)
	w.codeIs(err, api.CodeNotFound)
}
