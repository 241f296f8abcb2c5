package keeper_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"iter"
	"strings"
	"testing"

	"sluice/catalog"
	"sluice/internal/test/crashfs"
	"sluice/keeper"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

// spoiled gives a test the rows of a house, to spoil them.
type spoiled struct {
	catalog.Tx
	t       *testing.T
	capsule catalog.Capsule
	one     catalog.Memory // visible, with an idem and a place of its own
	many    catalog.Memory // visible, of a session, at two places
	trashed catalog.Memory
	open    session.SessionID
	piece   upload.Piece // of the open session
}

func (s *spoiled) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *spoiled) content(m catalog.Memory) (catalog.ContentKey, catalog.Content) {
	s.t.Helper()
	key := catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}
	c, err := catalog.Contents.Get(s, key)
	s.must(err)
	return key, c
}

// count changes a counter of the capsule.
func count(change func(*catalog.Capsule)) func(*spoiled) {
	return func(s *spoiled) {
		change(&s.capsule)
		s.must(catalog.Capsules.Put(s, catalog.Name(s.capsule.ID), s.capsule))
	}
}

var noMemory = catalog.MemoryID{1, 2, 3}

// token gives the first token.
func (s *spoiled) token() (t catalog.Token) {
	for t, err := range catalog.Tokens.After(s, catalog.TokenKey{}) {
		s.must(err)
		return t
	}
	return t
}

// signedIn makes a principal of an issuer's subject.
func (s *spoiled) signedIn(id, subject string) catalog.Principal {
	p, err := catalog.PrincipalOf(s, catalog.Principal{
		ID: id, Name: subject, Identity: catalog.Identity{Issuer: "https://issuer.test", Subject: subject},
	})
	s.must(err)
	return p
}

// Each kind of contradiction between rows is reported once, and repaired once.
func TestEachContradictionIsFoundAndRepaired(t *testing.T) {
	order := func(s *spoiled, m catalog.Memory) catalog.OrderKey {
		return catalog.OrderKey{Capsule: m.Capsule, Trash: !m.Trashed.IsZero(), Seq: m.Seq}
	}
	digest := func(m catalog.Memory) catalog.DigestKey {
		return catalog.DigestKey{Capsule: m.Capsule, SHA256: m.SHA256, Seq: m.Seq}
	}
	for _, c := range []struct {
		name  string
		spoil func(*spoiled)
		kind  keeper.Kind
		says  string
		left  int64 // findings that a repair leaves
	}{
		{"memories", count(func(c *catalog.Capsule) { c.Memories++ }), keeper.KindCounter, "counts 7 memories, and there are 6", 0},
		{"bytes", count(func(c *catalog.Capsule) { c.Bytes -= 3 }), keeper.KindCounter, " bytes, and there are ", 0},
		{"trashed", count(func(c *catalog.Capsule) { c.Trashed = 0 }), keeper.KindCounter, "counts 0 memories in the trash, and there are 1", 0},
		{"sessions", count(func(c *catalog.Capsule) { c.Sessions = 5 }), keeper.KindCounter, "counts 5 uploads under way, and there are 1", 0},
		{"reserved", count(func(c *catalog.Capsule) { c.Reserved = 0 }), keeper.KindCounter, "counts 0 reserved bytes, and there are 76", 0},
		{"number of events too small", count(func(c *catalog.Capsule) { c.Seq-- }), keeper.KindCounter, " events, and there are ", 0},
		{"number of events too large", count(func(c *catalog.Capsule) { c.Seq += 2 }), keeper.KindEvent, "are missing", 0},
		{"an event gone", func(s *spoiled) { s.must(catalog.Events.Delete(s, catalog.EventKey{Capsule: "default", Seq: 3})) }, keeper.KindEvent, "its events 3 to 3 are missing", 0},
		{"order gone", func(s *spoiled) { s.must(catalog.Order.Delete(s, order(s, s.one))) }, keeper.KindIndex, "is not in the list of its capsule", 0},
		{"order of another", func(s *spoiled) { s.must(catalog.Order.Put(s, order(s, s.one), s.many.ID)) }, keeper.KindIndex, "is not in the list of its capsule", 0},
		{"order of the trash gone", func(s *spoiled) { s.must(catalog.Order.Delete(s, order(s, s.trashed))) }, keeper.KindIndex, "is not in the list of its capsule", 0},
		{"order of nothing", func(s *spoiled) {
			s.must(catalog.Order.Put(s, catalog.OrderKey{Capsule: "default", Seq: 9999}, noMemory))
			s.must(catalog.Order.Put(s, catalog.OrderKey{Capsule: "gone", Seq: 1}, s.one.ID))
		}, keeper.KindIndex, "leads to a memory that is not there", 0},
		{"digest gone", func(s *spoiled) { s.must(catalog.Digests.Delete(s, digest(s.one))) }, keeper.KindIndex, "is not in the list by SHA-256", 0},
		{"digest of what is in the trash", func(s *spoiled) { s.must(catalog.Digests.Put(s, digest(s.trashed), s.trashed.ID)) }, keeper.KindIndex, "leads to a memory", 0},
		{"role gone", func(s *spoiled) {
			s.must(catalog.Roles.Delete(s, catalog.RoleKey{Principal: s.capsule.Owners[0], Capsule: "default"}))
		}, keeper.KindIndex, "does not find it", 0},
		{"role of nobody", func(s *spoiled) {
			k := catalog.RoleKey{Principal: "nobody", Capsule: "default"}
			s.must(catalog.Roles.Put(s, k, k))
		}, keeper.KindIndex, "has no role", 0},
		{"references of a content", func(s *spoiled) {
			key, c := s.content(s.one)
			c.Refs = 7
			s.must(catalog.Contents.Put(s, key, c))
		}, keeper.KindCounter, "counts 7 memories that have it, and there are 1", 0},
		{"content gone", func(s *spoiled) {
			key, c := s.content(s.one)
			s.must(catalog.Contents.Delete(s, key))
			s.must(catalog.Places.Delete(s, catalog.Name(c.Extents[0].Place)))
		}, keeper.KindContent, "the record of its content", 1},
		{"content shorter", func(s *spoiled) {
			key, c := s.content(s.many)
			c.Extents = c.Extents[:len(c.Extents)-1]
			s.must(catalog.Contents.Put(s, key, c))
		}, keeper.KindContent, "it has 40 bytes, and", 1},
		{"extents exchanged", func(s *spoiled) {
			key, c := s.content(s.many)
			c.Extents = []catalog.Extent{c.Extents[1], c.Extents[0], c.Extents[2]}
			s.must(catalog.Contents.Put(s, key, c))
		}, keeper.KindContent, "SHA-256 is", 1},
		{"inline corrupt", func(s *spoiled) {
			for c, err := range catalog.Contents.After(s, catalog.ContentKey{}) {
				if s.must(err); c.Inline != nil {
					c.Inline = bytes.Clone(c.Inline)
					c.Inline[0] ^= 1
					s.must(catalog.Contents.Put(s, catalog.ContentKey{Capsule: c.Capsule, SHA256: c.SHA256}, c))
					return
				}
			}
		}, keeper.KindContent, "its record does not hold what was stored", 1},
		{"marked, and right", func(s *spoiled) {
			key, c := s.content(s.one)
			c.Damaged = wall{}.Now()
			s.must(catalog.Contents.Put(s, key, c))
		}, keeper.KindContent, "its bytes are right", 0},
		{"references of a place", func(s *spoiled) {
			_, c := s.content(s.one)
			s.must(catalog.Places.Put(s, catalog.Name(c.Extents[0].Place),
				catalog.Place{Name: c.Extents[0].Place, Refs: 3}))
		}, keeper.KindCounter, "3 contents are counted that have their bytes there, and there are 1", 0},
		{"place in use that counts as garbage", func(s *spoiled) {
			_, c := s.content(s.one)
			name := c.Extents[0].Place
			s.must(catalog.Places.Put(s, catalog.Name(name), catalog.Place{Name: name}))
			d := catalog.Due{At: 5, Kind: catalog.DuePlace, Key: name}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindCounter, "0 contents are counted", 0},
		{"place in use that is about to be deleted", func(s *spoiled) {
			_, c := s.content(s.one)
			d := catalog.Due{At: 5, Kind: catalog.DuePlace, Key: c.Extents[0].Place}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "is in use and is about to be deleted", 0},
		{"place unknown", func(s *spoiled) {
			_, c := s.content(s.one)
			s.must(catalog.Places.Delete(s, catalog.Name(c.Extents[0].Place)))
		}, keeper.KindCounter, "is in use, and nothing says so", 0},
		{"place of nobody", func(s *spoiled) {
			s.must(catalog.Places.Put(s, "stray", catalog.Place{Name: "stray", Refs: 1}))
		}, keeper.KindCounter, "1 contents are counted", 0},
		{"garbage that nobody will collect", func(s *spoiled) {
			s.must(catalog.Places.Put(s, "stray", catalog.Place{Name: "stray"}))
		}, keeper.KindDue, "is garbage, and nothing will delete it", 0},
		{"pieces that are about to be deleted", func(s *spoiled) {
			s.must(catalog.Discard(s, []string{s.piece.Extent.Place}, catalog.Moment{Running: 1}))
		}, keeper.KindDue, "has pieces of the upload of \"under way\"", 0},
		{"deletion of what is unknown", func(s *spoiled) {
			d := catalog.Due{At: 5, Kind: catalog.DuePlace, Key: s.piece.Extent.Place}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "is no garbage", 0},
		{"end of a memory that is not in the trash", func(s *spoiled) {
			d := catalog.Due{At: 5, Kind: catalog.DuePurge, Key: string(s.one.ID[:])}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "is not in the trash", 0},
		{"trash without end", func(s *spoiled) {
			s.must(catalog.Dues.Delete(s,
				catalog.DueKey{At: s.trashed.PurgeAt, Kind: catalog.DuePurge, Key: string(s.trashed.ID[:])}))
		}, keeper.KindDue, "nothing will empty it", 0},
		{"reservation gone", func(s *spoiled) { s.must(catalog.Reservations.Delete(s, catalog.Number(s.open))) }, keeper.KindReserved, "76 bytes are to be reserved for it, and are not", 0},
		{"reservation too small", func(s *spoiled) {
			s.must(catalog.Reservations.Put(s, catalog.Number(s.open),
				catalog.Reservation{Session: uint64(s.open), Capsule: "default", Owner: s.capsule.Owners[0], Bytes: 5}))
		}, keeper.KindReserved, "are to be reserved", 0},
		{"reservation of no session", func(s *spoiled) {
			s.must(catalog.Reserve(s, catalog.Reservation{Session: 99, Capsule: "default", Owner: "ghost", Bytes: 5}, 5,
				catalog.Bounds{}))
		}, keeper.KindReserved, "reserved for session 99, which is not open", 0},
		{"usage", func(s *spoiled) {
			s.must(catalog.Usages.Put(s, catalog.Name(s.capsule.Owners[0]),
				catalog.Usage{Owner: s.capsule.Owners[0], Sessions: 9}))
		}, keeper.KindCounter, "counts 9 uploads under way", 0},
		{"usage of nobody", func(s *spoiled) {
			s.must(catalog.Usages.Put(s, "ghost", catalog.Usage{Owner: "ghost", Sessions: 1}))
		}, keeper.KindIndex, "and has none", 0},
		{"outcome gone", func(s *spoiled) { s.must(catalog.Outcomes.Delete(s, catalog.Number(s.many.By))) }, keeper.KindIndex, "is not known to have become it", 0},
		{"outcome of nothing", func(s *spoiled) {
			s.must(catalog.Outcomes.Put(s, 99, catalog.Outcome{Session: 99, Memory: noMemory}))
		}, keeper.KindDue, "nothing will forget that", 0},
		{"outcome to be forgotten early", func(s *spoiled) {
			d := catalog.Due{At: 5, Kind: catalog.DueOutcome, Key: string(catalog.Number(s.many.By).AppendKey(nil))}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "which is to be remembered", 0},
		{"idem gone", func(s *spoiled) {
			s.must(catalog.Idems.Delete(s, catalog.IdemKey{Capsule: "default", Owner: s.one.Owner, Key: s.one.Idem}))
		}, keeper.KindIndex, "does not lead to it", 0},
		{"idem of nothing", func(s *spoiled) {
			s.must(catalog.Idems.Put(s, catalog.IdemKey{Capsule: "default", Owner: "o", Key: "k"},
				catalog.Idem{Capsule: "default", Owner: "o", Key: "k", Memory: noMemory}))
		}, keeper.KindDue, "nothing will forget it", 0},
		{"idem to be forgotten early", func(s *spoiled) {
			d := catalog.Due{
				At: 5, Kind: catalog.DueIdem,
				Key: string(catalog.IdemKey{Capsule: "default", Owner: s.one.Owner, Key: s.one.Idem}.AppendKey(nil)),
			}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "which is to be remembered", 0},
		{"a token without an end is to be ended", func(s *spoiled) {
			t := s.token()
			d := catalog.Due{At: 5, Kind: catalog.DueToken, Key: string(t.Hash[:])}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "which has none", 0},
		{"a token is in no list", func(s *spoiled) {
			t := s.token()
			s.must(catalog.TokenIDs.Put(s, "another", catalog.TokenRef{ID: "another", Hash: t.Hash}))
			s.must(catalog.TokenIDs.Delete(s, catalog.Name(t.ID)))
		}, keeper.KindIndex, "is not in the lists of tokens", 0},
		{"a list leads to another token", func(s *spoiled) {
			t := s.token()
			s.must(catalog.PrincipalTokens.Put(s, catalog.PrincipalTokenKey{Principal: t.Principal, ID: t.ID},
				catalog.TokenRef{ID: t.ID, Principal: t.Principal}))
		}, keeper.KindIndex, "is not in the lists of tokens", 0},
		{"a list leads to no token", func(s *spoiled) {
			s.must(catalog.PrincipalTokens.Put(s, catalog.PrincipalTokenKey{Principal: "p", ID: "t"},
				catalog.TokenRef{ID: "t", Principal: "p"}))
		}, keeper.KindIndex, "leads to one that is not there", 0},
		{"an identity is in no list", func(s *spoiled) {
			s.must(catalog.Identities.Delete(s, s.signedIn("p1", "ada").Identity))
		}, keeper.KindIndex, "is not in the list of identities", 0},
		{"an identity leads to nobody", func(s *spoiled) {
			s.must(catalog.IndexIdentity(s, catalog.Principal{
				ID: "p1", Identity: catalog.Identity{Issuer: "https://issuer.test", Subject: "ada"},
			}))
		}, keeper.KindIndex, "who has not got it", 0},
		{"an identity leads to another", func(s *spoiled) {
			p := s.signedIn("p1", "ada")
			s.must(catalog.IndexIdentity(s, catalog.Principal{ID: s.one.Owner, Identity: p.Identity}))
		}, keeper.KindIndex, "is not in the list of identities", 0},
		{"two have one identity", func(s *spoiled) {
			p := s.signedIn("p2", "ada")
			p.ID = "p1"
			s.must(catalog.Principals.Put(s, "p1", p))
		}, keeper.KindIndex, "principal p1 has the identity", 0},
		{"tokens of nobody", func(s *spoiled) {
			s.must(catalog.PutToken(s, catalog.Token{ID: "t", Principal: "gone"}, catalog.Moment{}))
		}, keeper.KindDue, "nothing will remove its tokens", 0},
		{"the end of a principal who is there", func(s *spoiled) {
			d := catalog.Due{Kind: catalog.DuePrincipal, Key: s.token().Principal}
			s.must(catalog.Dues.Put(s, catalog.DueKey(d), d))
		}, keeper.KindDue, "who is there", 0},
		{"state of a hash that is wrong", func(s *spoiled) {
			st, err := sha256.New().(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
			s.must(err)
			s.must(catalog.Checkpoints.Put(s, catalog.CheckpointKey{Session: uint64(s.open), Off: 16},
				catalog.HashCheckpoint{Session: uint64(s.open), Off: 16, Gen: 1, State: st}))
		}, keeper.KindHash, "is not that of its bytes", 0},
		{"state of no session", func(s *spoiled) {
			s.must(catalog.Checkpoints.Put(s, catalog.CheckpointKey{Session: 99, Off: 16},
				catalog.HashCheckpoint{Session: 99, Off: 16}))
		}, keeper.KindHash, "which is not open", 0},
		{"record at another's place", func(s *spoiled) {
			s.must(catalog.Usages.Delete(s, "x"))
			s.must(catalog.Outcomes.Put(s, 77, catalog.Outcome{Session: 78, Memory: s.one.ID}))
		}, keeper.KindRecord, "not where it belongs", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
			f := furnish(t, disk, stores)
			h, err := enter(t.Context(), disk, stores, f.Secret)
			if err != nil {
				t.Fatal(err)
			}
			defer h.leave()
			h.spoil(t, f, c.spoil)
			found, sum, err := h.check(false)
			if err != nil || !found1(found, c.kind, c.says) {
				t.Fatalf("%v; found:\n%s", err, list(found))
			}
			if again, _, _ := h.check(false); list(again) != list(found) {
				t.Errorf("a check without repair has changed something:\n%s\n%s", list(found), list(again))
			}
			found, fixed, err := h.check(true)
			if err != nil || fixed.Wrong < sum.Wrong || fixed.Left() > c.left {
				t.Fatalf("the repair: %v, %+v\n%s", err, fixed, list(found))
			}
			found, after, err := h.check(false)
			if err != nil || after.Wrong > c.left {
				t.Errorf("afterwards: %v\n%s", err, list(found))
			}
			if c.kind == keeper.KindRecord {
				return
			}
			if err := h.goOn(f); err != nil {
				t.Error(err)
			}
			if found, after, err = h.check(true); err != nil || after.Left() > 0 {
				t.Errorf("at the end: %v\n%s", err, list(found))
			}
		})
	}
}

func found1(found []keeper.Finding, kind keeper.Kind, says string) bool {
	for _, f := range found {
		if f.Kind == kind && strings.Contains(f.Text, says) && !f.Note {
			return true
		}
	}
	return false
}

// spoil changes rows behind everybody's back.
func (h *house) spoil(t *testing.T, f facts, do func(*spoiled)) {
	t.Helper()
	entries, err := h.sessions.Entries(h.ctx, f.Open, session.All(), 1)
	if err != nil {
		t.Fatal(err)
	}
	err = h.catalog.Update(h.ctx, func(tx catalog.Tx) error {
		s := &spoiled{Tx: tx, t: t, open: f.Open}
		s.piece, err = upload.InspectPiece(entries[0])
		s.must(err)
		s.capsule, err = catalog.Capsules.Get(tx, "default")
		s.must(err)
		for m, err := range catalog.Memories.After(tx, catalog.MemoryKey{}) {
			s.must(err)
			switch m.Name {
			case "one place":
				s.one = m
			case "several places":
				s.many = m
			case "in the trash":
				s.trashed = m
			}
		}
		do(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// While a record can't be read, no row that follows from it is changed: the things that it names
// would be deleted.
func TestNothingFollowsFromWhatCannotBeRead(t *testing.T) {
	disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	f := furnish(t, disk, stores)
	h, err := enter(t.Context(), disk, stores, f.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave()
	good := h.catalog
	h.catalog = unreadable{good, catalog.ContentTable}
	h.spoil(t, f, func(s *spoiled) { s.must(catalog.Reservations.Delete(s, catalog.Number(s.open))) })
	found, sum, err := h.check(true)
	if err != nil || sum.Repaired > 0 || !found1(found, keeper.KindRecord, "can't be read") ||
		!found1(found, keeper.KindCounter, "and there are none") {
		t.Fatalf("%v, %+v\n%s", err, sum, list(found))
	}
	h.catalog = good
	if found, sum, err := h.check(false); err != nil || sum.Wrong != 1 {
		t.Errorf("it was made worse: %v\n%s", err, list(found))
	}
}

// unreadable is a catalog with one table that can't be read.
type unreadable struct {
	catalog.Store
	table catalog.TableID
}

type unreadableRows struct {
	catalog.Reader
	table catalog.TableID
}

func (u unreadable) View(ctx context.Context, f func(catalog.Reader) error) error {
	return u.Store.View(ctx, func(r catalog.Reader) error { return f(unreadableRows{r, u.table}) })
}

func (u unreadableRows) Get(t catalog.TableID, key []byte) (any, error) {
	if t == u.table {
		return nil, errors.New("damaged")
	}
	return u.Reader.Get(t, key)
}

func (u unreadableRows) Scan(t catalog.TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for row, err := range u.Reader.Scan(t, lo, hi, desc) {
			if t == u.table {
				row, err = nil, errors.New("damaged")
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// Lost pieces of open uploads are asked for again, and the others stay.
func TestLostPiecesAreAskedForAgain(t *testing.T) {
	disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	f := furnish(t, disk, stores)
	h, err := enter(t.Context(), disk, stores, f.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave()
	entries, err := h.sessions.Entries(h.ctx, f.Open, session.All(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.sessions.Load(h.ctx, f.Open)
	if err != nil {
		t.Fatal(err)
	}
	nonsense := session.Change{
		Remove: []session.Range{entries[1].Range},
		Add:    []session.Entry{{Range: entries[1].Range, Note: []byte("?")}}, Length: session.Unknown,
	}
	if _, err := h.sessions.Record(h.ctx, f.Open, s.Gen, nonsense); err != nil {
		t.Fatal(err)
	}
	found, sum, err := h.check(true)
	if err != nil || sum.Wrong != 1 || sum.Repaired != 1 ||
		!found1(found, keeper.KindPiece, "bytes 16 to 31 are lost") {
		t.Fatalf("%v, %+v\n%s", err, sum, list(found))
	}
	up, err := h.uploads.Status(h.ctx, h.me, f.Open)
	if err != nil || session.Touches(up.Received, session.Range{Off: 16, End: 32}) ||
		!session.Covers(up.Received, session.Range{Off: 0, End: 16}) {
		t.Errorf("%v, %v", up.Received, err)
	}
	if err := h.goOn(f); err != nil {
		t.Error(err)
	}
}

// A content that lies under another's key is reported, and does not stop a check.
func TestAContentUnderAnothersKey(t *testing.T) {
	disk, stores := crashfs.New(), metadatatest.NewMem(upload.Hook(catalog.Bounds{}, nil))
	f := furnish(t, disk, stores)
	h, err := enter(t.Context(), disk, stores, f.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave()
	h.spoil(t, f, func(s *spoiled) {
		key, c := s.content(s.many)
		for i := range key.SHA256 {
			key.SHA256[i] = 0xff
		}
		s.must(catalog.Contents.Put(s, key, c))
	})
	found, sum, err := h.check(true)
	if err != nil || sum.Wrong == 0 ||
		!found1(found, keeper.KindRecord, "a record of the contents is not where it belongs") {
		t.Errorf("%v, %+v\n%s", err, sum, list(found))
	}
}
