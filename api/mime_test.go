package api_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// A capsule takes the types that it was made for: 415 names them, at a begin, a create and a
// finish.
func TestACapsuleWithTypes(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	c, err := w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{
		CapsuleID: "photos", MIMETypes: []string{"Image/*"},
	})
	w.check(err)
	read, err := w.client.ReadCapsule(ctx, "photos")
	w.check(err)
	if want := []string{"image/*"}; !slices.Equal(c.MIMETypes, want) || !slices.Equal(read.MIMETypes, want) {
		t.Errorf("%q, then %q", c.MIMETypes, read.MIMETypes)
	}
	refused := func(what string, err error) {
		t.Helper()
		w.codeIs(err, api.CodeUnsupportedMediaType)
		if err != nil && !strings.Contains(err.Error(), "image/*") {
			t.Errorf("%s: %v", what, err)
		}
	}
	begin := func(mime string) (api.Session, error) {
		return w.client.Begin(ctx, api.BeginRequest{CapsuleID: "photos", Meta: api.Meta{Name: "a", MIMEType: mime}})
	}
	_, err = begin("application/pdf")
	refused("begin", err)
	create := func(mime, content string) error {
		_, err := w.client.Create(ctx, api.CreateRequest{CapsuleID: "photos", Name: "a", MIMEType: mime},
			strings.NewReader(content), int64(len(content)))
		return err
	}
	const page = "<html><script>alert(1)</script></html>"
	refused("create", create("application/pdf", "x"))
	refused("a create of something else", create("image/png", page))
	s, err := begin("image/png")
	w.check(err)
	w.check(w.client.PutChunk(ctx, s.SessionID, 0, strings.NewReader(page), int64(len(page)), api.PutOptions{}))
	finish := finishOf(s.SessionID, []byte(page))
	refused("finish", second(w.client.Finish(ctx, finish)))
	refused("a batch", second(w.client.FinishBatch(ctx, []api.FinishRequest{finish})))
	none := []string{}
	c, err = w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "photos", MIMETypes: &none})
	w.check(err)
	if len(c.MIMETypes) != 0 {
		t.Errorf("%q", c.MIMETypes)
	}
	w.check(second(w.client.Finish(ctx, finish)))
}

// An owner or a controller sets the types: a subject and an admin without a role may not.
func TestWhoSetsTheTypes(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	member := map[string]*api.Client{}
	ids := map[string]string{}
	for _, name := range []string{"owner", "controller", "subject"} {
		p, err := w.client.CreatePrincipal(ctx, name, false)
		w.check(err)
		made, err := w.client.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: p.PrincipalID})
		w.check(err)
		member[name], ids[name] = w.as(made.Token), p.PrincipalID
	}
	_, err := w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{
		CapsuleID: "c", Subject: ids["subject"], Owners: []string{ids["owner"]}, Controllers: []string{ids["controller"]},
	})
	w.check(err)
	member["admin"] = w.client
	for name, c := range member {
		types := []string{"image/" + name}
		row, err := c.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "c", MIMETypes: &types})
		switch name {
		case "owner", "controller":
			if err != nil || !slices.Equal(row.MIMETypes, types) {
				t.Errorf("%s: %q, %v", name, row.MIMETypes, err)
			}
		default:
			w.codeIs(err, api.CodeForbidden)
		}
	}
	for _, bad := range [][]string{{"image"}, {"*/*"}, {"text/plain; charset=utf-8"}} {
		_, err := member["owner"].UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "c", MIMETypes: &bad})
		w.codeIs(err, api.CodeInvalidArgument)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = "a/b"
	}
	_, err = member["owner"].UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "c", MIMETypes: &many})
	w.codeIs(err, api.CodeInvalidArgument)
}
