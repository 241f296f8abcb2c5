package pebblemeta

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/durable"
)

// A database in a folder that is held open keeps working in that folder, with every operation on
// files, although another folder has its name by now.
func TestAHeldFolderIsTheOneThatWasOpened(t *testing.T) {
	base := t.TempDir()
	dir, moved := filepath.Join(base, "meta"), filepath.Join(base, "moved")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(dir, 0o700))
	folder, err := durable.OS{}.Hold(dir)
	check(err)
	defer folder.Close()
	if folder.HeldPath() == dir {
		t.Skip("this system has no way into a folder but its name")
	}
	disk := Held(dir, folder.HeldPath())
	db, err := Open(dir, Options{Hook: noHook, FS: disk})
	check(err)
	check(os.Rename(dir, moved))
	check(os.Mkdir(dir, 0o700))

	f, err := disk.Create(dir+"/a", vfs.WriteCategoryUnspecified)
	check(err)
	check(f.Close())
	check(errors.Join(
		disk.Link(dir+"/a", dir+"/b"), disk.Rename(dir+"/a", dir+"/c"), disk.MkdirAll(dir+"/d", 0o700),
		disk.Remove(dir+"/b"), disk.RemoveAll(dir+"/d"),
	))
	for _, open := range []func() (vfs.File, error){
		func() (vfs.File, error) { return disk.Open(dir + "/c") },
		func() (vfs.File, error) { return disk.OpenReadWrite(dir+"/c", vfs.WriteCategoryUnspecified) },
		func() (vfs.File, error) { return disk.ReuseForWrite(dir+"/c", dir+"/e", vfs.WriteCategoryUnspecified) },
		func() (vfs.File, error) { return disk.OpenDir(dir) },
		func() (vfs.File, error) { return disk.OpenDir(base) },
	} {
		f, err := open()
		check(err)
		check(f.Close())
	}
	_, err = disk.Stat(dir + "/e")
	check(err)
	_, err = disk.GetDiskUsage(dir)
	check(err)
	if names, err := disk.List(dir); len(names) < 5 || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	for _, path := range []string{base + "/else", dir + "x", "e"} {
		if _, err := disk.Open(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", path, err)
		}
	}
	check(db.Close())
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("the other folder has %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(moved, cleanFile)); err != nil {
		t.Errorf("its own: %v", err)
	}
	check(os.Remove(dir))
	check(os.Rename(moved, dir))
	db, err = Open(dir, Options{Hook: noHook, Existing: true})
	check(err)
	check(db.Close())
}

// I26: A folder that has held a database gets no new one. The files of the folder's owner do not
// prevent a new database.
func TestADatabaseThatIsGoneIsNotMadeAnew(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{Hook: noHook, Existing: true}); err == nil {
		t.Error("it was made")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 1 { // the lock
		t.Errorf("%v, %v", names, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "FOLDER"), []byte("whose"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(dir, Options{Hook: noHook})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// An error names the file by the folder's name, and not by the way to it.
func TestAnErrorOfAHeldFolderNamesIt(t *testing.T) {
	way := t.TempDir()
	disk := Held("/data/meta", way)
	for what, err := range map[string]error{
		"open":   func() error { _, err := disk.Open("/data/meta/none"); return err }(),
		"lock":   func() error { _, err := disk.Lock("/data/meta/none/LOCK"); return err }(),
		"stat":   func() error { _, err := disk.Stat("/data/meta/none"); return err }(),
		"remove": disk.Remove("/data/meta/none"),
	} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/data/meta/none") ||
			strings.Contains(err.Error(), way) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
