package api_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// An admin makes a principal and its token. With that the principal works in what it has a role in,
// and with its own tokens. It manages no other principal.
func TestAPrincipalAndItsTokens(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	p, err := w.client.CreatePrincipal(ctx, "ada", false)
	w.check(err)
	if p.Name != "ada" || p.Admin || p.PrincipalID == "" {
		t.Errorf("%+v", p)
	}
	made, err := w.client.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: p.PrincipalID, Name: "laptop"})
	w.check(err)
	if !strings.HasPrefix(made.Token, "slc_") || made.PrincipalID != p.PrincipalID || made.ReadOnly {
		t.Errorf("%+v", made)
	}
	ada := w.as(made.Token)
	me, err := ada.WhoAmI(ctx)
	w.check(err)
	want := api.WhoAmI{
		PrincipalID: p.PrincipalID, Name: "ada", TokenID: made.TokenID, TokenName: "laptop", MaxOpenSessions: maxSessions,
	}
	if me != want {
		t.Errorf("%+v, want %+v", me, want)
	}

	for name, err := range map[string]error{
		"create":      second(ada.CreatePrincipal(ctx, "x", false)),
		"list":        second(ada.ListPrincipals(ctx, "", 0)),
		"update":      second(ada.UpdatePrincipal(ctx, api.UpdatePrincipalRequest{PrincipalID: p.PrincipalID, Admin: new(bool)})),
		"delete":      ada.DeletePrincipal(ctx, p.PrincipalID),
		"for another": second(ada.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: w.me.Principal})),
		"of another":  second(ada.ListTokens(ctx, w.me.Principal, "", 0)),
	} {
		t.Run(name, func(t *testing.T) { w.in(t).codeIs(err, api.CodeForbidden) })
	}

	hour := int64(3600)
	reads, err := ada.CreateToken(ctx, api.CreateTokenRequest{ExpiresInSeconds: &hour, ReadOnly: true})
	w.check(err)
	if d := time.Until(reads.ExpiresAt.Time); d < 59*time.Minute || d > time.Hour {
		t.Errorf("it ends in %s", d)
	}
	w.codeIs(second(w.as(reads.Token).CreateToken(ctx, api.CreateTokenRequest{})), api.CodeForbidden)
	w.codeIs(w.as(reads.Token).RevokeToken(ctx, reads.TokenID), api.CodeForbidden)

	for _, by := range []*api.Client{ada, w.client} {
		of := ""
		if by == w.client {
			of = p.PrincipalID
		}
		list, err := by.ListTokens(ctx, of, "", 0)
		w.check(err)
		if len(list.Tokens) != 2 || list.Tokens[0].TokenID != made.TokenID || list.Tokens[1].TokenID != reads.TokenID ||
			!list.Tokens[1].ReadOnly || list.Tokens[0].PrincipalID != p.PrincipalID {
			t.Errorf("%+v", list)
		}
	}
	w.codeIs(w.stranger.RevokeToken(ctx, reads.TokenID), api.CodeNotFound)
	w.check(ada.RevokeToken(ctx, reads.TokenID))
	w.codeIs(second(w.as(reads.Token).WhoAmI(ctx)), api.CodeUnauthenticated)
	w.codeIs(ada.RevokeToken(ctx, reads.TokenID), api.CodeNotFound)
	w.check(w.client.RevokeToken(ctx, made.TokenID))
	w.codeIs(second(ada.WhoAmI(ctx)), api.CodeUnauthenticated)
}

func second[T any](_ T, err error) error { return err }

// A token that was made with one that ends, ends with it at the latest.
func TestATokenDoesNotOutliveItsMaker(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	hour, day := int64(3600), int64(86400)
	short, err := w.client.CreateToken(ctx, api.CreateTokenRequest{ExpiresInSeconds: &hour})
	w.check(err)
	for _, asked := range []*int64{nil, &day} {
		made, err := w.as(short.Token).CreateToken(ctx, api.CreateTokenRequest{ExpiresInSeconds: asked})
		w.check(err)
		if !made.ExpiresAt.Equal(short.ExpiresAt.Time) {
			t.Errorf("it ends at %s, and its maker at %s", made.ExpiresAt, short.ExpiresAt)
		}
	}
}

// Principals and tokens are listed page by page.
func TestPrincipalsAreListedInPages(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	for i := range 5 {
		_, err := w.client.CreatePrincipal(ctx, fmt.Sprint(i), i == 3)
		w.check(err)
	}
	var names []string
	for cursor := ""; ; {
		page, err := w.client.ListPrincipals(ctx, cursor, 2)
		w.check(err)
		for _, p := range page.Principals {
			names = append(names, p.Name)
			if p.Admin != (p.Name == "admin" || p.Name == "3") {
				t.Errorf("%+v", p)
			}
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "admin stranger 0 1 2 3 4" {
		t.Error(got)
	}
	for _, cursor := range []string{"!", "AAAA", "e30"} {
		w.codeIs(second(w.client.ListPrincipals(ctx, cursor, 2)), api.CodeInvalidArgument)
		w.codeIs(second(w.client.ListTokens(ctx, "", cursor, 2)), api.CodeInvalidArgument)
	}
}

// There is always an admin.
func TestTheLastAdminStays(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	w.codeIs(w.client.DeletePrincipal(ctx, w.me.Principal), api.CodeForbidden)
	no := api.UpdatePrincipalRequest{PrincipalID: w.me.Principal, Admin: new(bool)}
	w.codeIs(second(w.client.UpdatePrincipal(ctx, no)), api.CodeForbidden)
	other, err := w.client.CreatePrincipal(ctx, "other", true)
	w.check(err)
	token, err := w.client.CreateToken(ctx, api.CreateTokenRequest{PrincipalID: other.PrincipalID})
	w.check(err)
	_, err = w.client.UpdatePrincipal(ctx, no)
	w.check(err)
	w.codeIs(second(w.client.ListPrincipals(ctx, "", 0)), api.CodeForbidden)
	w.check(w.as(token.Token).DeletePrincipal(ctx, w.me.Principal))
	w.codeIs(second(w.client.WhoAmI(ctx)), api.CodeUnauthenticated)
	w.codeIs(w.as(token.Token).DeletePrincipal(ctx, other.PrincipalID), api.CodeForbidden)
}

// A principal that is deleted has no tokens, no roles and no open sessions any more. Its memories
// stay with their capsule. An admin gives an owner to a capsule that has none.
func TestAPrincipalThatIsDeleted(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	id, secret := w.join("ada", false)
	ada := w.as(secret)
	_, err := ada.CreateCapsule(ctx, api.CreateCapsuleRequest{CapsuleID: "hers"})
	w.check(err)
	_, err = w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "default", Controllers: &[]string{id}})
	w.check(err)
	kept, err := ada.Create(ctx, api.CreateRequest{CapsuleID: "default", Name: "kept"}, strings.NewReader("kept"), 4)
	w.check(err)
	n := int64(3 * chunk)
	s, err := ada.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "half", Bytes: &n}})
	w.check(err)
	w.check(ada.PutChunk(ctx, s.SessionID, 0, bytes.NewReader(random(chunk)), chunk, api.PutOptions{}))

	w.check(w.client.DeletePrincipal(ctx, id))
	w.codeIs(second(ada.WhoAmI(ctx)), api.CodeUnauthenticated)
	w.codeIs(w.client.DeletePrincipal(ctx, id), api.CodeNotFound)
	if open, err := w.client.AdminSessions(ctx, id, "open", "", 0); err != nil || len(open.Sessions) != 0 {
		t.Errorf("%+v %v", open, err)
	}
	c, err := w.client.ReadCapsule(ctx, "default")
	w.check(err)
	if len(c.Controllers) != 0 || c.OpenSessions != 0 || c.ReservedBytes != 0 || c.Memories != 1 {
		t.Errorf("%+v", c)
	}
	if m, err := w.client.ReadMemory(ctx, kept.MemoryID); err != nil || m.Name != "kept" {
		t.Errorf("%+v %v", m, err)
	}
	c, err = w.client.ReadCapsule(ctx, "hers")
	w.check(err)
	if len(c.Owners) != 0 {
		t.Errorf("%+v", c)
	}
	owners := []string{w.me.Principal}
	_, err = w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "hers", Owners: &owners})
	w.check(err)
	w.check(w.client.DeleteCapsule(ctx, "hers"))
}

// Input that is malformed is refused with the name of the field.
func TestPrincipalsRefuseBadInput(t *testing.T) {
	w := newWorld(t, nil)
	for _, row := range []struct{ path, body, field string }{
		{"principals_create", `{"name":""}`, "name"},
		{"principals_create", `{"name":"a\u0000"}`, "name"},
		{"principals_create", `{"name":"` + strings.Repeat("a", 256) + `"}`, "name"},
		{"principals_create", `{}`, "name"},
		{"principals_update", `{"principal_id":"1"}`, "principal_id"},
		{"principals_update", `{"principal_id":"` + w.me.Principal + `"}`, "names nothing"},
		{"principals_update", `{"principal_id":"` + w.me.Principal + `","max_open_sessions":-1}`, "negative"},
		{"principals_delete", `{"principal_id":"{` + w.me.Principal + `}"}`, "principal_id"},
		{"tokens_create", `{"expires_in_seconds":0}`, "expires_in_seconds"},
		{"tokens_create", `{"expires_in_seconds":315360001}`, "expires_in_seconds"},
		{"tokens_create", `{"principal_id":"0198c7a0-0000-7000-8000-000000000000"}`, "does not exist"},
		{"tokens_create", `{"name":"` + strings.Repeat("a", 256) + `"}`, "name"},
		{"tokens_revoke", `{"token_id":"x"}`, "token_id"},
	} {
		a := w.do("POST", "/v1/"+row.path, row.body)
		if a.problem.Code != api.CodeInvalidArgument || !strings.Contains(a.problem.Detail, row.field) {
			t.Errorf("%s %s: %+v", row.path, row.body, a.problem)
		}
	}
}
