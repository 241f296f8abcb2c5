package api

import (
	"context"
	"fmt"

	"sluice/internal/system"
)

// given is the machine of tests.
var given = machine{system.Clock{}, system.Random{}}

// Held gives what the requests that run hold together: places, and what the bodies of JSON count
// for.
func (s *Server) Held() (places, text int64) { return s.places.held(), s.text.held() }

// Owned gives the places of requests whose principals are known.
func (s *Server) Owned() int64 {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	return s.places.used - s.places.by[""]
}

// Answers gives what answers count for that are not taken yet.
func (s *Server) Answers() int64 { return s.answers.held() }

// Occupy takes all processors for requests that compute, until free is called.
func (s *Server) Occupy() (free func()) {
	n := s.computing.most
	for i := range n {
		if err := s.computing.wait(context.Background(), fmt.Sprint("occupant ", i)); err != nil {
			panic(err)
		}
	}
	return func() {
		for i := range n {
			s.computing.leave(fmt.Sprint("occupant ", i))
		}
	}
}

// Computing is how many requests compute or wait for it.
func (s *Server) Computing() (n int) {
	s.computing.mu.Lock()
	defer s.computing.mu.Unlock()
	for _, l := range s.computing.by {
		n += l.running + len(l.waiting)
	}
	return n
}
