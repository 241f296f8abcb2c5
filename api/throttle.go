package api

import (
	"errors"
	"sync"
	"time"
)

// mostLines is how many refusals of one kind the log tells of as warnings in a second: who floods
// the server does not flood its log. The next line says how many were left out; /metrics counts
// all.
const mostLines = 10

// throttle lets through so many lines of one kind in a second.
type throttle struct {
	mu    sync.Mutex
	began time.Time // the second
	said  int
	left  int64 // lines that were not let through, and not told of yet
}

// say reports whether a line is let through, and how many were not since the last one.
func (t *throttle) say(now time.Time) (left int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.began) >= time.Second {
		t.began, t.said = now, 0
	}
	if t.said == mostLines {
		t.left++
		return 0, false
	}
	t.said++
	left, t.left = t.left, 0
	return left, true
}

// throttles are those of the kinds of refusals.
type throttles struct{ busy, crowded, other throttle }

// of gives the throttle of an error.
func (t *throttles) of(err error) *throttle {
	switch {
	case errors.Is(err, errBusy):
		return &t.busy
	case errors.Is(err, errCrowded):
		return &t.crowded
	}
	return &t.other
}
