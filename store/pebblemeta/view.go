package pebblemeta

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// views hands out the newest durable snapshot.
type views struct {
	mu      sync.Mutex
	current *view
	changed chan struct{} // closed, and made anew, when current changes
	shown   atomic.Uint64 // the commit of current
}

// view is a snapshot taken together with commit seq. The last release closes it.
type view struct {
	*pebble.Snapshot
	seq  uint64
	refs int // under views.mu; the current view has one by itself
}

func (vs *views) open(s *pebble.Snapshot) {
	vs.current, vs.changed = &view{Snapshot: s, refs: 1}, make(chan struct{})
}

func (vs *views) close() { vs.release(vs.current) }

// atLeast gives a view that is at least as new as commit seq. It waits until there is one. The
// caller must release the view.
func (vs *views) atLeast(ctx context.Context, seq uint64) (*view, error) {
	for {
		vs.mu.Lock()
		v, changed := vs.current, vs.changed
		if v.seq >= seq {
			v.refs++
			vs.mu.Unlock()
			return v, nil
		}
		vs.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// wait returns when commit seq is durable and published.
func (vs *views) wait(ctx context.Context, seq uint64) error {
	v, err := vs.atLeast(ctx, seq)
	if err == nil {
		vs.release(v)
	}
	return err
}

func (vs *views) release(v *view) {
	vs.mu.Lock()
	v.refs--
	last := v.refs == 0
	vs.mu.Unlock()
	if last {
		// The Close of a snapshot can't fail: it only holds a number.
		_ = v.Close()
	}
}

// publish shows the snapshot of commit seq, which is durable, unless a newer one is shown already.
func (vs *views) publish(s *pebble.Snapshot, seq uint64) {
	v := &view{Snapshot: s, seq: seq, refs: 1}
	vs.mu.Lock()
	if vs.current.seq < seq {
		v, vs.current = vs.current, v
		vs.shown.Store(seq)
		close(vs.changed)
		vs.changed = make(chan struct{})
	}
	vs.mu.Unlock()
	vs.release(v)
}
