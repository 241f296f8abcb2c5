// Package pebblemeta keeps the rows of sessions and of the catalog in one Pebble database, so
// that a commit may change both: an upload's finish, or a begin with its reservation. It is the
// embedded default.
//
// It owns the format of the stored rows, the order of commits, and what readers may see. It does
// not own the rules: session.Apply and session.Transition change a session, and the caller's
// closure changes the catalog.
//
// # Readers see durable commits alone
//
// Pebble shows a commit to readers before the log is synced. So only a writer that has the locks
// reads the database itself. Each commit takes a snapshot at the moment when it is applied, with no
// other commit between the two. It publishes the snapshot when its own sync has returned. The log
// is written in order, so everything in that snapshot is durable by then. Readers get the newest
// published snapshot.
//
//	lock ─▶ read newest rows ─▶ [ apply ─▶ snapshot ] ─▶ unlock
//	  ─▶ wait for the sync ─▶ publish ─▶ return
//
// No lock is held during the wait, so that commits share a sync. A call that turns out to change
// nothing (a repeat, a refusal) waits until everything that it has read is published. Locks are
// taken in this order: the catalog's (for closures of Update and for the hook), that of the
// session's stripe, that of the commit.
//
// The rows that every request asks for are decoded once, and kept in a bounded cache. It shows each
// view the rows of its snapshot: see cache.go.
//
// With [durable.Process] a commit that only records received bytes does not wait for the disk, as
// their content does not either: see logsync.go.
//
// A seal is kept in memory alone, with its generation. The commit that ends the session makes it
// durable, and a restart finds the session open. A reopening is a commit, so that a crash never
// takes back the generation of an open session that somebody has seen.
//
// # Format 1
//
// The file FORMAT says "sluice metadata, format 3". Numbers in keys are big-endian, signed ones
// with the top bit flipped, so that keys sort as the numbers do. ~ is the complement, which sorts
// the other way. A str is its length as a uvarint, then its bytes. A row that is not empty
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
// Beside Pebble's own files the folder has CLEAN (logcheck.go), and RESERVE-00, RESERVE-01, …
// (reserve.go), which reserve disk space.
//
// The session's received ranges are uvarints: for each range, the gap before it and its length.
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

// Options are what a DB needs beside its folder. All of them are optional, except the hook.
type Options struct {
	// Hook takes part in the commits of sessions. It may be missing only with ReadOnly.
	Hook metadata.Hook
	// Die is called when the database can't go on, since its log could not be written. Everything
	// that was acknowledged is safe. Only a new start can tell whether the commit under way is. Die
	// must end the process, and may be called by several goroutines. If it returns, the calling
	// goroutine panics. Default: a panic.
	Die func(error)
	// Log gets Pebble's errors, and warnings about the disk and damaged rows.
	Log *slog.Logger
	// FS is the file system that the folder is on. Default: the operating system's.
	FS vfs.FS
	// Existing refuses a folder without a database. It says that there was one.
	Existing bool
	// Allow returns an error while nothing may be changed. Then sessions are neither begun nor
	// recorded into, and the catalog is not updated. It is called often.
	Allow func() error
	// Durability is that of a Record of nothing but received bytes. With [durable.Process] it
	// returns when it survives the death of the process; a power loss may take it back, with all
	// later ones, until another kind of commit has returned. All other commits, and with
	// [durable.Power] this one too, are on the disk when their call returns.
	Durability durable.Durability
	// Reserve is how many bytes of the disk are reserved for the metadata, in files that are
	// removed one by one when the disk is full. 0: none are made, but those that are there are
	// used.
	Reserve int64
	// Tables is how many tables stay open. Default: 256.
	Tables int
	// ReadOnly changes nothing in the folder, also if it is opened after an unclean stop. A call
	// that would write fails.
	ReadOnly bool
}

var _ metadata.Store = (*DB)(nil)

// DB is an open database. All of it is safe for concurrent use.
type DB struct {
	peb        *pebble.DB
	lock       *pebble.Lock
	disk       vfs.FS
	dir        string
	reserve    *reserve
	corruption *corruption
	scheduler  compactionScheduler
	hook       metadata.Hook
	die        func(error)
	allow      func() error
	durability durable.Durability
	// readOnly: nothing in the folder changes.
	readOnly bool
	syncs    syncCounts

	catalogMu sync.Mutex
	stripes   [stripes]sync.Mutex
	applyMu   sync.Mutex
	applied   uint64 // the number of the newest commit, under applyMu
	access    uint64 // the number of the newest that wrote to catalog.AccessTables, under applyMu
	totals    totals // as of applied, under applyMu

	views  views
	cache  *cache
	ranges rangeCache
	seals  seals
	calls  calls
}

// stripes is the number of locks that sessions share, by id.
const stripes = 256

// ErrClosed: the DB was closed before the call.
var ErrClosed = errors.New("the metadata store is closed")

// Sessions is the DB as the store of sessions.
func (db *DB) Sessions() session.Store { return sessionStore{db} }

// Catalog is the DB as the store of the catalog's rows.
func (db *DB) Catalog() catalog.Store { return catalogStore{db} }

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

// calls counts the calls that are running.
type calls struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// enter must be followed by leave, unless it fails.
func (c *calls) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.running.Add(1)
	return nil
}

// enterChange is enter for calls that Options.Allow may refuse.
func (db *DB) enterChange(ctx context.Context) error {
	if err := db.allow(); err != nil {
		return err
	}
	return db.enter(ctx)
}

func (c *calls) leave() { c.running.Done() }

// close waits for the running calls. It returns false if another call has closed already.
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
