package localblob

import (
	"errors"
	"sync"
)

// groupSync lets callers share runs of a sync. A caller that asks while a run is on waits for the
// next run, which begins after it has asked. Each caller gets the error of the run that served it.
// The zero groupSync is ready.
type groupSync struct {
	mu        sync.Mutex
	now, next *syncRun
}

type syncRun struct {
	done chan struct{}
	err  error
}

// errUnfinished is the error of a run that did not return.
var errUnfinished = errors.New("a sync has broken off")

func (g *groupSync) do(run func() error) error {
	g.mu.Lock()
	if t := g.next; t != nil {
		g.mu.Unlock()
		<-t.done
		return t.err
	}
	current, before := &syncRun{done: make(chan struct{})}, g.now
	if before == nil {
		g.now = current
		g.mu.Unlock()
	} else {
		g.next = current
		g.mu.Unlock()
		<-before.done
		g.mu.Lock()
		g.now, g.next = current, nil // from here on nobody else joins it
		g.mu.Unlock()
	}
	defer func() { // also after a panic: others wait for the end
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.now == current {
			g.now = nil
		}
		close(current.done)
	}()
	current.err = errUnfinished
	current.err = run()
	return current.err
}
