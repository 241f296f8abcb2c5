package catalog

import "fmt"

// QuotaError says which quota refused what.
type QuotaError struct {
	Of          string // "capsule" or "principal"
	Limit, Used int64  // bytes, or memories if Count is set
	Wanted      int64
	Count       bool
}

func (e *QuotaError) Error() string {
	unit := "bytes"
	if e.Count {
		unit = "memories"
	}
	_, left := e.Bound()
	return fmt.Sprintf(
		"the %s may hold %d %s and holds %d: %d more don't fit, and %d are left", e.Of, e.Limit, unit, e.Used,
		e.Wanted, left,
	)
}

// Unwrap makes errors.Is(err, ErrQuota) true.
func (e *QuotaError) Unwrap() error { return ErrQuota }

// Bound gives the limit, and how much of it is left.
func (e *QuotaError) Bound() (limit, left int64) { return e.Limit, max(e.Limit-e.Used, 0) }

// CountError says that there are as many of something as there may be.
type CountError struct {
	Err         error  // the sentinel: ErrTooManySessions, ErrTooManyTokens, ErrTooManyGrants
	Of, Things  string // such as "the principal" and "open sessions"
	Limit, Used int64
	Remedy      string // what makes room
}

func (e *CountError) Error() string {
	_, left := e.Bound()
	return fmt.Sprintf(
		"%v: %s may have %d %s and has %d: %d are left; %s", e.Err, e.Of, e.Limit, e.Things, e.Used, left, e.Remedy,
	)
}

// Unwrap gives the sentinel.
func (e *CountError) Unwrap() error { return e.Err }

// Bound gives the limit, and how much of it is left.
func (e *CountError) Bound() (limit, left int64) { return e.Limit, max(e.Limit-e.Used, 0) }

// UsedUpError says that a ticket has had its uploads.
type UsedUpError struct{ Limit, Done, Open int64 }

func (e *UsedUpError) Error() string {
	return fmt.Sprintf(
		"%v: the ticket is for %d uploads; %d are finished and %d under way", ErrUsedUp, e.Limit, e.Done, e.Open,
	)
}

// Unwrap makes errors.Is(err, ErrUsedUp) true.
func (e *UsedUpError) Unwrap() error { return ErrUsedUp }

// Bound gives how many uploads there may be, and how many of them are left.
func (e *UsedUpError) Bound() (limit, left int64) { return e.Limit, max(e.Limit-e.Done-e.Open, 0) }
