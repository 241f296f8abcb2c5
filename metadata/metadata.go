// Package metadata says what a store of metadata must be: one for sessions and one for the catalog,
// which commit together. It owns the joint commit's contract:
//
//	a session is created   Hook ─▶ its reservation     one commit
//	a session ends         Tx.EndSession ◀─ the rows   one commit
//
// It does not own what sessions and catalog are: their contracts are session.Store and
// catalog.Store. Every implementation passes metadatatest.TestStore.
package metadata

import (
	"errors"

	"sluice/catalog"
	"sluice/session"
)

// Store has both. Its methods are safe for concurrent use.
//
// A transaction of the catalog that calls catalog.Tx.EndSession and commits has ended the session;
// one that fails has ended none. What ends a session in this way runs no Hook.
type Store interface {
	// Sessions keeps the records of sessions.
	Sessions() session.Store
	// Catalog keeps the rows of the catalog.
	Catalog() catalog.Store
}

// Hook runs inside the commit that creates a session (before is nil), and inside each commit that
// records into a session whose length is unknown until then. What it writes is part of that commit.
// An error of it refuses the call, and is returned as it is. It is a pure function, as a closure of
// catalog.Store's Update is: it may run several times for one commit. It may change what it is
// given.
type Hook func(tx catalog.Tx, before *session.Session, after session.Session) error

// ErrNoHook: a store is opened for changes without a Hook. Quotas would then bound nothing.
var ErrNoHook = errors.New("a store of metadata needs a hook that reserves what sessions may take")
