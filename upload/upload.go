// Package upload is the business of uploading. It validates what is begun, and gives the session
// engine the sink that writes into the content store. It computes SHA-256 as the bytes stream. At
// finish it verifies them and commits them to the catalog in one transaction.
//
// It owns everything about the uploads_* operations except HTTP: access and quota at each step,
// chunk sizes, checksums, idempotency, and the moment when an upload becomes visible. It does not
// own sessions (package session), the rows (catalog), or how bytes are kept (a [blob.Store]).
package upload

import (
	"errors"
	"fmt"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// BeginRequest is a client's request for a session.
type BeginRequest struct {
	Capsule string
	Meta    catalog.Meta
	Bytes   int64 // session.Unknown if the client does not know it
	// Chunks must equal ceil(Bytes/ChunkSize) if it is given; -1: not given.
	Chunks int64
	// ChunkSize in bytes; 0: the server picks it.
	ChunkSize int64
	Idem      string
	// Refuse, if set, is the error of a request that would begin something new. A repeat is
	// answered in any case.
	Refuse error
}

// Upload is a session as its creator sees it.
type Upload struct {
	session.Session
	Capsule string
	Meta    catalog.Meta
	IdemKey string // as the client gave it; Session.Idem contains the capsule too
	// Memory is what a finished session became. Deleted: that memory is gone or in the trash.
	Memory  catalog.MemoryID
	Deleted bool
}

// Put holds the options of one put.
type Put struct {
	// Length of the body in bytes if the client announced it, else -1.
	Length int64
	// Replace withdraws the recorded bytes of the range before the put stores its own.
	Replace bool
	// SHA256 and CRC32C, if given, must be those of the body (RFC 9530 Content-Digest).
	SHA256 *catalog.SHA256
	CRC32C *uint32
	// Whole: only the end of the body shows whether it is what the client promised (an MD5, a
	// digest in a trailer), and its Read fails there if it is not. Then nothing is recorded before
	// the end.
	Whole bool
	// Multiplexed: the body shares its connection's flow control with others. If it is read slowly,
	// the others may stop too.
	Multiplexed bool
}

// FinishRequest names a session and describes its whole content.
type FinishRequest struct {
	ID     session.SessionID
	SHA256 catalog.SHA256
	Length int64
	// CRC32C of each chunk, optional. A mismatch then names the bad chunks.
	CRC32C []uint32
	// UseServerDigest takes the server's own digest, because the client gave none. SHA256 is
	// ignored.
	UseServerDigest bool
	// Keyed refuses a finish whose memory can't have the idempotency key (ErrIdem,
	// catalog.ErrDeleted). Else the session is finished without the key.
	Keyed bool
}

// CreateRequest is a whole upload in one request.
type CreateRequest struct {
	Capsule string
	Meta    catalog.Meta
	Idem    string
	Put     Put // Replace is ignored
	// Refuse is as in BeginRequest.
	Refuse error
}

// ChunkCRC is the CRC-32C of one complete chunk.
type ChunkCRC struct {
	Index  int64
	CRC32C uint32
}

// Errors of this package. The errors of session, catalog and access pass through.
var (
	// ErrChecksum: see *ChecksumError. The session stays open and complete.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrLengthMismatch: the finish's total length differs from the one that was begun.
	ErrLengthMismatch = errors.New("total length mismatch")
	// ErrIdem: the idempotency key was used for another request.
	ErrIdem = errors.New("the idempotency key was used for another request")
	// ErrTooLarge: a limit is exceeded: of the number of chunks, or of a whole upload. See
	// *SizeError.
	ErrTooLarge = errors.New("too large")
	// ErrTooManyEnded: too many sessions of the owner were aborted or have expired lately. None is
	// begun for a while. See *catalog.CountError.
	ErrTooManyEnded = errors.New("too many uploads were aborted or have expired lately")
	// ErrAway: the data folder, or a part of it, is not in its place (an unmounted or exchanged
	// disk, a renamed folder). Nothing is taken until it is back. It is also a blob.ErrUnavailable.
	ErrAway = fmt.Errorf("%w: the data folder is not in its place", blob.ErrUnavailable)
	// ErrTaken: another server owns the data folder by now, or may own it. Nothing is taken until
	// this server is started anew. It is also ErrAway.
	ErrTaken = fmt.Errorf("%w: it may be another server's", ErrAway)
	// ErrAlreadyFinished: the key of the create belongs to a memory that was deleted since.
	ErrAlreadyFinished = errors.New("already finished, and deleted since")
)

// ChecksumError says what was computed. It names the bad chunks if they are known, as ranges of
// chunk indexes (End exclusive).
type ChecksumError struct {
	What      string // "sha256" of the whole, or an algorithm and "of the body"
	Want, Got string // hex
	Bad       []session.Range
	More      bool // there are more than Bad names
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s is %s, not %s", e.What, e.Got, e.Want)
}

// Unwrap makes errors.Is(err, ErrChecksum) true.
func (e *ChecksumError) Unwrap() error { return ErrChecksum }

// SizeError is an ErrTooLarge with its limit, in bytes or chunks.
type SizeError struct {
	Limit   int64
	Problem string // with the limit
}

func (e *SizeError) Error() string { return ErrTooLarge.Error() + ": " + e.Problem }

// Unwrap makes errors.Is(err, ErrTooLarge) true.
func (e *SizeError) Unwrap() error { return ErrTooLarge }

// Bound gives the limit. Nothing is ever left of it or used up: left is -1.
func (e *SizeError) Bound() (limit, left int64) { return e.Limit, -1 }

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
	return fmt.Sprintf(
		"%d of the batch failed, nothing was finished; first: session %s: %v",
		len(e.Failures), e.Failures[0].ID, e.Failures[0].Err,
	)
}

// Unwrap gives the first failure's error.
func (e *BatchError) Unwrap() error { return e.Failures[0].Err }
