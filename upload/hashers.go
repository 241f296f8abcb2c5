package upload

import (
	"context"
	"slices"
	"sync"
)

// hashers are the places of those that hash behind the puts. Each has one for a slice of its
// session, not to the session's end: a small upload that is finished does not wait for large ones.
type hashers struct {
	mu    sync.Mutex
	free  int
	queue []*waiter // in the order that they came
	picks int
}

// waiter wants a place.
type waiter struct {
	left    int64       // bytes to hash
	awaited func() bool // somebody waits for the end of it
	given   chan struct{}
}

const (
	// slice is how many bytes are hashed in one turn; the last extent of it is hashed to its end.
	slice = 16 << 20
	// eldestOf: of so many turns one goes to whoever has waited longest, so that short ones starve
	// nobody.
	eldestOf = 4
)

// enter returns when there is a place; leave must follow a nil error.
func (h *hashers) enter(ctx context.Context, left int64, awaited func() bool) error {
	h.mu.Lock()
	if h.free > 0 {
		h.free--
		h.mu.Unlock()
		return nil
	}
	w := &waiter{left, awaited, make(chan struct{})}
	h.queue = append(h.queue, w)
	h.mu.Unlock()
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.queue, w); i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
	} else {
		h.pass() // it was given meanwhile
	}
	return ctx.Err()
}

// leave gives the place to the next.
func (h *hashers) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pass()
}

// pass gives a place to the next, if there is one. mu is held.
func (h *hashers) pass() {
	if len(h.queue) == 0 {
		h.free++
		return
	}
	i := h.next()
	close(h.queue[i].given)
	h.queue = slices.Delete(h.queue, i, i+1)
}

// next chooses: of those that somebody waits for the one with least left, but now and then, and
// where nobody waits, the eldest. mu is held.
func (h *hashers) next() int {
	best := -1
	if h.picks++; h.picks%eldestOf != 0 {
		for i, w := range h.queue {
			if (best < 0 || w.left < h.queue[best].left) && w.awaited() {
				best = i
			}
		}
	}
	return max(best, 0)
}
