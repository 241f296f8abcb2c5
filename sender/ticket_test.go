package sender_test

import (
	"strings"
	"testing"

	"sluice/api"
	"sluice/sender"
)

// With a ticket all files go through sessions, and a memory is told by its finish: a ticket may
// neither create in one request nor read.
func TestATicketSends(t *testing.T) {
	for _, n := range []int{0, 10, large} {
		w, b := newWire(t), noise(n)
		w.ticket = &api.TicketLimits{CapsuleID: "default"}
		f := file(t, b)
		first := w.sendAndCompare(f, b)
		puts := len(w.puts)
		if again := w.sendAndCompare(f, b); again.MemoryID != first.MemoryID || len(w.puts) != puts {
			t.Errorf("the unchanged file became %s, and then %s", first.MemoryID, again.MemoryID)
		}
		w.memories[first.MemoryID].deleted = true
		second := w.sendAndCompare(f, b)
		if second.MemoryID == first.MemoryID {
			t.Error("a deleted memory was answered")
		}
		// This is as if the bytes had been written within one step of the clock.
		w.memories[second.MemoryID].SHA256 = strings.Repeat("0", 64)
		if third := w.sendAndCompare(f, b); third.MemoryID == second.MemoryID {
			t.Error("the memory of other bytes was answered")
		}
		m, err := w.sender().SendPipe(t.Context(), sender.File{Disk: "p", Name: "p"}, strings.NewReader("piped"))
		if err != nil {
			t.Fatal(err)
		}
		w.holds(m, []byte("piped"))
	}
}

// A file that the ticket is not for is refused before anything of it is sent.
func TestWhatATicketIsNotForIsSaid(t *testing.T) {
	w := newWire(t)
	w.ticket = &api.TicketLimits{CapsuleID: "inbox"}
	f := file(t, noise(10))
	if _, err := w.sender().Send(t.Context(), f); err == nil || !strings.Contains(err.Error(), "for capsule inbox") {
		t.Error(err)
	}
	w.ticket.CapsuleID = "default"
	f = file(t, make([]byte, 64<<20+1))
	_, err := w.sender().Send(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "the upload ticket is for 67108864 at most") {
		t.Error(err)
	}
	if n := w.count("uploads_begin"); n > 0 {
		t.Errorf("%d uploads have begun", n)
	}
}
