package localblob

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// hooked is the operating system's file system. A test sees its syncs, and may make them fail.
type hooked struct {
	durable.OS
	sync     func(f *hookedFile) error
	syncDisk func() error
}

type hookedFile struct {
	durable.File
	on  *hooked
	dir bool
}

func (h *hooked) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := h.OS.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := h.Stat(path)
	return &hookedFile{f, h, info.Dir}, err
}

func (f *hookedFile) Sync() error {
	if f.on.sync == nil {
		return f.File.Sync()
	}
	return f.on.sync(f)
}

func (f *hookedFile) SyncDisk() error {
	if f.on.syncDisk == nil {
		return durable.SyncDisk(f.File)
	}
	return f.on.syncDisk()
}

// gate counts the syncs of files. Each sync announces itself and then waits until leave is closed.
func (h *hooked) gate() (files *atomic.Int64, enter <-chan struct{}, leave chan struct{}) {
	files, leave = new(atomic.Int64), make(chan struct{})
	entered := make(chan struct{}, 100)
	h.sync = func(f *hookedFile) error {
		if !f.dir {
			files.Add(1)
			entered <- struct{}{}
			<-leave
		}
		return f.File.Sync()
	}
	return files, entered, leave
}

// † I14: A failed sync fails the place: bytes written since the last good one are lost, there is no
// second sync, and later bytes go to a replacement.
func TestAFailedSyncIsNeverTriedAgain(t *testing.T) {
	dir, disk := t.TempDir(), &hooked{}
	s := open(t, dir, Options{FS: disk})
	var syncs atomic.Int64
	var failing atomic.Bool
	disk.sync = func(f *hookedFile) error {
		syncs.Add(1)
		if failing.Load() {
			return errors.New("EIO")
		}
		return f.File.Sync()
	}
	good := write(t, s, 1, 0, 0, []byte("good"))
	if err := s.Persist(t.Context(), []catalog.Extent{good}); err != nil {
		t.Fatal(err)
	}
	bad := write(t, s, 1, 0, 4, []byte("bad"))
	failing.Store(true)
	var lost *blob.PersistError
	if err := s.Persist(t.Context(), []catalog.Extent{good, bad}); !errors.As(err, &lost) || len(lost.Lost) != 1 ||
		lost.Lost[0] != bad {
		t.Fatalf("%v", err)
	}
	failing.Store(false)
	n := syncs.Load()
	if err := s.Persist(t.Context(), []catalog.Extent{bad}); !errors.As(err, &lost) {
		t.Errorf("the second time it is fine: %v", err)
	}
	if err := s.Persist(t.Context(), []catalog.Extent{good}); err != nil {
		t.Errorf("what was synced before: %v", err)
	}
	if syncs.Load() != n {
		t.Error("it was synced again")
	}
	next := write(t, s, 1, 0, 4, []byte("new"))
	if next.Place == bad.Place {
		t.Error("the next bytes went to the failed place")
	}
	if err := s.Persist(t.Context(), []catalog.Extent{good, next}); err != nil {
		t.Error(err)
	}
	reader, err := s.Read(t.Context(), []catalog.Extent{good, next}, 0, 7)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(reader); err != nil || string(b) != "goodnew" {
		t.Errorf("%q, %v", b, err)
	}
	reader.Close()
	// Something is lost, so the stop is not clean, whatever Close says.
	s.Close()
	s = open(t, dir, Options{})
	defer s.Close()
	if s.SinceCrash != s.Incarnation {
		t.Error("the stop counts as clean")
	}
}

// Bytes that are persisted already, or that many callers persist at once, cost no sync of their
// own.
func TestSyncsAreShared(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	files, enter, leave := disk.gate()
	e := write(t, s, 1, 0, 0, []byte("x"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Persist(t.Context(), []catalog.Extent{e}); err != nil {
				t.Error(err)
			}
		})
	}
	<-enter
	close(leave)
	wg.Wait()
	if n := files.Load(); n > 2 {
		t.Errorf("%d syncs for 20 who asked", n)
	}
	n := files.Load()
	if err := s.Persist(t.Context(), []catalog.Extent{e}); err != nil || files.Load() != n {
		t.Errorf("persisted again with %d syncs, %v", files.Load()-n, err)
	}
}

// † I14: Bytes that an open writer had under way when a sync failed are never called safe.
func TestAWriterDoesNotOutliveAFailedSync(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	first := write(t, s, 1, 0, 0, []byte("first"))
	w, err := s.Writer(t.Context(), 1, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte("under way"), 5); err != nil {
		t.Fatal(err)
	}
	disk.sync = func(*hookedFile) error { return errors.New("EIO") }
	var lost *blob.PersistError
	if err := s.Persist(t.Context(), []catalog.Extent{first}); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	disk.sync = nil
	if _, err := w.WriteAt([]byte("x"), 14); err == nil {
		t.Error("a failed place takes more")
	}
	e, err := w.Commit(t.Context(), 5, 9, crc32.Checksum([]byte("under way"), crc32.MakeTable(crc32.Castagnoli)))
	if err == nil {
		t.Error("committed to a failed place")
		if err := s.Persist(t.Context(), []catalog.Extent{e}); err == nil {
			t.Error("and persisted without a sync")
		}
	}
}

// A sync does not cover bytes that are written while it runs, even to the same range.
func TestASyncCoversWhatWasThereWhenItBegan(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	e := write(t, s, 1, 0, 0, []byte("x"))
	var files atomic.Int64
	disk.sync = func(f *hookedFile) error {
		if !f.dir && files.Add(1) == 1 {
			write(t, s, 1, 0, 0, []byte("x"))
		}
		return f.File.Sync()
	}
	for range 2 {
		if err := s.Persist(t.Context(), []catalog.Extent{e}); err != nil {
			t.Fatal(err)
		}
	}
	if files.Load() != 2 {
		t.Errorf("%d syncs", files.Load())
	}
}

// A failed sync of a folder fails every place whose entry it was to bring to the disk.
func TestAFailedFolderSync(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	a, b := write(t, s, 1, 0, 0, []byte("a")), write(t, s, 2, 0, 0, []byte("b"))
	disk.sync = func(f *hookedFile) error {
		if f.dir {
			return errors.New("EIO")
		}
		return f.File.Sync()
	}
	var lost *blob.PersistError
	if err := s.Persist(t.Context(), []catalog.Extent{a}); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	disk.sync = nil
	if err := s.Persist(t.Context(), []catalog.Extent{b}); !errors.As(err, &lost) {
		t.Errorf("an entry of the same folder: %v", err)
	}
	if err := s.Persist(t.Context(), []catalog.Extent{write(t, s, 2, 0, 0, []byte("c"))}); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// Without a descriptor for the folder no sync is tried and nothing is lost: the sync is done later.
func TestAFolderThatCannotBeOpenedTakesNothing(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	e := []catalog.Extent{write(t, s, 1, 0, 0, []byte("a"))}
	synced := 0
	disk.sync = func(f *hookedFile) error {
		if f.dir {
			return syscall.EMFILE
		}
		synced++
		return f.File.Sync()
	}
	for range 2 {
		var lost *blob.PersistError
		if err := s.Persist(t.Context(), e); !errors.Is(err, blob.ErrUnavailable) || errors.As(err, &lost) {
			t.Fatal(err)
		}
	}
	disk.sync = nil
	if err := s.Persist(t.Context(), e); err != nil || synced == 0 {
		t.Errorf("later: %v", err)
	}
	if err := s.Check(t.Context(), e[0], blob.CheckAll); err != nil {
		t.Error(err)
	}
}

// If there are more sessions than files may stay open, the oldest files are synced and closed, and
// nothing else changes.
func TestFewFilesStayOpen(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	var es []catalog.Extent
	for i := range 3 * 256 {
		es = append(es, write(t, s, session.SessionID(1+i), 0, 0, fmt.Append(nil, i)))
	}
	s.background.Wait()
	s.mu.Lock()
	n := len(s.files)
	s.mu.Unlock()
	if n != 256 {
		t.Errorf("%d files are open", n)
	}
	for i, e := range es {
		reader, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(reader); err != nil || string(b) != fmt.Sprint(i) {
			t.Errorf("%q, %v", b, err)
		}
		reader.Close()
	}
	if err := s.Persist(t.Context(), es); err != nil {
		t.Error(err)
	}
}

// With Process no step of a put waits for the disk, however many sessions are open.
func TestAPutSyncsNothing(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	var syncs atomic.Int64
	disk.sync = func(f *hookedFile) error {
		if syncs.Add(1); strings.Contains(string(debug.Stack()), "(*writer)") {
			t.Errorf("a put waits for a sync")
		}
		return nil
	}
	for i := range 256 + 10 {
		write(t, s, session.SessionID(i+1), 0, 0, []byte("x"))
	}
	if s.background.Wait(); syncs.Load() == 0 {
		t.Error("nothing was synced at all: the test sees nothing")
	}
}

// A large place is synced while it is written, so that its end has little left to do. No write
// waits for that, and a small one is left alone.
func TestALargePlaceIsSyncedOnTheWay(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	syncs, enter, leave := disk.gate()
	w, err := s.Writer(t.Context(), 1, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	put := func(from, to int64) {
		t.Helper()
		for b := make([]byte, 1<<20); from < to; from += int64(len(b)) {
			if _, err := w.WriteAt(b, from); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, flushAfter-1<<20)
	if n := syncs.Load(); n != 0 {
		t.Errorf("%d syncs of a small place", n)
	}
	put(flushAfter-1<<20, flushAfter)
	<-enter
	put(flushAfter, 2*flushAfter) // while the sync goes on
	if n := syncs.Load(); n != 1 {
		t.Errorf("%d syncs at once", n)
	}
	close(leave)
	s.background.Wait()
	put(2*flushAfter, 2*flushAfter+flushEvery)
	<-enter
	s.background.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs", n)
	}
}

// † I14: A background sync may have swallowed the failure of bytes that no Commit has named yet:
// then no Commit succeeds.
func TestAFailedSyncOnTheWayIsTold(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	defer s.Close()
	var syncs atomic.Int64
	disk.sync = func(f *hookedFile) error {
		if !f.dir && syncs.Add(1) == 1 {
			return syscall.EIO
		}
		return f.File.Sync()
	}
	early := write(t, s, 1, 0, 0, []byte("committed before"))
	w, err := s.Writer(t.Context(), 1, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(make([]byte, flushAfter), 100); err != nil {
		t.Fatal(err)
	}
	s.background.Wait()
	if _, err := w.Commit(t.Context(), 100, flushAfter, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("what the failed sync had: %v", err)
	}
	if _, err := w.WriteAt(make([]byte, 1), 100+flushAfter); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write after it: %v", err)
	}
	var lost *blob.PersistError
	if err := s.Persist(t.Context(), []catalog.Extent{early}); !errors.As(err, &lost) {
		t.Errorf("what was committed before it: %v", err)
	}
	if n := syncs.Load(); n != 1 {
		t.Errorf("%d syncs", n)
	}
}

func TestAWriteAllocatesNothing(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	w, err := s.Writer(t.Context(), 1, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b, off := make([]byte, 64<<10), int64(0)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := w.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		off += int64(len(b))
	}); n > 0 {
		t.Errorf("%v allocations a write", n)
	}
}

// † I16: No clean mark is left while the incarnation that died may have left something in the
// cache.
func TestAStopAfterADeathSyncsTheDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	write(t, s, 1, 0, 0, []byte("x"))
	s.kill()
	s = open(t, dir, Options{FS: &hooked{syncDisk: func() error { return errors.New("EIO") }}})
	if err := s.Close(); err == nil {
		t.Error("closed without")
	}
	s = open(t, dir, Options{})
	if s.SinceCrash != s.Incarnation {
		t.Error("the stop counts as clean")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{FS: &hooked{syncDisk: func() error { return errors.New("asked for in vain") }}})
	if err := s.Close(); err != nil {
		t.Errorf("after a clean stop: %v", err)
	}
}

// A place that is deleted among readers and writers is never mistaken for the one that they have.
func TestDeletingAmongReadersAndWriters(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				w, err := s.Writer(t.Context(), 1, 0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = w.WriteAt([]byte("x"), 0)
				e, committed := w.Commit(t.Context(), 0, 1,
					crc32.Checksum([]byte("x"), crc32.MakeTable(crc32.Castagnoli)))
				if err = errors.Join(err, committed); err != nil && !errors.Is(err, blob.ErrMissing) {
					t.Error(err)
				}
				if err := s.Check(t.Context(), e, blob.CheckAll); err != nil && !errors.Is(err, blob.ErrMissing) &&
					!errors.Is(err, blob.ErrCorrupt) {
					t.Error(err)
				}
				w.Close()
			}
		})
		wg.Go(func() {
			for range 200 {
				if err := s.Delete(t.Context(), place{id: 1, incarnation: s.Incarnation}.String()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Delete(t.Context(), place{id: 1, incarnation: s.Incarnation}.String()); err != nil {
		t.Error(err)
	}
	if len(s.files) != 0 {
		t.Errorf("%d files are known", len(s.files))
	}
}
