package api

import (
	"context"
	"fmt"

	"sluice/internal/system"
)

// testMachine is the machine of tests.
var testMachine = machine{system.Clock{}, system.Random{}}

// Held returns what the running requests hold together: slots, and what the bodies of JSON count
// for.
func (s *Server) Held() (slots, json int64) { return s.limits.slots.inUse(), s.limits.json.inUse() }

// Owned returns the slots of requests whose principals are known.
func (s *Server) Owned() int64 {
	s.limits.slots.mu.Lock()
	defer s.limits.slots.mu.Unlock()
	return s.limits.slots.used - s.limits.slots.byPrincipal[""]
}

// Answers returns what answers count for that are not taken yet.
func (s *Server) Answers() int64 { return s.limits.answers.inUse() }

// Occupy takes all processors for requests that compute, until free is called.
func (s *Server) Occupy() (free func()) {
	n := s.limits.computing.max
	for i := range n {
		if err := s.limits.computing.wait(context.Background(), fmt.Sprint("occupant ", i)); err != nil {
			panic(err)
		}
	}
	return func() {
		for i := range n {
			s.limits.computing.leave(fmt.Sprint("occupant ", i))
		}
	}
}

// Computing returns how many requests compute or wait for it.
func (s *Server) Computing() (n int) {
	s.limits.computing.mu.Lock()
	defer s.limits.computing.mu.Unlock()
	for _, l := range s.limits.computing.byPrincipal {
		n += l.running + len(l.waiting)
	}
	return n
}
