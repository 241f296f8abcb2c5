// Package metadata says what a store of metadata must be: a store of sessions and a store of the
// catalog that commit together. It owns the contract of the joint commit:
//
//	a session is created   Hook ─▶ its reservation     one commit
//	a session ends         Tx.EndSession ◀─ the rows   one commit
//
// It does not own the contracts of the two stores: they are session.Store and catalog.Store. Every
// implementation passes metadatatest.TestStore.
package metadata

import (
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

// Hook runs inside the commit that creates a session (before is nil), and inside each commit that
// records into a session whose length was unknown until then. Its writes are part of that commit.
// Its error refuses the call, and is returned as it is. It is a pure function, as a closure of
// catalog.Store's Update is, because it may run several times for one commit. It may change its
// arguments.
type Hook func(tx catalog.Tx, before *session.Session, after session.Session) error

// ErrNoHook: a store is opened for changes without a Hook. Then quotas would bound nothing.
var ErrNoHook = errors.New("a store of metadata needs a hook that reserves what sessions may take")
