package api

import (
	"context"
	"slices"
	"sync"
	"time"
)

// fairQueue shares the processors among the principals whose requests compute without waiting for
// anything: lists, states of uploads, and others that only read records and make a long answer.
// Go's scheduler is fair to goroutines. Without the queue a principal with a hundred lists leaves
// the others a hundredth of the processors.
//
// At most max of these requests compute at one time. Those of one principal have half of the
// processors while other principals have requests. Requests that wait hold their slots among the
// requests, and these are bounded (limiter). Principals are served round robin.
type fairQueue struct {
	max   int
	alone func(principal string) bool // no other principal has a request

	mu          sync.Mutex
	running     int
	byPrincipal map[string]*principalQueue // principals without requests are not in it
	ready       []*principalQueue          // those with requests that wait; the next one is first
}

// principalQueue has the requests of one principal.
type principalQueue struct {
	principal string
	running   int
	waiting   []chan struct{}
}

const (
	// computeWait is how long a request waits for a processor.
	computeWait = 10 * time.Second
	// computeSlice is how long a request keeps it. One that takes longer waits for something else,
	// or makes a very long answer, and goes on beside the others.
	computeSlice = 100 * time.Millisecond
)

func newFairQueue(most int, alone func(string) bool) *fairQueue {
	return &fairQueue{max: most, alone: alone, byPrincipal: map[string]*principalQueue{}}
}

// enter waits until the principal may compute. leave ends that, and may be called again. After
// computeWait the error is errOverShare if the principal's own requests compute, and errBusy if
// only those of others do.
func (q *fairQueue) enter(ctx context.Context, principal string) (leave func(), err error) {
	if err := q.wait(ctx, principal); err != nil {
		return nil, err
	}
	once := sync.OnceFunc(func() { q.leave(principal) })
	late := time.AfterFunc(computeSlice, once)
	return func() {
		late.Stop()
		once()
	}, nil
}

func (q *fairQueue) wait(ctx context.Context, principal string) error {
	q.mu.Lock()
	p := q.byPrincipal[principal]
	if p == nil {
		p = &principalQueue{principal: principal}
		q.byPrincipal[principal] = p
	}
	ready := make(chan struct{})
	if p.waiting = append(p.waiting, ready); len(p.waiting) == 1 {
		q.ready = append(q.ready, p)
	}
	q.startWaiting()
	q.mu.Unlock()
	late := time.NewTimer(computeWait)
	defer late.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	case <-late.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(p.waiting, ready)
	if i < 0 { // it was let in meanwhile
		return nil
	}
	if p.waiting = slices.Delete(p.waiting, i, i+1); len(p.waiting) == 0 {
		q.ready = slices.DeleteFunc(q.ready, func(t *principalQueue) bool { return t == p })
		q.forget(p)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case p.running > 0:
		return errOverShare
	}
	return errBusy
}

func (q *fairQueue) leave(principal string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.byPrincipal[principal]
	p.running--
	q.running--
	q.forget(p)
	q.startWaiting()
}

// forget removes the queue of a principal without requests. mu is held.
func (q *fairQueue) forget(p *principalQueue) {
	if p.running == 0 && len(p.waiting) == 0 {
		delete(q.byPrincipal, p.principal)
	}
}

// startWaiting lets in as many requests as may compute. mu is held.
func (q *fairQueue) startWaiting() {
	for i := 0; i < len(q.ready) && q.running < q.max; {
		p := q.ready[i]
		if p.running >= max(q.max/2, 1) && (p.running >= q.max || !q.alone(p.principal)) {
			i++
			continue
		}
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
		p.running++
		q.running++
		q.ready = slices.Delete(q.ready, i, i+1)
		if len(p.waiting) > 0 {
			q.ready = append(q.ready, p)
		}
	}
}
