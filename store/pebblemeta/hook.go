package pebblemeta

import (
	"context"

	"sluice/session"
)

// reserve runs the hook's Reserve.
func (t *txn) reserve(before *session.Session, after session.Session) error {
	if before != nil {
		b := clone(*before)
		before = &b
	}
	return t.db.hook.Reserve(t, before, clone(after))
}

// decide runs the hook's Decide. Without the catalog's lock it decides by a view, and apply refuses
// the commit if catalog.AccessTables have changed since.
func (t *txn) decide(ctx context.Context, after session.Session) error {
	if t.catalog {
		return t.db.hook.Decide(ctx, t, after)
	}
	t.db.applyMu.Lock()
	newest := t.db.access
	t.db.applyMu.Unlock()
	v, err := t.db.views.atLeast(ctx, newest)
	if err != nil {
		return err
	}
	defer t.db.views.release(v)
	t.decided, t.decidedAt = true, v.seq
	return t.db.hook.Decide(ctx, reader{v, t.db, t.db.cache, v.seq}, after)
}
