package pebblemeta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/catalog"
	"sluice/session"
)

// child is the environment variable that is set if this program runs as the other process of a
// test.
const child = "PEBBLEMETA_TEST_CHILD"

// in runs one test as another process, and gives its exit status and output.
func in(t *testing.T, dir string) (int, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestReopeningKeepsAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	db, err := Open(dir, Options{Hook: noHook})
	if err != nil {
		t.Fatal(err)
	}
	s := create(t, db, 1, "idem")
	if s, err = record(db, s, 3); err != nil {
		t.Fatal(err)
	}
	ended := create(t, db, 2, "")
	for _, step := range []session.Step{
		{Gen: 1, To: session.Sealed, Next: 7},
		{Gen: 7, To: session.Open, Next: 9},
		{Gen: 9, To: session.Expired, Seen: 77},
	} {
		if _, err := db.Sessions().Move(t.Context(), ended.ID, step); err != nil {
			t.Fatal(err)
		}
	}
	if err := putRow(db, "row", 5); err != nil {
		t.Fatal(err)
	}
	before := all(t, db)
	for range 3 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err = Open(dir, Options{Hook: noHook}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, all(t, db), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	}
	got, created, err := db.Sessions().Create(t.Context(), session.Session{ID: 9, Spec: s.Spec})
	if err != nil || created || got.ID != 1 {
		t.Errorf("session %s, created %v, %v", got.ID, created, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// I22: A restart removes a seal. The next generation is above all generations in which the session
// was seen open.
func TestASealEndsWithTheProcess(t *testing.T) {
	disk := vfs.NewMem()
	db := opened(t, disk, Options{})
	create(t, db, 1, "")
	move := func(step session.Step) {
		t.Helper()
		if _, err := db.Sessions().Move(t.Context(), 1, step); err != nil {
			t.Fatal(err)
		}
	}
	restart := func(gen uint64) {
		t.Helper()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = opened(t, disk, Options{})
		if s, err := db.Sessions().Load(t.Context(), 1); err != nil || s.State != session.Open || s.Gen != gen {
			t.Errorf("%v of generation %d, not %d; %v", s.State, s.Gen, gen, err)
		}
	}
	move(session.Step{Gen: 1, To: session.Sealed, Next: 10})
	restart(1)
	move(session.Step{Gen: 1, To: session.Sealed, Next: 20})
	move(session.Step{Gen: 20, To: session.Open, Next: 30})
	move(session.Step{Gen: 30, To: session.Sealed, Next: 40})
	restart(30)
	// The time after the end counts from the seal: that is the latest time that the engine knew.
	move(session.Step{Gen: 30, To: session.Sealed, Next: 50, Seen: 12345})
	err := db.Catalog().Update(t.Context(), func(tx catalog.Tx) error { return tx.EndSession(1, 50, session.Finished) })
	if s, err2 := db.Sessions().Load(t.Context(), 1); err != nil || err2 != nil || s.Seen != 12345 {
		t.Errorf("%+v, %v, %v", s, err, err2)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestASecondOpenIsRefused(t *testing.T) {
	if dir := os.Getenv(child); dir != "" {
		if _, err := Open(dir, Options{Hook: noHook}); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	dir := t.TempDir()
	db, err := Open(dir, Options{Hook: noHook})
	if err != nil {
		t.Fatal(err)
	}
	want := "another sluice server is using this data folder: " + dir
	if _, err := Open(dir, Options{Hook: noHook}); err == nil || err.Error() != want {
		t.Errorf("in this process: %v", err)
	}
	if code, out := in(t, dir); code != 3 || !strings.Contains(out, want) {
		t.Errorf("in another process: status %d, %s", code, out)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if code, out := in(t, dir); code != 0 {
		t.Errorf("after Close: status %d, %s", code, out)
	}
}

// I23: A process that can't write its log ends by Die, once.
func TestALogThatCannotBeWrittenEndsTheProcess(t *testing.T) {
	if os.Getenv(child) != "" {
		var failing atomic.Bool
		disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if failing.Load() && op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".log") {
				return errorfs.ErrInjected
			}
			return nil
		}))
		db := opened(t, disk, Options{Die: func(err error) { fmt.Println("died:", err); os.Exit(7) }})
		s := create(t, db, 1, "")
		failing.Store(true)
		_, err := record(db, s, 1)
		fmt.Println("answered:", err)
		os.Exit(0)
	}
	code, out := in(t, "yes")
	if code != 7 || !strings.Contains(out, "died: ") || strings.Contains(out, "answered") ||
		strings.Count(out, "died: ") != 1 {
		t.Errorf("status %d: %s", code, out)
	}
}

// † I28: An earlier process made a folder, and died before its name was durable. The folder does
// not vanish with what is stored in it since.
func TestAFolderThatWasThereIsMadeDurable(t *testing.T) {
	disk := vfs.NewCrashableMem()
	if err := disk.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := Open("data", Options{Hook: noHook, FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	create(t, db, 1, "")
	left, err := Open("data", Options{Hook: noHook, FS: disk.CrashClone(vfs.CrashCloneCfg{})})
	if err != nil {
		t.Fatal(err)
	}
	if got := all(t, left); len(got.Sessions) != 1 {
		t.Errorf("%d sessions are left", len(got.Sessions))
	}
	if err := errors.Join(left.Close(), db.Close()); err != nil {
		t.Error(err)
	}
}

// I23: Pebble would try for ever, without a pause, to flush to a disk that takes no more tables.
func TestTablesThatCannotBeWrittenEndTheProcess(t *testing.T) {
	if os.Getenv(child) != "" {
		disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
				return errorfs.ErrInjected
			}
			return nil
		}))
		db := opened(t, disk, Options{Die: func(err error) { fmt.Println("died:", err); os.Exit(7) }})
		create(t, db, 1, "")
		fmt.Println("flushed:", db.peb.Flush())
		os.Exit(0)
	}
	if code, out := in(t, "yes"); code != 7 || strings.Count(out, "died: ") != 1 {
		t.Errorf("status %d: %s", code, out)
	}
}

// A folder of an older format becomes one of this program's with its first opening that may write,
// so that older programs refuse it.
func TestAnOlderFormatIsRaised(t *testing.T) {
	disk := vfs.NewMem()
	format := func() string {
		t.Helper()
		f, err := disk.Open("data/meta/" + formatFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if err := opened(t, disk, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Create("data/meta/"+formatFile, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "sluice metadata, format 1\n"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opts Options
		want string
	}{
		{Options{ReadOnly: true}, "sluice metadata, format 1\n"}, {Options{}, "sluice metadata, format 3\n"},
	} {
		if err := opened(t, disk, c.opts).Close(); err != nil {
			t.Fatal(err)
		}
		if got := format(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestAFolderThatIsNotOursIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		say   []string
	}{
		"a newer format":   {map[string]string{formatFile: "sluice metadata, format 4\n"}, []string{"format 4", "up to 3"}},
		"no format":        {map[string]string{formatFile: "format of a shopping list\n"}, []string{"shopping list"}},
		"an empty format":  {map[string]string{formatFile: ""}, []string{formatFile}},
		"format 0":         {map[string]string{formatFile: "sluice metadata, format 0\n"}, []string{"format 0"}},
		"a foreign folder": {map[string]string{"letters.txt": "dear"}, []string{"letters.txt", formatFile}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir, Options{Hook: noHook})
			if err == nil {
				t.Fatal("opened")
			}
			for _, say := range c.say {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("%v does not say %q", err, say)
				}
			}
			left, _ := os.ReadDir(dir)
			for _, e := range left {
				text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
				if e.Name() != lockFile && string(text) != c.files[e.Name()] {
					t.Errorf("%s now has %q", e.Name(), text)
				}
			}
		})
	}
	// A crash in the middle of making a database leaves a folder that can be opened.
	dir := t.TempDir()
	for _, f := range []string{formatTemp, lockFile} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("slu"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := Open(dir, Options{Hook: noHook})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// † I26: A folder that has held rows is never taken for a new one.
func TestALostMarkerIsNoNewDatabase(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{Hook: noHook})
	if err != nil {
		t.Fatal(err)
	}
	create(t, db, 1, "")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	markers, err := filepath.Glob(filepath.Join(dir, "marker.manifest.*"))
	if err != nil || len(markers) != 1 {
		t.Fatal(markers, err)
	}
	if err := os.Remove(markers[0]); err != nil {
		t.Fatal(err)
	}
	if db, err := Open(dir, Options{Hook: noHook}); err == nil {
		t.Errorf("opened, with %+v", all(t, db))
		db.Close()
	}
}

func TestCloseWaitsAndThenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		db := opened(t, disk, Options{})
		disk.stop()
		var wg sync.WaitGroup
		closed := false
		wg.Go(func() { create(t, db, 1, "") })
		synctest.Wait()
		wg.Go(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			closed = true
		})
		synctest.Wait()
		if closed {
			t.Error("closed during a call")
		}
		if _, err := db.Sessions().Load(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("a call after Close: %v", err)
		}
		err := db.Catalog().View(t.Context(), func(catalog.Reader) error { return nil })
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a call after Close: %v", err)
		}
		disk.resume()
		wg.Wait()
		if err := db.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		again := opened(t, disk, Options{})
		if got := all(t, again); len(got.Sessions) != 1 {
			t.Errorf("%+v", got)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}
