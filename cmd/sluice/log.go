package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// queueLog makes everything that the command says from now on wait in a [logQueue] for the reader
// of standard error, and gives a log that is written there. A reader that goes away does not end
// the process.
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

// die ends the process when the metadata's disk fails: what was acknowledged is safe, and a new
// start tells what the disk kept.
func (e *env) die(err error) {
	fmt.Fprintf(e.stderr, "sluice: the disk of the metadata failed, stopping now; nothing that was acknowledged is lost: %v\n", err)
	e.end()
	os.Exit(1)
}
