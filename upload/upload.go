// Package upload is the business of uploading: it validates what is begun, gives the session engine
// the sink that writes into the content store, rolls SHA-256 over the bytes as they stream, and
// at finish verifies and commits them to the catalog in one transaction.
//
// It owns everything about the uploads_* operations but HTTP: access and quota at each step, chunk
// sizes, checksums, idempotency, what becomes visible and when. It does not own sessions'
// book-keeping (package session), the rows (catalog), or how bytes are kept (a [blob.Store]).
package upload

import (
	"errors"
	"fmt"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// BeginRequest is what a client asks for.
type BeginRequest struct {
	Capsule string
	Meta    catalog.Meta
	Bytes   int64 // session.Unknown where it is not known
	// Chunks must equal ceil(Bytes/ChunkSize) where it is given; -1: not given.
	Chunks int64
	// ChunkSize in bytes; 0: the server picks it.
	ChunkSize int64
	Idem      string
	// Refuse, if set, is the error of a request that would begin something new; one that repeats
	// another is answered.
	Refuse error
}

// Upload is a session as its creator sees it.
type Upload struct {
	session.Session
	Capsule string
	Meta    catalog.Meta
	IdemKey string // as the client gave it; Session.Idem has the capsule in it
	// Memory is what a finished session became; Deleted if that is gone or in the trash.
	Memory  catalog.MemoryID
	Deleted bool
}

// Put qualifies one put.
type Put struct {
	// Length of the body in bytes where the client announced it, else -1.
	Length int64
	// Replace withdraws what is recorded there before it stores.
	Replace bool
	// SHA256 and CRC32C, where given, must be those of the body (RFC 9530 Content-Digest).
	SHA256 *catalog.SHA256
	CRC32C *uint32
	// Whole: whether the body is what its client promised shows at its end alone, where it fails if
	// it is not (an MD5, a digest in a trailer). Then nothing is recorded before.
	Whole bool
	// Multiplexed: the body shares its connection's flow control with others, so that holding it
	// back can hold them back.
	Multiplexed bool
}

// FinishRequest says which session, and what its whole content must be.
type FinishRequest struct {
	ID     session.SessionID
	SHA256 catalog.SHA256
	Length int64
	// CRC32C of each chunk, optional: a mismatch then names the bad chunks.
	CRC32C []uint32
	// UseServerDigest takes the server's own digest where the client gave none (SHA256 is ignored).
	UseServerDigest bool
	// Keyed refuses what is not the memory of its idempotency key (ErrIdem, catalog.ErrDeleted)
	// rather than finish it without the key.
	Keyed bool
}

// CreateRequest is a whole upload in one request.
type CreateRequest struct {
	Capsule string
	Meta    catalog.Meta
	Idem    string
	Put     Put // Replace is ignored
	// Refuse is as a BeginRequest's.
	Refuse error
}

// ChunkCRC is the CRC-32C of one complete chunk.
type ChunkCRC struct {
	Index  int64
	CRC32C uint32
}

// Errors, beside those of session, catalog and access, which pass through.
var (
	// ErrChecksum: see *ChecksumError. The session stays open and complete.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrLengthMismatch: the finish's total length is not what was begun.
	ErrLengthMismatch = errors.New("total length mismatch")
	// ErrIdem: the same idempotency key, another request.
	ErrIdem = errors.New("the idempotency key was used for another request")
	// ErrTooLarge: past the limits of a chunk, of the number of chunks, or of a whole upload.
	ErrTooLarge = errors.New("too large")
	// ErrTooManyEnded: the owner has aborted, or let expire, so many sessions lately that no more
	// are begun for a while.
	ErrTooManyEnded = errors.New("too many uploads were aborted or have expired lately")
	// ErrAway: what is stored is not in its place (an unmounted or exchanged disk, a renamed
	// folder). Nothing is taken until it is back. It is a blob.ErrUnavailable, too.
	ErrAway = fmt.Errorf("%w: the data folder is not in its place", blob.ErrUnavailable)
	// ErrTaken: what is stored is, or may be, another server's by now. Nothing is taken until this
	// one is started anew. It is ErrAway, too.
	ErrTaken = fmt.Errorf("%w: it may be another server's", ErrAway)
	// ErrAlreadyFinished: the create's key belongs to a memory that was deleted since.
	ErrAlreadyFinished = errors.New("already finished, and deleted since")
)

// ChecksumError says what was computed, and which chunks are bad where that is known (ranges of
// chunk indexes, End exclusive).
type ChecksumError struct {
	What      string // "sha256" of the whole, or "content-digest" of a body
	Want, Got string // hex
	Bad       []session.Range
	More      bool // Bad is not all
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s is %s, not %s", e.What, e.Got, e.Want)
}

// Unwrap makes errors.Is(err, ErrChecksum) true.
func (e *ChecksumError) Unwrap() error { return ErrChecksum }

// LengthError says which length was expected.
type LengthError struct{ Want, Got int64 }

func (e *LengthError) Error() string {
	return fmt.Sprintf("total length is %d bytes, not %d", e.Want, e.Got)
}

// Unwrap makes errors.Is(err, ErrLengthMismatch) true.
func (e *LengthError) Unwrap() error { return ErrLengthMismatch }

// Failure is one session's refusal in a batch.
type Failure struct {
	ID  session.SessionID
	Err error
}

// BatchError says why nothing of a batch was committed. It unwraps to the first failure.
type BatchError struct{ Failures []Failure }

func (e *BatchError) Error() string {
	return fmt.Sprintf("%d of the batch failed, nothing was finished; first: session %s: %v", len(e.Failures), e.Failures[0].ID, e.Failures[0].Err)
}

// Unwrap gives the first failure's error.
func (e *BatchError) Unwrap() error { return e.Failures[0].Err }
