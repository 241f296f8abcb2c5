package pebblemeta

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"sluice/catalog"
	"sluice/session"
)

// A row that is damaged, or was written by a newer program, gives an error that names the row.
// Nothing panics, and nothing is guessed.
func TestARowThatCannotBeReadIsNamed(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	create(t, db, 1, "i")
	create(t, db, 2, "")
	if err := putRow(db, "name", 1); err != nil {
		t.Fatal(err)
	}
	spoil := func(key []byte, change func(row []byte) []byte) {
		t.Helper()
		row, err := get(db.peb, key)
		if err == nil {
			err = db.peb.Set(key, change(row), pebble.Sync)
		}
		if err != nil {
			t.Fatal(err)
		}
		db.cache = newCache()
		// After any commit a view shows the row.
		if err := putRow(db, "other", 1); err != nil {
			t.Fatal(err)
		}
	}
	read := func() error {
		return db.Catalog().View(t.Context(), func(r catalog.Reader) error {
			_, err := catalog.Places.Get(r, "name")
			for _, err2 := range catalog.Places.After(r, "m") {
				if (err == nil) != (err2 == nil) {
					t.Errorf("get says %v, scan %v", err, err2)
				}
				break
			}
			return err
		})
	}
	for name, c := range map[string]struct {
		change  func(row []byte) []byte
		damaged bool
		say     string
	}{
		"newer":     {func(row []byte) []byte { return append([]byte{9}, row[1:]...) }, false, "version 9"},
		"truncated": {func(row []byte) []byte { return row[:len(row)-1] }, true, ""},
		"longer":    {func(row []byte) []byte { return append(row, 0) }, true, ""},
		"empty":     {func([]byte) []byte { return nil }, true, ""},
		"another":   {func([]byte) []byte { return []byte{1, 0xa1, 0x18, 99, 1} }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			key := catalogKey(catalog.PlaceTable, []byte("name"))
			whole, _ := get(db.peb, key)
			spoil(key, c.change)
			err := read()
			if err == nil || errors.Is(err, catalog.ErrDamaged) != c.damaged ||
				!strings.Contains(err.Error(), "places") || !strings.Contains(err.Error(), "6e616d65") ||
				!strings.Contains(err.Error(), c.say) {
				t.Errorf("catalog: %v", err)
			}
			spoil(key, func([]byte) []byte { return whole })
			if err := read(); err != nil {
				t.Errorf("mended: %v", err)
			}

			whole, _ = get(db.peb, sessionKey(1))
			spoil(sessionKey(1), c.change)
			_, err = db.Sessions().Load(t.Context(), 1)
			found, _, err2 := db.Sessions().List(t.Context(), session.Query{Limit: 10})
			_, err3 := record(db, session.Session{ID: 1, Gen: 1}, 0)
			if c.damaged { // a list leaves it out, and reports it
				if err2 != nil || len(found) != 1 || found[0].ID != 2 {
					t.Errorf("listed %v, %v", found, err2)
				}
				_, what := db.Damaged()
				if !slices.ContainsFunc(what, func(w string) bool { return strings.Contains(w, "session 1") }) {
					t.Errorf("damaged: %q", what)
				}
				err2 = err
			}
			for _, err := range []error{err, err2, err3} {
				if err == nil || errors.Is(err, catalog.ErrDamaged) != c.damaged ||
					!strings.Contains(err.Error(), "session 1") || !strings.Contains(err.Error(), c.say) {
					t.Errorf("session: %v", err)
				}
			}
			spoil(sessionKey(1), func([]byte) []byte { return whole })
		})
	}
}

func TestARowOfAnotherTypeIsRefused(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
		return tx.Put(catalog.PlaceTable, []byte("k"), catalog.Usage{})
	})
	if err == nil || !strings.Contains(err.Error(), "catalog.Usage") {
		t.Errorf("%v", err)
	}
	err = db.Catalog().Update(t.Context(), func(tx catalog.Tx) error { return tx.Put(200, nil, catalog.Usage{}) })
	if err == nil || !strings.Contains(err.Error(), "200") {
		t.Errorf("%v", err)
	}
}

func TestSessionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := session.Session{
			ID: 7, Seen: rapid.Int64().Draw(t, "seen"), Start: rapid.Int64().Draw(t, "start"),
			EntryCount: rapid.IntMin(0).Draw(t, "pieces"),
			Spec: session.Spec{
				ChunkSize: rapid.Int64Min(1).Draw(t, "chunk"), BytesExpected: rapid.Int64Min(-1).Draw(t, "bytes"),
				Note:  rapid.SliceOf(rapid.Byte()).Draw(t, "note"),
				Owner: string(rapid.SliceOf(rapid.Byte()).Draw(t, "owner")),
				Idem:  string(rapid.SliceOf(rapid.Byte()).Draw(t, "idem")),
			},
		}
		for range rapid.IntRange(0, 9).Draw(t, "ranges") {
			off := rapid.Int64Range(0, 1<<62).Draw(t, "off")
			r := session.Range{Off: off, End: off + rapid.Int64Range(1, 1<<62-1).Draw(t, "n")}
			s.Received = session.Add(s.Received, r)
			s.Dropped = append(s.Dropped, session.Dropped{Gen: s.Gen, Range: r})
		}
		s = initialSession(s)
		s.Gen, s.Rev = rapid.Uint64Min(1).Draw(t, "gen"), rapid.Uint64Min(1).Draw(t, "rev")
		s.State = rapid.SampledFrom([]session.State{
			session.Open, session.Finished, session.Aborted, session.Expired,
		}).Draw(t, "state")
		row, err := encodeSession(&s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeSession(7, row)
		if diff := cmp.Diff(s, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-stored +read):\n%s", err, diff)
		}
	})
}

// A session of version 1 is read: it has no Start. One of a newer version is refused.
func TestAnOlderSessionRowIsRead(t *testing.T) {
	want := initialSession(session.Session{
		ID: 7, Spec: session.Spec{ChunkSize: 1, BytesExpected: 9, Owner: "o"}, Seen: 5,
	})
	row, err := encodeSession(&want)
	if err != nil {
		t.Fatal(err)
	}
	row[0] = 1
	got, err := decodeSession(7, row)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	row[0] = sessionVersion + 1
	if _, err := decodeSession(7, row); err == nil || !strings.Contains(err.Error(), "newer sluice") {
		t.Errorf("%v", err)
	}
}

// A capsule of version 1 is read: it takes all types.
func TestAnOlderCapsuleRowIsRead(t *testing.T) {
	want := catalog.Capsule{ID: "c", Owners: []string{"o"}, Seq: 3}
	row, err := encodeCatalog(catalog.CapsuleTable, want)
	if err != nil {
		t.Fatal(err)
	}
	row[0] = 1
	got, err := decodeCatalog(catalog.CapsuleTable, row)
	if diff := cmp.Diff(any(want), got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// A row that can be read means the same after it was written again. So nothing was guessed, and
// nothing was lost.
func FuzzCatalogRow(f *testing.F) {
	for table := range codecs {
		row := reflect.Zero(rowType(f, table)).Interface()
		b, err := encodeCatalog(table, row)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(table), b)
	}
	f.Fuzz(func(t *testing.T, table byte, b []byte) {
		row, err := decodeCatalog(catalog.TableID(table), b)
		if err != nil {
			return
		}
		again, err := encodeCatalog(catalog.TableID(table), row)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeCatalog(catalog.TableID(table), again)
		if diff := cmp.Diff(row, same, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// rowType finds the type of a codec's rows, by the types that it refuses.
func rowType(t testing.TB, table catalog.TableID) reflect.Type {
	for _, row := range []any{
		catalog.Capsule{},
		catalog.RoleKey{},
		catalog.Memory{},
		catalog.MemoryID{},
		catalog.Content{},
		catalog.Place{},
		catalog.Reservation{},
		catalog.Usage{},
		catalog.Idem{},
		catalog.Outcome{},
		catalog.Event{},
		catalog.Principal{},
		catalog.Token{},
		catalog.HashCheckpoint{},
		catalog.Due{},
		catalog.TokenRef{},
		catalog.Grant{},
		catalog.GrantRef{},
		catalog.IdentityRef{},
	} {
		if _, err := encodeCatalog(table, row); err == nil {
			return reflect.TypeOf(row)
		}
	}
	t.Fatalf("table %d has rows of an unknown type", table)
	return nil
}

func FuzzSessionRow(f *testing.F) {
	s := initialSession(session.Session{
		ID: 1, Spec: session.Spec{ChunkSize: 1, BytesExpected: 9, Owner: "o", Idem: "i", Note: []byte("n")},
	})
	s.Received = []session.Range{{Off: 1, End: 2}, {Off: 4, End: 9}}
	s.Dropped = []session.Dropped{{Gen: 3, Range: session.Range{Off: 5, End: 6}}}
	row, err := encodeSession(&s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSession(1, b)
		if err != nil {
			return
		}
		for i, r := range s.Received {
			if r.Empty() || r.Off < 0 || i > 0 && s.Received[i-1].End >= r.Off {
				t.Fatalf("received %v", s.Received)
			}
		}
		again, err := encodeSession(&s)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeSession(1, again)
		if diff := cmp.Diff(s, same, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzEntryRow(f *testing.F) {
	f.Add(int64(4), encodeEntry(session.Entry{Range: session.Range{Off: 4, End: 9}, Note: []byte("n")}))
	f.Fuzz(func(t *testing.T, off int64, b []byte) {
		e, err := decodeEntry(off, b)
		if err != nil {
			return
		}
		same, err := decodeEntry(off, encodeEntry(e))
		if diff := cmp.Diff(e, same, cmpopts.EquateEmpty()); err != nil || diff != "" || e.Empty() || e.Off != off {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzTotalsRow(f *testing.F) {
	row, err := totals{Open: 1, Newest: 7}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row)
	f.Fuzz(func(_ *testing.T, b []byte) {
		var t totals
		_ = decodeRow(rowVersion, b, &t) // it must not panic
	})
}

// A cursor from a client is one that was given out, or it is refused.
func FuzzCursor(f *testing.F) {
	f.Add(cursor{kind: keyBegan, state: session.Open, position: position{1, 2}}.String(), int64(0), uint8(0))
	f.Add(cursor{kind: keySeen, position: position{1, 2}}.String(), int64(5), uint8(0))
	f.Add("x", int64(0), uint8(3))
	f.Fuzz(func(t *testing.T, after string, due int64, state uint8) {
		c, err := parseCursor(session.Query{After: after, Due: due, State: session.State(state)})
		if err == nil && after != "" && c.String() != after || err != nil && !errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%q: %+v, %v", after, c, err)
		}
	})
}
