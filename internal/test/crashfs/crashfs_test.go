package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

const sector = 512

func open(t *testing.T, d *crashfs.Disk, path string, flag int) durable.File {
	t.Helper()
	f, err := d.OpenFile(path, flag, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func create(t *testing.T, d *crashfs.Disk, path string) durable.File {
	t.Helper()
	return open(t, d, path, os.O_RDWR|os.O_CREATE)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f durable.File, p []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(p, off)
	must(t, err)
}

// listed makes the names at the top durable.
func listed(t *testing.T, d *crashfs.Disk) {
	t.Helper()
	must(t, durable.SyncDir(d, "/"))
}

// content gives the bytes of a file, nil if there is none.
func content(t *testing.T, d *crashfs.Disk, path string) []byte {
	t.Helper()
	b, err := durable.ReadFile(d, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	return b
}

func filled(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, 1)) }

func TestWhatIsSyncedSurvives(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	write(t, f, filled('a', 3*sector), 0)
	must(t, f.Sync())
	listed(t, d)
	write(t, f, filled('b', sector), 0)
	for name, left := range map[string]*crashfs.Disk{
		"kill": d.Kill(), "keep 0": d.Crash(seeded(1), 0), "keep 100": d.Crash(seeded(1), 100),
	} {
		want := filled('a', 3*sector)
		if name != "keep 0" {
			copy(want, filled('b', sector))
		}
		if got := content(t, left, "/f"); !bytes.Equal(got, want) {
			t.Errorf("%s: %.20q, %d bytes", name, got, len(got))
		}
	}
}

// Some sectors of an unsynced write are kept and some are not. Each is whole.
func TestAWriteTearsAtSectors(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	write(t, f, filled('a', 20*sector), 0)
	must(t, f.Sync())
	listed(t, d)
	write(t, f, filled('b', 20*sector), 0)
	got := content(t, d.Crash(seeded(3), 50), "/f")
	kept := 0
	for s := range slices.Chunk(got, sector) {
		if s[0] == 'b' {
			kept++
		}
		if !bytes.Equal(s, filled(s[0], sector)) {
			t.Error("a sector is torn")
		}
	}
	if kept == 0 || kept == 20 || len(got) != 20*sector {
		t.Errorf("%d of 20 kept, %d bytes", kept, len(got))
	}
}

// The size after a power loss is the old one, the new one or one between. Bytes that were never
// written are zeros or garbage.
func TestTheSizeIsVolatile(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	write(t, f, filled('a', 100), 0)
	must(t, f.Sync())
	listed(t, d)
	write(t, f, filled('b', 3000), 100)
	sizes, zeros, garbage := map[string]int{}, 0, 0
	for seed := range uint64(200) {
		got := content(t, d.Crash(seeded(seed), 50), "/f")
		switch len(got) {
		case 100:
			sizes["old"]++
		case 3100:
			sizes["new"]++
		default:
			sizes["between"]++
		}
		if !bytes.Equal(got[:100], filled('a', 100)) {
			t.Fatal("synced bytes are gone")
		}
		for i := sector; i < len(got); i++ {
			switch got[i] {
			case 'b':
			case 0:
				zeros++
			default:
				garbage++
			}
		}
	}
	if len(sizes) != 3 || zeros == 0 || garbage == 0 {
		t.Errorf("%v, %d zeros, %d bytes of garbage", sizes, zeros, garbage)
	}
}

func TestATruncationIsVolatile(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	write(t, f, []byte("old"), 0)
	must(t, f.Sync())
	listed(t, d)
	f = open(t, d, "/f", os.O_RDWR|os.O_TRUNC)
	if got := content(t, d, "/f"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if got := content(t, d.Crash(seeded(1), 0), "/f"); string(got) != "old" {
		t.Errorf("%q", got)
	}
	must(t, f.Sync())
	if got := content(t, d.Crash(seeded(1), 0), "/f"); len(got) != 0 {
		t.Errorf("synced: %q", got)
	}
}

// The sync of a file covers neither its name nor the name of another folder.
func TestNamesAreVolatile(t *testing.T) {
	d := crashfs.New()
	must(t, d.Mkdir("/a", 0o700))
	must(t, d.Mkdir("/b", 0o700))
	listed(t, d)
	for _, path := range []string{"/a/f", "/b/f"} {
		f := create(t, d, path)
		write(t, f, []byte("x"), 0)
		must(t, f.Sync())
	}
	must(t, durable.SyncDir(d, "/b"))
	left := d.Crash(seeded(1), 0)
	if content(t, left, "/a/f") != nil || content(t, left, "/b/f") == nil {
		t.Error("a name is where it should not be")
	}
	must(t, d.Remove("/b/f"))
	if got := d.Crash(seeded(1), 0); content(t, got, "/b/f") == nil {
		t.Error("a removal is not volatile")
	}
	must(t, durable.SyncDir(d, "/b"))
	if got := d.Crash(seeded(1), 0); content(t, got, "/b/f") != nil {
		t.Error("a removal that was synced is taken back")
	}
	if content(t, d.Kill(), "/a/f") == nil {
		t.Error("the death of the process took a name")
	}
}

// A rename that was not synced gives the old file or the new one, and never none. Steps are
// forgotten one by one.
func TestARenameIsWhole(t *testing.T) {
	d := crashfs.New()
	for _, name := range []string{"old", "new"} {
		f := create(t, d, "/"+name)
		write(t, f, []byte(name), 0)
		must(t, f.Sync())
		must(t, f.Close())
	}
	listed(t, d)
	must(t, d.Rename("/new", "/old"))
	other := create(t, d, "/other")
	must(t, other.Sync())
	seen := map[string]bool{}
	for seed := range uint64(100) {
		left := d.Crash(seeded(seed), 50)
		names, err := left.List("/")
		must(t, err)
		seen[string(content(t, left, "/old"))+" "+names[0]+" "+names[len(names)-1]] = true
		if got := content(t, left, "/old"); string(got) != "old" && string(got) != "new" {
			t.Errorf("%q", got)
		}
	}
	if len(seen) != 4 {
		t.Errorf("the rename and the other name are not independent: %v", seen)
	}
}

// Below Journal a change of a name is kept only with all changes before it.
func TestAJournalKeepsOrder(t *testing.T) {
	d := crashfs.New()
	must(t, d.Mkdir("/j", 0o700))
	listed(t, d)
	d.Journal("/j")
	for i := range 10 {
		create(t, d, fmt.Sprintf("/j/%d", i))
	}
	lengths := map[int]bool{}
	for seed := range uint64(100) {
		names, err := d.Crash(seeded(seed), 80).List("/j")
		must(t, err)
		lengths[len(names)] = true
		for i, name := range names {
			if name != fmt.Sprint(i) {
				t.Fatalf("%v", names)
			}
		}
	}
	if len(lengths) < 5 {
		t.Errorf("%v: the test sees nothing", lengths)
	}
}

// † I14: After a failed sync reads still show the bytes, the next sync returns nil, and the disk
// does not have them. Real disks do so.
func TestAFailedSyncLosesThePages(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, d *crashfs.Disk, f durable.File){
		"a sync": func(t *testing.T, d *crashfs.Disk, f durable.File) {
			d.SetHook(func(s crashfs.Step) *crashfs.Fault {
				if s.Op == crashfs.OpSync {
					return &crashfs.Fault{Err: syscall.EIO}
				}
				return nil
			})
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			d.SetHook(nil)
		},
		"a write-back": func(t *testing.T, d *crashfs.Disk, f durable.File) {
			if d.LoseWriteBack("/") != 1 {
				t.Error("nothing was dirty")
			}
			late := open(t, d, "/f", os.O_RDWR)
			if err := late.Sync(); err != nil {
				t.Errorf("who opened it later is told: %v", err)
			}
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				t.Errorf("who had it open is not told: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := crashfs.New()
			f := create(t, d, "/f")
			write(t, f, filled('a', durable.Block), 0)
			must(t, f.Sync())
			listed(t, d)
			write(t, f, filled('b', durable.Block), 0)
			lose(t, d, f)
			if err := f.Sync(); err != nil {
				t.Errorf("the next sync: %v", err)
			}
			if got := content(t, d, "/f"); got[0] != 'b' {
				t.Errorf("a read shows %q", got[0])
			}
			read, done := f.PastCache(0, durable.Block)
			defer done()
			b := make([]byte, durable.Block)
			if n, err := read(b, 0); n != durable.Block || err != nil || b[0] != 'a' {
				t.Errorf("past the cache: %d, %v, %q", n, err, b[0])
			}
			if got := content(t, d.Crash(seeded(1), 100), "/f"); got[0] != 'a' {
				t.Errorf("the disk has %q", got[0])
			}
			if got := content(t, d.Kill(), "/f"); got[0] != 'b' {
				t.Errorf("after the death of the process a read shows %q", got[0])
			}
		})
	}
}

// A read past the cache writes the dirty pages back and then sees them. That alone does not make
// them safe.
func TestReadsPastTheCacheWriteBack(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	write(t, f, filled('a', 5000), 0)
	listed(t, d)
	read, done := f.PastCache(0, 5000)
	defer done()
	b := make([]byte, 2*durable.Block)
	if n, err := read(b, 0); n != 5000 || err != nil || !bytes.Equal(b[:n], filled('a', 5000)) {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := read(b[:100], 0); err == nil {
		t.Error("a read that is not aligned")
	}
	if got := content(t, d.Crash(seeded(1), 0), "/f"); len(got) != 0 {
		t.Errorf("%d bytes are durable", len(got))
	}
}

// Each kind of step can fail, before or after it took effect.
func TestStepsFail(t *testing.T) {
	for _, c := range []struct {
		op    crashfs.Op
		run   func(d *crashfs.Disk, f durable.File) error
		there func(d *crashfs.Disk) bool // whether it took effect
	}{
		{crashfs.OpCreate, func(d *crashfs.Disk, _ durable.File) error { _, err := d.OpenFile("/n", os.O_CREATE, 0); return err }, func(d *crashfs.Disk) bool { return has(d, "/n") }},
		{crashfs.OpMkdir, func(d *crashfs.Disk, _ durable.File) error { return d.Mkdir("/n", 0) }, func(d *crashfs.Disk) bool { return has(d, "/n") }},
		{crashfs.OpRemove, func(d *crashfs.Disk, _ durable.File) error { return d.Remove("/f") }, func(d *crashfs.Disk) bool { return !has(d, "/f") }},
		{crashfs.OpRename, func(d *crashfs.Disk, _ durable.File) error { return d.Rename("/f", "/n") }, func(d *crashfs.Disk) bool { return has(d, "/n") }},
		{crashfs.OpSyncDir, func(d *crashfs.Disk, _ durable.File) error { return durable.SyncDir(d, "/") }, func(d *crashfs.Disk) bool { return has(d.Crash(seeded(1), 0), "/f") }},
		{crashfs.OpWrite, func(_ *crashfs.Disk, f durable.File) error { _, err := f.WriteAt([]byte("12345"), 0); return err }, func(d *crashfs.Disk) bool {
			b, err := durable.ReadFile(d, "/f")
			return err == nil && string(b) == "12345"
		}},
	} {
		for _, after := range []bool{false, true} {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} {
				d := crashfs.New()
				f := create(t, d, "/f")
				left := 1
				d.SetHook(func(s crashfs.Step) *crashfs.Fault {
					if s.Op != c.op || left == 0 {
						return nil
					}
					left--
					return &crashfs.Fault{Err: errno, After: after}
				})
				if err := c.run(d, f); !errors.Is(err, errno) {
					t.Errorf("%s: %v", c.op, err)
				}
				if got := c.there(d); got != after {
					t.Errorf("%s: after is %v, and it took effect: %v", c.op, after, got)
				}
				if err := c.run(d, f); !after && (err != nil || !c.there(d)) {
					t.Errorf("%s: again: %v", c.op, err)
				}
			}
		}
	}
}

func has(d *crashfs.Disk, path string) bool {
	_, err := d.Stat(path)
	return err == nil
}

func TestAShortWrite(t *testing.T) {
	d := crashfs.New()
	f := create(t, d, "/f")
	d.SetHook(func(crashfs.Step) *crashfs.Fault { return &crashfs.Fault{Err: syscall.ENOSPC, Short: 2} })
	if n, err := f.WriteAt([]byte("12345"), 0); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
	d.SetHook(nil)
	if got := content(t, d, "/f"); string(got) != "12" {
		t.Errorf("%q", got)
	}
	d.SetRoom(sector)
	if _, err := f.WriteAt(filled('x', 2*sector), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if n, err := d.Free("/"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// The hook sees the steps in order, each with the disk as it was before.
func TestTheHookSeesEachStep(t *testing.T) {
	d := crashfs.New()
	var seen []crashfs.Op
	d.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if seen = append(seen, s.Op); s.N != len(seen) {
			t.Errorf("%s is number %d", s, len(seen))
		}
		if s.Op == crashfs.OpRename && has(s.Image().Kill(), "/f") {
			t.Error("the image is not of the moment before the step")
		}
		return nil
	})
	must(t, durable.WriteFile(d, "/f", []byte("x"), 0o600))
	d.SetHook(nil)
	want := []crashfs.Op{
		crashfs.OpCreate, crashfs.OpWrite, crashfs.OpSync, crashfs.OpRename, crashfs.OpOpen, crashfs.OpSyncDir,
	}
	if !slices.Equal(seen, want) {
		t.Errorf("%v", seen)
	}
	if got := content(t, d.Crash(seeded(1), 0), "/f"); string(got) != "x" {
		t.Errorf("WriteFile is not durable: %q", got)
	}
}

// † I28: The maker of a folder may have died before the folder's name was durable. A process that
// finds the folder, and stores in it, makes the name durable first.
func TestAFolderThatWasThereIsMadeDurable(t *testing.T) {
	for _, path := range []string{"/a", "/a/b", "/a/b/c"} {
		d := crashfs.New()
		must(t, d.Mkdir("/a", 0o700))
		must(t, durable.MkdirAll(d, path, 0o700))
		if left := d.Crash(seeded(1), 0); !has(left, path) {
			t.Errorf("%s is gone", path)
		}
	}
}

func TestALockEndsWithTheProcess(t *testing.T) {
	d := crashfs.New()
	f, err := durable.Lock(d, "/lock")
	must(t, err)
	if _, err := durable.Lock(d, "/lock"); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second holder: %v", err)
	}
	if _, err := durable.Lock(d.Kill(), "/lock"); err != nil {
		t.Errorf("after the holder's death: %v", err)
	}
	must(t, f.Close())
	if _, err := durable.Lock(d, "/lock"); err != nil {
		t.Error(err)
	}
	if a, b := d.Boot(), d.Kill().Boot(); a != b {
		t.Errorf("the death of a process is none of the machine: %s, %s", a, b)
	}
	if a, b := d.Boot(), d.Crash(seeded(1), 0).Boot(); a == b {
		t.Errorf("a restart of the machine is not seen: %s", a)
	}
}

// One sync of the disk covers everything, and reports a write-back that failed while the file was
// open.
func TestSyncDisk(t *testing.T) {
	d := crashfs.New()
	must(t, d.Mkdir("/a", 0o700))
	f := create(t, d, "/a/f")
	write(t, f, []byte("x"), 0)
	must(t, durable.SyncDisk(f))
	if got := content(t, d.Crash(seeded(1), 0), "/a/f"); string(got) != "x" {
		t.Errorf("%q", got)
	}
	write(t, f, []byte("y"), 0)
	d.LoseWriteBack("/a/")
	if err := durable.SyncDisk(f); !errors.Is(err, syscall.EIO) {
		t.Errorf("a lost write-back: %v", err)
	}
	if err := durable.SyncDisk(f); err != nil {
		t.Errorf("told twice: %v", err)
	}
}
