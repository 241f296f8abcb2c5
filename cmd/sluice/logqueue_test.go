package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a log whose reader stands still until it is released, or is gone.
type pipe struct {
	bytes.Buffer
	hold chan struct{}
	gone error
}

func (p *pipe) Write(b []byte) (int, error) {
	if p.hold != nil {
		<-p.hold
	}
	if p.gone != nil {
		return 0, p.gone
	}
	return p.Buffer.Write(b)
}

func reportDiscarded(to io.Writer, n int64) { fmt.Fprintf(to, "%d dropped\n", n) }

func TestALogThatStandsStillHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{hold: make(chan struct{})}
		q := newLogQueue(p, reportDiscarded)
		fmt.Fprintln(q, "first")
		synctest.Wait()
		line := strings.Repeat("x", 1<<10-1)
		for range 2 << 10 { // twice the size of the queue
			fmt.Fprintln(q, line)
		}
		began := time.Now()
		q.mu.Lock()
		waiting, discarded := len(q.waiting), q.discarded
		q.mu.Unlock()
		if waiting > logBacklog || discarded != 1<<10 {
			t.Errorf("%d bytes wait, %d lines are dropped", waiting, discarded)
		}
		close(p.hold)
		synctest.Wait()
		fmt.Fprintln(q, "last")
		q.close()
		q.close()
		fmt.Fprintln(q, "after the end")
		got := strings.ReplaceAll(p.String(), line, "x")
		if want := "first\n" + strings.Repeat("x\n", 1<<10) + "1024 dropped\nlast\n"; got != want {
			t.Errorf("%d bytes, that end in %q", len(got), got[max(len(got)-40, 0):])
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s", took)
		}
	})
}

func TestTheEndWaitsASecondForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{hold: make(chan struct{})}
		q := newLogQueue(p, reportDiscarded)
		fmt.Fprintln(q, "never read")
		began := time.Now()
		q.close()
		if took := time.Since(began); took != logFlush {
			t.Errorf("the end took %s", took)
		}
		close(p.hold)
	})
}

func TestALogWhoseReaderIsGoneIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{gone: errors.New("broken pipe")}
		q := newLogQueue(p, reportDiscarded)
		for range 3 {
			if n, err := fmt.Fprintln(q, "unread"); n != 7 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			synctest.Wait()
		}
		p.gone = nil
		fmt.Fprintln(q, "read again")
		q.close()
		if got := p.String(); got != "read again\n3 dropped\n" {
			t.Errorf("%q", got)
		}
	})
}
