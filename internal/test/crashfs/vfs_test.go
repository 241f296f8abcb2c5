package crashfs_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"sluice/internal/test/crashfs"
)

// Pebble runs on the disk, and bytes that Pebble has synced survive every crash.
func TestPebbleSurvives(t *testing.T) {
	open := func(d *crashfs.Disk) *pebble.DB {
		t.Helper()
		db, err := pebble.Open("/db", &pebble.Options{FS: d.VFS(), FormatMajorVersion: pebble.FormatValueSeparation})
		must(t, err)
		return db
	}
	d := crashfs.New()
	db := open(d)
	listed(t, d)
	const n = 100
	for i := range n {
		must(t, db.Set(fmt.Append(nil, i), fmt.Append(nil, i), pebble.Sync))
		if i == n/2 {
			must(t, db.Flush())
		}
	}
	must(t, db.Set([]byte("unsynced"), nil, pebble.NoSync))
	for i, keep := range []int{0, 10, 50, 90, 100, -1} {
		left := d.Kill()
		if keep >= 0 {
			left = d.Crash(seeded(uint64(i)), keep)
		}
		after := open(left)
		for i := range n {
			v, done, err := after.Get(fmt.Append(nil, i))
			if err != nil || string(v) != fmt.Sprint(i) {
				t.Errorf("keep %d: %d is %q, %v", keep, i, v, err)
				break
			}
			must(t, done.Close())
		}
		must(t, after.Close())
	}
	must(t, db.Close())
}
