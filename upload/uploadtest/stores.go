package uploadtest

import (
	"context"
	"sync"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// Stores are a session store and a catalog store in memory that commit jointly, as the real ones do: creating a
// session reserves quota in the same step, and an Update that ends a session ends it in the same step.
type Stores struct {
	Sessions session.Store
	Catalog  catalog.Store
}

// NewStores makes an empty pair.
func NewStores(bounds catalog.Bounds) Stores { return newStores(upload.Reserving(bounds)) }

// newStores makes a pair whose sessions are created together with what changed does; it may be nil.
func newStores(changed func(tx catalog.Tx, before *session.Session, after session.Session) error) Stores {
	var joint sync.Mutex
	var mem *session.Mem
	rows := catalog.NewMem(func(id, gen uint64, state uint8) error {
		_, err := mem.Move(context.Background(), session.SessionID(id), session.Step{Gen: gen, To: session.State(state)})
		return err
	})
	mem = session.NewMem(session.MemHooks{Changed: func(before *session.Session, after session.Session) error {
		if changed == nil || before != nil && before.BytesExpected >= 0 {
			return nil
		}
		return rows.Update(context.Background(), func(tx catalog.Tx) error { return changed(tx, before, after) })
	}})
	return Stores{jointSessions{mem, &joint}, jointCatalog{rows, mem, &joint}}
}

// jointSessions and jointCatalog take one lock for both, so that a hook of one may call the other.
type jointSessions struct {
	*session.Mem
	joint *sync.Mutex
}

func (j jointSessions) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	j.joint.Lock()
	defer j.joint.Unlock()
	return j.Mem.Create(ctx, s)
}

func (j jointSessions) Record(ctx context.Context, id session.SessionID, gen uint64, c session.Change) (session.Session, error) {
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

// jointTx refuses the end of a session while the closure runs, as a store does that has both in one transaction: so no end of a
// batch is carried out where another is refused.
type jointTx struct {
	catalog.Tx
	sessions *session.Mem
}

func (t jointTx) EndSession(id, gen uint64, state uint8) error {
	s, err := t.sessions.Load(context.Background(), session.SessionID(id))
	if err == nil && s.State == session.Open {
		err = session.ErrFenced
	}
	if err == nil {
		_, _, err = session.Transition(s, session.Step{Gen: gen, To: session.State(state)})
	}
	if err != nil {
		return err
	}
	return t.Tx.EndSession(id, gen, state)
}
