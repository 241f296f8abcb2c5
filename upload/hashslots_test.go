package upload

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// Among the sessions that a finish waits for, the one with the fewest bytes left goes first. Each
// fourth slot goes to the one that has waited longest.
func TestASlotGoesToTheShortestThatIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hashSlots{}
		var order []int64
		want := func(left int64, awaited bool) {
			go func() {
				if err := h.acquire(t.Context(), left, func() bool { return awaited }); err != nil {
					t.Error(err)
				}
				order = append(order, left)
			}()
			synctest.Wait()
		}
		want(100, false)
		want(1, false)
		for _, left := range []int64{60, 50, 10, 20, 30, 40} {
			want(left, true)
		}
		for range 8 {
			h.release()
			synctest.Wait()
		}
		if !slices.Equal(order, []int64{10, 20, 30, 100, 40, 50, 60, 1}) {
			t.Errorf("%v", order)
		}
	})
}

// A waiter that gives up takes no slot with it.
func TestASlotIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hashSlots{free: 1}
		never := func() bool { return false }
		if err := h.acquire(t.Context(), 1, never); err != nil {
			t.Fatal(err)
		}
		for _, given := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.acquire(ctx, 1, never) }()
			synctest.Wait()
			cancel()
			if given {
				h.release() // at the same moment
			}
			if err := <-done; err == nil {
				h.release()
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if h.free != 1 || len(h.queue) != 0 {
			t.Errorf("%d slots are free, %d wait", h.free, len(h.queue))
		}
	})
}
