package linear

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

const (
	keys      = 3 // so few that clients collide
	pieces    = 3
	inlineMax = 200
)

// contents are uploaded again and again. They are so few that digests are shared, and no two have
// one length.
var contents = [][]byte{filled(1500), filled(900), filled(150)}

func filled(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func contentOf(sum catalog.SHA256, n int64) int {
	return slices.IndexFunc(contents, func(b []byte) bool { return int64(len(b)) == n && sha256.Sum256(b) == sum })
}

func keyName(key int) string { return fmt.Sprintf("k%d", key) }

// target is a session that an answer has named.
type target struct {
	sid          uint64
	key, content int
	chunked      bool
}

// known has the sessions and memories that answers have named. The clients share it.
type known struct {
	mu       sync.Mutex
	sessions []target
	memories []catalog.MemoryID
}

func (k *known) session(t target) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.sid != 0 && !slices.Contains(k.sessions, t) {
		k.sessions = append(k.sessions, t)
	}
}

func targetOf(up upload.Upload) target {
	content := slices.IndexFunc(contents, func(b []byte) bool { return int64(len(b)) == up.BytesExpected })
	return target{uint64(up.ID), int(up.Meta.Name[1] - '0'), content, up.ChunkSize*pieces == up.BytesExpected}
}

func (k *known) memory(id catalog.MemoryID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id != (catalog.MemoryID{}) && !slices.Contains(k.memories, id) {
		k.memories = append(k.memories, id)
	}
}

// draw gives one of the newest.
func draw[T any](k *known, rng *rand.Rand, of *[]T) (out T, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(*of)
	if n == 0 {
		return out, false
	}
	return (*of)[n-1-rng.IntN(min(n, 4))], true
}

// client calls the server, one call after the other.
type client struct {
	h   *history
	n   int
	rng *rand.Rand
	w   *server
	// page is where the list that it is reading goes on.
	page *op
}

// outcomes are the errors that count as answers.
var outcomes = []struct {
	err error
	is  answer
}{
	{upload.ErrIdem, otherIdem},
	{upload.ErrAlreadyFinished, gone},
	{catalog.ErrDeleted, gone}, // since the create began
	{session.ErrIncomplete, incomplete},
	{upload.ErrChecksum, mismatch},
	{session.ErrFinished, finished},
	{session.ErrAborted, aborted},
	{session.ErrSuperseded, superseded},
	{catalog.ErrUsedUp, usedUp},
	{catalog.ErrQuota, overQuota},
	{catalog.ErrNotFound, notFound},
}

func answerOf(err error) (answer, bool) {
	if err == nil {
		return ok, true
	}
	if isRefusal(err) {
		return refused, true
	}
	for _, a := range outcomes {
		if errors.Is(err, a.err) {
			return a.is, true
		}
	}
	return "", false
}

// weights say how often each kind of call is made.
var weights = []struct {
	kind kind
	n    int
}{
	{begin, 12},
	{create, 9},
	{put, 24},
	{finish, 12},
	{batch, 6},
	{abort, 4},
	{status, 5},
	{sessions, 4},
	{trash, 6},
	{purge, 3},
	{restore, 6},
	{update, 3},
	{read, 4},
	{ping, 3},
	{list, 8},
	{counters, 8},
	{feed, 3},
	{"tick", 2},
	{revokeToken, 1},
	{revokeTicket, 1},
	{takeRole, 2},
	{giveRole, 2},
	{setQuota, 3},
}

func (c *client) kind() kind {
	sum := 0
	for _, w := range weights {
		sum += w.n
	}
	n := c.rng.IntN(sum)
	for _, w := range weights {
		if n -= w.n; n < 0 {
			return w.kind
		}
	}
	panic("unreachable")
}

// step draws a call and makes it. It is false if there is nothing yet that the call could be about.
func (c *client) step() bool {
	o := &op{kind: c.kind(), client: c.n, key: -1}
	switch o.kind {
	case begin, create:
		o.key = c.drawKey()
		if o.owner = ownerOf(o.key); o.owner == ticket {
			o.kind = begin // a ticket may nothing else
		}
		o.content, o.chunked = o.key%len(contents), o.kind == begin && o.key%keys == 0
		if c.rng.IntN(8) == 0 {
			o.content = c.rng.IntN(len(contents))
		}
		o.name = keyName(o.key)
		if o.kind == create && c.rng.IntN(3) == 0 {
			o.owner, o.key, o.name = me, -1, fmt.Sprintf("n%d", c.h.clock.Add(1))
		}
	case put, finish, abort, status, batch:
		return c.onSession(o)
	case trash, purge, restore, update, read:
		var there bool
		if o.id, there = draw(&c.h.known, c.rng, &c.h.known.memories); !there {
			return false
		}
		o.version = fmt.Sprintf("v%d", c.h.clock.Add(1))
	case ping:
		c.h.known.mu.Lock()
		o.ids = slices.Clone(c.h.known.memories)
		c.h.known.mu.Unlock()
	case list:
		c.drawList(o)
	case feed:
		o.from = c.h.start
	case setQuota:
		o.limit = max(c.rng.IntN(12)-3, 0)
	case "tick":
		c.tick()
		return true
	}
	c.call(o)
	return true
}

func (c *client) drawList(o *op) {
	if c.page != nil {
		o.inTrash, o.only, o.content = c.page.inTrash, c.page.only, c.page.content
		o.limit, o.from = c.page.limit, c.page.from
		return
	}
	o.inTrash, o.limit, o.from = c.rng.IntN(3) == 0, 1+c.rng.IntN(3)*c.rng.IntN(10), math.MaxUint64
	if !o.inTrash && c.rng.IntN(4) == 0 {
		o.only, o.content = true, c.rng.IntN(len(contents))
	}
}

func (c *client) onSession(o *op) bool {
	t, there := draw(&c.h.known, c.rng, &c.h.known.sessions)
	if !there {
		return false
	}
	o.owner = ownerOf(t.key)
	o.sids, o.piece, o.content, o.chunked = []uint64{t.sid}, c.rng.IntN(pieces), t.content, t.chunked
	o.only = o.kind == finish && c.rng.IntN(10) == 0
	targets := []target{t}
	if o.kind == batch {
		other, _ := draw(&c.h.known, c.rng, &c.h.known.sessions)
		if other.sid != t.sid && ownerOf(other.key) == o.owner {
			targets, o.sids = append(targets, other), append(o.sids, other.sid)
		}
	}
	// Most clients that finish have put everything before.
	if (o.kind == finish || o.kind == batch) && c.rng.IntN(6) > 0 {
		for _, t := range targets {
			for i := range pieces {
				p := &op{
					kind: put, client: c.n, sids: []uint64{t.sid}, piece: (i + c.n) % pieces, content: t.content,
					chunked: t.chunked, key: -1, owner: o.owner,
				}
				if !c.h.has(t.sid, p.piece) && !c.call(p) {
					return true
				}
			}
		}
	}
	c.call(o)
	return true
}

// tick lets enough time pass so that deleted content is collected.
func (c *client) tick() {
	c.w.clock.Advance(90 * time.Second)
	_, err := c.w.Keeper.Tick(context.Background())
	if err == nil {
		_, err = c.w.Keeper.Sweep(context.Background())
	}
	if err != nil && !c.h.dead.Load() {
		c.h.fail(fmt.Errorf("tick: %w", err))
	}
}

// call makes a call and records it. It is false if the client has not got its answer.
func (c *client) call(o *op) bool {
	if c.h.dead.Load() {
		return false
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	lost := false
	switch c.rng.IntN(40) {
	case 0:
		lost = true // the answer is lost on its way
	case 1:
		pause := time.Duration(c.rng.IntN(200)) * time.Microsecond
		t := time.AfterFunc(pause, stop)
		defer t.Stop()
	}
	o.epoch = c.h.epoch
	o.call = c.h.clock.Add(1)
	err := c.do(ctx, o)
	o.ret = c.h.clock.Add(1)
	var known bool
	o.answer, known = answerOf(err)
	// This looks after the answer, and the flag is set before the image is taken: so every answered
	// call is in the image.
	if errors.Is(err, session.ErrSealed) && o.kind == put {
		known, lost = true, true // the client is told to wait: an end was under way, which then came to nothing
	}
	if c.h.dead.Load() || lost || !known && ctx.Err() != nil {
		o.lost = true
		c.h.record(o)
		return false
	}
	if !known {
		c.h.fail(fmt.Errorf("[%d %d] client %d: %s: %w", o.call, o.ret, o.client, o, err))
		return false
	}
	if o.answer != ok {
		o.rows, o.shown = nil, nil
	}
	c.learn(o)
	for _, part := range parts(o, err) {
		c.h.record(part)
	}
	return o.answer == ok
}

// parts splits an answer that shows several moments. The sessions in the refusal of a batch may be
// from different moments; so may be the repeated part of a batch that was carried out. A list of
// sessions is of one moment, but each of its sessions was looked at again.
func parts(o *op, err error) (out []*op) {
	if o.kind != batch || o.answer == ok {
		out = append(out, o)
	}
	part := func(kind kind, sid uint64, is answer) *op {
		p := *o
		p.kind, p.sids, p.with, p.answer = kind, []uint64{sid}, o.sids, is
		out = append(out, &p)
		return &p
	}
	switch {
	case o.kind == sessions && o.answer == ok:
		for _, s := range o.shown {
			part(status, s.sid, ok).shown = []shown{s}
		}
	case o.kind == batch && o.answer == ok:
		for i, sid := range o.sids {
			part(echo, sid, ok).rows = o.rows[i : i+1]
		}
	case o.kind == batch:
		var b *upload.BatchError
		if errors.As(err, &b) {
			for _, f := range b.Failures {
				is, _ := answerOf(f.Err)
				part(finish, uint64(f.ID), is)
			}
		}
	}
	return out
}

// learn keeps the sessions and memories that an answer names.
func (c *client) learn(o *op) {
	for _, r := range o.rows {
		c.h.known.memory(r.id)
	}
	for _, s := range o.shown {
		c.h.known.session(s.target)
		c.h.known.memory(s.memory)
	}
	if o.kind != list {
		return
	}
	c.page = nil
	if o.more {
		next := *o
		next.from = o.rows[len(o.rows)-1].seq
		c.page = &next
	}
}
