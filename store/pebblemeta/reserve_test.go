package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/internal/test/crashfs"
)

// testReserve is a size with which a reserve has all its parts.
const testReserve = maxParts * minPart

// living runs a test with databases that may call Die. Then the test fails at once, even if
// something still waits for them.
func living(t *testing.T, test func(t *testing.T, open func(*crashfs.Disk) *DB)) {
	t.Helper()
	died, ended := make(chan error, 1), make(chan struct{})
	var dead atomic.Bool
	open := func(disk *crashfs.Disk) *DB {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		die := func(err error) {
			if dead.CompareAndSwap(false, true) {
				died <- err
			}
			select {} // nothing more happens, as in a process that has ended
		}
		db, err := Open("/meta", Options{Hook: noHook, FS: disk.VFS(), Reserve: testReserve, Log: log, Die: die})
		if err != nil {
			t.Error(err)
			runtime.Goexit()
		}
		t.Cleanup(func() {
			if !dead.Load() {
				closed(t, db)
			}
		})
		return db
	}
	go func() {
		defer close(ended)
		test(t, open)
	}()
	select {
	case <-ended:
	case err := <-died:
		t.Fatalf("the process ends: %v", err)
	}
}

func closed(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

// used is how many bytes a disk holds.
func used(t *testing.T, disk *crashfs.Disk) int64 {
	t.Helper()
	const plenty = 1 << 39 // less than the default, with which a disk does not count
	disk.SetRoom(plenty)
	free, err := disk.Free("/")
	if err != nil {
		t.Fatal(err)
	}
	return plenty - free
}

// fillUp leaves no byte free.
func fillUp(t *testing.T, disk *crashfs.Disk) { disk.SetRoom(used(t, disk)) }

func parts(t *testing.T, disk *crashfs.Disk) (n int) {
	t.Helper()
	names, err := disk.List("/meta")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "RESERVE-") {
			n++
		}
	}
	return n
}

// commit writes a row of n bytes that can't be compressed.
func commit(db *DB, key string, n int) error {
	value := make([]byte, n)
	rng := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%32s", key))))
	_, _ = rng.Read(value)
	return db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
		return catalog.Contents.Put(tx, catalog.ContentKey{Capsule: key},
			catalog.Content{Capsule: key, Bytes: int64(n), Inline: value})
	})
}

// Commits go on if others have filled the disk to the last byte. CheckSpace says that nothing new
// is to be begun. The reserve is there again once there is free space.
func TestCommitsGoOnWhenTheDiskIsFull(t *testing.T) { living(t, commitsGoOnWhenTheDiskIsFull) }

func commitsGoOnWhenTheDiskIsFull(t *testing.T, open func(*crashfs.Disk) *DB) {
	disk := crashfs.New()
	db := open(disk)
	if got := parts(t, disk); got != maxParts {
		t.Fatalf("%d parts", got)
	}
	if err := db.CheckSpace(); err != nil {
		t.Fatal(err)
	}
	fillUp(t, disk)
	for i := range 40 { // several parts
		if err := commit(db, fmt.Sprint("full ", i), 4000); err != nil {
			t.Fatal(err)
		}
	}
	if got := parts(t, disk); got == maxParts || got == 0 {
		t.Errorf("%d parts are left", got)
	}
	if err := db.CheckSpace(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("on a full disk: %v", err)
	}
	disk.SetRoom(used(t, disk) + testReserve) // space for the reserve, and for nothing else
	if err := db.CheckSpace(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("on a disk with hardly any free space: %v", err)
	}
	used(t, disk)
	if err := db.CheckSpace(); err != nil {
		t.Errorf("on a disk with free space: %v", err)
	}
	if got := parts(t, disk); got != maxParts {
		t.Errorf("%d parts are there again", got)
	}
	closed(t, db)
	db = open(disk)
	for i := range 40 {
		if err := committed(db, fmt.Sprint("full ", i)); err != nil {
			t.Errorf("row %d: %v", i, err)
		}
	}
}

// committed reads a row of commit.
func committed(db *DB, key string) error {
	return db.Catalog().View(context.Background(), func(r catalog.Reader) error {
		_, err := catalog.Contents.Get(r, catalog.ContentKey{Capsule: key})
		return err
	})
}

// A server can be stopped and started on a full disk, and reports it.
func TestAStartOnAFullDisk(t *testing.T) { living(t, aStartOnAFullDisk) }

func aStartOnAFullDisk(t *testing.T, open func(*crashfs.Disk) *DB) {
	disk := crashfs.New()
	db := open(disk)
	if err := commit(db, "before", 100); err != nil {
		t.Fatal(err)
	}
	fillUp(t, disk)
	closed(t, db)
	db = open(disk)
	if err := db.CheckSpace(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("%v", err)
	}
	if err := commit(db, "after", 100); err != nil {
		t.Fatal(err)
	}
	used(t, disk)
	if err := db.CheckSpace(); err != nil || parts(t, disk) != maxParts {
		t.Errorf("%v, %d parts", err, parts(t, disk))
	}
}

// If the reserve is used up too the process ends, as with any log that can't be written. Nothing
// that was acknowledged is lost.
func TestTheReserveHasAnEnd(t *testing.T) {
	disk := crashfs.New()
	died := make(chan error, 1)
	var once atomic.Bool
	db, err := Open("/meta", Options{Hook: noHook, FS: disk.VFS(), Reserve: 2 * minPart, Die: func(err error) {
		if once.CompareAndSwap(false, true) {
			died <- err
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := parts(t, disk); got != 2 {
		t.Fatalf("%d parts", got)
	}
	fillUp(t, disk)
	const many = 2000 // fifty times as many as there is space for
	written := 0
	ended := make(chan bool)
	go func() {
		defer close(ended)
		defer func() { _ = recover() }() // Die returned
		for ; written < many && commit(db, fmt.Sprint(written), 4000) == nil; written++ {
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it neither goes on nor ends")
	}
	select {
	case err := <-died:
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("died of %v", err)
		}
	default:
		t.Fatalf("%d commits on a full disk, and it lives", written)
	}
	if written < 10 {
		t.Errorf("only %d commits", written)
	}
	after := disk.Image().Kill()
	used(t, after)
	used(t, disk)
	_ = db.Close() // it may be half closed
	living(t, func(t *testing.T, open func(*crashfs.Disk) *DB) {
		back := open(after)
		for i := range written {
			if err := committed(back, fmt.Sprint(i)); err != nil {
				t.Errorf("commit %d of %d: %v", i, written, err)
			}
		}
	})
}

// Compactions use nothing of the reserve, end no process if they find no space, and are done once
// there is some.
func TestCompactionsWaitForSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	living(t, compactionsWaitForSpace)
}

func compactionsWaitForSpace(t *testing.T, open func(*crashfs.Disk) *DB) {
	disk := crashfs.New()
	db := open(disk)
	table := func() {
		for i := range 50 {
			if err := commit(db, fmt.Sprint(i), 4000); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.peb.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	table()
	if err := db.peb.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	fillUp(t, disk)
	table() // overlaps the other, and there is no space to merge the two
	left := parts(t, disk)
	compact := func() error {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		return db.peb.Compact(ctx, []byte{0}, []byte{255}, false)
	}
	for range 2 {
		if err := compact(); !errors.Is(err, errCompactionSpace) {
			t.Errorf("on a full disk: %v", err)
		}
	}
	if got := parts(t, disk); got != left || left == 0 {
		t.Errorf("%d parts were left, and then %d", left, got)
	}
	if err := db.CheckSpace(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("%v", err)
	}
	if err := commit(db, "meanwhile", 100); err != nil {
		t.Fatal(err)
	}
	used(t, disk)
	if err := db.CheckSpace(); err != nil {
		t.Fatal(err)
	}
	if err := compact(); err != nil {
		t.Errorf("with free space: %v", err)
	}
}

// A part that is not whole is made anew: one that a crash truncated, or a sparse one in a copy of
// the folder.
func TestAPartThatIsNotWholeIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	open := func() *DB {
		db, err := Open(dir, Options{Hook: noHook, Reserve: testReserve})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	taken := func() (n int64) {
		for i := range maxParts {
			info, err := vfs.Default.Stat(vfs.Default.PathJoin(dir, fmt.Sprintf(partName, i)))
			if err != nil {
				t.Fatal(err)
			}
			n += allocated(info)
		}
		return n
	}
	closed(t, open())
	if got := taken(); got < testReserve {
		t.Fatalf("%d bytes are taken", got)
	}
	for i, size := range []int64{0, 1000, minPart} {
		path := vfs.Default.PathJoin(dir, fmt.Sprintf(partName, i))
		if err := syscall.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, open())
	if got := taken(); got < testReserve {
		t.Errorf("%d bytes are taken", got)
	}
}
