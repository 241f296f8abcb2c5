package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// queueLog puts a [logQueue] between the command and standard error, and gives a log that writes
// into it. A reader that goes away does not end the process.
func (e *env) queueLog(level slog.Level) *slog.Logger {
	signal.Ignore(syscall.SIGPIPE)
	logTo := func(w io.Writer) *slog.Logger {
		opts := &slog.HandlerOptions{Level: level}
		if e.json {
			return slog.New(slog.NewJSONHandler(w, opts))
		}
		return slog.New(slog.NewTextHandler(w, opts))
	}
	q := newLogQueue(e.stderr, func(to io.Writer, discarded int64) {
		logTo(to).Warn("lines of this log were dropped: nobody read it", "lines", discarded)
	})
	e.stderr, e.end = q, q.close
	return logTo(q)
}

// lockedWriter lets two logs write to one place. Each Write is whole.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// die ends the process when the metadata's disk fails. Acknowledged bytes are safe, and the next
// start finds what the disk has kept.
func (e *env) die(err error) {
	fmt.Fprintf(
		e.stderr, "sluice: the disk of the metadata failed, stopping now; nothing that was acknowledged is lost: %v\n",
		err,
	)
	e.end()
	os.Exit(1)
}
