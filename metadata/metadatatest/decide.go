package metadatatest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/metadata"
	"sluice/session"
)

var errNo = errors.New("not allowed")

type decideKey struct{}

// Each commit that creates a session or records into one is decided about inside it, also once the
// length is known.
func testDecision(t *testing.T, open func(t *testing.T, hook metadata.Hook) metadata.Store) {
	var seen []string
	db := open(t, metadata.Hook{Reserve: noHook.Reserve, Decide: func(
		ctx context.Context, r catalog.Reader, s session.Session,
	) error {
		seen = append(seen, fmt.Sprint(s.ID, " has ", s.Bytes(), " by ", ctx.Value(decideKey{})))
		_, refused, err := catalog.Principals.Find(r, "stop")
		if refused {
			err = errNo
		}
		return err
	}})
	ctx := context.WithValue(t.Context(), decideKey{}, "me")
	refuse := func(yes bool) {
		t.Helper()
		if err := db.Catalog().Update(ctx, func(tx catalog.Tx) error {
			if yes {
				return catalog.Principals.Put(tx, "stop", catalog.Principal{ID: "stop", Name: "stop"})
			}
			return catalog.Principals.Delete(tx, "stop")
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int64{100, session.Unknown} {
		seen = nil
		st, id := db.Sessions(), session.SessionID(n+10)
		spec := session.Spec{ChunkSize: 10, BytesExpected: n, Owner: "o", Note: []byte("note")}
		refuse(true)
		if _, _, err := st.Create(ctx, session.Session{ID: id, Spec: spec}); err != errNo {
			t.Errorf("a create that is refused: %v", err)
		}
		if _, err := st.Load(ctx, id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("it is there: %v", err)
		}
		refuse(false)
		if s, _, err := st.Create(ctx, session.Session{ID: id, Spec: spec}); err != nil || string(s.Note) != "note" {
			t.Fatal(s, err)
		}
		refuse(true)
		c := session.Change{Add: []session.Entry{{Range: session.Range{End: 10}}}, Length: session.Unknown}
		if _, err := st.Record(ctx, id, 1, c); err != errNo {
			t.Errorf("a record that is refused: %v", err)
		}
		if s, err := st.Load(ctx, id); err != nil || s.Bytes() != 0 || string(s.Note) != "note" {
			t.Error(s, err)
		}
		refuse(false)
		if s, err := st.Record(ctx, id, 1, c); err != nil || s.Bytes() != 10 {
			t.Error(s, err)
		}
		for _, call := range []string{" has 0 by me", " has 10 by me"} {
			found := false
			for _, s := range seen {
				found = found || s == id.String()+call
			}
			if !found {
				t.Errorf("%q is not among the calls %q", call, seen)
			}
		}
	}
}

// A right that ends between the decision and the commit is seen: the commit is refused, or it comes
// before the end of the right.
func testLateChange(t *testing.T, open func(t *testing.T, hook metadata.Hook) metadata.Store) {
	for _, change := range []struct {
		name string
		do   func(tx catalog.Tx) error
		gone func(r catalog.Reader) (bool, error)
	}{
		{
			"token", func(tx catalog.Tx) error { return catalog.Tokens.Delete(tx, catalog.TokenKey{1}) },
			func(r catalog.Reader) (bool, error) {
				_, ok, err := catalog.Tokens.Find(r, catalog.TokenKey{1})
				return !ok, err
			},
		},
		{
			"principal", func(tx catalog.Tx) error { return catalog.Principals.Delete(tx, "p") },
			func(r catalog.Reader) (bool, error) {
				_, ok, err := catalog.Principals.Find(r, "p")
				return !ok, err
			},
		},
		{
			"role", func(tx catalog.Tx) error {
				_, err := catalog.ChangeCapsule(tx, "c", func(c *catalog.Capsule) error {
					c.Owners, c.Controllers = []string{"q"}, []string{"p"}
					return nil
				}, catalog.Moment{})
				return err
			},
			func(r catalog.Reader) (bool, error) {
				c, err := catalog.Capsules.Get(r, "c")
				return err == nil && c.Owners[0] != "p", err
			},
		},
	} {
		t.Run(change.name, func(t *testing.T) {
			var db metadata.Store
			var late func() // what happens right after the next decision
			decide := func(_ context.Context, r catalog.Reader, _ session.Session) error {
				gone, err := change.gone(r)
				if err == nil && gone {
					err = errNo
				}
				if late != nil {
					late()
				}
				return err
			}
			db = open(t, metadata.Hook{Reserve: noHook.Reserve, Decide: decide})
			if err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
				_, err := catalog.NewCapsule(tx, catalog.Capsule{
					ID: "c", Owners: []string{"p", "q"},
				}, catalog.Moment{})
				return errors.Join(
					err,
					catalog.Principals.Put(tx, "p", catalog.Principal{ID: "p", Name: "p"}),
					catalog.Tokens.Put(tx, catalog.TokenKey{1}, catalog.Token{
						Hash: catalog.SHA256{1}, ID: "t", Principal: "p",
					}),
				)
			}); err != nil {
				t.Fatal(err)
			}
			spec := session.Spec{ChunkSize: 10, BytesExpected: 100, Owner: "o"}
			if _, _, err := db.Sessions().Create(t.Context(), session.Session{ID: 1, Spec: spec}); err != nil {
				t.Fatal(err)
			}
			done, before := make(chan error, 1), false
			late = func() {
				late = nil
				go func() { done <- db.Catalog().Update(t.Context(), change.do) }()
				select {
				case err := <-done:
					done <- err
					before = true
				case <-time.After(200 * time.Millisecond): // the store lets the change wait for the record
				}
			}
			c := session.Change{Add: []session.Entry{{Range: session.Range{End: 10}}}, Length: session.Unknown}
			_, err := db.Sessions().Record(t.Context(), 1, 1, c)
			if before && err != errNo {
				t.Errorf("the right had ended before the record: %v", err)
			}
			if !before && err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, err := db.Sessions().Record(t.Context(), 1, 1, session.Change{
				Add: []session.Entry{{Range: session.Range{Off: 10, End: 20}}}, Length: session.Unknown,
			}); err != errNo {
				t.Errorf("a record after the end of the right: %v", err)
			}
		})
	}
}
