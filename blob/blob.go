// Package blob says what a store of content must do. It owns the contract and its errors:
//
//	Store    places, and the extents that lie in them
//	Writer   the bytes of one put on their way to a place
//
// It does not own what the bytes are for. The catalog knows which extents make up a content, and
// the keeper knows what is garbage. Every implementation passes blobtest.TestStore.
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
	// Read gives the n bytes from offset off of the content that the extents make up. Each byte has
	// been compared with the CRC of its extent since it came from the disk. If an extent that is
	// read as a whole is corrupt, the reader fails before the extent's last part. If a corrupt
	// extent is read in part, the reader gives none of it. The reader never ends early. It can be
	// read to its end although its place is deleted meanwhile.
	//
	// Errors: ErrCorrupt; ErrMissing if a place is gone; ErrUnavailable.
	Read(ctx context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error)
}

// Store keeps bytes at places. All methods are safe for concurrent use.
type Store interface {
	Reader
	// Writer opens a place for the bytes of a session, at offsets of the session. The store makes
	// nothing before the first byte is written. Calls with the same session and gen may share a
	// place. gen grows when recorded bytes are taken back. Then the place must be another one,
	// because a recorded extent never changes. size is the length of the session's content if this
	// Writer gets all of it, else -1: a store may keep small contents together.
	Writer(ctx context.Context, id session.SessionID, gen uint64, size int64) (Writer, error)
	// Persist makes the extents survive a power loss before it returns nil. A *PersistError names
	// those that are lost for good; their place is never synced again.
	Persist(ctx context.Context, extents []catalog.Extent) error
	// Check reads the extent again, past every cache, and compares its CRC. It returns nil,
	// ErrCorrupt or ErrMissing, or the error of the attempt. It returns nil at once for an extent
	// that the policy leaves out.
	Check(ctx context.Context, e catalog.Extent, policy CheckPolicy) error
	// Trim frees, in whole blocks, the bytes at a place that are in none of the extents to keep. No
	// Writer writes to the place meanwhile.
	Trim(ctx context.Context, place string, keep []catalog.Extent) error
	// Delete removes a place. A place that is not there is no error. Only the keeper calls it, and
	// a caller that has made a place which no row names.
	Delete(ctx context.Context, place string) error
	// Places lists what exists, sorted by name, after the given name, at most n.
	Places(ctx context.Context, after string, n int) ([]PlaceInfo, error)
	// Free gives the number of bytes that can still be written.
	Free(ctx context.Context) (int64, error)
}

// Writer writes the bytes of one put. One goroutine at a time uses it. Any number of Writers may
// share a place, each with its own ranges.
type Writer interface {
	// WriteAt writes p at this offset of the session. A failure harms this put alone. The store may
	// still read p afterwards if p is memory of its own Buffers; see session.Buffer.
	io.WriterAt
	// ReadSoon says whether the bytes written from now on will be read soon, so that the store may
	// keep them in the page cache. The initial value is false.
	ReadSoon(soon bool)
	// Commit makes the n bytes from offset off as safe as the store's durability asks for: at least
	// they survive the death of the process. All of them were written through this Writer. It gives
	// their extent. crc is their CRC-32C, as the caller computed it.
	Commit(ctx context.Context, off, n int64, crc uint32) (catalog.Extent, error)
	// Undo frees, in whole blocks, what this Writer has written of these ranges of the session.
	// None of these bytes is recorded, and no other Writer writes there. It gives the name of the
	// place if some of them may be left, else an empty one.
	Undo(ranges []session.Range) (place string, err error)
	// Close releases the Writer. Bytes that were not committed are garbage.
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
	Session     session.SessionID // for whose bytes it was made
	Incarnation uint64            // which of the store's incarnations it was made in
	Bytes       int64             // allocated
	// Earlier: it was made in an earlier incarnation of the store, so no Writer writes to it any
	// more.
	Earlier bool
	// Holds is set if the store can't tell whose bytes these are. It reports whether the bytes of a
	// place may be among them. They are garbage only if no row names such a place.
	Holds func(place string) bool
}

var (
	// ErrCorrupt: the bytes are not those that were stored.
	ErrCorrupt = errors.New("stored bytes do not match their checksum")
	// ErrMissing: the place does not exist.
	ErrMissing = errors.New("the place is gone")
	// ErrNoSpace: no space is left. Recorded bytes are safe.
	ErrNoSpace = errors.New("no space left")
	// ErrUnavailable: the store can't do it at present. A later attempt may succeed.
	ErrUnavailable = errors.New("temporarily unavailable")
)

// PersistError names the extents that the store could not keep.
type PersistError struct {
	Lost []catalog.Extent
	Err  error
}

func (e *PersistError) Error() string { return fmt.Sprintf("%d extents lost: %v", len(e.Lost), e.Err) }

// Unwrap gives the cause.
func (e *PersistError) Unwrap() error { return e.Err }
