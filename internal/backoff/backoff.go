// Package backoff decides when the next request to a server may go, for all requests that one
// command makes. If the server, or something in front of it, refuses requests for now, they all
// wait together, and go on a few at a time. It owns the pauses and the number of requests after
// one. The caller decides what an answer means, and for how long to go on.
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
	// firstPause and longestPause bound a pause for which the other end gives no length. Each pause
	// is twice as long as the one before.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// unlimitedFrom is the number of requests at a time from which on there is no limit any more.
	unlimitedFrom = 64
)

// Outcome is how a request ended, as far as it concerns other requests.
type Outcome uint8

const (
	// Unknown says nothing about other requests.
	Unknown Outcome = iota
	// Answered: the server took the request, or refused it for a reason of its own.
	Answered
	// Refused: the other end takes no more requests for now.
	Refused
	// Away: there is no server that could answer.
	Away
)

// Shared is the back-off of all requests to one server. It is safe for concurrent use.
type Shared struct {
	now    func() time.Time
	random io.Reader

	mu       sync.Mutex
	running  int
	limit    float64 // of requests at a time; 0: none
	probing  bool    // one request at a time, until the first answer
	until    time.Time
	pauses   int // since the last answer
	lastMove time.Time
	changed  chan struct{} // closed when another request may go
}

// New makes a Shared that lets all requests go. now tells the time. random makes pauses differ.
// Both are safe for concurrent use.
func New(now func() time.Time, random io.Reader) *Shared { return &Shared{now: now, random: random} }

// Enter waits until a request may go, for at most d. After d the request goes nevertheless, as the
// caller's last attempt. A nil error must be followed by one Exit. Its other errors are ctx's
// cause.
func (s *Shared) Enter(ctx context.Context, d time.Duration) error {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for last := false; ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		pause := s.until.Sub(s.now())
		if last || pause <= 0 && (s.limit == 0 || s.running < int(s.limit)) {
			s.running++
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		timer := time.NewTimer(pause)
		if pause <= 0 {
			timer.Stop() // it waits for another request's end
		}
		select {
		case <-timer.C:
		case <-changed:
		case <-deadline.C:
			last = true
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// Exit notes how a request ended. retryAfter is the pause that the other end asked for, 0 if it
// asked for none.
func (s *Shared) Exit(o Outcome, retryAfter time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	switch o {
	case Answered:
		s.pauses = 0
		if s.limit > 0 {
			s.limit += 1 / (2 * s.limit)
		}
		if s.probing || s.limit >= unlimitedFrom {
			s.probing, s.limit = false, 0
		}
	case Refused, Away:
		s.refused(o, retryAfter)
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Shared) refused(o Outcome, retryAfter time.Duration) {
	now := s.now()
	if !now.Before(s.until) { // else it began before the refusal of another
		if s.limit == 0 {
			s.limit, s.probing = float64(s.running+1), o == Away
		}
		if s.limit = max(s.limit/2, 1); s.probing {
			s.limit = 1
		}
		s.pauses++
	}
	pause := s.Pause(s.pauses - 1)
	if retryAfter > 0 {
		pause = retryAfter
	}
	if until := now.Add(pause); until.After(s.until) {
		s.until = until
	}
}

// Pause is how long to wait after so many failures in a row. No two pauses are alike.
func (s *Shared) Pause(failures int) time.Duration {
	d := min(firstPause<<min(max(failures, 0), 10), longestPause)
	var b [8]byte
	_, _ = io.ReadFull(s.random, b[:]) // without it the pause is the shortest
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
}

// Moved notes that bytes were received or acknowledged.
func (s *Shared) Moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastMove = s.now()
}

// Idle is how long nothing has moved: since began, or since the last Moved after it.
func (s *Shared) Idle(began time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastMove.After(began) {
		began = s.lastMove
	}
	return s.now().Sub(began)
}
