package crashtest

import (
	"slices"
	"strings"
	"testing"
)

// granting is everything that changes who may do what, and how much.
func (r *run) granting() {
	r.open()
	r.newGuest()
	r.newToken(false, 0)
	r.apply(r.toRole(subject))
	ticket := r.newGrant(nil, 2, 100*hour)
	r.begin(file{name: "a", by: ticket.name, content: bytesOf("a", 1, chunk+300)})
	r.chunk("a", 0)
	r.chunk("a", 1)
	r.begin(file{name: "b", by: ticket.name, idem: "key b", content: bytesOf("b", 1, 700)})
	r.abort("b")
	r.finish("a")
	r.begin(file{name: "c", by: ticket.name, content: bytesOf("c", 1, 900)})
	r.setQuota(3)
	r.kill()
	r.open()
	r.chunk("c", 0)
	link := r.newGrant(r.m.files["a"], 2, hour)
	r.follow(link, false)
	r.follow(link, true)
	r.apply(r.revokeGrant(ticket))
	r.endOwner(ticket.name)
	r.setQuota(0)
	second := r.newGrant(nil, 1, 2*hour)
	r.begin(file{name: "d", by: second.name, content: bytesOf("d", 1, 800)})
	r.begin(file{name: "e", by: r.m.guest.name, content: bytesOf("e", 1, 600)})
	r.chunk("e", 0)
	r.tick() // ends the link
	r.apply(r.toRole(stranger))
	r.tick() // aborts d
	r.apply(r.toRole(controller))
	third := r.newGrant(nil, 3, 100*hour)
	r.begin(file{name: "f", by: third.name, unknown: true, content: bytesOf("f", 1, 500)})
	r.apply(r.revoke())
	r.newToken(false, 2*hour)
	r.stop()
	r.open()
	r.apply(r.deleteGuest())
	r.endOwner(r.m.guest.name)
	r.tick()
	r.newGuest()
	r.newToken(true, 0)
	r.stop()
	r.open()
	r.stop()
}

// † I14, I15, I17: A crash at every step while principals, tokens, roles, tickets, links and quotas
// are made, used and ended. What was answered holds, and what was not is one way or the other for
// ever. The counts of the tickets and the reservations are those of the sessions.
func TestACrashAmongRights(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./internal/test/crashtest")
	}
	for name, d := range durabilities {
		t.Run(name, func(t *testing.T) {
			all, _ := points(t, d, (*run).granting)
			left := []variant{killed, 10}
			if *seeds > 1 {
				left = variants
			}
			// Starts and stops are those of the other script.
			all = slices.DeleteFunc(all, func(p point) bool {
				return strings.HasPrefix(p.model.doing, "opening") || strings.HasPrefix(p.model.doing, "closing")
			})
			sweep(t, name, d, all, left)
		})
	}
}
