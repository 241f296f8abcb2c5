package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/access"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

const (
	crowdOf   = 100 // begins at once
	fitting   = 10  // uploads that each bound allows
	crowdSize = 300 // bytes of each upload
)

// bounds are what a crowd of begins meets. set sets one so that it fits so many uploads, and gives
// the secrets with which these are begun. spends says which uploads the bound does not give back:
// those that are stored, those that were ever finished, or none.
var bounds = map[string]struct {
	set     func(c *crowd, guest string) []string
	refusal error
	spends  func(c *crowd) int
}{
	"quota_memories": {
		func(c *crowd, guest string) []string {
			c.ok(c.quota(memories.CapsuleChange{QuotaMemories: new(int64(fitting))}))
			return []string{c.token(guest)}
		}, catalog.ErrQuota, (*crowd).stored,
	},
	"quota_bytes": {
		func(c *crowd, guest string) []string {
			c.ok(c.quota(memories.CapsuleChange{QuotaBytes: new(int64(fitting*crowdSize + crowdSize - 1))}))
			return []string{c.token(guest)}
		}, catalog.ErrQuota, (*crowd).stored,
	},
	"quota_bytes of a principal": {
		func(c *crowd, guest string) []string {
			c.limit(guest, catalog.PrincipalChange{QuotaBytes: new(int64(fitting * crowdSize))})
			return []string{c.token(guest)}
		}, catalog.ErrQuota, func(*crowd) int { return 0 },
	},
	"max_open_sessions": {
		func(c *crowd, guest string) []string {
			c.limit(guest, catalog.PrincipalChange{MaxOpenSessions: new(int64(fitting))})
			return []string{c.token(guest)}
		}, catalog.ErrTooManySessions, func(*crowd) int { return 0 },
	},
	"max_open_sessions of the maker of tickets": {
		func(c *crowd, guest string) []string {
			c.limit(guest, catalog.PrincipalChange{MaxOpenSessions: new(int64(fitting))})
			token := c.token(guest)
			return []string{token, c.ticket(token, crowdOf), c.ticket(token, crowdOf)}
		}, catalog.ErrTooManySessions, func(*crowd) int { return 0 },
	},
	"uploads of a ticket": {
		func(c *crowd, guest string) []string { return []string{c.ticket(c.token(guest), fitting)} },
		catalog.ErrUsedUp, func(c *crowd) int { return c.finished() },
	},
}

// crowd is many clients of one server, which is killed now and then.
type crowd struct {
	tenant

	rng     *rand.Rand
	st      setup
	disk    *crashfs.Disk
	secrets []string

	dead  atomic.Bool // the image of the kill is taken: an answer was never given
	image *crashfs.Image

	mu    sync.Mutex
	known map[session.SessionID]*member
	made  int
}

// member is a session that an answer has named.
type member struct {
	as      string
	content []byte
	is      session.State // 0: an end was tried, and not answered
	memory  catalog.MemoryID
}

func (c *crowd) quota(change memories.CapsuleChange) error {
	_, err := c.w.Memories.UpdateCapsule(ctx, c.w.Me, "default", change)
	return err
}

func (c *crowd) limit(guest string, change catalog.PrincipalChange) {
	c.t.Helper()
	_, err := c.w.Access.UpdatePrincipal(ctx, c.w.Me, guest, change)
	c.ok(err)
}

func (c *crowd) token(of string) string {
	c.t.Helper()
	_, secret, err := c.w.Access.CreateToken(ctx, c.w.Me, access.TokenRequest{Principal: of})
	c.ok(err)
	return secret
}

func (c *crowd) ticket(token string, uploads int64) string {
	c.t.Helper()
	_, secret, err := c.w.Access.CreateGrant(ctx, c.as(token), access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Ticket, Capsule: "default", MaxBytes: crowdSize, Uploads: uploads},
		TTL:   1000 * hour,
	})
	c.ok(err)
	return secret
}

func (c *crowd) as(secret string) access.Caller {
	c.t.Helper()
	caller, err := c.w.Access.Authenticate(ctx, secret)
	c.ok(err)
	return caller
}

// open starts a server on the disk.
func (c *crowd) open() {
	c.t.Helper()
	c.st.seed++
	w, err := openServer(c.disk, c.st)
	c.ok(err)
	c.w = w
}

// kills runs calls at once, and kills the server at one of the steps that they do to the disk, or
// behind all of them. Then the next server runs.
func (c *crowd) kills(calls ...func()) {
	c.t.Helper()
	at, n := 1+c.rng.IntN(12), 0
	c.disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if s.Changes() && c.image == nil {
			if n++; n == at {
				c.dead.Store(true)
				c.image = s.Image()
			}
		}
		return nil
	})
	together(calls...)
	c.disk.SetHook(nil)
	if c.image == nil {
		c.image = c.disk.Image()
	}
	_ = c.w.Close() // on a disk that is not looked at any more
	c.disk, c.image, c.dead = c.image.Kill(), nil, atomic.Bool{}
	c.open()
	c.look()
}

// together runs calls at once.
func together(calls ...func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, call := range calls {
		wg.Go(func() {
			<-start
			call()
		})
	}
	close(start)
	wg.Wait()
}

// answered notes an answer, unless the server was dead before.
func (c *crowd) answered(has func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead.Load() {
		has()
	}
}

// begins gives begins of a whole crowd. ok counts those that succeed.
func (c *crowd) begins(refusal error, ok *int) (calls []func()) {
	for i := range crowdOf {
		secret := c.secrets[i%len(c.secrets)]
		caller := c.as(secret)
		c.made++
		content := bytesOf("crowd", uint64(c.made), crowdSize)
		calls = append(calls, func() {
			up, err := c.w.Uploads.Begin(ctx, caller, upload.BeginRequest{
				Capsule: "default", Meta: catalog.Meta{Name: fmt.Sprintf("%x", content[:8])}, Bytes: crowdSize, Chunks: -1,
				ChunkSize: chunk,
			})
			c.answered(func() {
				if err == nil {
					*ok++
					c.known[up.ID] = &member{as: secret, content: content, is: session.Open}
				} else if !errors.Is(err, refusal) {
					c.t.Errorf("a begin is refused with %v, want %v", err, refusal)
				}
			})
		})
	}
	return calls
}

// ends gives the ends of about two of three open sessions that clients know.
func (c *crowd) ends() (calls []func()) {
	for _, id := range slices.Sorted(maps.Keys(c.known)) {
		m := c.known[id]
		if m.is != session.Open {
			continue
		}
		caller := c.as(m.as)
		switch c.rng.IntN(3) {
		case 0:
			calls = append(calls, func() { c.finishOne(caller, id, m) })
		case 1:
			calls = append(calls, func() {
				c.unsure(m)
				err := c.w.Uploads.Abort(ctx, caller, id)
				c.answered(func() { c.noted(m, session.Aborted, err) })
			})
		}
	}
	return calls
}

func (c *crowd) finishOne(caller access.Caller, id session.SessionID, m *member) {
	err := c.w.Uploads.PutChunk(ctx, caller, id, 0, bytes.NewReader(m.content), upload.Put{Length: crowdSize})
	if err == nil {
		c.unsure(m)
		var stored catalog.Memory
		stored, err = c.w.Uploads.Finish(ctx, caller, upload.FinishRequest{
			ID: id, SHA256: sha256.Sum256(m.content), Length: crowdSize,
		})
		c.answered(func() { m.memory = stored.ID })
	}
	c.answered(func() { c.noted(m, session.Finished, err) })
}

func (c *crowd) unsure(m *member) { c.answered(func() { m.is = 0 }) }

// noted notes an end. c.mu is held.
func (c *crowd) noted(m *member, is session.State, err error) {
	if m.is = is; err != nil {
		c.t.Errorf("an end is refused: %v", err)
	}
}

// look compares what the server has with the answers, and the counters with the rows.
func (c *crowd) look() {
	c.t.Helper()
	for id, m := range c.known {
		s, err := c.w.Engine.Status(ctx, id)
		c.ok(err)
		if m.is != 0 && m.is != s.State {
			c.t.Fatalf("session %s was said to be %s, and is %s", id, m.is, s.State)
		}
		m.is = s.State
	}
	c.ok(audit(c.w))
}

func (c *crowd) opened() int {
	c.t.Helper()
	st, err := c.w.Engine.Stats(ctx)
	c.ok(err)
	return int(st.Open)
}

func (c *crowd) finished() (n int) {
	for _, m := range c.known {
		if m.is == session.Finished {
			n++
		}
	}
	return n
}

// stored counts the memories.
func (c *crowd) stored() (n int) {
	c.t.Helper()
	c.ok(eachMemory(c.w, false, func(catalog.Memory) { n++ }))
	return n
}

// purges deletes some memories.
func (c *crowd) purges() {
	c.t.Helper()
	c.ok(eachMemory(c.w, false, func(m catalog.Memory) {
		if c.rng.IntN(2) == 0 {
			c.ok(c.w.Memories.Delete(ctx, c.w.Me, m.ID, true))
		}
	}))
}

// tick lets an hour pass. While the server is dead it may end anything.
func (c *crowd) tick() {
	c.st.clock.Advance(hour)
	_, err := c.w.Keeper.Tick(ctx)
	c.answered(func() {
		if err != nil {
			c.t.Errorf("tick: %v", err)
		}
	})
}

// expire lets each open session end by its time. The server is killed on the way.
func (c *crowd) expire() {
	c.t.Helper()
	c.forgetOpen()
	for range ttl / hour {
		c.tick()
	}
	c.kills(c.tick)
	c.forgetOpen()
	for range 2 {
		c.tick()
	}
}

// clear aborts all open sessions. The server is killed on the way.
func (c *crowd) clear() {
	c.t.Helper()
	c.forgetOpen()
	c.kills(func() { _, _ = c.w.Engine.ClearAll(ctx, c.w.Uploads.Release) })
	c.forgetOpen()
	_, err := c.w.Engine.ClearAll(ctx, c.w.Uploads.Release)
	c.ok(err)
}

// forgetOpen: each open session may be ended by the server.
func (c *crowd) forgetOpen() {
	for _, m := range c.known {
		if m.is == session.Open {
			m.is = 0
		}
	}
}

// nothingReserved: no capsule and no principal has anything reserved, and the tickets count the
// finished uploads and no others.
func (c *crowd) nothingReserved() {
	c.t.Helper()
	if n := c.opened(); n != 0 {
		c.t.Fatalf("%d sessions are open", n)
	}
	done := map[string]int64{}
	for _, m := range c.known {
		if m.is == session.Finished {
			done[c.as(m.as).Principal]++
		}
	}
	c.ok(c.w.Catalog.View(ctx, func(r catalog.Reader) error {
		for row, err := range catalog.Capsules.After(r, "") {
			if err != nil || row.Sessions != 0 || row.Reserved != 0 {
				c.t.Errorf("capsule %+v, %v", row, err)
			}
		}
		for u, err := range catalog.Usages.After(r, "") {
			c.t.Errorf("usage %+v, %v", u, err)
		}
		for g, err := range catalog.Grants.After(r, "") {
			if err != nil || g.Open != 0 || g.Done != done[g.ID] {
				c.t.Errorf("ticket %+v, and %d uploads are finished: %v", g, done[g.ID], err)
			}
		}
		return nil
	}))
}

// † I15, I17: Of 100 begins at once exactly as many succeed as the bound fits: at first, and again
// when some uploads have ended in any way, with kills of the server in between and within. Finished
// uploads count as the bound says. In the end nothing is reserved.
func TestABoundHoldsForACrowd(t *testing.T) {
	rounds := 2
	if withRace {
		rounds = 1
	}
	for name, b := range bounds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) {
				c := newCrowd(t, seed)
				guest, err := c.w.Access.CreatePrincipal(ctx, c.w.Me, "guest", false)
				c.ok(err)
				c.ok(c.quota(memories.CapsuleChange{Controllers: &[]string{guest.ID}}))
				c.secrets = b.set(c, guest.ID)
				exactly := func() {
					t.Helper()
					free, ok := fitting-c.opened()-b.spends(c), 0
					together(c.begins(b.refusal, &ok)...)
					if ok != free {
						t.Fatalf("seed %d: %d begins of %d succeed, and %d fit", seed, ok, crowdOf, free)
					}
				}
				if seed%2 == 0 {
					exactly()
				}
				for range rounds {
					c.kills(c.begins(b.refusal, new(int))...)
					exactly()
					together(c.ends()...)
					exactly()
					c.kills(c.ends()...)
					exactly()
					if c.purges(); c.rng.IntN(2) == 0 {
						c.expire()
					} else {
						c.clear()
					}
					c.look()
					c.nothingReserved()
				}
				exactly()
				c.clear()
				c.look()
				c.nothingReserved()
				c.ok(c.w.Close())
			}
		})
	}
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	c := &crowd{
		rng: rand.New(rand.NewPCG(seed, 5)), disk: newDisk(), known: map[session.SessionID]*member{},
		st: setup{durability: durable.Durability(seed / 2 % 2), clock: &world.Clock{}, seed: seed << 10},
	}
	c.tenant.t = t
	c.open()
	return c
}
