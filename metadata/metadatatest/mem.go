// Package metadatatest has the conformance suite that every store of metadata passes, and a store
// in memory for tests. It has no test of a concrete store.
package metadatatest

import (
	"context"
	"slices"
	"sync"

	"sluice/catalog"
	"sluice/metadata"
	"sluice/session"
)

// Mem is a store of metadata in memory. It commits jointly, as the real ones do.
type Mem struct {
	sessions jointSessions
	catalog  jointCatalog
}

var _ metadata.Store = (*Mem)(nil)

// Sessions implements metadata.Store.
func (m *Mem) Sessions() session.Store { return m.sessions }

// Catalog implements metadata.Store.
func (m *Mem) Catalog() catalog.Store { return m.catalog }

// NewMem makes an empty store. A hook's missing function takes no part.
func NewMem(hook metadata.Hook) *Mem {
	var joint sync.Mutex
	var mem *session.Mem
	rows := catalog.NewMemWith(func(id session.SessionID, gen uint64, to session.State) error {
		_, err := mem.Move(context.Background(), id, session.Step{Gen: gen, To: to})
		return err
	})
	mem = session.NewMemWith(session.MemObservers{Changed: func(
		ctx context.Context, before *session.Session, after session.Session,
	) error {
		return rows.Update(ctx, func(tx catalog.Tx) error {
			if hook.Decide != nil {
				if err := hook.Decide(ctx, tx, after); err != nil {
					return err
				}
			}
			if hook.Reserve == nil || before != nil && before.BytesExpected >= 0 {
				return nil
			}
			if before == nil {
				return hook.Reserve(tx, nil, clone(after))
			}
			was := clone(*before)
			return hook.Reserve(tx, &was, clone(after))
		})
	}})
	return &Mem{jointSessions{mem, &joint}, jointCatalog{rows, mem, &joint}}
}

// clone gives a copy that shares nothing with s.
func clone(s session.Session) session.Session {
	s.Note, s.Received, s.Dropped = slices.Clone(s.Note), slices.Clone(s.Received), slices.Clone(s.Dropped)
	return s
}

// jointSessions and jointCatalog share one lock, so that a hook of one may call the other.
type jointSessions struct {
	*session.Mem
	joint *sync.Mutex
}

func (j jointSessions) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	j.joint.Lock()
	defer j.joint.Unlock()
	return j.Mem.Create(ctx, s)
}

func (j jointSessions) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	j.joint.Lock()
	defer j.joint.Unlock()
	return j.Mem.Record(ctx, id, gen, c)
}

func (j jointSessions) Move(ctx context.Context, id session.SessionID, step session.Step) (session.Session, error) {
	j.joint.Lock()
	defer j.joint.Unlock()
	return j.Mem.Move(ctx, id, step)
}

type jointCatalog struct {
	*catalog.Mem
	sessions *session.Mem
	joint    *sync.Mutex
}

func (j jointCatalog) Update(ctx context.Context, f func(catalog.Tx) error) error {
	j.joint.Lock()
	defer j.joint.Unlock()
	return j.Mem.Update(ctx, func(tx catalog.Tx) error { return f(jointTx{tx, j.sessions}) })
}

// jointTx refuses the end of a session while the closure runs, as a store does that has both in one
// transaction. So if one end of a batch is refused, none is carried out.
type jointTx struct {
	catalog.Tx
	sessions *session.Mem
}

func (t jointTx) EndSession(id session.SessionID, gen uint64, to session.State) error {
	s, err := t.sessions.Load(context.Background(), id)
	if err == nil && s.State == session.Open {
		err = session.ErrFenced
	}
	if err == nil {
		_, _, err = session.Transition(s, session.Step{Gen: gen, To: to})
	}
	if err != nil {
		return err
	}
	return t.Tx.EndSession(id, gen, to)
}
