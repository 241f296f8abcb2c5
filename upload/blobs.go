package upload

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/catalog"
	"sluice/session"
)

// Blobs is what uploads need of a content store. Every implementation passes
// uploadtest.TestBlobs. All methods are safe for concurrent use.
type Blobs interface {
	// Writer opens a place for the bytes of a session, at offsets of the session. Calls
	// with the same session and gen may share a place; gen grows when bytes were dropped, and then
	// the place must be another, because a recorded extent never changes. Nothing exists in the
	// store before the first byte is written. size is how long the session's content is where all of it is to come in
	// one piece, else -1: a store may keep small ones together.
	Writer(ctx context.Context, id session.SessionID, gen uint64, size int64) (Writer, error)
	// Settle makes the extents survive a power loss before it returns nil. A *LostError names
	// those that are gone for good: the failed place is poisoned, and never synced again.
	Settle(ctx context.Context, extents []catalog.Extent) error
	// Read gives the n bytes from off of the content that the extents make up, each compared with its extent's CRC since it came from the disk. The reader
	// fails (ErrRotten) rather than end early, or give the last piece of an extent that is not what was stored; of one that is read in part it gives none.
	// It stays readable to its end although its place is deleted meanwhile. ErrNoPlace where a place is gone.
	Read(ctx context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error)
	// Check re-reads the extent past every cache and compares its CRC: nil, ErrRotten or ErrNoPlace, or
	// the error of the attempt. With care other than Always it returns nil at once where nothing has happened since that could have harmed it.
	Check(ctx context.Context, e catalog.Extent, care Care) error
	// Trim gives back what is stored at a place and is in none of the extents to keep, in whole blocks. Nobody writes to the place meanwhile.
	Trim(ctx context.Context, place string, keep []catalog.Extent) error
	// Delete removes a place. Repeats, and places that are not there, are no error. Only the collector calls it, and who has made a place that nobody names.
	Delete(ctx context.Context, place string) error
	// Places lists what exists, sorted by name, after the given name, at most n.
	Places(ctx context.Context, after string, n int) ([]PlaceInfo, error)
	// Free is the number of bytes that can still be written.
	Free(ctx context.Context) (int64, error)
}

// Writer writes one put's bytes. It is used by one goroutine at a time; any number
// of Writers may share a place, each with ranges of its own.
type Writer interface {
	// WriteAt writes p at this offset of the session. A failure harms this put alone.
	io.WriterAt
	// Commit makes the n bytes from off, all written through this Writer, as safe as the durability
	// asks for (at least: they survive the death of the process), and gives their
	// extent; crc is the CRC-32C of these bytes, as its caller computed it.
	Commit(ctx context.Context, off, n int64, crc uint32) (catalog.Extent, error)
	// Undo gives back, in whole blocks, what this Writer has written of these ranges of the session: none of it is recorded, and nobody else writes there. It
	// gives the name of the place where some of that may be left, empty where nothing is.
	Undo(ranges []session.Range) (place string, err error)
	// Close releases the Writer. What was not committed is garbage.
	Close() error
}

// Lender is a Writer that brings memory for a put that comes fast, and may be busy with the bytes of one WriteAt while the next are read: as
// session.Lender, with Commit for Quiet's error.
type Lender interface {
	Lend(off, n int64) []byte
	Done()
	Quiet()
}

// Care says when a Check may trust without looking.
type Care uint8

const (
	// AfterReboot trusts what was written since the machine (or the folder) last came back without a clean stop.
	AfterReboot Care = iota + 1
	// AfterDeath trusts what was written since the process last came back without a clean stop.
	AfterDeath
	// Always trusts nothing.
	Always
)

// PlaceInfo describes a place.
type PlaceInfo struct {
	Name    string
	Session session.SessionID // whose bytes it was made for
	Life    uint64            // which of the store's lives it was made in
	Bytes   int64             // allocated
	// Old: it was made in an earlier life of the store, so that nobody writes to it any more.
	Old bool
	// Holds, where it is set, says that the store can't tell whose bytes these are, and reports whether those of a place may be among them: they are
	// garbage only if no row names such a place.
	Holds func(place string) bool
}

var (
	// ErrRotten: the bytes are not those that were stored.
	ErrRotten = errors.New("stored bytes do not match their checksum")
	// ErrNoPlace: the place does not exist.
	ErrNoPlace = errors.New("the place is gone")
	// ErrFull: the store has no room left. What is recorded is safe.
	ErrFull = errors.New("no space left")
)

// LostError names extents whose bytes the store could not keep.
type LostError struct {
	Lost []catalog.Extent
	Err  error
}

func (e *LostError) Error() string { return fmt.Sprintf("%d extents lost: %v", len(e.Lost), e.Err) }

// Unwrap gives the cause.
func (e *LostError) Unwrap() error { return e.Err }
