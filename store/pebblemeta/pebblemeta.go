// Package pebblemeta keeps the records of sessions and the rows of the catalog in one Pebble
// database, so that a commit may change both: an upload's finish, or a begin with its reservation.
// It is the embedded default.
//
// It owns the format of the stored rows, the order of commits, and what readers may see. It does
// not own the rules: what a change does to a session is session.Apply and session.Transition, what
// it does to the catalog is its caller's closure.
//
// # What is durable is shown, and nothing else
//
// Pebble shows a commit to readers before the log is synced. So nobody here reads the database
// itself but a writer under its locks. Each commit takes a snapshot at the moment it is applied,
// with no other commit between the two, and publishes it when its own sync has returned: as the log
// is written in order, everything in that snapshot is durable by then. Readers get the newest
// published one.
//
//	lock ─▶ read newest rows ─▶ [ apply ─▶ snapshot ] ─▶ unlock
//	  ─▶ wait for the sync ─▶ publish ─▶ return
//
// No lock is held during the wait, so that commits share a sync. A call that turns out to change
// nothing (a repeat, a refusal) waits until what it has read is published. Locks, in this order:
// the catalog's (closures of Update, and what runs the hook), that of the session's stripe, that of
// the commit.
//
// The catalog's rows that every request asks for are kept decoded, in a bounded cache that shows
// each view what its snapshot has: cache.go.
//
// With [durable.Process] a commit that only records received bytes does not wait for the disk, as
// their content does not either: see logsync.go.
//
// A seal is kept in memory alone, with its generation: the commit that ends the session makes it
// durable, and a restart finds the session open. A reopening is a commit, so that a generation
// which was seen open is never given up by a crash.
//
// # Format 1
//
// The file FORMAT says "sluice metadata, format 1". Numbers in keys are big-endian, signed ones
// with the top bit turned over, so that keys sort as the numbers do; ~ is the complement, which
// sorts the other way. A str is its length as a uvarint, then its bytes. A row that is not empty
// begins with its version.
//
//	key                           row                               kept
//	S id                          1, CBOR of the session            until it is Gone
//	E id off                      1, uvarint length, note           while open
//	I str(owner) idem             id                                while open or finished
//	N state ~began id             -                                 with S
//	O str(owner) state ~began id  -                                 with S
//	T seen id                     -                                 while open
//	X seen id                     -                                 when ended, with S
//	M                             1, CBOR of the totals             always
//	C table key                   1, CBOR of the row (see rows.go)  as the catalog says
//
// Beside Pebble's own files the folder has CLEAN (rot.go) and RESERVE-00, RESERVE-01, …
// (reserve.go): room that is taken so that others can't.
//
// The session's received ranges are uvarints: for each, the gap before it and its length.
package pebblemeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/metadata"
	"sluice/session"
)

// Options are what a DB needs beside its folder. Each may be left out but the hook.
type Options struct {
	// Hook takes part in the creation of sessions. It is left out only where nothing is changed
	// (ReadOnly).
	Hook metadata.Hook
	// Die is called when the database can't go on: its log could not be written. What was
	// acknowledged is safe, and whether the commit under way is, only a new start can tell. It must
	// end the process, and may be called by several goroutines; should it return, the calling one
	// panics. Default: a panic.
	Die func(error)
	// Log gets what Pebble complains of.
	Log *slog.Logger
	// FS is the file system that the folder is on (the operating system's).
	FS vfs.FS
	// Existing refuses a folder without a database: there was one.
	Existing bool
	// Allow gives an error while nothing may be changed: then sessions are neither begun nor
	// recorded into, and the catalog is not updated. It is asked often.
	Allow func() error
	// Durability is that of a Record of nothing but received bytes. With [durable.Process] it
	// returns when it survives the death of the process; a power loss may take it back, with all
	// later ones, until something else is committed. All other commits, and with [durable.Power]
	// this one too, are on the disk when their call returns.
	Durability durable.Durability
	// Reserve is how many bytes of the disk are kept for the metadata, in files that make way when
	// the disk is full (0: none are made, but those that are there are used).
	Reserve int64
	// Tables is how many tables stay open (256).
	Tables int
	// ReadOnly changes nothing in the folder, also where it is opened after a bad stop: what would
	// write fails.
	ReadOnly bool
}

var _ metadata.Store = (*DB)(nil)

// DB is an open database. All of it is safe for concurrent use.
type DB struct {
	peb     *pebble.DB
	lock    *pebble.Lock
	disk    vfs.FS
	dir     string
	reserve *reserve
	damage  *damage
	pacer   pacer
	hook    metadata.Hook
	die     func(error)
	allow   func() error
	// durability is that of a Record, see Options.
	durability durable.Durability
	// readOnly: nothing in the folder changes.
	readOnly bool
	syncs    syncCounts

	catalogMu sync.Mutex
	stripes   [stripes]sync.Mutex
	apply     sync.Mutex
	applied   uint64 // the number of the newest commit, under apply
	totals    totals // as of applied, under apply

	views  views
	cache  *cache
	ranges readLately
	seals  seals
	calls  calls
}

// stripes is the number of locks that sessions share, by id.
const stripes = 256

// ErrClosed: the DB was closed before the call.
var ErrClosed = errors.New("the metadata store is closed")

// Sessions is the DB as the record keeper of sessions.
func (db *DB) Sessions() session.Store { return sessions{db} }

// Catalog is the DB as the keeper of the catalog's rows.
func (db *DB) Catalog() catalog.Store { return rows{db} }

// Close waits for running calls, refuses later ones with ErrClosed, and closes the database. A
// repeat does nothing.
func (db *DB) Close() error {
	if !db.calls.close() {
		return nil
	}
	db.views.close()
	close(db.reserve.closed)
	err := db.peb.Close()
	if err == nil && !db.readOnly {
		err = markClean(db.disk, db.dir)
	}
	return errors.Join(err, db.lock.Close())
}

// calls counts those that are running.
type calls struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// enter is followed by leave, unless it fails.
func (c *calls) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.running.Add(1)
	return nil
}

// enterChange is enter for what may be refused by Options.Allow.
func (db *DB) enterChange(ctx context.Context) error {
	if err := db.allow(); err != nil {
		return err
	}
	return db.enter(ctx)
}

func (c *calls) leave() { c.running.Done() }

// close waits for the running calls; it is false where another has closed already.
func (c *calls) close() bool {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
	return first
}

// fatal ends the process by Options.Die.
func (db *DB) fatal(err error) {
	db.die(err)
	panic(fmt.Sprintf("pebblemeta: %v", err))
}
