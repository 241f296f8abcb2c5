package api

import (
	"fmt"
	"strings"
	"time"
)

// Code names what went wrong, for programs. Each code has one HTTP status; see docs/api.md.
type Code string

// The codes. A client may retry Superseded (after looking at the status), ResourceExhausted,
// Unavailable, Internal and StorageFull; the others need another request.
const (
	CodeInvalidArgument      Code = "InvalidArgument"
	CodeUnauthenticated      Code = "Unauthenticated"
	CodeForbidden            Code = "Forbidden"
	CodeQuotaExceeded        Code = "QuotaExceeded"
	CodeNotFound             Code = "NotFound"
	CodeSessionExpired       Code = "SessionExpired"
	CodeChunkConflict        Code = "ChunkConflict"
	CodeIdempotencyConflict  Code = "IdempotencyConflict"
	CodeAlreadyExists        Code = "AlreadyExists"
	CodeNotEmpty             Code = "NotEmpty"
	CodeIncomplete           Code = "Incomplete"
	CodeAlreadyFinished      Code = "AlreadyFinished"
	CodeAlreadyAborted       Code = "AlreadyAborted"
	CodeSuperseded           Code = "Superseded"
	CodeMethodNotAllowed     Code = "MethodNotAllowed"
	CodeTimeout              Code = "Timeout"
	CodeTooLarge             Code = "TooLarge"
	CodeUnsupportedMediaType Code = "UnsupportedMediaType"
	CodePreconditionFailed   Code = "PreconditionFailed"
	CodeRangeNotSatisfiable  Code = "RangeNotSatisfiable"
	CodeChecksumMismatch     Code = "ChecksumMismatch"
	CodeLengthMismatch       Code = "LengthMismatch"
	CodeResourceExhausted    Code = "ResourceExhausted"
	CodeInternal             Code = "Internal"
	CodeUnavailable          Code = "Unavailable"
	CodeStorageFull          Code = "StorageFull"
	// CodeDamaged: the stored bytes are not those that were stored. Trying again does not help.
	// Storing the same bytes again does.
	CodeDamaged Code = "Damaged"
)

// Problem is an error answer: RFC 9457 application/problem+json.
type Problem struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	Fault
	// RequestID is the X-Request-Id of the answer; it is in the body of every 5xx.
	RequestID string `json:"request_id,omitzero"`
	// Failures are the sessions that a batch was refused for.
	Failures []Failure `json:"failures,omitzero"`
}

// Failure is one session's refusal in a batch.
type Failure struct {
	SessionID string `json:"session_id"`
	Fault
}

// Fault is the common part of a problem and of a batch's failure: what happened, and what helps to
// recover from it.
type Fault struct {
	Status int    `json:"status"`
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
	// Missing are the chunks, and MissingBytes the bytes, that an Incomplete finish lacks. If a
	// session has too many entries, they are the gap to fill first. There are at most 1,000 ranges,
	// then More.
	Missing      []Range `json:"missing,omitzero"`
	MissingBytes []Range `json:"missing_bytes,omitzero"`
	More         bool    `json:"more,omitzero"`
	// Expected and Got are digests in hex or lengths in decimal: what the request said, and what
	// the server has. For LengthMismatch the server's value counts, and they are the other way
	// round.
	Expected string `json:"expected,omitzero"`
	Got      string `json:"got,omitzero"`
	// Bad are the chunks whose CRC-32C is not what the finish said.
	Bad []Range `json:"bad,omitzero"`
	// RetryAfterMS is when it is worth trying again, in milliseconds.
	RetryAfterMS int64 `json:"retry_after_ms,omitzero"`
	// Deleted: the result of the request is gone, or in the trash.
	Deleted bool `json:"deleted,omitzero"`
	// Limit is the limit that the request went past, and Left how much of it is left, for limits
	// that are used up. Both count what the limit does: bytes, memories, sessions, elements of a
	// list. nil: no limit was the reason.
	Limit *int64 `json:"limit,omitzero"`
	Left  *int64 `json:"left,omitzero"`
}

// Error is a refusal as the client gets it.
type Error struct {
	Problem
	// RetryAfter is when it is worth trying again; 0 if the answer does not say.
	RetryAfter time.Duration
	// Recorded is how many bytes of a put_range were recorded although it was refused; -1 if the
	// answer does not say.
	Recorded int64
	// Foreign: the answer is not Sluice's. Something in between (a proxy, with its own limit of
	// size or time) refused the request. Then only Status and Detail, a sentence about it, are
	// known. [ClassOf] says what to do.
	Foreign bool
	// Renewed: the token of the request has ended, and [Client].Tokens gives another one now.
	Renewed bool
}

// Error says what happened, with the id under which the server's log has it.
func (e *Error) Error() string {
	if e.Foreign {
		return fmt.Sprintf("%s (answer %s)", e.Detail, strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, e.Title)))
	}
	s := fmt.Sprintf("%s: %s", e.Code, e.Detail)
	if e.RequestID != "" && e.Status >= 500 {
		s += " (request " + e.RequestID + ")"
	}
	return s
}
