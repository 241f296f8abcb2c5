package upload

import (
	"context"
	"slices"
	"sync"
)

// hashSlots bounds the background hashers that read at the same time. A hasher takes a slot for one
// slice of its session and then queues again, so that a small upload that is finished does not wait
// for the end of large ones.
type hashSlots struct {
	mu    sync.Mutex
	free  int
	queue []*waiter // in order of arrival
	picks int
}

// waiter is a background hasher that waits for a slot.
type waiter struct {
	remaining int64       // bytes to hash
	awaited   func() bool // a finish waits for the session's hash
	granted   chan struct{}
}

const (
	// sliceBytes is how many bytes are hashed under one slot. The last extent of a slice is hashed
	// to its end.
	sliceBytes = 16 << 20
	// oldestEvery: one slot in so many goes to the hasher that has waited longest, so that short
	// sessions starve none.
	oldestEvery = 4
)

// acquire waits for a slot. The caller must call release after a nil error.
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
		h.grant() // the slot was granted meanwhile
	}
	return ctx.Err()
}

// release gives the slot to the next waiter.
func (h *hashSlots) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.grant()
}

// grant gives a slot to the next waiter, or makes it free. h.mu is held.
func (h *hashSlots) grant() {
	if len(h.queue) == 0 {
		h.free++
		return
	}
	i := h.pick()
	close(h.queue[i].granted)
	h.queue = slices.Delete(h.queue, i, i+1)
}

// pick chooses the next waiter: the one with the fewest bytes left among those that a finish waits
// for. Each fourth time, and if no finish waits, it is the one that has waited longest. h.mu is
// held.
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
