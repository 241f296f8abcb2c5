package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// logBacklog is how many bytes of the log may wait for its reader.
	logBacklog = 1 << 20
	// logFlush is how long the end of the program waits until the log is written.
	logFlush = time.Second
)

// logQueue passes a log on to a writer that may stand still, or whose reader may be gone. Its Write
// never waits and never fails: a line that finds the queue full is discarded and counted, and the
// count is reported when the log moves again. One Write is one line.
type logQueue struct {
	to     io.Writer
	report func(to io.Writer, discarded int64)
	wake   chan struct{} // buffers one; closed by close
	done   chan struct{}

	mu        sync.Mutex
	waiting   []byte
	discarded int64 // and not reported yet
	lost      int64 // discarded since the start
	closed    bool
}

// newLogQueue starts passing on; close ends it. report writes how many lines were discarded.
func newLogQueue(to io.Writer, report func(to io.Writer, discarded int64)) *logQueue {
	q := &logQueue{to: to, report: report, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write implements io.Writer.
func (q *logQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting)+len(p) > logBacklog {
		q.discarded++
		q.lost++
		return len(p), nil
	}
	q.waiting = append(q.waiting, p...)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (q *logQueue) run() {
	defer close(q.done)
	var lines []byte
	for range q.wake {
		q.mu.Lock()
		lines, q.waiting = q.waiting, lines[:0]
		discarded := q.discarded
		q.mu.Unlock()
		if n, err := q.to.Write(lines); err != nil {
			q.addDiscarded(int64(bytes.Count(lines[n:], []byte("\n"))))
			continue
		}
		if discarded > 0 {
			q.mu.Lock()
			q.discarded -= discarded
			q.mu.Unlock()
			q.report(q.to, discarded)
		}
	}
}

func (q *logQueue) addDiscarded(lines int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.discarded += lines
	q.lost += lines
}

// dropped gives how many lines were discarded since the start.
func (q *logQueue) dropped() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}

// unreported gives how many of the discarded lines are in no report.
func (q *logQueue) unreported() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.discarded
}

// close gives the waiting lines a second to be written. Later lines are discarded. A repeat does
// nothing.
func (q *logQueue) close() {
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	q.mu.Unlock()
	if first {
		close(q.wake)
	}
	t := time.NewTimer(logFlush)
	defer t.Stop()
	select {
	case <-q.done:
	case <-t.C:
	}
}
