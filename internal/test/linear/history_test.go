package linear

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
)

// history is the calls of several clients to one server, and to the servers that were started on
// what it had left.
type history struct {
	seed   uint64
	rng    *rand.Rand
	disk   *crashfs.Disk
	set    setup
	clock  atomic.Int64
	start  uint64 // events before it
	epoch  int
	dead   atomic.Bool // the server is dead: a later answer was never given
	known  known
	others others

	mu    sync.Mutex
	ops   []*op
	lost  int
	kills int
	err   error
}

func (h *history) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = errors.Join(h.err, err)
}

// record keeps an operation, except a lost one that changes nothing.
func (h *history) record(o *op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.lost {
		h.lost++
		switch o.kind {
		case status, sessions, read, ping, list, counters, feed:
			return
		}
	}
	h.ops = append(h.ops, o)
}

// has reports whether a client was told that the session has this piece.
func (h *history) has(sid uint64, piece int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(
		h.ops, func(o *op) bool { return o.kind == put && o.answer == ok && o.sids[0] == sid && o.piece == piece },
	)
}

func (h *history) contentOf(sid uint64) int {
	h.known.mu.Lock()
	defer h.known.mu.Unlock()
	return h.known.sessions[slices.IndexFunc(h.known.sessions, func(t target) bool { return t.sid == sid })].content
}

// run makes a history. Its draws depend on the seed alone. How the calls meet each other does not.
func run(seed uint64) *history {
	h := &history{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), disk: newDisk()}
	h.set = setup{
		seed: seed << 8, clock: &world.Clock{}, inMemory: h.rng.IntN(5) == 0,
		durability: durable.Durability(1 - h.rng.IntN(2)),
	}
	clients, steps, epochs := 3+h.rng.IntN(4), 0, 1
	if !h.set.inMemory && h.rng.IntN(2) == 0 {
		epochs = 2
	}
	steps = max(42/epochs/clients, 2)
	for h.epoch = 0; h.epoch < epochs && h.err == nil; h.epoch++ {
		if err := h.runServer(clients, steps, h.epoch+1 < epochs); err != nil {
			h.fail(err)
		}
	}
	return h
}

// runServer runs one server from its start to its end.
func (h *history) runServer(clients, steps int, dies bool) error {
	h.set.disk = h.disk
	h.set.seed++
	h.set.clock.Advance(time.Second)
	w, err := openServer(context.Background(), h.set)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if h.epoch == 0 {
		if h.others, err = w.invite(context.Background(), 2+h.rng.IntN(3)); err != nil {
			return errors.Join(err, w.Close())
		}
		events, err := w.events(context.Background(), 0)
		if err != nil {
			return errors.Join(err, w.Close())
		}
		h.start = uint64(len(events))
	}
	image := h.watch(dies)
	var wg sync.WaitGroup
	for n := range clients {
		c := &client{h: h, n: n, w: w, rng: rand.New(rand.NewPCG(h.seed, uint64(2+h.epoch*100+n)))}
		wg.Go(func() {
			for done := 0; done < steps && !h.dead.Load(); {
				if c.step() {
					done++
				}
			}
		})
	}
	wg.Wait()
	if dies {
		h.die(image)
	} else {
		h.last(&client{h: h, n: clients, w: w, rng: rand.New(rand.NewPCG(h.seed, 3))})
	}
	h.disk.SetHook(nil)
	err = w.Close() // on a disk that nobody looks at any more
	if dies {
		h.disk, h.dead = image.left(h), atomic.Bool{}
	}
	return err
}

// last looks at everything once more, when no call is under way.
func (h *history) last(c *client) {
	for _, o := range []*op{
		{kind: giveRole}, // so that the guest's uploads are seen
		{kind: counters},
		{kind: sessions},
		{kind: list, limit: 1000, from: math.MaxUint64},
		{kind: list, inTrash: true, limit: 1000, from: math.MaxUint64},
		{kind: feed, from: h.start},
	} {
		o.client, o.epoch, o.key = c.n, h.epoch, -1
		c.must(o)
	}
	for _, t := range slices.Clone(h.known.sessions) {
		c.must(&op{kind: status, sids: []uint64{t.sid}, key: -1, owner: ownerOf(t.key)})
	}
	for _, id := range slices.Clone(h.known.memories) {
		c.must(&op{kind: read, id: id, key: -1})
	}
}

// must is a call whose answer is not lost.
func (c *client) must(o *op) {
	o.client, o.epoch = c.n, c.h.epoch
	o.call = c.h.clock.Add(1)
	err := c.do(context.Background(), o)
	o.ret = c.h.clock.Add(1)
	var known bool
	if o.answer, known = answerOf(err); !known {
		c.h.fail(fmt.Errorf("at the end: %s: %w", o, err))
		return
	}
	if o.answer != ok {
		o.rows, o.shown = nil, nil
	}
	for _, part := range parts(o, err) {
		c.h.record(part)
	}
}

// end is the disk that a server leaves when it dies.
type end struct {
	image *crashfs.Image
	at    int64
	power bool
	keep  int
}

// watch slows the disk down now and then, so that calls meet, and takes the image of a server's
// death at one of its steps.
func (h *history) watch(dies bool) *end {
	e := &end{power: h.set.durability == durable.Power && h.rng.IntN(3) > 0, keep: []int{0, 0, 50, 100}[h.rng.IntN(4)]}
	at, rng := 1+h.rng.IntN(120), rand.New(rand.NewPCG(h.seed, uint64(50+h.epoch)))
	n := 0
	h.disk.SetHook(func(s crashfs.Step) *crashfs.Fault {
		if !s.Changes() || e.image != nil {
			return nil
		}
		sync := s.Op == crashfs.OpSync && strings.HasPrefix(s.Path, data+"/meta")
		n++
		dead := dies && n >= at && (sync || rng.IntN(3) == 0)
		if sync && rng.IntN(3) == 0 || dead {
			time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		}
		if dead {
			h.dead.Store(true)
			e.at = h.clock.Add(1)
			e.image = s.Image()
		}
		return nil
	})
	return e
}

// die ends the record of a server. If none of its steps was the last, it dies now, when no call is
// under way.
func (h *history) die(e *end) {
	if e.image == nil {
		h.dead.Store(true)
		e.at, e.image = h.clock.Add(1), h.disk.Image()
	}
	ops := slices.DeleteFunc(h.ops, func(o *op) bool { return o.call > e.at }) // none of them is in the image
	h.ops = append(ops, &op{kind: crash, client: 9, epoch: h.epoch, call: e.at, ret: e.at, key: -1})
	h.kills++
	h.close(h.epoch)
}

// close ends the operations of a server that have no answer.
func (h *history) close(epoch int) {
	now := h.clock.Add(1)
	for _, o := range h.ops {
		if o.lost && o.epoch == epoch {
			o.ret = now
		}
	}
}

func (e *end) left(h *history) *crashfs.Disk {
	if e.power {
		return e.image.Crash(h.rng, e.keep)
	}
	return e.image.Kill()
}

// check asks whether some order explains the history.
func (h *history) check(limit time.Duration) (porcupine.CheckResult, porcupine.Model, []porcupine.Operation) {
	h.close(h.kills)
	c := &checker{start: h.start, uploads: h.others.uploads}
	for _, o := range h.ops {
		if o.kind == feed && len(o.events) > len(c.events) {
			c.events = o.events
		}
		if o.kind == sessions {
			o.ending = h.ending(o)
		}
		o.meanwhile, o.pending = h.meanwhile(o), h.pending(o)
	}
	var all []porcupine.Operation
	for _, o := range append(h.expelled(c.events), h.ops...) {
		all = append(all, porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: o.call, Return: o.ret})
	}
	model := porcupine.Model{
		Init:              func() any { return state{seq: h.start} },
		Step:              func(st, in, _ any) (bool, any) { return c.try(st, in) },
		Equal:             func(a, b any) bool { return a.(state).equal(b.(state)) },
		Hash:              func(st any) uint64 { return st.(state).hash() },
		DescribeOperation: func(in, _ any) string { return in.(*op).String() },
		DescribeState:     func(st any) string { return st.(state).String() },
	}
	return porcupine.CheckOperationsTimeout(model, all, limit), model, all
}

// ending gives the sessions for which an end was requested while o ran.
func (h *history) ending(o *op) (out []uint64) {
	for _, e := range h.ops {
		if (e.kind == finish || e.kind == batch || e.kind == abort) && e.call < o.ret && o.call < e.ret {
			out = append(append(out, e.sids...), e.with...)
		}
	}
	return out
}
