package pebblemeta

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/session"
)

// Verify names each row that contradicts the sessions.
func TestVerifyNamesWhatContradicts(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b *pebble.Batch, s session.Session)
		says  string
	}{
		"nothing":         {func(*pebble.Batch, session.Session) {}, ""},
		"index gone":      {func(b *pebble.Batch, s session.Session) { b.Delete(indexKeys(&s)[keySeen], nil) }, "is not in index T"},
		"index of none":   {func(b *pebble.Batch, s session.Session) { s.ID++; b.Set(indexKeys(&s)[keyOwner], nil, nil) }, "leads to a session that is not there"},
		"index elsewhere": {func(b *pebble.Batch, s session.Session) { s.Seen += 5; b.Set(indexKeys(&s)[keySeen], nil, nil) }, "elsewhere in the index"},
		"idem of another": {func(b *pebble.Batch, s session.Session) { b.Set(idemKey(&s), appendUint(nil, 77), nil) }, "is not in index I"},
		"session damaged": {func(b *pebble.Batch, s session.Session) { b.Set(sessionKey(s.ID), []byte{1, 2, 3}, nil) }, "damaged"},
		"piece damaged":   {func(b *pebble.Batch, s session.Session) { b.Set(entryKey(s.ID, 0), []byte{1}, nil) }, "length"},
		"piece of none": {func(b *pebble.Batch, s session.Session) {
			b.Set(entryKey(s.ID+1, 0), encodeEntry(session.Entry{Range: session.Range{End: 4}}), nil)
		}, "which is not open"},
		"totals": {func(b *pebble.Batch, s session.Session) {
			row, _ := totals{Open: 9}.encode()
			b.Set(totalsKey, row, nil)
		}, "the totals say that 9"},
		"unknown key":   {func(b *pebble.Batch, s session.Session) { b.Set([]byte("?"), nil, nil) }, "its key means nothing"},
		"unknown table": {func(b *pebble.Batch, s session.Session) { b.Set([]byte{keyCatalog, 200, 1}, nil, nil) }, "its key means nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			db, err := Open("meta", Options{Hook: noHook, FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			s := session.Session{
				ID: 5, Spec: session.Spec{ChunkSize: 4, BytesExpected: 8, Owner: "o", Idem: "i"},
				State: session.Open, Gen: 1, Rev: 1,
			}
			if s, _, err = db.Sessions().Create(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			b := db.peb.NewBatch()
			c.spoil(b, s)
			if err := b.Commit(pebble.Sync); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if db, err = Open("meta", Options{Hook: noHook, FS: fs}); err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var found []string
			err = db.Verify(t.Context(), func(problem string, _ bool) { found = append(found, problem) })
			all := strings.Join(found, "\n")
			if err != nil || (len(found) > 0) != (c.says != "") || !strings.Contains(all, c.says) {
				t.Errorf("%v, %q", err, all)
			}
		})
	}
}
