package localblob

import "sync"

// group lets callers share runs of a sync: one who asks while a run is on waits for the next, which begins after it has asked. Each gets
// the error of the run that served it. The zero group is ready.
type group struct {
	mu        sync.Mutex
	now, next *turn
}

type turn struct {
	over chan struct{}
	err  error
}

func (g *group) do(run func() error) error {
	g.mu.Lock()
	if t := g.next; t != nil {
		g.mu.Unlock()
		<-t.over
		return t.err
	}
	mine, before := &turn{over: make(chan struct{})}, g.now
	if before == nil {
		g.now = mine
		g.mu.Unlock()
	} else {
		g.next = mine
		g.mu.Unlock()
		<-before.over
		g.mu.Lock()
		g.now, g.next = mine, nil // from here on it covers nobody else
		g.mu.Unlock()
	}
	mine.err = run()
	g.mu.Lock()
	if g.now == mine {
		g.now = nil
	}
	g.mu.Unlock()
	close(mine.over)
	return mine.err
}
