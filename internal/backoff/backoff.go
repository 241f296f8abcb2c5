// Package backoff decides when the next request to a server may go, for all requests that one
// command makes: where the server, or something in front of it, refuses for now, they all wait
// together, and go on a few at a time. It owns the pauses and the number of requests after one;
// what an answer means, and for how long to go on, is the caller's.
//
//	as many as come ── refused ──▶ none, for as long as was asked ──▶ half as many
//	  ── answered, answered, … ──▶ one more each round
package backoff

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"
)

const (
	// firstPause and longestPause bound a pause for which the other end gives no length; each is
	// twice as long as the one before.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// plenty is the number of requests from which on they are not counted any more.
	plenty = 64
)

// Outcome is how a request ended, as far as others are concerned.
type Outcome uint8

const (
	// Unknown says nothing about other requests.
	Unknown Outcome = iota
	// Answered: the server took it, or refused it for a reason of its own.
	Answered
	// Refused: no more requests are taken for now.
	Refused
	// Away: nobody is there to answer any.
	Away
)

// Shared is the back-off of all requests to one server. It is safe for concurrent use.
type Shared struct {
	now    func() time.Time
	random io.Reader

	mu      sync.Mutex
	running int
	most    float64 // requests at a time; 0: any number
	away    bool    // they wait for the first answer
	until   time.Time
	rounds  int // pauses since the last answer
	moved   time.Time
	changed chan struct{} // closed when a request may go that could not
}

// New makes a Shared that lets all requests go. now tells the time. Pauses differ by what random
// gives; both are safe for concurrent use.
func New(now func() time.Time, random io.Reader) *Shared { return &Shared{now: now, random: random} }

// Enter waits until a request may go, for at most d: then it goes nevertheless, as the caller's
// last attempt. A nil error must be followed by one Exit. Its other errors are ctx's cause.
func (s *Shared) Enter(ctx context.Context, d time.Duration) error {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for last := false; ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		pause := s.until.Sub(s.now())
		if last || pause <= 0 && (s.most == 0 || s.running < int(s.most)) {
			s.running++
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		over := time.NewTimer(pause)
		if pause <= 0 {
			over.Stop() // it waits for the end of another request
		}
		select {
		case <-over.C:
		case <-changed:
		case <-deadline.C:
			last = true
		case <-ctx.Done():
		}
		over.Stop()
	}
}

// Exit notes how a request ended. after is what the other end asked for, 0 where it asked for
// nothing.
func (s *Shared) Exit(o Outcome, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	switch o {
	case Answered:
		s.rounds = 0
		if s.most > 0 {
			s.most += 1 / (2 * s.most)
		}
		if s.away || s.most >= plenty {
			s.away, s.most = false, 0
		}
	case Refused, Away:
		s.refused(o, after)
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Shared) refused(o Outcome, after time.Duration) {
	now := s.now()
	if !now.Before(s.until) { // else it was under way with others that were refused
		if s.most == 0 {
			s.most, s.away = float64(s.running+1), o == Away
		}
		if s.most = max(s.most/2, 1); s.away {
			s.most = 1
		}
		s.rounds++
	}
	pause := s.Pause(s.rounds - 1)
	if after > 0 {
		pause = after
	}
	if until := now.Add(pause); until.After(s.until) {
		s.until = until
	}
}

// Pause is how long to wait after so many failures in a row, no two alike.
func (s *Shared) Pause(failures int) time.Duration {
	d := min(firstPause<<min(max(failures, 0), 10), longestPause)
	var b [8]byte
	_, _ = io.ReadFull(s.random, b[:]) // without it the pause is the shortest
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
}

// Moved notes that something was got or acknowledged.
func (s *Shared) Moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = s.now()
}

// Idle is for how long nothing has moved, since began at most.
func (s *Shared) Idle(began time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved.After(began) {
		began = s.moved
	}
	return s.now().Sub(began)
}
