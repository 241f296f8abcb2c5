package pebblemeta

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/internal/test/crashfs"
)

// A MANIFEST grows past 32 KiB and again, with a power loss at any step meanwhile. The folder
// opens, and has everything that was acknowledged.
func TestAPowerLossWhileTheManifestGrows(t *testing.T) {
	const logBlock = 32 << 10
	disk := crashfs.New()
	disk.Journal("/meta")
	db, err := Open("/meta", Options{Hook: noHook, FS: disk.VFS()})
	if err != nil {
		t.Fatal(err)
	}
	long := string(bytes.Repeat([]byte("k"), 700)) // the MANIFEST names each table's first and last key
	var n atomic.Int64                             // commits begun
	commit := func() {
		t.Helper()
		n := n.Add(1)
		if err := putRow(db, fmt.Sprintf("%04d%s", n, long), n); err != nil {
			t.Fatal(err)
		}
		if err := db.peb.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		desc, err := pebble.Peek("/meta", disk.VFS())
		if err != nil {
			t.Fatal(err)
		}
		info, err := disk.VFS().Stat(desc.ManifestFilename)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	type moment struct {
		image     *crashfs.Image
		committed int64
		crosses   bool // the MANIFEST is being written across a block
	}
	var mu sync.Mutex // guards moments: compactions write beside the commits
	var moments []moment
	watch := func(s crashfs.Step) *crashfs.Fault {
		if s.Changes() {
			mu.Lock()
			defer mu.Unlock()
			moments = append(moments, moment{s.Image(), n.Load() - 1, false})
		}
		return nil
	}
	crossed := 0
	for crossed < 3 && n.Load() < 300 {
		at := size()
		if at%logBlock < logBlock-4000 {
			commit()
			continue
		}
		mu.Lock()
		from := len(moments)
		mu.Unlock()
		disk.SetHook(watch)
		commit()
		disk.SetHook(nil)
		if size()/logBlock == at/logBlock {
			continue
		}
		crossed++
		mu.Lock()
		for i := range moments[from:] {
			moments[from+i].crosses = true
		}
		mu.Unlock()
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	images := 0
	for _, m := range moments {
		tries := 2
		if m.crosses {
			tries = 8
		}
		for try := range tries {
			images++
			left := m.image.Crash(rng, []int{50, 20, 80}[try%3])
			got, err := Open("/meta", Options{Hook: noHook, FS: left.VFS()})
			if err != nil {
				t.Fatalf("after %d commits: %v", m.committed, err)
			}
			for i := int64(1); i <= m.committed; i++ {
				if err := placed(got, fmt.Sprintf("%04d%s", i, long)); err != nil {
					t.Errorf("commit %d of %d: %v", i, m.committed, err)
				}
			}
			if err := got.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d commits, the MANIFEST crossed a block %d times, %d images", n.Load(), crossed, images)
	if crossed < 3 {
		t.Errorf("the MANIFEST crossed a block %d times", crossed)
	}
}

func placed(db *DB, name string) error {
	return db.Catalog().View(context.Background(), func(r catalog.Reader) error {
		_, err := catalog.Places.Get(r, catalog.Name(name))
		return err
	})
}
