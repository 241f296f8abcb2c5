package session

import (
	"errors"
	"fmt"
)

// The engine's errors. Callers test with errors.Is, and errors.As for [*IncompleteError] and
// [*LimitError].
var (
	// ErrNotFound: no session has this id.
	ErrNotFound = errors.New("session not found")
	// ErrFinished, ErrAborted, ErrExpired: the session has ended this way; fix the request.
	ErrFinished = errors.New("session is finished")
	ErrAborted  = errors.New("session was aborted")
	ErrExpired  = errors.New("session has expired")
	// ErrSealed: an end is under way; try again.
	ErrSealed = errors.New("session is being ended")
	// ErrBusy: other requests have what this one needs for longer than it may wait; try again.
	ErrBusy = errors.New("too many requests at once")
	// ErrIncomplete: bytes are missing. Always an *IncompleteError.
	ErrIncomplete = errors.New("session is incomplete")
	// ErrSuperseded: a newer put on the same bytes, or a Drop, took over.
	ErrSuperseded = errors.New("superseded by a newer request for the same bytes")
	// ErrConflict: these bytes are recorded already, with other content.
	ErrConflict = errors.New("other bytes are recorded here already")
	// ErrShort, ErrLong: the body does not have the chunk's length. Nothing is recorded.
	ErrShort = errors.New("body ends before the chunk does")
	ErrLong  = errors.New("body goes on past the end")
	// ErrRange: the index or offset lies outside the session.
	ErrRange = errors.New("outside of the session")
	// ErrLength: the length differs from the one that is fixed, or received bytes lie past it.
	ErrLength = errors.New("length differs")
	// ErrLimit: the session has as many entries or gaps as it may. Always a *LimitError.
	ErrLimit = errors.New("too many pieces")
	// ErrInvalid: the Spec or an argument is malformed.
	ErrInvalid = errors.New("invalid argument")
	// ErrGenMoved: bytes were dropped, or an end was begun, since the caller verified.
	ErrGenMoved = errors.New("session has changed since it was verified")
	// ErrUnknownOutcome marks an End's error after which the commit may have happened.
	ErrUnknownOutcome = errors.New("outcome of the commit is unknown")
)

// IncompleteError lists the missing ranges: at most 1,000. More says that there are others.
type IncompleteError struct {
	ID      SessionID
	Missing []Range
	More    bool
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("session %d is incomplete: %d ranges are missing", uint64(e.ID), len(e.Missing))
}

// Unwrap makes errors.Is(err, ErrIncomplete) true.
func (e *IncompleteError) Unwrap() error { return ErrIncomplete }

// LimitError says which gap to fill first.
type LimitError struct {
	Gap   Range  // empty if there is none
	Limit string // the limit that was reached, in words
	Most  int64  // the limit, if it is a number of entries or gaps; else 0
}

// Bound gives the limit, of which nothing is left. It is 0 if it is no number of entries or gaps.
func (e *LimitError) Bound() (limit, left int64) { return e.Most, 0 }

func (e *LimitError) Error() string {
	if e.Gap.Empty() {
		return e.Limit
	}
	return fmt.Sprintf("%s; fill the gap of bytes %d to %d first", e.Limit, e.Gap.Off, e.Gap.End-1)
}

// Unwrap makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Unwrap() error { return ErrLimit }
