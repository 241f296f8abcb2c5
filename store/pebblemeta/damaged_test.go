package pebblemeta

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/session"
)

// openDamaged opens a database with damaged tables, and gives its readable rows.
func openDamaged(t *testing.T, disk vfs.FS) (w *Damaged, sure, doubtful map[string]string) {
	t.Helper()
	w, err := OpenDamaged("data/meta", Options{FS: disk})
	if err != nil {
		t.Fatalf("%v", err)
	}
	sure, doubtful = map[string]string{}, map[string]string{}
	var last []byte
	err = w.Walk(t.Context(), func(key, row []byte, is bool) error {
		if last != nil && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("%x comes after %x", key, last)
		}
		last = bytes.Clone(key)
		if is {
			sure[string(key)] = string(row)
		} else {
			doubtful[string(key)] = string(row)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return w, sure, doubtful
}

// One table is damaged: a block of it, its end, or all of it. Each row that is given as sure is
// what it was. Each row that is not given is reported as lost. All rows in newer tables, and beside
// the hole, are there.
func TestADamagedDatabaseGivesWhatIsSure(t *testing.T) {
	furnished, want := damageable(t)
	undamaged, sure, doubtful := openDamaged(t, furnished)
	if len(undamaged.Holes()) > 0 || len(doubtful) > 0 || len(sure) != len(want) {
		t.Errorf("undamaged: %v, %d rows and %d of %d", undamaged.Holes(), len(doubtful), len(sure), len(want))
	}
	if err := undamaged.Close(); err != nil {
		t.Error(err)
	}
	damages := 0
	for i, path := range tables(t, furnished) {
		b, err := readAll(furnished, path)
		if err != nil {
			t.Fatal(err)
		}
		damage := map[string]func(vfs.FS){
			"gone":      func(disk vfs.FS) { _ = disk.Remove(path) },
			"truncated": func(disk vfs.FS) { replaceFile(t, disk, path, b[:len(b)/2]) },
			"empty":     func(disk vfs.FS) { replaceFile(t, disk, path, nil) },
		}
		for at := 10; at < len(b); at += 1000 {
			damage[fmt.Sprintf("byte %d", at)] = func(disk vfs.FS) { flip(t, disk, path, at) }
		}
		for what, do := range damage {
			damages++
			disk := copied(t, furnished)
			do(disk)
			w, sure, doubtful := openDamaged(t, disk)
			for key, row := range want {
				if is, ok := sure[key]; ok && is != row {
					t.Errorf("%s, %s: row %.20q is another", path, what, key)
				} else if _, old := doubtful[key]; !ok && !old && !w.mayBeLost([]byte(key)) {
					t.Errorf("%s, %s: row %.20q is missing in silence", path, what, key)
				}
			}
			// The newest table has the deletion of this row.
			deleted := []byte("007" + strings.Repeat("x", 200))
			if i == 0 && w.Lost(catalog.PlaceTable, deleted) {
				t.Errorf("%s, %s: the deletion of a row was not read", path, what)
			}
			for key := range sure {
				if _, ok := want[key]; !ok {
					t.Errorf("%s, %s: row %.20q was deleted", path, what, key)
				}
			}
			if missing := len(want) - len(sure) - len(doubtful); missing > len(want)/8 && what[0] == 'b' {
				t.Logf("%s, %s: %d of %d rows are missing, %d doubtful", path, what, missing, len(want), len(doubtful))
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Log(damages)
}

func replaceFile(t *testing.T, disk vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A salvaged database survives a power loss after SyncAll, has the rows that were left, and can be
// opened and changed. The indexes of sessions and the totals are made anew.
func TestWhatIsSalvagedIsADatabase(t *testing.T) {
	furnished, want := damageable(t)
	for _, path := range tables(t, furnished) {
		for _, at := range []int{10, 1500, 3000, 5000, 7000, -1} {
			disk := vfs.NewCrashableMem()
			if _, err := vfs.Clone(furnished, disk, "data", "data"); err != nil {
				t.Fatal(err)
			}
			if info, err := disk.Stat(path); err != nil || int64(at) >= info.Size() {
				continue
			}
			if at < 0 {
				_ = disk.Remove(path)
			} else {
				flip(t, disk, path, at)
			}
			w, sure, _ := openDamaged(t, disk)
			late := DeferSync(disk)
			reported := 0
			keep := func(_ any, sure bool) bool { return sure }
			report := func(string) { reported++ }
			if err := w.Salvage(t.Context(), "data/new", Options{FS: late}, keep, report); err != nil {
				t.Fatalf("%s, %d: %v", path, at, err)
			}
			err := errors.Join(w.Close(), SyncAll(disk, "data/new"), syncDir(disk, "data"), syncDir(disk, "/"))
			if err != nil {
				t.Fatal(err)
			}
			left := disk.CrashClone(vfs.CrashCloneCfg{})
			db, err := Open("data/new", Options{Hook: noHook, FS: left, Existing: true})
			if err != nil {
				t.Fatalf("%s, %d: %v", path, at, err)
			}
			got := map[string]string{}
			if holes := walked(t, db, false, got); len(holes) > 0 {
				t.Errorf("%s, %d: %v", path, at, holes)
			}
			found := func(problem string, _ bool) { t.Errorf("%s, %d: %s", path, at, problem) }
			if err := db.Verify(t.Context(), found); err != nil {
				t.Error(err)
			}
			for key, row := range sure {
				if is := got[key]; is != row && (key[0] == keyCatalog || key[0] == keySession) {
					t.Errorf("%s, %d: row %.20q is %q", path, at, key, is)
				}
			}
			for key := range got {
				if _, was := want[key]; !was {
					t.Errorf("%s, %d: row %.20q was not there", path, at, key)
				}
			}
			create(t, db, 77, "key")
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Some entries of an upload are lost. The salvaged session says that these bytes are missing, and
// that what was hashed before does not count. An upload whose newest record is lost is left out,
// and reported.
func TestPiecesWhoseRecordsAreLost(t *testing.T) {
	disk := vfs.NewMem()
	db := opened(t, disk, Options{})
	ctx := t.Context()
	want := map[session.SessionID]session.Session{}
	for id := session.SessionID(1); id <= 40; id++ {
		s, _, err := db.Sessions().Create(ctx, session.Session{
			ID:   id,
			Spec: session.Spec{Owner: "owner", ChunkSize: 100, BytesExpected: 1000, Note: []byte(fmt.Sprint(id))},
		})
		for off := int64(0); off < 1000 && err == nil; off += 100 {
			note := make([]byte, 200)
			rand.Read(note)
			s, err = db.Sessions().Record(ctx, id, s.Gen, session.Change{
				Add:    []session.Entry{{Range: session.Range{Off: off, End: off + 100}, Note: note}},
				Length: session.Unknown,
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		want[id] = s
	}
	if err := db.peb.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	for !db.scheduler.tryStart() {
		runtime.Gosched()
	}
	// The newest records of all sessions are in a table of their own.
	for id, s := range want {
		_, err := db.Sessions().Record(ctx, id, s.Gen, session.Change{Seen: 5, Length: session.Unknown})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.peb.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	missing, leftOut := 0, 0
	paths := tables(t, disk)
	for _, damage := range []func(vfs.FS){
		func(disk vfs.FS) { flip(t, disk, paths[0], 10_000) },
		func(disk vfs.FS) { flip(t, disk, paths[0], 50_000) },
		func(disk vfs.FS) { _ = disk.Remove(paths[len(paths)-1]) },
	} {
		disk := copied(t, disk)
		damage(disk)
		w, sure, _ := openDamaged(t, disk)
		var reported []string
		err := w.Salvage(ctx, "data/new", Options{FS: disk},
			func(any, bool) bool { return true }, func(what string) { reported = append(reported, what) })
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		db, err := Open("data/new", Options{Hook: noHook, FS: disk, Existing: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Verify(ctx, func(problem string, _ bool) { t.Error(problem) }); err != nil {
			t.Error(err)
		}
		for id := range want {
			s, err := db.Sessions().Load(ctx, id)
			if _, ok := sure[string(sessionKey(id))]; !ok {
				leftOut++
				if !errors.Is(err, session.ErrNotFound) {
					t.Errorf("session %s, whose newest record is missing, is there: %v", id, err)
				}
				continue
			}
			entries, failed := db.Sessions().Entries(ctx, id, session.All(), 0)
			if err != nil || failed != nil {
				t.Fatal(err, failed)
			}
			var got []session.Range
			for _, e := range entries {
				got = session.Add(got, e.Range)
			}
			if !slices.Equal(got, s.Received) || s.EntryCount != len(entries) {
				t.Errorf("session %s has %v in %d pieces, and those are %v in %d",
					id, s.Received, s.EntryCount, got, len(entries))
			}
			if lacks := 1000 - session.Total(got); lacks > 0 {
				missing++
				if !s.Stale(1, session.Range{End: 1000}) || !slices.ContainsFunc(reported, func(s string) bool {
					return strings.Contains(s, fmt.Sprintf("session %s: the records of %d of", id, lacks))
				}) {
					t.Errorf("session %s lacks %d bytes: %v, %q", id, lacks, s.Dropped, reported)
				}
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if missing == 0 || leftOut < 40 {
		t.Errorf("%d, %d", missing, leftOut)
	}
}

// unopened is a file system on which one file can't be opened now.
type unopened struct {
	vfs.FS
	path string
	err  error
}

func (u *unopened) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if name == u.path {
		return nil, &fs.PathError{Op: "open", Path: name, Err: u.err}
	}
	return u.FS.Open(name, opts...)
}

// A table that can't be read just now, for lack of a descriptor or a right, is no hole: no new
// database is made without it.
func TestATableThatCannotBeReadNow(t *testing.T) {
	furnished, _ := damageable(t)
	paths := tables(t, furnished)
	for _, no := range []syscall.Errno{syscall.EMFILE, syscall.EACCES} {
		disk := &unopened{furnished, paths[0], no}
		if w, err := OpenDamaged("data/meta", Options{FS: disk}); !errors.Is(err, no) {
			t.Errorf("%v, %v", w, err)
		}
		if holes, err := holesInFile(disk, paths[0], []byte("a"), []byte("b")); !errors.Is(err, no) {
			t.Errorf("%v, %v", holes, err)
		}
		// A running server leaves all rows of the table out, and examines it again later.
		d := newCorruption(slog.New(slog.DiscardHandler))
		d.tables[paths[0]] = corruptTable{lo: []byte("a"), hi: []byte("b")}
		if holes := d.holes(disk); len(holes) != 1 || string(holes[0].lo) != "a" {
			t.Errorf("%v", holes)
		}
		if disk.path = ""; len(d.holes(disk)) != 0 {
			t.Errorf("%v", d.holes(disk))
		}
	}
	// A table that the disk can't read is a hole.
	disk := &unopened{furnished, paths[0], syscall.EIO}
	if holes, err := holesInFile(disk, paths[0], []byte("a"), []byte("b")); err != nil || len(holes) != 1 {
		t.Errorf("%v, %v", holes, err)
	}
}
