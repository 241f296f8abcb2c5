package keeper_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/internal/system"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

// fixed is a clock that stands.
type fixed struct{ time.Time }

func (f fixed) Now() time.Time { return f.Time }

// rescued is a catalog that has lost rows.
type rescued struct {
	t        *testing.T
	rows     *catalog.Mem
	sessions *session.Mem
	rescue   keeper.Salvage
	lost     map[string]bool // keys
	found    []keeper.Finding
	at       catalog.Moment
}

func newRescued(t *testing.T) *rescued {
	r := &rescued{
		t: t, rows: catalog.NewMem(), sessions: session.NewMem(), lost: map[string]bool{},
		at: catalog.Moment{Now: time.UnixMilli(1e12).UTC(), Running: 1000},
	}
	r.rescue = keeper.Salvage{
		Found: func(f keeper.Finding) { r.found = append(r.found, f) },
		Lost:  func(table catalog.TableID, key []byte) bool { return r.lost[fmt.Sprint(table, key)] },
	}
	r.update(func(tx catalog.Tx) error {
		p := catalog.Principal{ID: "p", Name: "admin", Admin: true, Created: r.at.Now}
		if err := catalog.Principals.Put(tx, "p", p); err != nil {
			return err
		}
		_, err := catalog.NewCapsule(tx, catalog.Capsule{ID: "c", Name: "c", Owners: []string{"p"}}, r.at)
		return err
	})
	return r
}

func (r *rescued) update(f func(tx catalog.Tx) error) {
	r.t.Helper()
	if err := r.rows.Update(r.t.Context(), f); err != nil {
		r.t.Fatal(err)
	}
}

// publish stores a memory.
func (r *rescued) publish(id byte, by uint64) catalog.Memory {
	r.t.Helper()
	m := catalog.Memory{
		ID: catalog.MemoryID{id}, Capsule: "c",
		Meta: catalog.Meta{Name: fmt.Sprint("m", id), MIME: "a/b"}, Bytes: 1, SHA256: catalog.SHA256{id},
		Created: r.at.Now, Owner: "p", By: by,
	}
	r.update(func(tx catalog.Tx) (err error) {
		m, err = catalog.Publish(tx,
			catalog.Publication{
				Memory:  m,
				Content: catalog.Content{Capsule: "c", SHA256: m.SHA256, Bytes: 1, Inline: []byte{id}}, At: r.at,
			})
		return err
	})
	return m
}

func (r *rescued) rename(id byte, name string) {
	r.update(func(tx catalog.Tx) error {
		_, err := catalog.ChangeMemory(tx, catalog.MemoryID{id}, func(m *catalog.Meta) error {
			m.Name = name
			return nil
		}, r.at)
		return err
	})
}

func (r *rescued) trash(id byte) {
	r.update(func(tx catalog.Tx) error { return catalog.Trash(tx, catalog.MemoryID{id}, time.Hour, r.at) })
}

func (r *rescued) purge(id byte) {
	r.update(func(tx catalog.Tx) error { return catalog.Purge(tx, catalog.MemoryID{id}, r.at) })
}

func (r *rescued) memory(id byte) (m catalog.Memory, ok bool) {
	r.t.Helper()
	err := r.rows.View(r.t.Context(), func(rows catalog.Reader) (err error) {
		m, ok, err = catalog.Memories.Find(rows, catalog.MemoryKey{id})
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return m, ok
}

// lose removes a memory's newest row, and leaves an older one, if there was one.
func (r *rescued) lose(id byte, older *catalog.Memory) {
	r.t.Helper()
	r.lost[fmt.Sprint(catalog.MemoryTable, slices.Clone(catalog.MemoryKey{id}.AppendKey(nil)))] = true
	r.update(func(tx catalog.Tx) error {
		if older == nil {
			return catalog.Memories.Delete(tx, catalog.MemoryKey{id})
		}
		return catalog.Memories.Put(tx, catalog.MemoryKey{id}, *older)
	})
	if older != nil && !r.rescue.Keep(*older, false) {
		r.t.Error("it is not kept")
	}
}

// loseEvent removes an event.
func (r *rescued) loseEvent(seq uint64) {
	r.t.Helper()
	key := catalog.EventKey{Capsule: "c", Seq: seq}
	r.lost[fmt.Sprint(catalog.EventTable, key.AppendKey(nil))] = true
	r.update(func(tx catalog.Tx) error { return catalog.Events.Delete(tx, key) })
}

func (r *rescued) reconcile() {
	r.t.Helper()
	if err := r.rescue.Reconcile(r.t.Context(), r.sessions, r.rows, fixed{r.at.Now}, system.Random{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rescued) says(kind keeper.Kind, what string) bool {
	return slices.ContainsFunc(r.found, func(f keeper.Finding) bool {
		return f.Kind == kind && strings.Contains(f.Text, what)
	})
}

// If the row of a memory is lost or an older one, its events say what it was last: changed, in the
// trash, or gone. Without events an older row is taken and reported, unless its content is gone.
func TestWhatBecameOfAMemory(t *testing.T) {
	type want struct {
		gone, trashed bool
		name          string
		says          keeper.Kind // "": nothing
	}
	noEvents := func(r *rescued) {
		r.update(func(tx catalog.Tx) error {
			for seq := range uint64(10) {
				if err := catalog.Events.Delete(tx, catalog.EventKey{Capsule: "c", Seq: seq}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	noContent := func(r *rescued) {
		r.update(func(tx catalog.Tx) error {
			return catalog.Contents.Delete(tx, catalog.ContentKey{Capsule: "c", SHA256: catalog.SHA256{1}})
		})
	}
	for name, c := range map[string]struct {
		since func(*rescued)
		older bool
		want
	}{
		"lost as it was made":                        {func(*rescued) {}, false, want{name: "m1"}},
		"lost as it was changed":                     {func(r *rescued) { r.rename(1, "new") }, false, want{name: "new"}},
		"lost in the trash":                          {func(r *rescued) { r.rename(1, "new"); r.trash(1) }, false, want{name: "new", trashed: true}},
		"lost, and gone":                             {func(r *rescued) { r.purge(1) }, false, want{gone: true}},
		"lost from the trash, and gone":              {func(r *rescued) { r.trash(1); r.purge(1) }, false, want{gone: true}},
		"lost, its content too":                      {noContent, false, want{name: "m1"}},
		"lost, its events too":                       {noEvents, false, want{name: "recovered-" + catalog.MemoryID{1}.String(), says: keeper.KindLost}},
		"lost in the trash, its events too":          {func(r *rescued) { r.trash(1); noEvents(r) }, false, want{gone: true, says: keeper.KindLost}},
		"lost, its events and its content too":       {func(r *rescued) { noEvents(r); noContent(r) }, false, want{gone: true, says: keeper.KindLost}},
		"lost, its last event and its content too":   {func(r *rescued) { r.rename(1, "new"); r.loseEvent(4); noContent(r) }, false, want{gone: true, says: keeper.KindLost}},
		"lost, its last event too":                   {func(r *rescued) { r.rename(1, "new"); r.loseEvent(4) }, false, want{name: "m1", says: keeper.KindOlder}},
		"lost, an earlier event too":                 {func(r *rescued) { r.loseEvent(3); r.rename(1, "new") }, false, want{name: "new"}},
		"older than it was changed":                  {func(r *rescued) { r.rename(1, "new") }, true, want{name: "new"}},
		"older than it went to the trash":            {func(r *rescued) { r.trash(1) }, true, want{name: "m1", trashed: true}},
		"older than it went":                         {func(r *rescued) { r.purge(1) }, true, want{gone: true}},
		"older, its events are lost":                 {func(r *rescued) { r.rename(1, "new"); noEvents(r) }, true, want{name: "m1", says: keeper.KindOlder}},
		"older, its events and its content are lost": {func(r *rescued) { noEvents(r); noContent(r) }, true, want{gone: true, says: keeper.KindLost}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRescued(t)
			m := r.publish(1, 0)
			other := r.publish(2, 0)
			c.since(r)
			if r.lose(1, nil); c.older {
				r.lose(1, &m)
			}
			r.reconcile()
			is, there := r.memory(1)
			if there == c.gone || there &&
				(is.Name != c.name || is.Trashed.IsZero() == c.trashed || is.SHA256 != m.SHA256 || is.Seq != m.Seq) {
				t.Errorf("%v: %+v", there, is)
			}
			if c.trashed && is.PurgeAt != r.at.Running+time.Hour.Milliseconds() {
				t.Errorf("it goes at %d", is.PurgeAt)
			}
			if c.says == "" && len(r.found) > 0 || c.says != "" && !r.says(c.says, m.ID.String()) {
				t.Errorf("%+v", r.found)
			}
			if is, ok := r.memory(2); !ok || is.Name != other.Name {
				t.Errorf("the other one: %+v", is)
			}
		})
	}
}

// If nothing says when a memory went into the trash, it is not purged at once: it may have been
// restored since.
func TestTheTrashBeginsAnew(t *testing.T) {
	r := newRescued(t)
	r.publish(1, 0)
	r.trash(1)
	m, _ := r.memory(1)
	r.update(func(tx catalog.Tx) error {
		if err := catalog.Dues.Delete(tx,
			catalog.DueKey{At: m.PurgeAt, Kind: catalog.DuePurge, Key: string(m.ID[:])}); err != nil {
			return err
		}
		for seq := range uint64(10) {
			if err := catalog.Events.Delete(tx, catalog.EventKey{Capsule: "c", Seq: seq}); err != nil {
				return err
			}
		}
		return nil
	})
	m.PurgeAt = 2
	r.lose(1, &m)
	r.reconcile()
	if is, _ := r.memory(1); is.Trashed.IsZero() || is.PurgeAt < (24*time.Hour).Milliseconds() {
		t.Errorf("%+v", is)
	}
}

// An identity follows what is sure of it: the principal, or the list.
func TestIdentitiesAreBroughtOut(t *testing.T) {
	r := newRescued(t)
	of := func(subject string) catalog.Identity {
		return catalog.Identity{Issuer: "https://issuer.test", Subject: subject}
	}
	r.update(func(tx catalog.Tx) error {
		for _, id := range []string{"sure", "listed", "older", "both"} {
			if _, err := catalog.PrincipalOf(tx, catalog.Principal{ID: id, Name: id, Identity: of(id)}); err != nil {
				return err
			}
			if _, err := catalog.NewCapsule(tx, catalog.Capsule{ID: id, Owners: []string{id}}, r.at); err != nil {
				return err
			}
		}
		for _, id := range []string{"older", "both"} {
			p, err := catalog.Principals.Get(tx, catalog.Name(id))
			if err != nil {
				return err
			}
			r.rescue.Keep(p, false)
		}
		return errors.Join(
			catalog.Identities.Delete(tx, of("sure")), catalog.Principals.Delete(tx, "listed"),
			catalog.Identities.Delete(tx, of("older")), catalog.Principals.Delete(tx, "older"),
			catalog.Principals.Delete(tx, "both"),
		)
	})
	r.reconcile()
	err := r.rows.View(t.Context(), func(rows catalog.Reader) error {
		for _, id := range []string{"sure", "listed", "both"} {
			p, ok, err := catalog.FindPrincipal(rows, of(id))
			if err != nil || !ok || p.ID != id || p.Identity != of(id) {
				t.Errorf("%s: %+v, %v, %v", id, p, ok, err)
			}
		}
		p, err := catalog.Principals.Get(rows, "older")
		if _, ok, _ := catalog.FindPrincipal(rows, of("older")); ok || p.Identity != (catalog.Identity{}) {
			t.Errorf("an identity that may be another's since: %+v", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A row that may be older than it was grants no access: tokens that are not sure are void, and only
// roles count that the index of roles has. Somebody can always come in, and each capsule has an
// owner.
func TestNobodyComesInByAnOldRow(t *testing.T) {
	r := newRescued(t)
	for _, row := range []any{
		catalog.Token{ID: "t1", Name: "phone", Principal: "p"},
		catalog.RoleKey{Principal: "q", Capsule: "c"},
		session.SessionID(1),
		catalog.Capsule{ID: "c"},
		catalog.Idem{},
		catalog.Outcome{},
		catalog.Due{},
		catalog.Place{},
		catalog.Reservation{},
		catalog.Usage{},
		catalog.HashCheckpoint{},
		catalog.IdentityRef{},
	} {
		if r.rescue.Keep(row, false) {
			t.Errorf("%T is kept though it may be older", row)
		}
		if !r.rescue.Keep(row, true) {
			t.Errorf("%T is not kept", row)
		}
	}
	if !r.says(keeper.KindLost, `token t1 ("phone" of principal p) is void`) {
		t.Errorf("%+v", r.found)
	}
	r = newRescued(t)
	r.publish(1, 0)
	r.update(func(tx catalog.Tx) error {
		for _, id := range []string{"mine", "theirs", "gone"} {
			if _, err := catalog.NewCapsule(tx,
				catalog.Capsule{ID: id, Name: "named", Owners: []string{"q"}, Controllers: []string{"s"}},
				r.at); err != nil {
				return err
			}
			c, err := catalog.Capsules.Get(tx, catalog.Name(id))
			if err != nil {
				return err
			}
			// The row that is left is older than a change of its roles.
			c.Owners, c.Subject = []string{"q", "former"}, "former"
			r.rescue.Keep(c, false)
			if err := catalog.Capsules.Delete(tx, catalog.Name(id)); err != nil {
				return err
			}
		}
		for _, k := range []catalog.RoleKey{
			{Principal: "q", Capsule: "theirs"},
			{Principal: "q", Capsule: "gone"},
			{Principal: "s", Capsule: "gone"},
		} {
			if err := catalog.Roles.Delete(tx, k); err != nil {
				return err
			}
		}
		if err := catalog.Capsules.Delete(tx, "c"); err != nil { // nothing is left but the role
			return err
		}
		if err := catalog.Principals.Delete(tx, "p"); err != nil {
			return err
		}
		return catalog.Tokens.Put(tx, catalog.TokenKey{1},
			catalog.Token{Hash: catalog.SHA256{1}, ID: "t2", Principal: "r", Created: r.at.Now})
	})
	r.reconcile()
	err := r.rows.View(t.Context(), func(rows catalog.Reader) error {
		admins := 0
		admin := ""
		people := map[string]bool{}
		for p, err := range catalog.Principals.After(rows, "") {
			if err != nil {
				return err
			}
			people[p.ID] = true
			if p.Admin {
				admins, admin = admins+1, p.ID
			}
		}
		if admins != 1 || !people["p"] || !people["q"] || !people["r"] || !people["s"] || people["former"] {
			t.Errorf("%v, %d admins", people, admins)
		}
		for id, owner := range map[string]string{"mine": "q", "theirs": admin, "c": admin} {
			c, err := catalog.Capsules.Get(rows, catalog.Name(id))
			if err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			if !slices.Equal(c.Owners, []string{owner}) || c.Subject != "" ||
				id != "c" && !slices.Equal(c.Controllers, []string{"s"}) {
				t.Errorf("%s: %+v", id, c)
			}
			if !r.says(keeper.KindLost, "capsule "+id) && !r.says(keeper.KindOlder, "capsule "+id) {
				t.Errorf("capsule %s is not told of", id)
			}
		}
		if _, there, err := catalog.Capsules.Find(rows, "gone"); there || err != nil {
			t.Errorf("a capsule that was deleted is back: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if !r.says(keeper.KindLost, "every admin") {
		t.Errorf("%+v", r.found)
	}
}

// A finished session has an outcome if a memory leads to it, and is forgotten otherwise.
func TestASessionOfWhichNobodyKnows(t *testing.T) {
	r := newRescued(t)
	for id := session.SessionID(1); id < 3; id++ {
		s, _, err := r.sessions.Create(t.Context(),
			session.Session{
				ID: id, Spec: session.Spec{ChunkSize: 1, BytesExpected: 1, Owner: "p"}, Began: r.at.Now,
				LastSeen: r.at.Now,
			})
		if err == nil {
			s, err = r.sessions.Move(t.Context(), id, session.Step{Gen: s.Gen, Next: s.Gen + 1, To: session.Sealed})
		}
		if err == nil {
			_, err = r.sessions.Move(t.Context(), id, session.Step{Gen: s.Gen, To: session.Finished})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m := r.publish(1, 1)
	r.update(func(tx catalog.Tx) error { return catalog.Outcomes.Delete(tx, 1) })
	r.reconcile()
	err := r.rows.View(t.Context(), func(rows catalog.Reader) error {
		out, err := catalog.Outcomes.Get(rows, 1)
		if out.Memory != m.ID || out.SHA256 != m.SHA256 || out.Capsule != "c" || out.Bytes != 1 {
			t.Errorf("%+v", out)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if s, err := r.sessions.Load(t.Context(), 1); err != nil || s.State != session.Finished {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := r.sessions.Load(t.Context(), 2); err == nil {
		t.Errorf("%+v", s)
	}
	if !r.says(keeper.KindLost, "session 2") {
		t.Errorf("%+v", r.found)
	}
}

// Content whose record may be lost is no garbage: a place that nothing names any more keeps its
// row, and is reported. If the metadata know all of it, it is garbage.
func TestContentOfLostRecordsIsKept(t *testing.T) {
	for _, known := range []bool{false, true} {
		disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
		f := furnish(t, disk, stores)
		h, err := enter(t.Context(), disk, stores, f.Secret)
		if err != nil {
			t.Fatal(err)
		}
		var places []string
		h.spoil(t, f, func(s *spoiled) {
			key, c := s.content(s.many)
			places = c.Places()
			s.must(catalog.Contents.Delete(s, key))
			s.must(catalog.Memories.Delete(s, catalog.MemoryKey(s.many.ID)))
		})
		var found []keeper.Finding
		for range 2 {
			found = nil
			if _, err := keeper.Check(t.Context(), keeper.CheckConfig{
				Sessions: h.sessions, Catalog: h.catalog, Blobs: h.blobs, Clock: wall{}, Repair: true,
				KnownPlace: func(string) bool { return known }, Found: func(f keeper.Finding) {
					found = append(found, f)
				},
			}); err != nil {
				t.Fatal(err)
			}
		}
		kept := 0
		err = h.catalog.View(t.Context(), func(r catalog.Reader) error {
			for _, name := range places {
				p, err := catalog.Places.Get(r, catalog.Name(name))
				if err != nil {
					return err
				}
				kept += int(p.Refs)
			}
			for d, err := range catalog.Dues.After(r, catalog.DueKey{}) {
				if err != nil {
					return err
				}
				if d.Kind == catalog.DuePlace && slices.Contains(places, d.Key) && !known {
					t.Errorf("place %s is about to be deleted", d.Key)
				}
			}
			return nil
		})
		if want := map[bool]int{false: len(places), true: 0}[known]; err != nil || kept != want || len(places) == 0 {
			t.Errorf("known: %v: %d of %d places are kept, %v", known, kept, len(places), err)
		}
		if !known && !slices.ContainsFunc(found, func(f keeper.Finding) bool {
			return f.Note && strings.Contains(f.Text, "it is kept")
		}) {
			t.Errorf("nothing says so: %s", list(found))
		}
		if err := h.leave(); err != nil {
			t.Error(err)
		}
	}
}
