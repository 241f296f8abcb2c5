package pebblemeta

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
)

// A server that has written a lot still finds the blocks that it reads often in memory.
func TestTablesInMemoryLeaveTheCacheItsSize(t *testing.T) {
	db, err := Open("meta", Options{Hook: noHook, FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	put := func(id string) {
		err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error {
			return catalog.Principals.Put(tx, catalog.Name(id),
				catalog.Principal{ID: id, Name: strings.Repeat(id, 1000)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(id string) { // past the cache of rows above Pebble
		key := catalogKey(catalog.PrincipalTable, catalog.Name(id).AppendKey(nil))
		if row, err := get(db.peb, key); err != nil || row == nil {
			t.Fatalf("%d bytes: %v", len(row), err)
		}
	}
	first := fmt.Sprintf("%07d", 0)
	const often = 100
	for i := range 4 * maxMemTables * memTableSize / 7000 {
		put(fmt.Sprintf("%07d", i))
	}
	read(first) // now its block is in the cache
	before := db.peb.Metrics().BlockCache
	for range often {
		read(first)
	}
	after := db.peb.Metrics().BlockCache
	if missed := after.Misses - before.Misses; missed > often/10 {
		t.Errorf("of %d reads of one row %d looked for a block in vain", often, missed)
	}
	if after.Hits-before.Hits < often {
		t.Errorf("the row was not read from a table: %d hits", after.Hits-before.Hits)
	}
}
