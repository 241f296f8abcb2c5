package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// A precheck answers with what begins would, and numbers that a client can use.
func TestAPrecheck(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	w.limit(1000, 0)
	got, err := w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", Files: []api.PrecheckFile{
		{Name: "a", Bytes: 600},
		{Name: "b", Bytes: 600},
		{Name: "c", Bytes: 400, SHA256: strings.Repeat("0", 64)},
		{Name: "d", Bytes: 1 << 60},
		{Name: "e", Bytes: 0, SHA256: "0G"},
		{Name: strings.Repeat("n", 300), Bytes: 0},
	}})
	w.check(err)
	for i, want := range []struct {
		code        api.Code
		limit, left int64 // -1: none
		says        string
	}{
		{"", -1, -1, ""},
		{api.CodeQuotaExceeded, 1000, 400, "400 are left"},
		{"", -1, -1, ""},
		{api.CodeTooLarge, 1 << 40, -1, "an upload may have"},
		{api.CodeInvalidArgument, -1, -1, "sha256 must be 64 lower-case hex digits"},
		{api.CodeInvalidArgument, 255, -1, "name has 300 bytes, and 255 are allowed"},
	} {
		r := got[i]
		if r.OK != (want.code == "") || r.Code != want.code || !strings.Contains(r.Detail, want.says) ||
			valueOf(r.Limit) != want.limit || valueOf(r.Left) != want.left || r.OK != (r.Status == 0) {
			t.Errorf("file %d: %+v, limit %d, left %d", i, r, valueOf(r.Limit), valueOf(r.Left))
		}
	}
	st, err := w.sessions.Stats(ctx)
	w.check(err)
	if st.Begun != 0 {
		t.Errorf("%d sessions were begun", st.Begun)
	}

	many := make([]api.PrecheckFile, 1000)
	for i := range many {
		many[i] = api.PrecheckFile{
			Name: fmt.Sprintf("%03d%s", i, strings.Repeat("n", 252)), Path: strings.Repeat("p", 1024), Bytes: 1,
			SHA256: strings.Repeat("0", 64), MIMEType: "a/" + strings.Repeat("b", 250),
		}
	}
	got, err = w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", Files: many})
	w.check(err)
	if len(got) != 1000 || !got[999].OK {
		t.Errorf("%d results, the last one %+v", len(got), got[len(got)-1])
	}
	_, err = w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", Files: append(many, many[0])})
	if e := w.codeIs(err, api.CodeInvalidArgument); valueOf(e.Limit) != 1000 {
		t.Errorf("%+v", e.Fault)
	}
	_, err = w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", EarlierBytes: -1, Files: many[:1]})
	w.codeIs(err, api.CodeInvalidArgument)
	_, err = w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "nowhere", Files: many[:1]})
	w.codeIs(err, api.CodeNotFound)
}

// valueOf gives -1 for nil.
func valueOf(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// Each refusal that a client can count by has the limit, and what is left of it where that is used
// up, as numbers and in its text.
func TestARefusalSaysHowMuchIsLeft(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	beginAs := func(req api.BeginRequest) error {
		req.CapsuleID = "default"
		return second(w.client.Begin(ctx, req))
	}
	begin := func(n int64) error { return beginAs(api.BeginRequest{Meta: api.Meta{Name: "a", Bytes: &n}}) }
	admin := w.client
	for name, c := range map[string]struct {
		meet        func() error
		code        api.Code
		limit, left int64
		says        []string
	}{
		"bytes of a capsule": {func() error {
			w.limit(100, 0)
			w.check(begin(60))
			return begin(41)
		}, api.CodeQuotaExceeded, 100, 40, []string{"100 bytes", "holds 60", "40 are left"}},
		"memories of a capsule": {func() error {
			w.limit(0, 1)
			w.store("a", "", []byte("x"))
			return begin(1)
		}, api.CodeQuotaExceeded, 1, 0, []string{"1 memories", "holds 1", "0 are left"}},
		"bytes of a principal": {func() error {
			n := int64(100)
			own := api.UpdatePrincipalRequest{PrincipalID: w.me.Principal, QuotaBytes: &n}
			w.check(second(admin.UpdatePrincipal(ctx, own)))
			w.check(begin(30))
			return begin(71)
		}, api.CodeQuotaExceeded, 100, 70, []string{"principal", "100 bytes", "holds 30", "70 are left"}},
		"open sessions": {func() error {
			for range maxSessions {
				w.begin(0)
			}
			return begin(0)
		}, api.CodeResourceExhausted, maxSessions, 0, []string{"120 open sessions", "has 120", "0 are left", "abort"}},
		"an upload": {func() error {
			return begin(1<<40 + 1)
		}, api.CodeTooLarge, 1 << 40, -1, []string{"1099511627776"}},
		"chunks": {func() error {
			n := int64(1 << 30)
			return beginAs(api.BeginRequest{ChunkSize: 1, Meta: api.Meta{Name: "a", Bytes: &n}})
		}, api.CodeTooLarge, 16384, -1, []string{"16384", "larger chunks"}},
		"a chunk of an unknown length": {func() error {
			s := w.begin(-1)
			return w.put(s.SessionID, 1<<40, []byte("x"))
		}, api.CodeTooLarge, 16384, -1, []string{"16384"}},
		"a list": {func() error {
			_, err := admin.Ping(ctx, make([]string, 1001))
			return err
		}, api.CodeInvalidArgument, 1000, -1, []string{"memory_ids", "1000 elements"}},
		"tags": {func() error {
			return beginAs(api.BeginRequest{Meta: api.Meta{Name: "a", Tags: make([]string, 65)}})
		}, api.CodeInvalidArgument, 64, -1, []string{"tags", "64"}},
		"a text": {func() error {
			return beginAs(api.BeginRequest{Meta: api.Meta{Name: "a", Description: strings.Repeat("d", 2049)}})
		}, api.CodeInvalidArgument, 2048, -1, []string{"description", "2049", "2048"}},
		"a string": {func() error {
			return beginAs(api.BeginRequest{Meta: api.Meta{Name: strings.Repeat("n", 17<<10)}})
		}, api.CodeInvalidArgument, 16 << 10, -1, []string{"meta.name", "16384"}},
		"all metadata": {func() error {
			tags := make([]string, 60)
			for i := range tags {
				tags[i] = strings.Repeat("t", 100)
			}
			return beginAs(api.BeginRequest{Meta: api.Meta{Name: "a", Tags: tags}})
		}, api.CodeInvalidArgument, 3584, -1, []string{"3584"}},
		"patterns of types": {func() error {
			_, err := admin.CreateCapsule(ctx, api.CreateCapsuleRequest{MIMETypes: make([]string, 101)})
			return err
		}, api.CodeInvalidArgument, 100, -1, []string{"mime_types", "100"}},
		"a body": {func() error {
			files := make([]api.DeleteMemoryRequest, 1)
			files[0].MemoryID = strings.Repeat("x", 2<<20)
			return admin.DeleteMemory(ctx, files[0].MemoryID, false)
		}, api.CodeTooLarge, 1 << 20, -1, []string{"1048576"}},
		"tokens": {func() error {
			for {
				if _, err := admin.CreateToken(ctx, api.CreateTokenRequest{}); err != nil {
					return err
				}
			}
		}, api.CodeQuotaExceeded, 1000, 0, []string{"1000 tokens", "0 are left", "revoke"}},
	} {
		t.Run(name, func(t *testing.T) {
			w = newWorld(t, nil)
			admin = w.client
			ctx = t.Context()
			e := w.codeIs(c.meet(), c.code)
			if valueOf(e.Limit) != c.limit || valueOf(e.Left) != c.left {
				t.Errorf("limit %d, left %d: %s", valueOf(e.Limit), valueOf(e.Left), e.Detail)
			}
			for _, says := range c.says {
				if !strings.Contains(e.Detail, says) {
					t.Errorf("%q does not say %q", e.Detail, says)
				}
			}
		})
	}
}

// The texts and lists beside those of an upload have bounds too.
func TestTextsAndRolesHaveBounds(t *testing.T) {
	w, ctx := newWorld(t, nil), t.Context()
	long := strings.Repeat("n", 256)
	roles := make([]string, 101)
	for name, c := range map[string]struct {
		err   error
		limit int64
	}{
		"a capsule's name":     {second(w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{Name: long})), 255},
		"a principal's name":   {second(w.client.CreatePrincipal(ctx, long, false)), 255},
		"a token's name":       {second(w.client.CreateToken(ctx, api.CreateTokenRequest{Name: long})), 255},
		"owners":               {second(w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{Owners: roles})), 100},
		"controllers":          {second(w.client.CreateCapsule(ctx, api.CreateCapsuleRequest{Controllers: roles})), 100},
		"a key":                {second(w.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a"}, Idem: long})), 255},
		"a path":               {second(w.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a", Path: strings.Repeat("p", 1025)}})), 1024},
		"a tag":                {second(w.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: "a", Tags: []string{long + "n"}}})), 256},
		"patterns of MIME":     {second(w.client.UpdateCapsule(ctx, api.UpdateCapsuleRequest{CapsuleID: "default", MIMETypes: &roles})), 100},
		"files of a precheck":  {second(w.client.Precheck(ctx, api.PrecheckRequest{CapsuleID: "default", Files: make([]api.PrecheckFile, 1001)})), 1000},
		"sessions of a batch":  {second(w.client.FinishBatch(ctx, make([]api.FinishRequest, 1001))), 1000},
		"checksums of a batch": {second(w.client.Finish(ctx, api.FinishRequest{ChunkCRC32C: slices.Repeat([]string{"00000000"}, 16385)})), 16384},
	} {
		t.Run(name, func(t *testing.T) {
			e := w.in(t).codeIs(c.err, api.CodeInvalidArgument)
			if valueOf(e.Limit) != c.limit || !strings.Contains(e.Detail, fmt.Sprint(c.limit)) {
				t.Errorf("limit %d: %s", valueOf(e.Limit), e.Detail)
			}
		})
	}
}
