// Package metadata says what a store of metadata must be: a store of sessions and a store of the
// catalog that commit together. It owns the contract of the joint commit:
//
//	a session is created   Hook ─▶ its reservation     one commit
//	bytes are recorded     Hook ─▶ may the caller?     one commit
//	a session ends         Tx.EndSession ◀─ the rows   one commit
//
// It does not own the contracts of the two stores: they are session.Store and catalog.Store. Every
// implementation passes metadatatest.TestStore.
package metadata

import (
	"context"
	"errors"

	"sluice/catalog"
	"sluice/session"
)

// Store has both stores. Its methods are safe for concurrent use.
//
// If a transaction of the catalog calls catalog.Tx.EndSession and commits, the session has ended.
// If it fails, no session has ended. Such an end runs no Hook.
type Store interface {
	// Sessions keeps the records of sessions.
	Sessions() session.Store
	// Catalog keeps the rows of the catalog.
	Catalog() catalog.Store
}

// Hook takes part in the commits of sessions. An error of its functions refuses the call, and is
// returned as it is. They are pure functions, as the closures of catalog.Store are, because they
// may run several times for one commit.
type Hook struct {
	// Decide runs inside each commit that creates a session or records into one. It decides by the
	// state that the commit follows: no change of catalog.AccessTables comes between. ctx is that
	// of the call, with its values. Decide must not change s.
	Decide func(ctx context.Context, r catalog.Reader, s session.Session) error
	// Reserve runs, after Decide, inside the commit that creates a session (before is nil), and
	// inside each commit that records into a session whose length was unknown until then. Its
	// writes are part of that commit. It may change the sessions that it gets.
	Reserve func(tx catalog.Tx, before *session.Session, after session.Session) error
}

// Whole reports whether h has all functions.
func (h Hook) Whole() bool { return h.Decide != nil && h.Reserve != nil }

// ErrNoHook: a store is opened for changes without a Hook. Then quotas would bound nothing,
// and no right would be asked for.
var ErrNoHook = errors.New("a store of metadata needs a hook that decides about sessions and reserves what they take")
