package oidc

import (
	"sync"
	"time"

	"sluice/access"
)

// mostVerified bounds the tokens that are remembered. One takes a KiB at most.
const mostVerified = 4096

// cache remembers verified tokens by their hashes until they end, so that not every request costs a
// signature. It says nothing of the principal, whom access looks up for each request.
type cache struct {
	mu    sync.Mutex
	who   map[[32]byte]access.External
	epoch uint64 // grows when the issuer's keys change
}

// get gives what a token says, and the epoch to put it with if it is not there.
func (c *cache) get(id [32]byte, now time.Time) (who access.External, epoch uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if who, ok = c.who[id]; ok && !now.Before(who.Expires.Add(access.ClockSkew)) {
		delete(c.who, id)
		return access.External{}, c.epoch, false
	}
	return who, c.epoch, ok
}

// put remembers a token that was verified with the keys of an epoch. If the cache is full, another
// one is forgotten.
func (c *cache) put(id [32]byte, who access.External, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return // its key may be gone
	}
	if c.who == nil {
		c.who = map[[32]byte]access.External{}
	}
	if len(c.who) >= mostVerified {
		for other := range c.who {
			delete(c.who, other)
			break
		}
	}
	c.who[id] = who
}

// clear forgets all tokens: a key with which one was verified may be withdrawn.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.who = nil
	c.epoch++
}
