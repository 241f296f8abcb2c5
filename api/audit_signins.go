package api

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// signInEvery is how often the use of a token from one address makes a record.
	signInEvery = time.Hour
	// maxSignIns bounds the pairs of token and address that are remembered, some 2 MB. If there are
	// more in an hour, all are forgotten, and so records come more often.
	maxSignIns = 20_000
)

// signIn is a token that is used from an address.
type signIn struct {
	token [16]byte // the first half of its hash
	from  [16]byte // of IPv6 the /64, which one client has for itself
}

// signIns remembers which uses of tokens have made a record. It is safe for concurrent use.
type signIns struct {
	mu sync.Mutex
	at map[signIn]time.Time
}

// first reports whether a use of a token makes a record, and remembers that it does.
func (s *signIns) first(token [32]byte, from netip.Addr, now time.Time) bool {
	k := signIn{token: [16]byte(token[:16])}
	if from.IsValid() {
		k.from = from.As16()
		if from.Is6() {
			clear(k.from[8:])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.at[k]
	if known && now.Sub(last) < signInEvery {
		return false
	}
	if !known && len(s.at) >= maxSignIns {
		s.forget(now)
	}
	if s.at == nil {
		s.at = map[signIn]time.Time{}
	}
	s.at[k] = now
	return true
}

// forget makes room: it forgets what is an hour old, and everything if most of it is not.
func (s *signIns) forget(now time.Time) {
	for k, at := range s.at {
		if now.Sub(at) >= signInEvery {
			delete(s.at, k)
		}
	}
	if len(s.at) > maxSignIns/2 {
		clear(s.at)
	}
}
