package catalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"sluice/session"
)

// Store runs transactions over the catalog's rows. It is serializable and safe for concurrent use.
// Every implementation passes catalogtest.TestStore.
type Store interface {
	// View runs f over one consistent, durable state: a crash takes back nothing that f sees. f may
	// run again, so it must be pure except for its result.
	View(ctx context.Context, f func(Reader) error) error
	// Update runs f and commits what it wrote, all or nothing. The commit has survived power loss
	// when Update returns nil. An error of f is returned as it is, and nothing has changed. f may
	// run again (a serialization failure), so it must be pure except for its result. An error that
	// wraps ErrUnknownOutcome says that the commit may or may not have happened. With any other
	// error it has not. An Update that writes nothing returns only when the rows that it read are
	// durable.
	Update(ctx context.Context, f func(Tx) error) error
}

// ErrDamaged: a stored row is not what was written. All others are as they were, so a loop over
// rows goes on after it.
var ErrDamaged = errors.New("the stored record is damaged")

// ErrHole is the ErrDamaged for several rows that are missing together. Their number and their keys
// are unknown.
var ErrHole = fmt.Errorf("%w: some may be lost together", ErrDamaged)

// ErrUnknownOutcome: the commit may have happened.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// Reader reads rows. It is valid only while the closure runs, in its goroutine.
type Reader interface {
	// Get gives the row as the type that its table names, or ErrNotFound. Rows are shared: never
	// change one in place.
	Get(t TableID, key []byte) (row any, err error)
	// Scan gives the rows with lo ≤ key < hi (nil: to the end of the table) in the order of their
	// keys, or backwards. In place of a row that can't be read it gives one ErrDamaged, and in
	// place of several that are missing together one ErrHole. Then it goes on.
	Scan(t TableID, lo, hi []byte, desc bool) iter.Seq2[any, error]
}

// Tx reads and writes rows, and sees its own writes.
type Tx interface {
	Reader
	Put(t TableID, key []byte, row any) error
	// Delete removes a row. A row that is not there is no error.
	Delete(t TableID, key []byte) error
	// EndSession ends a session of the engine in this very commit. It checks that the session is
	// sealed at gen, or has ended so already (a repeat), and moves it to that state. Otherwise it
	// gives an error, which f must return.
	EndSession(id session.SessionID, gen uint64, to session.State) error
}

// TableID names a table in a Store. The numbers are part of stored formats.
type TableID uint8

// The tables' ids.
const (
	CapsuleTable TableID = iota + 1
	RoleTable
	MemoryTable
	OrderTable
	DigestTable
	ContentTable
	PlaceTable
	ReservationTable
	UsageTable
	IdemTable
	OutcomeTable
	EventTable
	PrincipalTable
	TokenTable
	CheckpointTable
	DueTable
	TokenIDTable
	PrincipalTokenTable
	GrantTable
	GrantSecretTable
	GrantListTable

	IdentityTable TableID = 30
)

// AccessTables are those that the right to write to a capsule depends on. The row of a capsule is
// not among them, nor that of a grant, since both also count: a change of roles is also one of
// RoleTable, and a grant that ends is also one of GrantSecretTable.
func AccessTables() []TableID {
	return []TableID{RoleTable, PrincipalTable, TokenTable, GrantSecretTable}
}

// Key is a row's key. The order of the encoded keys is the table's order.
type Key interface{ AppendKey(dst []byte) []byte }

// Table is the typed view of one table. The zero value is unusable: use the variables below.
type Table[K Key, V any] struct{ ID TableID }

// The tables. Order, Digests, Roles, TokenIDs, PrincipalTokens, GrantSecrets, GrantLists and
// Identities are indexes.
var (
	Capsules     = Table[Name, Capsule]{CapsuleTable}
	Roles        = Table[RoleKey, RoleKey]{RoleTable}
	Memories     = Table[MemoryKey, Memory]{MemoryTable}
	Order        = Table[OrderKey, MemoryID]{OrderTable}
	Digests      = Table[DigestKey, MemoryID]{DigestTable}
	Contents     = Table[ContentKey, Content]{ContentTable}
	Places       = Table[Name, Place]{PlaceTable}
	Reservations = Table[Number, Reservation]{ReservationTable}
	Usages       = Table[Name, Usage]{UsageTable}
	Idems        = Table[IdemKey, Idem]{IdemTable}
	Outcomes     = Table[Number, Outcome]{OutcomeTable}
	Events       = Table[EventKey, Event]{EventTable}
	Principals   = Table[Name, Principal]{PrincipalTable}
	Tokens       = Table[TokenKey, Token]{TokenTable}
	Checkpoints  = Table[CheckpointKey, HashCheckpoint]{CheckpointTable}
	Dues         = Table[DueKey, Due]{DueTable}
	TokenIDs     = Table[Name, TokenRef]{TokenIDTable}

	PrincipalTokens = Table[PrincipalTokenKey, TokenRef]{PrincipalTokenTable}

	Grants       = Table[Name, Grant]{GrantTable}
	GrantSecrets = Table[TokenKey, GrantRef]{GrantSecretTable}
	GrantLists   = Table[GrantListKey, GrantRef]{GrantListTable}

	Identities = Table[Identity, IdentityRef]{IdentityTable}
)

// Get gives the row, or ErrNotFound.
func (t Table[K, V]) Get(r Reader, k K) (v V, err error) {
	row, err := r.Get(t.ID, keyOf(k))
	if err != nil {
		return v, err
	}
	return row.(V), nil
}

// Find is Get with "not found" as a value.
func (t Table[K, V]) Find(r Reader, k K) (v V, ok bool, err error) {
	v, err = t.Get(r, k)
	if errors.Is(err, ErrNotFound) {
		return v, false, nil
	}
	return v, err == nil, err
}

// Scan gives the rows with lo ≤ key < hi in order.
func (t Table[K, V]) Scan(r Reader, lo, hi K) iter.Seq2[V, error] {
	return t.rows(r.Scan(t.ID, lo.AppendKey(nil), hi.AppendKey(nil), false))
}

// Back gives the same rows backwards.
func (t Table[K, V]) Back(r Reader, lo, hi K) iter.Seq2[V, error] {
	return t.rows(r.Scan(t.ID, lo.AppendKey(nil), hi.AppendKey(nil), true))
}

// After gives every row whose key is greater than k, in order.
func (t Table[K, V]) After(r Reader, k K) iter.Seq2[V, error] {
	return t.rows(r.Scan(t.ID, append(k.AppendKey(nil), 0), nil, false))
}

func (t Table[K, V]) rows(seq iter.Seq2[any, error]) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		for row, err := range seq {
			v, _ := row.(V)
			if !yield(v, err) {
				return
			}
		}
	}
}

// Put stores the row.
func (t Table[K, V]) Put(tx Tx, k K, v V) error { return tx.Put(t.ID, keyOf(k), v) }

// Delete removes the row, if it is there.
func (t Table[K, V]) Delete(tx Tx, k K) error { return tx.Delete(t.ID, keyOf(k)) }

// keyOf encodes a key into a buffer that is large enough for most keys.
func keyOf[K Key](k K) []byte { return k.AppendKey(make([]byte, 0, 64)) }

// Place counts how many content rows name a place. At 0 the place is garbage, for ever.
type Place struct {
	Name string
	Refs int64
}

// Name is a key that is one string.
type Name string

// AppendKey appends the ordered encoding.
func (k Name) AppendKey(b []byte) []byte { return append(b, k...) }

// Number is a key that is one number.
type Number uint64

// AppendKey appends the ordered encoding.
func (k Number) AppendKey(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(k)) }

// MemoryKey is the key of a memory.
type MemoryKey MemoryID

// AppendKey appends the ordered encoding.
func (k MemoryKey) AppendKey(b []byte) []byte { return append(b, k[:]...) }

// RoleKey says that Principal has some role in Capsule.
type RoleKey struct{ Principal, Capsule string }

// AppendKey appends the ordered encoding.
func (k RoleKey) AppendKey(b []byte) []byte {
	return append(appendString(b, k.Principal), k.Capsule...)
}

// OrderKey lists a capsule's memories by the number of the event of their creation. The trash is a
// list of its own.
type OrderKey struct {
	Capsule string
	Trash   bool
	Seq     uint64
}

// AppendKey appends the ordered encoding.
func (k OrderKey) AppendKey(b []byte) []byte {
	b = appendString(b, k.Capsule)
	if k.Trash {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, k.Seq)
}

// DigestKey lists a capsule's visible memories by digest, then as OrderKey does.
type DigestKey struct {
	Capsule string
	SHA256  SHA256
	Seq     uint64
}

// AppendKey appends the ordered encoding.
func (k DigestKey) AppendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(appendString(b, k.Capsule), k.SHA256[:]...), k.Seq)
}

// ContentKey is the key of a content row.
type ContentKey struct {
	Capsule string
	SHA256  SHA256
}

// AppendKey appends the ordered encoding.
func (k ContentKey) AppendKey(b []byte) []byte {
	return append(appendString(b, k.Capsule), k.SHA256[:]...)
}

// IdemKey is the key of an idempotency row.
type IdemKey struct{ Capsule, Owner, Key string }

// AppendKey appends the ordered encoding.
func (k IdemKey) AppendKey(b []byte) []byte {
	return append(appendString(appendString(b, k.Capsule), k.Owner), k.Key...)
}

// EventKey is the key of an event.
type EventKey struct {
	Capsule string
	Seq     uint64
}

// AppendKey appends the ordered encoding.
func (k EventKey) AppendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(appendString(b, k.Capsule), k.Seq)
}

// TokenKey is the hash of a token's secret.
type TokenKey SHA256

// AppendKey appends the ordered encoding.
func (k TokenKey) AppendKey(b []byte) []byte { return append(b, k[:]...) }

// PrincipalTokenKey lists the tokens of a principal by their ids, the oldest first.
type PrincipalTokenKey struct{ Principal, ID string }

// AppendKey appends the ordered encoding.
func (k PrincipalTokenKey) AppendKey(b []byte) []byte {
	return append(appendString(b, k.Principal), k.ID...)
}

// CheckpointKey is the key of a saved hash state.
type CheckpointKey struct {
	Session uint64
	Off     int64
}

// AppendKey appends the ordered encoding.
func (k CheckpointKey) AppendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(Number(k.Session).AppendKey(b), uint64(k.Off))
}

// DueKey orders due work by its time.
type DueKey struct {
	At   int64
	Kind DueKind
	Key  string
}

// AppendKey appends the ordered encoding.
func (k DueKey) AppendKey(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k.At))
	return append(append(b, byte(k.Kind)), k.Key...)
}

// appendString ends s with a NUL, which no string of a key contains. So a shorter string sorts
// first, and two keys can't run together.
func appendString(b []byte, s string) []byte { return append(append(b, s...), 0) }
