package api

import (
	"testing"
	"time"
)

// A window ends at its time, although single bytes come now and then. The next window begins only
// after as many bytes as the rate asks for. Time in which the server was busy does not count for
// the client.
func TestAByteNowAndThenIsTooSlow(t *testing.T) {
	const window = 30 * time.Second
	p := minRate{window: window, bytes: 30 << 10}
	began := time.Unix(1_000_000, 0)
	due := func(after time.Duration) time.Duration { return p.beginRead(began.Add(after)).Sub(began) }
	if got := due(0); got != window {
		t.Errorf("the first window ends after %v", got)
	}
	for s := range 29 {
		at := time.Duration(s+1) * time.Second
		p.endRead(1, began.Add(at))
		if got := due(at); got != window {
			t.Fatalf("after a byte at %v the window ends at %v", at, got)
		}
	}
	if got := due(33 * time.Second); got != window+4*time.Second {
		t.Errorf("the disk took 4 s, and the window ends at %v", got)
	}
	p.endRead(30<<10-29, began.Add(33*time.Second)) // in time, and enough
	if got := due(33 * time.Second); got != 33*time.Second+window {
		t.Errorf("the next window ends at %v", got)
	}
	p.endRead(1, began.Add(34*time.Second))
	if got := due(34 * time.Second); got != 33*time.Second+window {
		t.Errorf("a byte later it ends at %v", got)
	}
}
