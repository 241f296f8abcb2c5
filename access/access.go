// Package access decides who may do what. It owns principals and tokens (rows of
// the catalog) and the one decision point, [Allow], that every front end asks, also once more
// inside the transaction that commits. It owns no HTTP: a front end hands it the bearer's secret.
package access

import "errors"

// The refusals. Whoever may not know that a thing exists gets catalog.ErrNotFound instead of
// ErrForbidden.
var (
	// ErrUnauthenticated: no token, or one that is unknown, expired or revoked.
	ErrUnauthenticated = errors.New("a valid token is needed")
	// ErrForbidden: known caller, not allowed.
	ErrForbidden = errors.New("not allowed")
)

// Caller is a verified identity. It is passed explicitly to every operation.
type Caller struct {
	// Principal is the id of who calls; it owns what it begins.
	Principal string
	// Token is the hash under which the token is stored: Allow looks it up again.
	Token [32]byte
	Admin bool
	// ReadOnly tokens may not change anything.
	ReadOnly bool
}

// Action is what a caller wants to do to a capsule.
type Action uint8

// The actions, and who may: Read and Write: subject, owner or controller. Delete (memories) and
// Manage (name): owner or controller. Own (roles, deleting the capsule): owner. Inspect (its
// counters): any of them, or an admin. Quota: an admin.
const (
	Read Action = iota + 1
	Write
	Delete
	Manage
	Own
	Inspect
	Quota
)
