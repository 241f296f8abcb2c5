package upload

import (
	"context"
	"slices"
	"sync"
)

// hashSlots are the places of those that hash behind the puts. Each has one for a slice of its
// session, not to the session's end: a small upload that is finished does not wait for large ones.
type hashSlots struct {
	mu    sync.Mutex
	free  int
	queue []*waiter // in the order that they came
	picks int
}

// waiter wants a place.
type waiter struct {
	remaining int64       // bytes to hash
	awaited   func() bool // somebody waits for the end of it
	granted   chan struct{}
}

const (
	// sliceBytes is how many bytes are hashed in one turn; the last extent of it is hashed to its
	// end.
	sliceBytes = 16 << 20
	// oldestEvery: of so many turns one goes to whoever has waited longest, so that short ones
	// starve nobody.
	oldestEvery = 4
)

// acquire returns when there is a slot; release must follow a nil error.
func (h *hashSlots) acquire(ctx context.Context, left int64, awaited func() bool) error {
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
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.queue, w); i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
	} else {
		h.grant() // it was given meanwhile
	}
	return ctx.Err()
}

// release gives the place to the next.
func (h *hashSlots) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.grant()
}

// grant gives a place to the next, if there is one. mu is held.
func (h *hashSlots) grant() {
	if len(h.queue) == 0 {
		h.free++
		return
	}
	i := h.pick()
	close(h.queue[i].granted)
	h.queue = slices.Delete(h.queue, i, i+1)
}

// pick chooses: of those that somebody waits for the one with least left, but now and then, and
// where nobody waits, the eldest. mu is held.
func (h *hashSlots) pick() int {
	best := -1
	if h.picks++; h.picks%oldestEvery != 0 {
		for i, w := range h.queue {
			if (best < 0 || w.remaining < h.queue[best].remaining) && w.awaited() {
				best = i
			}
		}
	}
	return max(best, 0)
}
