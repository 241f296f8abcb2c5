// Package access decides who may do what. It owns principals and tokens (rows of the catalog), the
// trust in an [Issuer] of other tokens, and the one decision point, [Allow]. Every front end asks
// Allow, once more inside the transaction that commits. It owns no HTTP: a front end passes the
// bearer's secret to it.
package access

import (
	"errors"
	"time"
)

// The refusals. A caller that may not know that a thing exists gets catalog.ErrNotFound instead of
// ErrForbidden.
var (
	// ErrUnauthenticated: no token, or one that is unknown, expired or revoked.
	ErrUnauthenticated = errors.New("a valid token is needed")
	// ErrForbidden: the caller is known and not allowed.
	ErrForbidden = errors.New("not allowed")
)

// Caller is a verified identity. It is passed explicitly to every operation.
type Caller struct {
	// Principal is the caller's id. It owns what it begins.
	Principal string
	// Token is the hash under which the token is stored: Allow looks it up again.
	Token [32]byte
	Admin bool
	// ReadOnly: the token may not change anything.
	ReadOnly bool
	// External: the token is one of an issuer. Token is not set then. Expires is when that token
	// ends, and AdminByToken the admin right that it gives until then.
	External, AdminByToken bool
	Expires                time.Time
}

// Action is an operation of a caller on a capsule.
type Action uint8

// The actions, and the callers that may do them. Read and Write: subject, owner or controller.
// Delete (memories) and Manage (name): owner or controller. Own (roles, deleting the capsule):
// owner. Inspect (its counters): any of them, or an admin. Quota: an admin.
const (
	Read Action = iota + 1
	Write
	Delete
	Manage
	Own
	Inspect
	Quota
)
