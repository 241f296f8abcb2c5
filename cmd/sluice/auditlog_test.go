package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// openedAudit opens the file of an audit log, and gives what the ordinary log says of it.
func openedAudit(t *testing.T, path string) (*auditFile, *sharedText) {
	t.Helper()
	log := &sharedText{}
	a, err := openAuditFile(path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.f.Close() })
	return a, log
}

// sharedText is a text that one goroutine reads while another may write to it.
type sharedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *sharedText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sharedText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func hasText(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q, not %q (%v)", filepath.Base(path), got, want, err)
	}
}

func TestTheAuditLogFollowsItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, log := openedAudit(t, path)
	write := func(line string) {
		t.Helper()
		if n, err := a.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	write("one\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two\n")
	hasText(t, path+".1", "one\n")
	hasText(t, path, "two\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	write("four\n")
	hasText(t, path, "three\nfour\n")
	if err := os.Truncate(path, 0); err != nil { // as copytruncate does
		t.Fatal(err)
	}
	write("five\n")
	hasText(t, path, "five\n")
	if log.String() != "" {
		t.Errorf("the log says %s", log)
	}
}

func TestAnAuditLogIsContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("one\ntor"), 0o640); err != nil {
		t.Fatal(err)
	}
	a, _ := openedAudit(t, path)
	if _, err := a.Write([]byte("two\n")); err != nil {
		t.Error(err)
	}
	hasText(t, path, "one\ntor\ntwo\n")
}

// While the file can't be written nobody waits, and the log says so once. When it can be written
// again, what has waited is written, and how much was dropped.
func TestAnAuditLogThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		a, log := openedAudit(t, path)
		q := newLogQueue(a, func(to io.Writer, n int64) { fmt.Fprintf(to, "%d dropped\n", n) })
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(q, "first")
		synctest.Wait()
		line := strings.Repeat("x", 1<<10-1)
		for range 2 << 10 { // twice the size of the queue
			fmt.Fprintln(q, line)
		}
		time.Sleep(10 * auditRetry)
		synctest.Wait() // one more try is due at this moment
		if n := strings.Count(log.String(), "can't be written"); n != 1 || q.dropped() != 1<<10 {
			t.Errorf("it is said %d times, and %d are dropped", n, q.dropped())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(auditRetry)
		synctest.Wait()
		q.close()
		hasText(t, path, "first\n"+strings.Repeat(line+"\n", 1<<10)+"1024 dropped\n")
		if !strings.Contains(log.String(), "written again") || q.unreported() != 0 || q.dropped() != 1<<10 {
			t.Errorf("%s; %d, %d", log, q.unreported(), q.dropped())
		}
	})
}

func TestTheEndGivesAnAuditLogUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		a, _ := openedAudit(t, path)
		q := newLogQueue(a, func(io.Writer, int64) {})
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(q, "one\n", "two\n")
		synctest.Wait()
		began := time.Now()
		a.giveUp()
		q.close()
		if took := time.Since(began); took > 0 || q.unreported() != 2 {
			t.Errorf("it took %s, and %d lines are lost", took, q.unreported())
		}
	})
}

// A write that was cut in the middle of a line, before the file was renamed, goes on with the whole
// line.
func TestNoLineIsCutByARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		a, _ := openedAudit(t, path)
		a.f = &cutting{a.f, func() error { return os.Rename(path, path+".1") }}
		if n, err := a.Write([]byte("one\ntwo\n")); n != 8 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		hasText(t, path+".1", "one\ntw")
		hasText(t, path, "two\n")
	})
}

// cutting takes 6 bytes of a write, and then something happens.
type cutting struct {
	io.WriteCloser
	then func() error
}

func (c *cutting) Write(p []byte) (int, error) {
	n, err := c.WriteCloser.Write(p[:6])
	return n, errors.Join(err, c.then(), errors.New("no space left"))
}

func TestAQueueCountsWhatWasNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := &shortWriter{n: 6}
		q := newLogQueue(short, func(io.Writer, int64) {})
		fmt.Fprint(q, "one\ntwo\nthree\n")
		synctest.Wait()
		if n := q.dropped(); n != 2 { // of the second, a part is there
			t.Errorf("%d lines are dropped", n)
		}
		q.close()
	})
}

// shortWriter takes n bytes of each write, and fails.
type shortWriter struct{ n int }

func (w *shortWriter) Write([]byte) (int, error) { return w.n, errors.New("no space left") }

func TestTheAuditLogIsOutsideOfTheData(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Symlink(data, link)); err != nil {
		t.Fatal(err)
	}
	for file, ok := range map[string]bool{
		filepath.Join(data, "audit.log"): false, filepath.Join(link, "audit.log"): false,
		filepath.Join(dir, "audit.log"): true, filepath.Join(dir, "data.log"): true,
		filepath.Join(dir, "..data"): true, data: false,
	} {
		if err := outside(file, data); (err == nil) != ok {
			t.Errorf("%s: %v", file, err)
		}
	}
}
