package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/session"
)

// damageable fills a database with rows in several levels and tables, some of them changed or
// deleted later. It gives the rows that the database has at its close.
func damageable(t *testing.T) (disk *vfs.MemFS, rows map[string]string) {
	t.Helper()
	disk = vfs.NewMem()
	db := opened(t, disk, Options{})
	long := strings.Repeat("x", 200)
	for round := range 4 {
		for i := range 120 {
			if i%4 < round {
				continue
			}
			if err := putRow(db, fmt.Sprintf("%03d%s", i, long), int64(round+1)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			create(t, db, session.SessionID(1000*uint64(i+1)+uint64(round)), "")
		}
		// In the end there is one large table, and above it one with the last changes.
		if round == 2 {
			if err := db.peb.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatal(err)
			}
			for !db.scheduler.tryStart() { // from now on there are no compactions
				runtime.Gosched()
			}
		}
	}
	if err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Places.Delete(tx, catalog.Name("007"+long))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.peb.Flush(); err != nil {
		t.Fatal(err)
	}
	rows = map[string]string{}
	holes := walked(t, db, false, rows)
	if len(holes) > 0 {
		t.Fatal(holes)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, rows
}

// walked reads all rows, and gives the holes.
func walked(t *testing.T, db *DB, desc bool, into map[string]string) (holes []hole) {
	t.Helper()
	var last []byte
	err := db.each(db.peb, nil, nil, desc, func(key, row []byte) bool {
		if last != nil && (bytes.Compare(last, key) >= 0) != desc {
			t.Errorf("%x comes after %x", key, last)
		}
		last = bytes.Clone(key)
		into[string(key)] = string(row)
		return true
	}, func(err error) bool {
		var h *holeError
		if !errors.As(err, &h) || !errors.Is(err, catalog.ErrDamaged) {
			t.Errorf("%v", err)
			return false
		}
		holes = append(holes, h.hole)
		return true
	})
	if err != nil {
		t.Errorf("%v", err)
	}
	return holes
}

func tables(t *testing.T, disk vfs.FS) (paths []string) {
	t.Helper()
	names, err := disk.List("data/meta")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			paths = append(paths, "data/meta/"+name)
		}
	}
	slices.Sort(paths)
	return paths
}

// flip turns bits of a file.
func flip(t *testing.T, disk vfs.FS, path string, at ...int) {
	t.Helper()
	b, err := readAll(disk, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range at {
		b[i] ^= 1 << (i % 8)
	}
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// copied gives a copy of a disk in memory.
func copied(t *testing.T, disk vfs.FS) *vfs.MemFS {
	t.Helper()
	out := vfs.NewMem()
	if _, err := vfs.Clone(disk, out, "data", "data"); err != nil {
		t.Fatal(err)
	}
	return out
}

// I23: Bytes of tables are flipped anywhere. The process does not end. Each row is read as it was,
// or it lies in a hole that is reported: in order, backwards, and by its key.
func TestACorruptBlockTakesItsOwnRowsAlone(t *testing.T) {
	furnished, want := damageable(t)
	paths := tables(t, furnished)
	if len(paths) < 2 {
		t.Fatalf("only %d tables", len(paths))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	counts := map[string]int{}
	const rounds = 60
	for range rounds {
		disk := copied(t, furnished)
		for range 1 + rng.IntN(3) {
			path := paths[rng.IntN(len(paths))]
			info, err := disk.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, disk, path, rng.IntN(int(info.Size())))
		}
		db, err := Open("data/meta",
			Options{Hook: noHook, FS: disk, Die: func(err error) { t.Errorf("died: %v", err) }})
		if err != nil {
			counts["refused"]++
			continue
		}
		got, back := map[string]string{}, map[string]string{}
		holes := walked(t, db, false, got)
		behind := walked(t, db, true, back)
		if len(holes) > 0 {
			counts["holes"]++
			if reads, what := db.Damaged(); reads == 0 || len(what) == 0 {
				t.Errorf("%d, %q", reads, what)
			}
		}
		if !maps.Equal(got, back) || len(holes) != len(behind) {
			t.Errorf("%d rows from the front, %d from behind; %d holes, %d",
				len(got), len(back), len(holes), len(behind))
		}
		in := func(key string) bool {
			return slices.ContainsFunc(holes, func(h hole) bool { return key >= string(h.lo) && key < string(h.hi) })
		}
		if missing := len(want) - len(got); missing > 0 && missing < len(want)/4 {
			counts["few"]++
		}
		for key, row := range want {
			if now, there := got[key]; there && now != row && key != string(totalsKey) {
				t.Errorf("row %.9q is another", key)
			} else if !there && !in(key) {
				t.Errorf("row %.9q is missing in silence: %v", key, holes)
			}
			if rng.IntN(8) > 0 {
				continue
			}
			now, err := get(db.peb, []byte(key))
			if key == string(totalsKey) {
				continue // the totals are counted anew if they can't be read
			}
			if err == nil && string(now) != row {
				t.Errorf("row %x is %x", key, now)
			} else if err != nil && !errors.Is(err, catalog.ErrDamaged) {
				t.Errorf("row %x: %v", key, err)
			}
		}
		for key := range got {
			if _, there := want[key]; !there {
				t.Errorf("row %x was deleted, and is there", key)
			}
		}
		if err := db.Close(); err != nil {
			t.Errorf("%v", err)
		}
	}
	t.Log(counts, len(want))
	if counts["holes"] < rounds/2 || counts["few"] < rounds/6 {
		t.Errorf("%v of %d rounds", counts, rounds)
	}
}
