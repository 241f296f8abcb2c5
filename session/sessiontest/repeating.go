package sessiontest

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"

	"sluice/session"
)

// Repeating returns store as a caller sees it whose answers get lost. It does about every second
// call twice, and returns the second answer. Before and between, other calls get a chance to run.
func Repeating(store session.Store) session.Store {
	return &repeating{store: store, rand: rand.New(rand.NewPCG(1, 2))}
}

type repeating struct {
	store session.Store
	mu    sync.Mutex
	rand  *rand.Rand
}

// onceOrTwice calls f once or twice.
func (r *repeating) onceOrTwice(f func()) {
	r.mu.Lock()
	twice, before, between := r.rand.IntN(2) == 0, r.rand.IntN(8), r.rand.IntN(8)
	r.mu.Unlock()
	yield(before)
	f()
	if twice {
		yield(between)
		f()
	}
}

func yield(n int) {
	for range n {
		runtime.Gosched()
	}
}

// Create implements session.Store.
func (r *repeating) Create(ctx context.Context, s session.Session) (got session.Session, created bool, err error) {
	r.onceOrTwice(func() { got, created, err = r.store.Create(ctx, s) })
	return got, created, err
}

// Load implements session.Store.
func (r *repeating) Load(ctx context.Context, id session.SessionID) (s session.Session, err error) {
	r.onceOrTwice(func() { s, err = r.store.Load(ctx, id) })
	return s, err
}

// Record implements session.Store.
func (r *repeating) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (s session.Session, err error) {
	r.onceOrTwice(func() { s, err = r.store.Record(ctx, id, gen, c) })
	return s, err
}

// Move implements session.Store.
func (r *repeating) Move(ctx context.Context, id session.SessionID, step session.Step) (s session.Session, err error) {
	r.onceOrTwice(func() { s, err = r.store.Move(ctx, id, step) })
	return s, err
}

// Entries implements session.Store.
func (r *repeating) Entries(
	ctx context.Context, id session.SessionID, at session.Range, n int,
) (es []session.Entry, err error) {
	r.onceOrTwice(func() { es, err = r.store.Entries(ctx, id, at, n) })
	return es, err
}

// List implements session.Store.
func (r *repeating) List(ctx context.Context, q session.Query) (page []session.Session, next string, err error) {
	r.onceOrTwice(func() { page, next, err = r.store.List(ctx, q) })
	return page, next, err
}

// KeepTime implements session.Store.
func (r *repeating) KeepTime(ctx context.Context, running int64) (newest int64, err error) {
	r.onceOrTwice(func() { newest, err = r.store.KeepTime(ctx, running) })
	return newest, err
}

// Stats implements session.Store.
func (r *repeating) Stats(ctx context.Context) (s session.Stats, err error) {
	r.onceOrTwice(func() { s, err = r.store.Stats(ctx) })
	return s, err
}

// Restart restarts the store, if it can be; see TestModel.
func (r *repeating) Restart() error { return restart(r.store) }

// Close closes the store, if it can be.
func (r *repeating) Close() error { return shut(r.store) }
