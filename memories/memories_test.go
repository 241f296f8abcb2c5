package memories_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"sluice/access"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/test/leak"
	"sluice/memories"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

// listed gives the names in the list and those in the trash.
func (w *world) listed() string {
	return fmt.Sprint(w.names(memories.ListRequest{}), w.names(memories.ListRequest{Trash: true}))
}

// still is a running time: no token here has an end.
func still() int64 { return 0 }

type world struct {
	*memories.Service
	t            *testing.T
	uploads      *upload.Service
	access       *access.Service
	catalog      catalog.Store
	blobs        *blobtest.Mem
	me, stranger access.Caller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	stores := metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	w := &world{
		t:       t,
		blobs:   blobtest.NewMem(),
		catalog: stores.Catalog(),
		access:  access.New(stores.Catalog(), clock{}, still, nil),
	}
	engine, err := session.New(t.Context(), stores.Sessions(), upload.EngineConfig(session.Config{}))
	w.check(err)
	limits := upload.DefaultLimits()
	limits.InlineMax = 16
	w.uploads = upload.New(
		upload.Config{Sessions: engine, Catalog: w.catalog, Blobs: w.blobs, Clock: clock{}, Limits: limits},
	)
	t.Cleanup(w.uploads.Close)
	w.Service = memories.New(
		memories.Config{
			Catalog:  w.catalog,
			Content:  w.blobs,
			Clock:    clock{},
			Running:  engine.Running,
			TrashFor: time.Hour,
		},
	)
	secret, err := w.access.Bootstrap(t.Context())
	w.check(err)
	w.me, err = w.access.Authenticate(t.Context(), secret)
	w.check(err)
	w.stranger = w.join("stranger")
	return w
}

func (w *world) join(name string) access.Caller {
	p, err := w.access.CreatePrincipal(w.t.Context(), w.me, name, false)
	w.check(err)
	_, secret, err := w.access.CreateToken(w.t.Context(), w.me, access.TokenRequest{Principal: p.ID, Name: name})
	w.check(err)
	c, err := w.access.Authenticate(w.t.Context(), secret)
	w.check(err)
	return c
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) store(name, path string, b []byte) catalog.Memory {
	w.t.Helper()
	m, err := w.uploads.Create(w.t.Context(), w.me, upload.CreateRequest{
		Meta: catalog.Meta{Name: name, Path: path}, Put: upload.Put{Length: int64(len(b))},
	}, bytes.NewReader(b))
	w.check(err)
	return m
}

func (w *world) names(req memories.ListRequest) (names []string) {
	w.t.Helper()
	if req.Limit == 0 {
		req.Limit = 100
	}
	page, next, err := w.List(w.t.Context(), w.me, req)
	w.check(err)
	if next != "" {
		w.t.Fatal("more than a page")
	}
	for _, m := range page {
		names = append(names, m.Name)
	}
	return names
}

func (w *world) body(m catalog.Memory, off, n int64) []byte {
	w.t.Helper()
	f, err := w.Open(w.t.Context(), w.me, m.ID)
	w.check(err)
	body, err := f.Body(w.t.Context(), off, n)
	w.check(err)
	defer body.Close()
	b, err := io.ReadAll(body)
	w.check(err)
	return b
}

func TestContentIsReadByRanges(t *testing.T) {
	w := newWorld(t)
	for _, b := range [][]byte{nil, []byte("inline"), bytes.Repeat([]byte("0123456789"), 1000)} {
		m := w.store("a", "", b)
		for _, r := range [][2]int{{0, len(b)}, {0, 0}, {len(b), 0}, {len(b) / 3, len(b) / 2}} {
			if got := w.body(m, int64(r[0]), int64(r[1])); !bytes.Equal(got, b[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes, %v: %d differ", len(b), r, len(got))
			}
		}
	}
}

func TestAReaderFollowsContentThatHasMoved(t *testing.T) {
	w := newWorld(t)
	b := bytes.Repeat([]byte("x"), 1000)
	m := w.store("a", "", b)
	f, err := w.Open(t.Context(), w.me, m.ID)
	w.check(err)
	old, err := w.blobs.Places(t.Context(), "", 1)
	w.check(err)
	w.store("again", "", b) // the row switches to this copy
	w.check(w.blobs.Delete(t.Context(), old[0].Name))
	body, err := f.Body(t.Context(), 0, 1000)
	w.check(err)
	if got, _ := io.ReadAll(body); !bytes.Equal(got, b) {
		t.Error("content differs")
	}
}

func TestListsSelect(t *testing.T) {
	w := newWorld(t)
	w.store("1", "a", []byte("1"))
	w.store("2", "a/b", []byte("2"))
	w.store("3", "ab", []byte("3"))
	w.store("4", "", []byte("1"))
	sum := catalog.SHA256(sha256.Sum256([]byte("1")))
	for _, c := range []struct {
		req  memories.ListRequest
		want string
	}{
		{memories.ListRequest{}, "[4 3 2 1]"},
		{memories.ListRequest{PathPrefix: "a"}, "[2 1]"},
		{memories.ListRequest{PathPrefix: "a/"}, "[2 1]"},
		{memories.ListRequest{PathPrefix: "a/b"}, "[2]"},
		{memories.ListRequest{Name: "3"}, "[3]"},
		{memories.ListRequest{SHA256: &sum}, "[4 1]"},
		{memories.ListRequest{SHA256: &sum, PathPrefix: "a"}, "[1]"},
		{memories.ListRequest{Trash: true}, "[]"},
	} {
		if got := fmt.Sprint(w.names(c.req)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.req, got, c.want)
		}
	}
}

// A memory is found under its name and path, in any Unicode form on either side.
func TestListsCompareInOneFormOfUnicode(t *testing.T) {
	const composed, apart = "caf\u00e9", "cafe\u0301"
	for _, stored := range []string{composed, apart} {
		w := newWorld(t)
		m := w.store(stored, stored+"/inner", []byte("x"))
		if m.Name != stored || m.Path != composed+"/inner" {
			t.Errorf("stored as %+q in %+q", m.Name, m.Path)
		}
		moved := w.store("other", "", []byte("y"))
		path := stored
		if _, err := w.Update(t.Context(), w.me, moved.ID, memories.Change{Path: &path}); err != nil {
			t.Fatal(err)
		}
		for _, asked := range []string{composed, apart} {
			for _, req := range []memories.ListRequest{
				{Name: asked},
				{PathPrefix: asked + "/inner"},
				{PathPrefix: asked + "/inner/"},
				{PathPrefix: asked, Name: asked},
			} {
				req.Limit = 10
				page, _, err := w.List(t.Context(), w.me, req)
				if err != nil || len(page) != 1 || page[0].ID != m.ID {
					t.Errorf("stored as %+q, asked for %+v: %d, %v", stored, req, len(page), err)
				}
			}
			page, _, err := w.List(t.Context(), w.me, memories.ListRequest{PathPrefix: asked, Limit: 10})
			if err != nil || len(page) != 2 {
				t.Errorf("below %+q: %d, %v", asked, len(page), err)
			}
		}
	}
}

func TestPagesNeitherRepeatNorSkip(t *testing.T) {
	w := newWorld(t)
	var ms []catalog.Memory
	for i := range 10 {
		ms = append(ms, w.store(fmt.Sprint(i), "", []byte{byte(i)}))
	}
	var seen []string
	req := memories.ListRequest{Limit: 3}
	for i := 0; ; i++ {
		page, next, err := w.List(t.Context(), w.me, req)
		w.check(err)
		for _, m := range page {
			seen = append(seen, m.Name)
		}
		if next == "" {
			break
		}
		req.Cursor = next
		w.store("new", "", []byte("new"))                                            // comes before everything
		w.check(w.Delete(t.Context(), w.me, ms[len(ms)-1-len(seen)+1].ID, i%2 == 0)) // the cursor's own row
	}
	if got := fmt.Sprint(seen); got != "[9 8 7 6 5 4 3 2 1 0]" {
		t.Error(got)
	}
	for _, bad := range []string{"x", "AAAA", req.Cursor[1:], req.Cursor + "A"} {
		if _, _, err := w.List(
			t.Context(), w.me, memories.ListRequest{Limit: 1, Cursor: bad},
		); !errors.Is(err, memories.ErrCursor) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

func TestTheTrashGivesBack(t *testing.T) {
	w := newWorld(t)
	w.store("0", "", []byte("0"))
	m := w.store("1", "", []byte("1"))
	w.store("2", "", []byte("2"))
	w.check(w.Delete(t.Context(), w.me, m.ID, false))
	if err := w.Delete(t.Context(), w.me, m.ID, false); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("deleting again: %v", err)
	}
	if got := w.listed(); got != "[2 0] [1]" {
		t.Error(got)
	}
	for name, err := range map[string]error{
		"read": second(w.Read(t.Context(), w.me, m.ID)), "open": second(w.Open(t.Context(), w.me, m.ID)),
		"update": second(w.Update(t.Context(), w.me, m.ID, memories.Change{})),
	} {
		if !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s in the trash: %v", name, err)
		}
	}
	for range 2 {
		back, err := w.Restore(t.Context(), w.me, m.ID)
		w.check(err)
		if back.ID != m.ID || !back.Trashed.IsZero() {
			t.Errorf("%+v", back)
		}
	}
	if got := w.listed(); got != "[2 1 0] []" {
		t.Error(got)
	}
	w.check(w.Delete(t.Context(), w.me, m.ID, false))
	w.check(w.Delete(t.Context(), w.me, m.ID, true))
	if _, err := w.Restore(t.Context(), w.me, m.ID); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("restoring what was purged: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAStrangerSeesNothing(t *testing.T) {
	w := newWorld(t)
	m := w.store("a", "", []byte("a"))
	name := "x"
	for op, err := range map[string]error{
		"read": second(w.Read(t.Context(), w.stranger, m.ID)), "open": second(w.Open(t.Context(), w.stranger, m.ID)),
		"update":   second(w.Update(t.Context(), w.stranger, m.ID, memories.Change{Name: &name})),
		"delete":   w.Delete(t.Context(), w.stranger, m.ID, true),
		"restore":  second(w.Restore(t.Context(), w.stranger, m.ID)),
		"capsule":  second(w.ReadCapsule(t.Context(), w.stranger, "default")),
		"change":   second(w.UpdateCapsule(t.Context(), w.stranger, "default", memories.CapsuleChange{Name: &name})),
		"deletion": w.DeleteCapsule(t.Context(), w.stranger, "default"),
	} {
		if !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, _, err := w.List(
		t.Context(), w.stranger, memories.ListRequest{Limit: 1},
	); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("list: %v", err)
	}
	there := []catalog.MemoryID{m.ID, {1}}
	for _, c := range []struct {
		who  access.Caller
		want string
	}{{w.me, "map[false:1 true:1]"}, {w.stranger, "map[false:2]"}} {
		present, err := w.Ping(t.Context(), c.who, there)
		w.check(err)
		got := map[bool]int{}
		for _, yes := range present {
			got[yes]++
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("ping: %v, want %s", got, c.want)
		}
	}
	page, _, err := w.ListCapsules(t.Context(), w.stranger, "", 10)
	if w.check(err); len(page) != 0 {
		t.Errorf("capsules: %+v", page)
	}
}

// A deleted principal leaves its roles for a moment. Meanwhile the capsule can be changed, but
// nobody can give that principal a role.
func TestARoleOfNobodyStopsNoChange(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	a, b := w.join("a"), w.join("b")
	_, err := w.CreateCapsule(ctx, a, memories.CapsuleRequest{ID: "mine", Controllers: []string{b.Principal}})
	w.check(err)
	w.check(w.catalog.Update(ctx, func(tx catalog.Tx) error { return catalog.DeletePrincipal(tx, b.Principal) }))
	name, nobody := "renamed", []string{b.Principal}
	row, err := w.UpdateCapsule(ctx, a, "mine", memories.CapsuleChange{Name: &name})
	if err != nil || row.Name != name {
		t.Errorf("%+v, %v", row, err)
	}
	_, err = w.UpdateCapsule(ctx, a, "mine", memories.CapsuleChange{Owners: &nobody})
	if !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("an owner who is not there: %v", err)
	}
}

func TestCapsulesHaveRoles(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	a := w.join("a")
	mine, err := w.CreateCapsule(ctx, a, memories.CapsuleRequest{ID: "mine"})
	w.check(err)
	if len(mine.Owners) != 1 || mine.Owners[0] != a.Principal {
		t.Errorf("%+v", mine)
	}
	if _, err := w.CreateCapsule(ctx, a, memories.CapsuleRequest{ID: "mine"}); !errors.Is(err, catalog.ErrExists) {
		t.Errorf("again: %v", err)
	}
	if _, err := w.CreateCapsule(
		ctx, a, memories.CapsuleRequest{Owners: []string{w.stranger.Principal}},
	); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("for another: %v", err)
	}
	if _, err := w.CreateCapsule(
		ctx, a, memories.CapsuleRequest{Owners: []string{a.Principal, "nobody"}},
	); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("for nobody: %v", err)
	}
	other, err := w.CreateCapsule(
		ctx, w.me, memories.CapsuleRequest{ID: "other", Owners: []string{a.Principal}, Subject: w.stranger.Principal},
	)
	w.check(err)
	name, quota := "n", int64(5)
	if _, err := w.UpdateCapsule(
		ctx, a, other.ID, memories.CapsuleChange{QuotaBytes: &quota},
	); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("an owner sets its quota: %v", err)
	}
	if _, err := w.UpdateCapsule(
		ctx, w.me, other.ID, memories.CapsuleChange{Name: &name},
	); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("an admin without a role renames: %v", err)
	}
	_, err = w.UpdateCapsule(ctx, w.me, other.ID, memories.CapsuleChange{QuotaBytes: &quota})
	w.check(err)
	for who, want := range map[string]int{"a": 2, "stranger": 1, "admin": 3} {
		c := map[string]access.Caller{"a": a, "stranger": w.stranger, "admin": w.me}[who]
		n, cursor := 0, ""
		for {
			page, next, err := w.ListCapsules(ctx, c, cursor, 1)
			w.check(err)
			n += len(page)
			if cursor = next; next == "" {
				break
			}
		}
		if n != want {
			t.Errorf("%s sees %d capsules, want %d", who, n, want)
		}
	}
	none := ""
	_, err = w.UpdateCapsule(ctx, a, other.ID, memories.CapsuleChange{Subject: &none})
	w.check(err)
	if _, err := w.ReadCapsule(ctx, w.stranger, other.ID); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a former subject: %v", err)
	}
	w.store("keeps it", "", []byte("x"))
	if err := w.DeleteCapsule(ctx, w.me, "default"); !errors.Is(err, catalog.ErrNotEmpty) {
		t.Errorf("deleting what is not empty: %v", err)
	}
	w.check(w.DeleteCapsule(ctx, a, "mine"))
}

// A read link gives its own memory out, and no other one, and nothing but content.
func TestALinkReadsItsMemoryAlone(t *testing.T) {
	w := newWorld(t)
	m, other := w.store("a", "", []byte("hello")), w.store("b", "", []byte("other"))
	_, secret, err := w.access.CreateGrant(t.Context(), w.me, access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Link, Memory: m.ID}, TTL: time.Hour,
	})
	w.check(err)
	c, err := w.access.OpenLink(t.Context(), secret)
	w.check(err)
	_, err = w.Open(t.Context(), c, m.ID)
	w.check(err)
	if _, err := w.Open(t.Context(), c, other.ID); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("another memory: %v", err)
	}
	if err := w.Delete(t.Context(), c, m.ID, false); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("a deletion: %v", err)
	}
}

// An upload ticket reads nothing, not even what was uploaded with it, and is told the same of what
// is there and of what is not.
func TestATicketReadsNothing(t *testing.T) {
	w := newWorld(t)
	m := w.store("a", "", []byte("hello"))
	_, secret, err := w.access.CreateGrant(t.Context(), w.me, access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Ticket, Capsule: "default", MaxBytes: 10, Uploads: 1}, TTL: time.Hour,
	})
	w.check(err)
	c, err := w.access.Authenticate(t.Context(), secret)
	w.check(err)
	for _, id := range []catalog.MemoryID{m.ID, {1, 2, 3}} {
		if _, err := w.Read(t.Context(), c, id); !errors.Is(err, access.ErrForbidden) {
			t.Errorf("reading: %v", err)
		}
		if _, err := w.Open(t.Context(), c, id); !errors.Is(err, access.ErrForbidden) {
			t.Errorf("opening: %v", err)
		}
	}
	if _, _, err := w.List(t.Context(), c, memories.ListRequest{Capsule: "default", Limit: 1}); !errors.Is(
		err, access.ErrForbidden,
	) {
		t.Errorf("listing: %v", err)
	}
}
