package backup_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/session"
	"sluice/store/pebblemeta"
)

const dir = "/backup"

// written counts the bytes that are written below dir/content.
func written(d *crashfs.Disk) *int {
	n := new(int)
	d.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if s.Op == crashfs.OpWrite && strings.HasPrefix(s.Path, dir+"/content/") {
			*n += s.Len
		}
		return nil
	})
	return n
}

// Everything is there after a restore, and can be used: memories small and large, the trash, open
// uploads.
func TestARestoredServerGoesOn(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	big, small, open := bytesOf("big", 3*chunk+17), bytesOf("small", 100), bytesOf("open", 4*chunk-1)
	s.create("small", small)
	s.create("empty", nil)
	trashed := s.create("trashed", bytesOf("trashed", 2*chunk))
	s.check(s.rows.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Trash(tx, trashed.ID, 100*3600e9,
			catalog.Moment{Now: s.clock.Now(), Running: s.engine.Running()})
	}))
	id := s.begin("big", len(big))
	for i := range 4 {
		s.put(id, i, big)
	}
	s.finish(id, big)
	under := s.begin("open", len(open))
	s.put(under, 2, open)
	s.put(under, 0, open)

	to := crashfs.New()
	res := s.backup(to, dir)
	if res.Memories != 4 || res.Sessions != 1 || res.Pieces != 2 || res.Number != 1 || len(res.Damaged) > 0 {
		t.Errorf("%+v", res)
	}
	if want := int64(len(big) + 2*chunk + 2*chunk); res.Copied != want || res.Bytes != want+int64(len(small)) {
		t.Errorf("%+v, want %d copied", res, want)
	}

	r := restored(t, to, dir)
	if got := r.names(); len(got) != 4 {
		t.Errorf("%v", got)
	}
	have := []session.Range{{Off: 0, End: chunk}, {Off: 2 * chunk, End: 3 * chunk}}
	if got := r.received(under); !slices.Equal(got, have) {
		t.Fatalf("received %v", got)
	}
	r.put(under, 1, open)
	r.put(under, 3, open)
	r.finish(under, open)
	if got := r.names(); !got["open"] {
		t.Errorf("%v", got)
	}
	// Both go on, and never give one name to different bytes, even if the other is started
	// again.
	s.stop()
	s = serve(t, s.disk, s.data)
	own, theirs := s.begin("a", chunk), r.begin("a", chunk)
	s.put(own, 0, bytesOf("mine", chunk))
	r.put(theirs, 0, bytesOf("theirs", chunk))
	places := func(s *server) map[string]bool {
		all, err := s.blobs.Places(t.Context(), "", 1000)
		s.check(err)
		names := map[string]bool{}
		for _, p := range all {
			names[p.Name[strings.Index(p.Name, "-"):]] = true // all but the session
		}
		return names
	}
	used := places(s)
	fresh := 0
	for name := range places(r) {
		if !used[name] {
			fresh++
		}
	}
	if fresh == 0 {
		t.Error("the restored folder repeats an incarnation of the other one")
	}
}

// A second backup copies new bytes alone. An upload that became a memory meanwhile is not new.
func TestASecondBackupCopiesOnlyWhatIsNew(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	to := crashfs.New()
	n := written(to)
	first, open, second := bytesOf("first", 3*chunk), bytesOf("open", 2*chunk), bytesOf("second", chunk+5)
	gone := s.create("first", first)
	id := s.begin("open", len(open))
	s.put(id, 0, open)
	if res := s.backup(to, dir); res.Copied != 4*chunk || *n != 4*chunk {
		t.Errorf("%+v, %d written", res, *n)
	}
	src := s.source()
	src.Content = nil // the data folder's content is not read
	read := 0
	to.SetHook(func(st crashfs.Step) *crashfs.Fault {
		if strings.HasPrefix(st.Path, dir+"/content/") && (st.Op == crashfs.OpWrite || st.Op == crashfs.OpRead) {
			read += st.Len
		}
		return nil
	})
	if res, err := backup.Run(t.Context(), to, dir, src, s.clock.Now(), nil); err != nil || res.Copied != 0 ||
		read > 10 {
		t.Errorf("nothing is new, and %d bytes were written or read: %+v, %v", read, res, err)
	}
	n = written(to)
	s.put(id, 1, open)
	s.finish(id, open)
	s.create("second", second)
	if res := s.backup(to, dir); res.Copied != chunk+chunk+5 || *n != int(res.Copied) {
		t.Errorf("%+v, %d written", res, *n)
	}
	if got := restored(t, to, dir).names(); len(got) != 3 {
		t.Errorf("%v", got)
	}

	// A purged memory goes from the backup too.
	s.purge(gone.ID)
	s.collect()
	before := len(files(t, to, dir))
	s.backup(to, dir)
	if got := len(files(t, to, dir)); got != before-1 {
		t.Errorf("%d files, and %d before", got, before)
	}
	if got := restored(t, to, dir).names(); len(got) != 2 || got["first"] {
		t.Errorf("%v", got)
	}
}

// A copy that somebody has removed or truncated is made again.
func TestACopyThatIsMissingIsMadeAgain(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	to := t.TempDir()
	s.create("a", bytesOf("a", chunk))
	s.create("b", bytesOf("b", chunk))
	s.backup(durable.OS{}, to)
	places, err := filepath.Glob(to + "/content/*/*")
	if err != nil || len(places) != 2 {
		t.Fatal(places, err)
	}
	s.check(os.Remove(places[0]))
	s.check(os.Truncate(places[1], 10))
	if res := s.backup(durable.OS{}, to); res.Copied != 2*chunk-10 {
		t.Errorf("%+v", res)
	}
	restored(t, durable.OS{}, to).names()
}

// Content that the data folder has lost is named, and stops nothing else. The copy in an
// earlier backup is kept.
func TestWhatIsLostIsNamed(t *testing.T) {
	data := t.TempDir()
	s := serve(t, real, data)
	to := crashfs.New()
	kept, lost, open := bytesOf("kept", 2*chunk), bytesOf("lost", 2*chunk), bytesOf("open", 2*chunk)
	s.create("kept", kept)
	s.backup(to, dir)
	rot := func() {
		places, err := filepath.Glob(data + "/content/places/*/*")
		s.check(err)
		for _, path := range places {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			s.check(err)
			_, err = f.WriteAt([]byte("rot"), 70)
			s.check(errors.Join(err, f.Close()))
		}
	}
	m := s.create("lost", lost)
	id := s.begin("open", len(open))
	s.put(id, 0, open)
	s.put(id, 1, open)
	rot()
	s.create("late", bytesOf("late", chunk))
	res := s.backup(to, dir)
	if len(res.Damaged) != 2 || res.Memories != 3 ||
		!strings.Contains(res.Damaged[1].String(), "default") && !strings.Contains(res.Damaged[0].String(), "default") {
		t.Fatalf("%+v", res)
	}
	// Once more: lost content does not count as copied.
	if again := s.backup(to, dir); len(again.Damaged) != 2 {
		t.Errorf("%+v", again)
	}
	r := simulated(crashfs.New())
	if res, err := restore(t.Context(), to, dir, r, "/data", false); err != nil || len(res.Damaged) != 2 {
		t.Fatal(res, err)
	}
	after := serve(t, r, "/data")
	if _, err := after.checkAll(); err == nil || !strings.Contains(err.Error(), m.ID.String()) {
		t.Errorf("the lost memory is read: %v", err)
	}
	if got := after.received(id); !slices.Equal(got, []session.Range{{Off: chunk, End: 2 * chunk}}) {
		t.Errorf("received %v", got)
	}
	after.put(id, 0, open)
	after.finish(id, open)
	after.purge(m.ID)
	if got := after.names(); !got["kept"] || !got["late"] || !got["open"] || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// Places that became garbage after the state was taken stay until the backup is made.
func TestWhatABackupNeedsIsNotCollected(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	to := crashfs.New()
	m := s.create("a", bytesOf("a", 3*chunk))
	src := s.source()
	freeze := src.Freeze
	src.Freeze = func(ctx context.Context) (backup.Frozen, error) {
		f, err := freeze(ctx)
		s.purge(m.ID)
		s.collect()
		_, swept := s.keeper.Sweep(ctx)
		return f, errors.Join(err, swept)
	}
	if _, err := backup.Run(t.Context(), to, dir, src, s.clock.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if got := restored(t, to, dir).names(); !got["a"] {
		t.Errorf("%v", got)
	}
	s.collect()
	if all, err := s.blobs.Places(t.Context(), "", 10); err != nil || len(all) > 0 {
		t.Errorf("the backup is over, and there are still %v, %v", all, err)
	}
}

// A folder that holds something else, or another folder's backup, or a backup of a newer format, is
// refused and not changed.
func TestOtherFoldersAreLeftAlone(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	s.create("a", bytesOf("a", chunk))
	refused := func(on durable.FS, path string, src backup.Source, want error, text string) {
		t.Helper()
		before := files(t, on, path)
		_, err := backup.Run(t.Context(), on, path, src, s.clock.Now(), nil)
		if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v", err)
		}
		if after := files(t, on, path); !slices.Equal(before, after) {
			t.Errorf("touched: %v, %v", before, after)
		}
	}
	full := t.TempDir()
	s.check(os.WriteFile(full+"/letter", nil, 0o600))
	refused(durable.OS{}, full, s.source(), backup.ErrNotBackup, "letter")
	to := t.TempDir()
	s.backup(durable.OS{}, to)
	other := s.source()
	other.ID = strings.Repeat("B", 26)
	refused(durable.OS{}, to, other, backup.ErrNotBackup, "another data folder")
	lock, err := durable.Lock(durable.OS{}, to+"/lock")
	s.check(err)
	refused(durable.OS{}, to, s.source(), backup.ErrBusy, "")
	s.check(lock.Close())
	s.check(os.WriteFile(to+"/BACKUP", []byte("sluice backup, format 2\nwhatever\n"), 0o600))
	refused(durable.OS{}, to, s.source(), nil, "newer sluice")
	if _, err := restore(t.Context(), durable.OS{}, to, simulated(crashfs.New()), "/data", false); err == nil ||
		!strings.Contains(err.Error(), "newer sluice") {
		t.Error(err)
	}
	if _, err := restore(t.Context(), durable.OS{}, full, simulated(crashfs.New()), "/data", false); !errors.Is(err,
		backup.ErrNotBackup) {
		t.Error(err)
	}
}

// Each byte of a backup is verified: a flipped byte is found, and its file named.
func TestAFlippedByteIsNamed(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	s.create("a", bytesOf("a", 2*chunk+3))
	s.create("b", bytesOf("b", chunk))
	open := bytesOf("open", 2*chunk)
	id := s.begin("open", len(open))
	s.put(id, 0, open)
	to := t.TempDir()
	s.backup(durable.OS{}, to)
	flip := func(path string, at int64) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		s.check(err)
		var b [1]byte
		_, err = f.ReadAt(b[:], at)
		b[0] ^= 1
		_, wrote := f.WriteAt(b[:], at)
		s.check(errors.Join(err, wrote, f.Close()))
	}
	for _, path := range files(t, durable.OS{}, to) {
		info, err := os.Stat(path)
		s.check(err)
		for _, at := range []int64{0, 25, info.Size() / 3, info.Size() / 2, info.Size() - 1} {
			if at < 0 || at >= info.Size() {
				continue // the lock is empty
			}
			flip(path, at)
			target := simulated(crashfs.New())
			_, err := restore(t.Context(), durable.OS{}, to, target, "/data", false)
			if err == nil || !strings.Contains(err.Error(), path) ||
				!errors.Is(err, backup.ErrDamaged) && filepath.Base(path) != "BACKUP" {
				t.Errorf("byte %d of %s: %v", at, path, err)
			}
			if _, err := target.Stat("/data"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a data folder appeared: %v", err)
			}
			if strings.Contains(path, "/content/") {
				if res, err := restore(t.Context(), durable.OS{}, to, target, "/data", true); err != nil ||
					len(res.Damaged) != 1 {
					t.Errorf("salvaging: %+v, %v", res, err)
				}
			}
			flip(path, at)
		}
	}
	// The next backup is whole, whatever happened to the rows or the manifest of this one.
	for _, name := range []string{"manifest", "rows-1"} {
		flip(filepath.Join(to, name), 60)
		s.backup(durable.OS{}, to)
		restored(t, durable.OS{}, to).names()
		s.check(os.RemoveAll(to))
		s.backup(durable.OS{}, to)
	}
}

// A content may have the wrong SHA-256 although each of its extents is right. The backup names it,
// and so does a restore if the backup did not.
func TestASumThatDoesNotHoldIsNamed(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	m := s.create("a", bytesOf("a", 2*chunk))
	var right, wrong catalog.Content
	s.check(s.rows.Update(t.Context(), func(tx catalog.Tx) (err error) {
		right, err = catalog.Contents.Get(tx, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
		wrong = right
		wrong.SHA256[0] ^= 1
		return errors.Join(err, catalog.Contents.Put(tx, catalog.ContentKey{Capsule: m.Capsule, SHA256: wrong.SHA256},
			wrong))
	}))
	name := fmt.Sprintf("content %x of capsule default", wrong.SHA256)
	to := crashfs.New()
	if res := s.backup(to, dir); len(res.Damaged) != 1 || !strings.HasPrefix(res.Damaged[0].String(), name) {
		t.Errorf("%+v", res)
	}
	src := s.source()
	src.Decode = func(key, row []byte) (any, error) {
		what, err := pebblemeta.Decode(key, row)
		if c, ok := what.(catalog.Content); ok {
			c.SHA256 = right.SHA256
			what = c
		}
		return what, err
	}
	to = crashfs.New()
	if _, err := backup.Run(t.Context(), to, dir, src, s.clock.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(to); !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), name) {
		t.Error(err)
	}
}

// A restore needs a folder that is empty or not there, and does not change any other.
func TestAFolderWithSomethingInItIsRefused(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	s.create("a", bytesOf("a", chunk))
	to := crashfs.New()
	s.backup(to, dir)
	full, empty := t.TempDir(), t.TempDir()
	s.check(os.WriteFile(full+"/letter", nil, 0o600))
	if _, err := restore(t.Context(), to, dir, real, full, false); !errors.Is(err, backup.ErrNotEmpty) ||
		len(files(t, durable.OS{}, full)) != 1 {
		t.Error(err)
	}
	if _, err := restore(t.Context(), to, dir, real, full+"/letter", false); err == nil {
		t.Error("a file was taken for a folder")
	}
	if _, err := restore(t.Context(), to, dir, real, empty, false); err != nil {
		t.Error(err)
	}
	names, err := os.ReadDir(filepath.Dir(empty))
	s.check(err)
	for _, e := range names {
		if strings.HasSuffix(e.Name(), ".restoring") {
			t.Errorf("left over: %s", e.Name())
		}
	}
	got := serve(t, real, empty)
	if !got.names()["a"] {
		t.Error("it is not there")
	}
}

// Decode knows every row that a server writes.
func TestEveryRowIsKnown(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	s.create("a", bytesOf("a", chunk))
	s.put(s.begin("b", chunk), 0, bytesOf("b", chunk))
	f, err := s.meta.Freeze(t.Context())
	s.check(err)
	defer f.Close()
	kinds := map[byte]int{}
	s.check(f.Walk(t.Context(), func(key, row []byte) error {
		kinds[key[0]]++
		if _, err := pebblemeta.Decode(key, row); err != nil {
			t.Error(err)
		}
		for i := range row {
			// Decoding any row ends well or in an error.
			bad := slices.Clone(row)
			bad[i] ^= 0xff
			_, _ = pebblemeta.Decode(key, bad)
			_, _ = pebblemeta.Decode(key, row[:i])
		}
		for i := range key {
			_, _ = pebblemeta.Decode(key[:i], row)
		}
		return nil
	}, nil))
	if got := len(kinds); got < 7 {
		t.Errorf("kinds %v", slices.Sorted(maps.Keys(kinds)))
	}
	if _, err := pebblemeta.Decode([]byte("Z"), nil); err == nil {
		t.Error("an unknown row was taken")
	}
}
