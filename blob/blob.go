// Package blob says what a store of content must do. It owns the contract and its errors:
//
//	Store    places, and the extents that lie in them
//	Writer   the bytes of one put on their way to a place
//
// It does not own what the bytes are for: which extents make up a content is the catalog's to know
// (package catalog), and what is garbage the keeper's. Every implementation passes
// blobtest.TestStore.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/catalog"
	"sluice/session"
)

// Reader reads content.
type Reader interface {
	// Read gives the n bytes from off on of the content that the extents make up. Each byte has
	// been compared with the CRC of its extent since it came from the disk. The reader fails rather
	// than end early, and rather than give the last part of an extent that is not what was stored;
	// of an extent that is read in part it gives none. It can be read to its end although its place
	// is deleted meanwhile.
	//
	// Errors: ErrCorrupt; ErrMissing where a place is gone; ErrUnavailable.
	Read(ctx context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error)
}

// Store keeps bytes at places. All methods are safe for concurrent use.
type Store interface {
	Reader
	// Writer opens a place for the bytes of a session, at offsets of the session. Nothing exists in
	// the store before the first byte is written. Calls with the same session and gen may share a
	// place. gen grows when recorded bytes were taken back. Then the place must be another, because
	// a recorded extent never changes. size is the length of the session's content where all of it
	// is to come in one piece, else -1: a store may keep small contents together.
	Writer(ctx context.Context, id session.SessionID, gen uint64, size int64) (Writer, error)
	// Persist makes the extents survive a power loss before it returns nil. A *PersistError names
	// those that are gone for good: their place is never synced again.
	Persist(ctx context.Context, extents []catalog.Extent) error
	// Check reads the extent again, past every cache, and compares its CRC: nil, ErrCorrupt or
	// ErrMissing, or the error of the attempt. It returns nil at once for an extent that the policy
	// leaves out.
	Check(ctx context.Context, e catalog.Extent, policy CheckPolicy) error
	// Trim gives back, in whole blocks, what is stored at a place and is in none of the extents to
	// keep. Nobody writes to the place meanwhile.
	Trim(ctx context.Context, place string, keep []catalog.Extent) error
	// Delete removes a place. A place that is not there is no error. Only the keeper calls it, and
	// a caller that has made a place which nobody names.
	Delete(ctx context.Context, place string) error
	// Places lists what exists, sorted by name, after the given name, at most n.
	Places(ctx context.Context, after string, n int) ([]PlaceInfo, error)
	// Free is the number of bytes that can still be written.
	Free(ctx context.Context) (int64, error)
}

// Writer writes the bytes of one put. One goroutine at a time uses it. Any number of Writers may
// share a place, each with ranges of its own.
type Writer interface {
	// WriteAt writes p at this offset of the session. A failure harms this put alone. p may still
	// be read afterwards if it is memory of the store's own Buffers; see session.Buffer.
	io.WriterAt
	// ReadSoon says whether what is written from now on will be read soon, so that the store may
	// keep it in the page cache. At first it will not.
	ReadSoon(soon bool)
	// Commit makes the n bytes from off on, all written through this Writer, as safe as the store's
	// durability asks for: at least they survive the death of the process. It gives their extent.
	// crc is the CRC-32C of these bytes, as the caller computed it.
	Commit(ctx context.Context, off, n int64, crc uint32) (catalog.Extent, error)
	// Undo gives back, in whole blocks, what this Writer has written of these ranges of the
	// session. None of it is recorded, and nobody else writes there. It gives the name of the place
	// where some of that may be left, empty where nothing is.
	Undo(ranges []session.Range) (place string, err error)
	// Close releases the Writer. What was not committed is garbage.
	Close() error
}

// CheckPolicy says which extents a Check reads.
type CheckPolicy uint8

const (
	// CheckBeforeReboot: those that were written before the machine, or the folder, last came back
	// without a clean stop.
	CheckBeforeReboot CheckPolicy = iota + 1
	// CheckBeforeCrash: those that were written before the process last came back without a clean
	// stop.
	CheckBeforeCrash
	// CheckAll: all.
	CheckAll
)

// PlaceInfo describes a place.
type PlaceInfo struct {
	Name        string
	Session     session.SessionID // whose bytes it was made for
	Incarnation uint64            // which of the store's incarnations it was made in
	Bytes       int64             // allocated
	// Earlier: it was made in an earlier incarnation of the store, so that nobody writes to it any
	// more.
	Earlier bool
	// Holds, where it is set, says that the store can't tell whose bytes these are. It reports
	// whether those of a place may be among them: they are garbage only if no row names such a
	// place.
	Holds func(place string) bool
}

var (
	// ErrCorrupt: the bytes are not those that were stored.
	ErrCorrupt = errors.New("stored bytes do not match their checksum")
	// ErrMissing: the place does not exist.
	ErrMissing = errors.New("the place is gone")
	// ErrNoSpace: no space is left. What is recorded is safe.
	ErrNoSpace = errors.New("no space left")
	// ErrUnavailable: it can't be done just now, and may be tried again.
	ErrUnavailable = errors.New("temporarily unavailable")
)

// PersistError names extents whose bytes the store could not keep.
type PersistError struct {
	Lost []catalog.Extent
	Err  error
}

func (e *PersistError) Error() string { return fmt.Sprintf("%d extents lost: %v", len(e.Lost), e.Err) }

// Unwrap gives the cause.
func (e *PersistError) Unwrap() error { return e.Err }
