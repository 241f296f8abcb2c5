package pebblemeta

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"sluice/catalog"
)

// frozen gives all rows of a DB, and what they say.
func frozen(t *testing.T, db *DB) (rows []string, what []any) {
	t.Helper()
	f, err := db.Freeze(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = f.Walk(t.Context(), func(key, row []byte) error {
		rows = append(rows, fmt.Sprintf("%x %x", key, row))
		v, err := Decode(key, row)
		what = append(what, v)
		return err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rows, what
}

// † I30: A frozen state has what was acknowledged, and nothing that a crash could take back.
func TestAFrozenStateIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		create(t, db, 1, "a")
		if err := putRow(db, "row", 1); err != nil {
			t.Fatal(err)
		}
		before, what := frozen(t, db)
		if !slices.Contains(what, any(catalog.Place{Name: "row", Refs: 1})) {
			t.Errorf("%v", what)
		}
		disk.stop()
		var wg sync.WaitGroup
		wg.Go(func() { _ = putRow(db, "late", 1) })
		synctest.Wait()
		if now, _ := frozen(t, db); !slices.Equal(before, now) {
			t.Errorf("%s", cmp.Diff(before, now))
		}
		f, err := db.Freeze(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		disk.resume()
		wg.Wait()
		// The frozen state does not change, and it keeps the DB open.
		n := 0
		err = f.Walk(t.Context(), func([]byte, []byte) error { n++; return nil }, nil)
		if err != nil || n != len(before) {
			t.Errorf("%d rows, and %d before; %v", n, len(before), err)
		}
		closed := false
		wg.Go(func() {
			_ = db.Close()
			closed = true
		})
		if synctest.Wait(); closed {
			t.Error("closed under a frozen state")
		}
		f.Close()
		f.Close()
		wg.Wait()
	})
}

// A database that is filled with the rows of another one is the same, also after a crash.
func TestAFilledDatabaseIsTheSame(t *testing.T) {
	db := opened(t, vfs.NewMem(), Options{})
	for i := range 500 {
		if err := putRow(db, fmt.Sprint("row ", i), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	s := create(t, db, 1, "a")
	if _, err := record(db, s, 3); err != nil {
		t.Fatal(err)
	}
	f, err := db.Freeze(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk := vfs.NewCrashableMem()
	to, err := Fill("data/meta", Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Walk(t.Context(), to.Add, nil); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := to.Add([]byte("A"), nil); !errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("a row out of order: %v", err)
	}
	if err := to.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	to.Abandon()
	want := all(t, db)
	defer db.Close()
	for _, left := range []vfs.FS{disk.CrashClone(vfs.CrashCloneCfg{}), disk} {
		got := opened(t, left, Options{})
		if diff := cmp.Diff(want, all(t, got)); diff != "" {
			t.Error(diff)
		}
		a, _ := frozen(t, db)
		if b, _ := frozen(t, got); !slices.Equal(a, b) {
			t.Error(cmp.Diff(a, b))
		}
		// It can be changed, as any other.
		if err := errors.Join(putRow(got, "more", 1), got.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := Fill("data/meta", Options{FS: disk}); err == nil {
		t.Error("a folder with something in it was filled")
	}
}
