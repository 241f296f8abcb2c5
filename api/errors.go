package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// refusal is an error that arises in this package, with its code.
type refusal struct {
	code   Code
	detail string
	retry  time.Duration
	limit  int64 // the limit that was exceeded; 0: none
	late   bool  // the answer comes after refuseDelay
}

// Bound gives the limit, if there is one. Nothing of it is used up.
func (e *refusal) Bound() (limit, left int64) { return e.limit, -1 }

func (e *refusal) Error() string { return e.detail }

// isLate reports whether the answer to an error comes after refuseDelay: the client asks for too
// much, and would only ask again.
func isLate(err error) bool {
	var r *refusal
	return errors.Is(err, session.ErrBusy) || errors.As(err, &r) && r.late
}

// invalid makes the error for a field that has the problem.
func invalid(field, problem string) error {
	return &refusal{code: CodeInvalidArgument, detail: field + " " + problem}
}

// tooMuch makes the error for a field that exceeds a limit.
func tooMuch(field, problem string, limit int64) error {
	return &refusal{code: CodeInvalidArgument, detail: field + " " + problem, limit: limit}
}

// cutError is a body that did not end cleanly, or an answer that its client did not take. Err says
// how.
type cutError struct{ Err error }

func (e *cutError) Error() string { return fmt.Sprintf("the body was cut off: %v", e.Err) }

func (e *cutError) Unwrap() error { return e.Err }

var (
	errNotFound = &refusal{code: CodeNotFound, detail: "there is no such thing, or none that you may know of"}
	errEncoded  = &refusal{
		code: CodeUnsupportedMediaType, detail: "Content-Encoding is not taken: send the bytes as they are",
	}
	errDraining = &refusal{code: CodeUnavailable, detail: "the server is stopping", retry: 5 * time.Second}
	errDegraded = &refusal{
		code: CodeUnavailable, detail: "degraded: the disk is full; nothing new is taken, all else goes on",
		retry: 5 * time.Second,
	}
	errAway = &refusal{
		code: CodeUnavailable,
		detail: "the server's data folder is not in its place (a disk that is not mounted, " +
			"or a folder that was moved): nothing is taken until it is back, and what was acknowledged is safe there",
		retry: 5 * time.Second,
	}
	errTaken = &refusal{
		code: CodeUnavailable,
		detail: "the server's data folder is not in its place: another server has been started on it, " +
			"or its lock file was removed; the log says which. " +
			"Nothing is taken until this server has been started anew",
		retry: 5 * time.Second,
	}
	errBusy = &refusal{
		code: CodeUnavailable, detail: "too many requests are running", retry: time.Second, late: true,
	}
	errTooManyConns = &refusal{code: CodeUnavailable, detail: "too many connections", retry: time.Second}
	errOverShare    = &refusal{
		code: CodeResourceExhausted, detail: "too much of yours is under way at one time", retry: time.Second, late: true,
	}
	// errSlow: the body came in more slowly than the minimum rate.
	errSlow = errors.New("the body came too slowly")
	// errPanic: the log has it.
	errPanic = errors.New("panic")
	// errUnsatisfiable marks a range that starts past the end.
	errUnsatisfiable = errors.New("the range starts past the end")
)

// responses gives the status and title of each code.
var responses = map[Code]struct {
	status int
	title  string
}{
	CodeInvalidArgument:      {http.StatusBadRequest, "Invalid argument"},
	CodeUnauthenticated:      {http.StatusUnauthorized, "A valid token is needed"},
	CodeForbidden:            {http.StatusForbidden, "Not allowed"},
	CodeQuotaExceeded:        {http.StatusForbidden, "Quota exceeded"},
	CodeNotFound:             {http.StatusNotFound, "Not found"},
	CodeSessionExpired:       {http.StatusGone, "Session expired"},
	CodeChunkConflict:        {http.StatusConflict, "Other bytes are there already"},
	CodeIdempotencyConflict:  {http.StatusConflict, "The idempotency key was used for another request"},
	CodeAlreadyExists:        {http.StatusConflict, "Already exists"},
	CodeNotEmpty:             {http.StatusConflict, "Not empty"},
	CodeIncomplete:           {http.StatusConflict, "Bytes are missing"},
	CodeAlreadyFinished:      {http.StatusConflict, "Already finished"},
	CodeAlreadyAborted:       {http.StatusConflict, "Already aborted"},
	CodeSuperseded:           {http.StatusConflict, "Superseded by a newer request"},
	CodeMethodNotAllowed:     {http.StatusMethodNotAllowed, "Method not allowed"},
	CodeTimeout:              {http.StatusRequestTimeout, "Too slow"},
	CodeTooLarge:             {http.StatusRequestEntityTooLarge, "Too large"},
	CodeUnsupportedMediaType: {http.StatusUnsupportedMediaType, "Unsupported media type"},
	CodePreconditionFailed:   {http.StatusPreconditionFailed, "Another content is there"},
	CodeRangeNotSatisfiable:  {http.StatusRequestedRangeNotSatisfiable, "Range not satisfiable"},
	CodeChecksumMismatch:     {http.StatusUnprocessableEntity, "Checksum mismatch"},
	CodeLengthMismatch:       {http.StatusUnprocessableEntity, "Length mismatch"},
	CodeResourceExhausted:    {http.StatusTooManyRequests, "Too many"},
	CodeInternal:             {http.StatusInternalServerError, "Internal error"},
	CodeUnavailable:          {http.StatusServiceUnavailable, "Temporarily unavailable"},
	CodeStorageFull:          {http.StatusInsufficientStorage, "Storage is full"},
	CodeDamaged:              {http.StatusInternalServerError, "The stored content is damaged"},
}

// errorCodes is the one table from error to code. The first row that errors.Is matches counts. An
// error that no row matches is Internal.
var errorCodes = []struct {
	is    error
	code  Code
	retry time.Duration
}{
	// Unknown outcomes wrap their causes, so they come first.
	{session.ErrUnknownOutcome, CodeUnavailable, time.Second},
	{catalog.ErrUnknownOutcome, CodeUnavailable, time.Second},
	{upload.ErrAway, CodeUnavailable, 5 * time.Second},
	{blob.ErrUnavailable, CodeUnavailable, time.Second},
	{session.ErrSealed, CodeUnavailable, time.Second},
	{session.ErrGenMoved, CodeUnavailable, time.Second},
	{access.ErrIssuerAway, CodeUnavailable, 5 * time.Second},
	{access.ErrUnauthenticated, CodeUnauthenticated, 0},
	{access.ErrForbidden, CodeForbidden, 0},
	{session.ErrNotFound, CodeNotFound, 0},
	{catalog.ErrNotFound, CodeNotFound, 0},
	{session.ErrExpired, CodeSessionExpired, 0},
	{session.ErrAborted, CodeAlreadyAborted, 0},
	{session.ErrFinished, CodeAlreadyFinished, 0},
	{upload.ErrAlreadyFinished, CodeAlreadyFinished, 0},
	{catalog.ErrDeleted, CodeAlreadyFinished, 0},
	{session.ErrSuperseded, CodeSuperseded, 0},
	{session.ErrConflict, CodeChunkConflict, 0},
	{session.ErrIncomplete, CodeIncomplete, 0},
	{upload.ErrIdem, CodeIdempotencyConflict, 0},
	{catalog.ErrExists, CodeAlreadyExists, 0},
	{catalog.ErrNotEmpty, CodeNotEmpty, 0},
	{catalog.ErrQuota, CodeQuotaExceeded, 0},
	{catalog.ErrMIME, CodeUnsupportedMediaType, 0},
	{catalog.ErrTooManyTokens, CodeQuotaExceeded, 0},
	{catalog.ErrTooManyGrants, CodeQuotaExceeded, 0},
	{catalog.ErrUsedUp, CodeQuotaExceeded, 0},
	{catalog.ErrLastAdmin, CodeForbidden, 0},
	{catalog.ErrTooManySessions, CodeResourceExhausted, time.Minute},
	{upload.ErrTooManyEnded, CodeResourceExhausted, time.Hour},
	{session.ErrLimit, CodeResourceExhausted, time.Second},
	{session.ErrBusy, CodeResourceExhausted, time.Second},
	{upload.ErrChecksum, CodeChecksumMismatch, 0},
	{upload.ErrLengthMismatch, CodeLengthMismatch, 0},
	{session.ErrLength, CodeLengthMismatch, 0},
	{upload.ErrTooLarge, CodeTooLarge, 0},
	{session.ErrLong, CodeTooLarge, 0},
	{session.ErrShort, CodeInvalidArgument, 0},
	{errUnsatisfiable, CodeRangeNotSatisfiable, 0},
	{session.ErrRange, CodeInvalidArgument, 0},
	{session.ErrInvalid, CodeInvalidArgument, 0},
	{catalog.ErrInvalid, CodeInvalidArgument, 0},
	{memories.ErrCursor, CodeInvalidArgument, 0},
	{access.ErrCursor, CodeInvalidArgument, 0},
	{blob.ErrNoSpace, CodeStorageFull, time.Minute},
	{errSlow, CodeTimeout, 0},
	{memories.ErrDamaged, CodeDamaged, 0},
	// A loss that is found at opening is the same as one that a scrub has marked.
	{blob.ErrCorrupt, CodeDamaged, 0},
	{blob.ErrMissing, CodeDamaged, 0},
	{catalog.ErrDamaged, CodeDamaged, 0},
}

// codeOf returns the code of an error, when to try again, and what to tell the client of it.
func codeOf(err error) (code Code, retry time.Duration, detail string) {
	var (
		r     *refusal
		field *catalog.FieldError
		cut   *cutError
		quota *catalog.QuotaError
	)
	switch {
	case errors.As(err, &r):
		return r.code, r.retry, r.detail
	case errors.As(err, &field) && field.MIME:
		return CodeUnsupportedMediaType, 0, err.Error()
	case errors.As(err, &quota): // without what wraps it, which may name a session
		return CodeQuotaExceeded, 0, quota.Error()
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.is) {
			return row.code, row.retry, err.Error()
		}
	}
	switch {
	case errors.As(err, &cut):
		return CodeInvalidArgument, 0, "the body was cut off"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return CodeUnavailable, time.Second, ""
	}
	return CodeInternal, 0, ""
}

// faultOf describes an error to the client. sizeOf returns a session's chunk size, or 0. It is
// called only if chunks are missing.
func faultOf(err error, sizeOf func(session.SessionID) int64) Fault {
	code, retry, detail := codeOf(err)
	f := Fault{Status: responses[code].status, Code: code, Detail: detail, RetryAfterMS: retry.Milliseconds()}
	switch {
	case errors.Is(err, catalog.ErrDamaged) && code == CodeDamaged:
		f.Detail = "a record that this needs is damaged; trying again does not help. " +
			"The log has it under this request_id, and sluice check names all that is"
	case code == CodeDamaged:
		f.Detail = "the stored content is damaged and is not given out; storing the same bytes again heals it"
	case errors.Is(err, upload.ErrTaken):
		f.Detail = errTaken.detail
	case errors.Is(err, upload.ErrAway):
		f.Detail = errAway.detail
	case code == CodeInternal:
		f.Detail = "something went wrong here; the log has it under this request_id"
	case code == CodeUnauthenticated && !errors.As(err, new(*refusal)): // the log says why
		f.Detail = access.ErrUnauthenticated.Error()
	case errors.Is(err, access.ErrIssuerAway):
		f.Detail = "the issuer of the token can't be reached from the server; try again in a moment"
	case code == CodeNotFound:
		// The same for a thing that is not there and for one that the caller may not know of.
		f.Detail = errNotFound.detail
	case code == CodeStorageFull:
		f.Detail = "no room is left on the server; nothing that was acknowledged is lost. " +
			"What has arrived can be finished or aborted; once there is room again, go on"
	case f.Status >= 500 && !errors.As(err, new(*refusal)): // the text of a refusal is meant for the client
		f.Detail = "not now; try again in a moment"
	}
	var (
		bound interface {
			error
			Bound() (limit, left int64)
		}
		incomplete *session.IncompleteError
		limit      *session.LimitError
		sum        *upload.ChecksumError
		length     *upload.LengthError
	)
	if errors.As(err, &bound) {
		if limit, left := bound.Bound(); limit > 0 {
			if f.Limit = &limit; left >= 0 {
				f.Left = &left
			}
		}
	}
	switch {
	case errors.As(err, &incomplete):
		f.Missing = chunkRanges(incomplete.Missing, sizeOf(incomplete.ID))
		f.MissingBytes, f.More = byteRanges(incomplete.Missing)
		f.More = f.More || incomplete.More
	case errors.As(err, &limit) && !limit.Gap.Empty():
		f.MissingBytes, _ = byteRanges([]session.Range{limit.Gap})
	case errors.As(err, &sum):
		f.Expected, f.Got = sum.Want, sum.Got
		if sum.Bad != nil {
			f.Bad, f.More = byteRanges(sum.Bad)
		}
		f.More = f.More || sum.More
	case errors.As(err, &length):
		f.Expected, f.Got = strconv.FormatInt(length.Want, 10), strconv.FormatInt(length.Got, 10)
	case errors.Is(err, upload.ErrAlreadyFinished), errors.Is(err, catalog.ErrDeleted):
		f.Deleted = true
	}
	return f
}

// problemOf makes the answer to an error.
func problemOf(err error, requestID string, sizeOf func(session.SessionID) int64) Problem {
	p := Problem{Fault: faultOf(err, sizeOf)}
	p.Type, p.Title = "/problems/"+slug(p.Code), responses[p.Code].title
	if p.Status >= 500 {
		p.RequestID = requestID
	}
	var batch *upload.BatchError
	if errors.As(err, &batch) {
		for _, f := range batch.Failures {
			p.Failures = append(p.Failures, Failure{SessionID: f.ID.String(), Fault: faultOf(f.Err, sizeOf)})
		}
	}
	return p
}

// slug turns ChecksumMismatch into checksum-mismatch.
func slug(c Code) string {
	var b strings.Builder
	for i, r := range string(c) {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
