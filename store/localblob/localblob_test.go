package localblob

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
	"sluice/upload/uploadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kill ends a store as the death of the process does.
func (s *Store) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, f := range s.files {
		f.close()
	}
	s.lock.Close()
}

func corrupt(t *testing.T, dir, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "places", name[:2], name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, s *Store, id session.SessionID, gen uint64, off int64, b []byte) catalog.Extent {
	t.Helper()
	w, err := s.Writer(t.Context(), id, gen)
	if err == nil {
		_, err = w.WriteAt(b, off)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	e, err := w.Commit(t.Context(), off, int64(len(b)), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConformance(t *testing.T) {
	for _, d := range []Durability{Process, Power} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			uploadtest.TestBlobs(t, func(t *testing.T) (upload.Blobs, func(string, int64)) {
				dir := t.TempDir()
				s := open(t, dir, Options{Durability: d})
				t.Cleanup(func() { s.Close() })
				return s, func(place string, off int64) { corrupt(t, dir, place, off) }
			})
		})
	}
}

func TestAFolderHasOneOwnerAndOneFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "another sluice server is using") {
		t.Errorf("a second owner: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("sluice content, format 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a newer format: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "state")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the folder was touched: %s, %v", after, err)
	}
}

// What is in doubt after which kind of stop.
func TestAStopThatWasNotCleanIsRemembered(t *testing.T) {
	dir := t.TempDir()
	doubt := func(s *Store, e catalog.Extent) string {
		out := ""
		for _, care := range []upload.Care{upload.AfterReboot, upload.AfterDeath, upload.Always} {
			if s.Check(t.Context(), e, care) == nil {
				out += "-"
			} else {
				out += "?"
			}
		}
		return out
	}
	s := open(t, dir, Options{})
	e := write(t, s, 1, 0, 0, []byte("precious"))
	e.CRC32C++ // so that every check that looks at all finds fault
	if got := doubt(s, e); got != "--?" {
		t.Errorf("in its own life: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if got := doubt(s, e); got != "--?" {
		t.Errorf("after a clean stop: %s", got)
	}
	s.kill()
	s = open(t, dir, Options{})
	if got := doubt(s, e); got != "-??" {
		t.Errorf("after a death of the process: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if got := doubt(s, e); got != "-??" {
		t.Errorf("a clean stop afterwards makes nothing certain: %s", got)
	}
	s.Boot = "another"
	if err := s.writeState(); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s = open(t, dir, Options{})
	if got := doubt(s, e); got != "???" {
		t.Errorf("after a restart of the machine: %s", got)
	}
	fresh := write(t, s, 2, 0, 0, []byte("x"))
	fresh.CRC32C++
	if got := doubt(s, fresh); got != "--?" {
		t.Errorf("what was written since: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = open(t, copied, Options{})
	if got := doubt(s, fresh); got != "???" {
		t.Errorf("in a copy of the folder: %s", got)
	}
	s.Close()
}

// † a failed sync poisons the place: what was written since the last good one is lost, there is no second sync, and what comes next goes elsewhere.
func TestAFailedSyncIsNeverTriedAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var syncs atomic.Int64
	var broken atomic.Bool
	s.sync = func(f *os.File) error {
		syncs.Add(1)
		if broken.Load() {
			return errors.New("EIO")
		}
		return f.Sync()
	}
	good := write(t, s, 1, 0, 0, []byte("good"))
	if err := s.Settle(t.Context(), []catalog.Extent{good}); err != nil {
		t.Fatal(err)
	}
	bad := write(t, s, 1, 0, 4, []byte("bad"))
	broken.Store(true)
	var lost *upload.LostError
	if err := s.Settle(t.Context(), []catalog.Extent{good, bad}); !errors.As(err, &lost) || len(lost.Lost) != 1 || lost.Lost[0] != bad {
		t.Fatalf("%v", err)
	}
	broken.Store(false)
	n := syncs.Load()
	if err := s.Settle(t.Context(), []catalog.Extent{bad}); !errors.As(err, &lost) {
		t.Errorf("the second time it is fine: %v", err)
	}
	if err := s.Settle(t.Context(), []catalog.Extent{good}); err != nil {
		t.Errorf("what was synced before: %v", err)
	}
	if syncs.Load() != n {
		t.Error("it was synced again")
	}
	next := write(t, s, 1, 0, 4, []byte("new"))
	if next.Place == bad.Place {
		t.Error("the next bytes went to the poisoned place")
	}
	if err := s.Settle(t.Context(), []catalog.Extent{good, next}); err != nil {
		t.Error(err)
	}
	body, err := s.Read(t.Context(), []catalog.Extent{good, next}, 0, 7)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(body); err != nil || string(b) != "goodnew" {
		t.Errorf("%q, %v", b, err)
	}
	body.Close()
	// With something lost the stop is not clean, whatever Close says.
	s.Close()
	s = open(t, dir, Options{})
	defer s.Close()
	if s.Trusted != s.Life {
		t.Error("the stop counts as clean")
	}
}

// What is settled already, and what many settle at once, costs no sync of its own.
func TestSyncsAreShared(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	var files atomic.Int64
	enter, leave := make(chan struct{}, 100), make(chan struct{})
	s.sync = func(f *os.File) error {
		if info, err := f.Stat(); err == nil && !info.IsDir() {
			files.Add(1)
			enter <- struct{}{}
			<-leave
		}
		return f.Sync()
	}
	e := write(t, s, 1, 0, 0, []byte("x"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Settle(t.Context(), []catalog.Extent{e}); err != nil {
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
	if err := s.Settle(t.Context(), []catalog.Extent{e}); err != nil || files.Load() != n {
		t.Errorf("settled again with %d syncs, %v", files.Load()-n, err)
	}
}

func TestTheReserveStaysFree(t *testing.T) {
	s := open(t, t.TempDir(), Options{Reserve: 1 << 62})
	defer s.Close()
	w, err := s.Writer(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte("x"), 0); !errors.Is(err, upload.ErrFull) {
		t.Errorf("%v", err)
	}
	if n, err := s.Free(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// More sessions than files may stay open: the oldest are synced and closed, and nothing changes.
func TestFewFilesStayOpen(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	var es []catalog.Extent
	for i := range 3 * maxIdle {
		es = append(es, write(t, s, session.SessionID(1+i), 0, 0, fmt.Append(nil, i)))
	}
	s.mu.Lock()
	n := len(s.files)
	s.mu.Unlock()
	if n > maxIdle+1 {
		t.Errorf("%d files are open", n)
	}
	for i, e := range es {
		body, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(body); err != nil || string(b) != fmt.Sprint(i) {
			t.Errorf("%q, %v", b, err)
		}
		body.Close()
	}
	if err := s.Settle(t.Context(), es); err != nil {
		t.Error(err)
	}
}

func TestNamesNeverBecomePaths(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	for _, name := range []string{"", "../../etc/passwd", "1-0-1", "0000000000000001-00-1", "0000000000000001-0-1-0", "000000000000000G-0-1", "0000000000000001-0-1/x"} {
		if err := s.Delete(t.Context(), name); err == nil {
			t.Errorf("deleted %q", name)
		}
		if _, err := s.Read(t.Context(), []catalog.Extent{{Place: name, Len: 1}}, 0, 1); !errors.Is(err, upload.ErrNoPlace) {
			t.Errorf("read %q: %v", name, err)
		}
	}
}
