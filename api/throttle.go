package api

import (
	"errors"
	"sync"
	"time"
)

// maxLines is how many refusals of one kind the log shows as warnings in a second, so that a flood
// of requests does not flood the log. The next line says how many were left out. /metrics counts
// all.
const maxLines = 10

// throttle lets through maxLines lines of one kind in a second.
type throttle struct {
	mu         sync.Mutex
	second     time.Time // when the running second began
	lines      int
	suppressed int64 // lines that were left out, and not reported yet
}

// allow reports whether a line is let through, and how many were left out since the last one.
func (t *throttle) allow(now time.Time) (suppressed int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.second) >= time.Second {
		t.second, t.lines = now, 0
	}
	if t.lines == maxLines {
		t.suppressed++
		return 0, false
	}
	t.lines++
	suppressed, t.suppressed = t.suppressed, 0
	return suppressed, true
}

// take gives how many lines were left out and not reported yet, if the second in which they were is
// over, or with all in any case. The caller reports them.
func (t *throttle) take(now time.Time, all bool) (suppressed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if all || now.Sub(t.second) >= time.Second {
		suppressed, t.suppressed = t.suppressed, 0
	}
	return suppressed
}

// throttles has one throttle for each kind of refusal.
type throttles struct{ busy, conns, tokens, other throttle }

// forError returns the throttle of an error.
func (t *throttles) forError(err error) *throttle {
	switch {
	case errors.Is(err, errBusy):
		return &t.busy
	case errors.Is(err, errTooManyConns):
		return &t.conns
	case isTokenTrouble(err):
		return &t.tokens
	}
	return &t.other
}
