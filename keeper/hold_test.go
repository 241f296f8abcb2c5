package keeper_test

import (
	"testing"
	"time"
)

// Held places stay, however long they are due, and go when the last one lets go; the rest of what is due is done meanwhile.
func TestHeldPlacesStay(t *testing.T) {
	w := newWorld(t)
	w.begun()
	first, second := w.keeper.Hold(), w.keeper.Hold()
	if n := w.pass(3 * time.Hour); n != 1 {
		t.Errorf("%d expired", n)
	}
	first()
	first() // once is enough
	w.pass(5 * minute)
	if w.places() != 1 {
		t.Fatal("a held place is gone")
	}
	second()
	w.pass(minute)
	if w.places() != 0 {
		t.Error("it is still there")
	}
}
