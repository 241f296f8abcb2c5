package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/audit"
)

// toStderr is the name of the audit log that goes to standard error.
const toStderr = "-"

// openAudit opens the audit log (--audit-log), and lets the end of the program wait for it. It
// gives nil if there is none. stderr is standard error without the queue of the log.
func (c *serveCmd) openAudit(e *env, stderr io.Writer, log *slog.Logger) (*audit.Log, error) {
	to := stderr
	var file *auditFile
	switch c.AuditLog {
	case "":
		return nil, nil
	case toStderr:
	default:
		if err := outside(c.AuditLog, c.Data); err != nil {
			return nil, err
		}
		var err error
		if file, err = openAuditFile(c.AuditLog, log); err != nil {
			return nil, fmt.Errorf("the audit log (--audit-log): %w", err)
		}
		to = file
	}
	q := newLogQueue(to, func(to io.Writer, n int64) {
		audit.New(to, nil).Add(time.Now(), audit.Record{Event: audit.Dropped, Count: n})
	})
	end := e.end
	e.end = sync.OnceFunc(func() {
		if file != nil {
			file.giveUp()
		}
		q.close()
		if n := q.unreported(); n > 0 {
			log.Error("the end of the audit log could not be written", "records", n)
		}
		end()
	})
	return audit.New(q, q.dropped), nil
}

// outside refuses an audit log in the data folder, whose files are Sluice's own: they are compared
// with the metadata, and must not fill the disk.
func outside(file, data string) error {
	inside := func(file, data string) bool {
		rel, err := filepath.Rel(data, file)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if data, err = filepath.Abs(data); err != nil {
		return err
	}
	dir, errDir := filepath.EvalSymlinks(filepath.Dir(file))
	real, errReal := filepath.EvalSymlinks(data)
	if inside(file, data) || errDir == nil && errReal == nil && inside(dir, real) {
		return usageError(fmt.Sprintf("--audit-log must not be in the data folder: %s", clean(file)))
	}
	return nil
}

const (
	// auditRetry is how long a failed write of the audit log rests.
	auditRetry = time.Second
	// auditTell is how often the log says that the audit log can't be written.
	auditTell = time.Minute
)

// auditFile appends to the file of the audit log. If the file was renamed or removed, it makes a
// new one. If a write fails, it tries again until it succeeds, or until giveUp. It belongs to the
// goroutine of a queue.
type auditFile struct {
	path string
	log  *slog.Logger
	stop chan struct{} // closed by giveUp

	f       io.WriteCloser
	info    os.FileInfo
	failing bool
	told    time.Time
}

func openAuditFile(path string, log *slog.Logger) (*auditFile, error) {
	path, err := filepath.Abs(path) // the working folder may be another later
	if err != nil {
		return nil, err
	}
	a := &auditFile{path: path, log: log, stop: make(chan struct{})}
	return a, a.open()
}

// open opens the file, which is made if it is not there. A last line that is not whole is ended.
func (a *auditFile) open() error {
	// A pipe without a reader would hold the program up, and is found out before it is opened.
	if info, err := os.Stat(a.path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", a.path)
	}
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", a.path)
	}
	if err == nil && isTorn(a.path, info.Size()) {
		_, err = f.WriteString("\n")
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.f, a.info = f, info
	return nil
}

// isTorn reports whether the file ends within a line. If it can't be read, it is taken for whole.
func isTorn(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil || size == 0 {
		return false
	}
	defer f.Close()
	last := make([]byte, 1)
	_, err = f.ReadAt(last, size-1)
	return err == nil && last[0] != '\n'
}

// Write writes whole lines. It returns an error only after giveUp, with how many bytes were
// written.
func (a *auditFile) Write(lines []byte) (int, error) {
	for done := 0; ; {
		reopened, err := a.follow()
		if reopened { // the new file begins with a whole line
			done = bytes.LastIndexByte(lines[:done], '\n') + 1
		}
		if err == nil {
			var n int
			n, err = a.f.Write(lines[done:])
			done += n
		}
		if err == nil {
			if a.failing {
				a.failing = false
				a.log.Info("the audit log is written again", "file", a.path)
			}
			return len(lines), nil
		}
		if now := time.Now(); !a.failing || now.Sub(a.told) >= auditTell {
			a.log.Error("the audit log can't be written; it is tried again, and what does not fit is dropped",
				"file", a.path, "err", err)
			a.failing, a.told = true, now
		}
		select {
		case <-time.After(auditRetry):
		case <-a.stop:
			return done, err
		}
	}
}

// follow opens the file anew if its name leads to another one, or to none.
func (a *auditFile) follow() (reopened bool, err error) {
	info, err := os.Stat(a.path)
	if err == nil && os.SameFile(info, a.info) {
		return false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	old := a.f
	if err := a.open(); err != nil {
		return false, err
	}
	return true, old.Close()
}

// giveUp lets the next write that fails fail for good.
func (a *auditFile) giveUp() { close(a.stop) }
