// Package access decides who may do what. It owns the making and ending of principals, of tokens
// and of grants (upload tickets and read links), the trust in an [Issuer] of other tokens, and the
// one decision point, [Allow]. Every front end asks Allow, once more inside the transaction that
// commits. It owns no HTTP: a front end passes the bearer's secret to it. The rows are the
// catalog's.
package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/catalog"
)

// The refusals. A caller that may not know that a thing exists gets catalog.ErrNotFound instead of
// ErrForbidden.
var (
	// ErrUnauthenticated: no token, or one that is unknown, expired or revoked.
	ErrUnauthenticated = errors.New("a valid token is needed")
	// ErrForbidden: the caller is known and not allowed.
	ErrForbidden = errors.New("not allowed")
)

// ErrHidden marks a refusal that reads as if the thing were not there: the caller may not know of
// it. It stands beside catalog.ErrNotFound or session.ErrNotFound, and no client is told.
var ErrHidden = errors.New("the caller may not know of it")

// errHidden is what a caller gets instead of a thing of the catalog that it may not know of.
var errHidden = fmt.Errorf("%w: %w", catalog.ErrNotFound, ErrHidden)

// Caller is a verified identity. It is passed explicitly to every operation.
type Caller struct {
	// Principal is the caller's id. It owns what it begins.
	Principal string
	// Token is the hash under which the token is stored: Allow looks it up again.
	Token [32]byte
	// TokenID is the token's id, which is no secret.
	TokenID string
	Admin   bool
	// ReadOnly: the token may not change anything.
	ReadOnly bool
	// External: the token is one of an issuer. Token and TokenID are not set then. Expires is when
	// that token ends, and AdminByToken the admin right that it gives until then.
	External, AdminByToken bool
	Expires                time.Time
	// Grant says that the caller is no principal but an upload ticket or a read link. Principal and
	// TokenID are its id then.
	Grant catalog.GrantKind
	// Maker is the principal that has made the grant.
	Maker string
	// Memory is the only one that a read link may read.
	Memory catalog.MemoryID
}

// Payer is the principal that the caller's uploads count for.
func (c Caller) Payer() string { return cmp.Or(c.Maker, c.Principal) }

type callerKey struct{}

// NewContext gives a context that says on whose behalf a commit of the session engine is made. The
// engine knows nothing of callers, and hands the context to the hook of its store.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext gives the caller of NewContext. ok is false if the server acts for itself.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Action is an operation of a caller on a capsule.
type Action uint8

// The actions, and the callers that may do them. Read and Write, Upload and Look (at one's own
// uploads): subject, owner or controller. Delete (memories) and Manage (name, MIME types): owner or
// controller. Own (roles, deleting the capsule): owner. Inspect (its counters): any of them, or an
// admin. Quota: an admin. A token that is read-only may Read, Look and Inspect. An upload ticket
// may Upload and Look, and a read link may Read. docs/access.md has the table for people.
const (
	Read Action = iota + 1
	Write
	Upload
	Look
	Delete
	Manage
	Own
	Inspect
	Quota
)
