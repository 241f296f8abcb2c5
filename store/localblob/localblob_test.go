package localblob

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/leak"
	"sluice/session"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

func open(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	opts.Durability = durable.Process
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kill ends a store as the death of the process does.
func (s *Store) kill() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.background.Wait()
	for _, f := range s.files {
		if f.pack != nil && f.pack.past != nil {
			f.pack.past.Close()
		}
		f.close()
	}
	s.lock.Close()
}

func corruptFile(t *testing.T, dir, name string, off int64) {
	t.Helper()
	file, base := Where(name)
	off += base
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_RDWR, 0)
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
	w, err := s.Writer(t.Context(), id, gen, -1)
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
	for _, d := range []durable.Durability{durable.Process, durable.Power} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			blobtest.TestStore(t, func(t *testing.T) (blob.Store, func(string, int64)) {
				dir := t.TempDir()
				s, err := Open(dir, Options{Durability: d})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s, func(place string, off int64) { corruptFile(t, dir, place, off) }
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
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("sluice content, format 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "format 3") {
		t.Errorf("a newer format: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "state")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the folder was touched: %s, %v", after, err)
	}
}

// Each kind of stop puts certain incarnations in doubt.
func TestAStopThatWasNotCleanIsRemembered(t *testing.T) {
	dir := t.TempDir()
	doubt := func(s *Store, e catalog.Extent) string {
		out := ""
		for _, policy := range []blob.CheckPolicy{blob.CheckBeforeReboot, blob.CheckBeforeCrash, blob.CheckAll} {
			if s.Check(t.Context(), e, policy) == nil {
				out += "-"
			} else {
				out += "?"
			}
		}
		return out
	}
	s := open(t, dir, Options{})
	e := write(t, s, 1, 0, 0, []byte("precious"))
	e.CRC32C++ // so that every check that compares finds a fault
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

func TestTheReserveStaysFree(t *testing.T) {
	s := open(t, t.TempDir(), Options{Reserve: 1 << 62})
	defer s.Close()
	w, err := s.Writer(t.Context(), 1, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 3 {
		if _, err := w.WriteAt([]byte("x"), 0); !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("try %d: %v", i+1, err)
		}
	}
	if n, err := s.Free(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	s.opts.Reserve = 0
	if _, err := w.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("when there is space again: %v", err)
	}
}

func TestNamesNeverBecomePaths(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	for _, name := range []string{
		"", "../../etc/passwd", "1-0-1", "0000000000000001-00-1", "0000000000000001-0-1-0",
		"000000000000000G-0-1", "0000000000000001-0-1/x",
	} {
		if err := s.Delete(t.Context(), name); err == nil {
			t.Errorf("deleted %q", name)
		}
		if _, err := s.Read(t.Context(), []catalog.Extent{{Place: name, Len: 1}}, 0, 1); !errors.Is(err,
			blob.ErrMissing) {
			t.Errorf("read %q: %v", name, err)
		}
	}
}

// Without its state a folder would repeat incarnations, and write to the files of the first ones.
func TestAFolderWithContentHasAState(t *testing.T) {
	for _, file := range []string{"state", "format"} {
		dir := t.TempDir()
		s := open(t, dir, Options{})
		write(t, s, 1, 0, 0, []byte("x"))
		if err := errors.Join(s.Close(), os.Remove(filepath.Join(dir, file))); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("without %s: %v", file, err)
			s.Close()
		}
	}
}

// Other files in the folder are neither listed nor changed.
func TestStrangersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	defer s.Close()
	for _, name := range []string{"00/notes.txt", "00/1-0-1", "01/0000000000000001-0-1"} {
		if err := os.WriteFile(filepath.Join(dir, "places", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "places/00/0000000000000002-0-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if ps, err := s.Places(t.Context(), "", 10); err != nil || len(ps) != 0 {
		t.Errorf("%v, %v", ps, err)
	}
}
