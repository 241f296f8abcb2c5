package api

import (
	"errors"
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/access"
)

// rates bounds what each key may do in a second: each principal, or each address. A key has a
// bucket that is full at first. Each act takes one from it, and it fills again at the rate.
//
// A bucket that has filled is as good as none, and is forgotten: after one to two times the time
// that an empty one takes to fill. So no act of anybody else changes what a key may do, and at most
// maxRates keys have a bucket. Keys beyond that share one bucket.
//
// It is safe for concurrent use. A nil rates has no bound.
type rates[K comparable] struct {
	limit rate.Limit
	burst int
	fill  time.Duration // how long an empty bucket takes to fill

	mu     sync.Mutex
	turned time.Time
	recent map[K]*rate.Limiter // used since turned
	older  map[K]*rate.Limiter // used in the time before
	others *rate.Limiter       // of keys beyond the bound
}

const (
	// maxRates is how many keys have a bucket of their own, some 200 bytes each.
	maxRates = 16 << 10
	// requestBurst and failureBurst are how many seconds' worth a full bucket has.
	requestBurst, failureBurst = 2, 5
	// MaxRate bounds Config.RequestRate and Config.FailedAuthRate.
	MaxRate = 1_000_000
)

// newRates makes rates of so many a second, with so many seconds' worth at once. It returns nil for
// 0 a second.
func newRates[K comparable](perSecond, seconds int64) *rates[K] {
	if perSecond == 0 {
		return nil
	}
	r := &rates[K]{
		limit: rate.Limit(perSecond), burst: int(perSecond * seconds), fill: time.Duration(seconds) * time.Second,
		recent: map[K]*rate.Limiter{}, older: map[K]*rate.Limiter{},
	}
	r.others = rate.NewLimiter(r.limit, r.burst)
	return r
}

// take takes one from the key's bucket. If that is empty it takes nothing, and returns when there
// is one again: a millisecond at least.
func (r *rates[K]) take(key K, now time.Time) (wait time.Duration) {
	if r == nil {
		return 0
	}
	l := r.bucket(key, now)
	if l.AllowN(now, 1) {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	return time.Duration(max(math.Ceil(missing/float64(r.limit)*1000), 1)) * time.Millisecond
}

func (r *rates[K]) bucket(key K, now time.Time) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.turned) >= r.fill {
		clear(r.older) // they have not been used for so long that they are full
		r.recent, r.older, r.turned = r.older, r.recent, now
	}
	l := r.recent[key]
	if l != nil {
		return l
	}
	if l = r.older[key]; l != nil {
		delete(r.older, key)
	} else if len(r.recent)+len(r.older) >= maxRates {
		return r.others
	} else {
		l = rate.NewLimiter(r.limit, r.burst)
	}
	r.recent[key] = l
	return l
}

// checkRate counts a request for its principal. The error is a refusal if the principal has sent
// too many.
func (s *Server) checkRate(c *call) error {
	wait := s.limits.requestRate.take(c.caller.Principal, s.machine.now())
	if wait == 0 {
		return nil
	}
	s.refused.requestRate.Add(1)
	return &refusal{
		code: CodeResourceExhausted, detail: "too many requests of yours in a second; whoami has the bound",
		retry: wait, limit: s.cfg.RequestRate, late: true,
	}
}

// noteFailure counts a request without a valid token, or with a read link that is not valid, for
// its address. It returns what to answer to it: err, or a refusal if too many have come from there.
// A request with a valid token or link is not counted and is not refused for those that others send
// from its address. Whether a token is valid is not known before the store was asked; a look-up
// costs less than the request. Past the bound each refusal is late, so a flood is slow.
func (s *Server) noteFailure(c *call, err error) error {
	guessed := errors.Is(err, access.ErrUnauthenticated) || errors.Is(err, errTokenInURL) ||
		errors.Is(err, access.ErrHidden) // of a link
	if !guessed || isProbe(c.req) {
		return err
	}
	wait := s.limits.failures.take(network(c.client), s.machine.now())
	if wait == 0 {
		return err
	}
	s.refused.failures.Add(1)
	return &refusal{
		code:   CodeResourceExhausted,
		detail: "this request has no valid token or link, and too many such ones have come from your address",
		retry:  wait, late: true,
	}
}

// network returns what counts as one address. Whoever has an address of IPv6 has a whole /64.
func network(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return addr
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return p.Addr()
}
