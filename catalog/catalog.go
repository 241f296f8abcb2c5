// Package catalog says what is stored: capsules with their roles and counters, memories with their
// metadata, the content of memories, and everything that must change in the same transaction:
// reservations, idempotency rows, events, and the list of work that becomes due.
//
// It owns the rules, as pure functions over a transaction, and declares the [Store] that keeps the
// rows. It does no I/O and has no bytes of content. It does not decide access (package access
// does).
//
//	capsule ──┬── memory ──▶ content (capsule, SHA-256) ──▶ extents ──▶ places
//	          ├── event (numbered without a gap)              (counted references)
//	          └── reservation (one per open session)
//
// Content is a list of extents. The name of a place belongs to one writer and is never used again.
// The catalog counts how many content rows name a place. At zero the place becomes garbage for
// good. So a new upload of the same bytes brings its own place, and can't race with the keeper.
package catalog

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// The errors of the rules. All are final for the request, except ErrNotFound of a Get.
var (
	ErrNotFound = errors.New("not found")
	// ErrExists: the capsule id is taken.
	ErrExists = errors.New("already exists")
	// ErrNotEmpty: the capsule still has memories, trashed ones included, or open sessions.
	ErrNotEmpty = errors.New("the capsule is not empty")
	// ErrQuota: see *QuotaError.
	ErrQuota = errors.New("quota exceeded")
	// ErrTooManySessions: the owner has as many open sessions as are allowed. See *CountError.
	ErrTooManySessions = errors.New("too many open sessions")
	// ErrTooManyTokens: the principal has MostTokens. See *CountError.
	ErrTooManyTokens = errors.New("too many tokens")
	// ErrLastAdmin: without this principal there would be no admin.
	ErrLastAdmin = errors.New("there must be an admin")
	// ErrInvalid: see *FieldError.
	ErrInvalid = errors.New("invalid")
	// ErrKeyTaken: the idempotency key belongs to another request, or to the same one with other
	// bytes.
	ErrKeyTaken = errors.New("the idempotency key belongs to other bytes")
	// ErrDeleted: the memory that an idempotency row points to is gone or in the trash.
	ErrDeleted = errors.New("the memory was deleted")
)

// FieldError says which field of the metadata is malformed, and how to correct it.
type FieldError struct {
	Field, Problem string
	MIME           bool // the MIME type is malformed
	// Limit is the length or number that the field exceeds; 0: that is not the problem.
	Limit int64
}

// Bound gives the limit, of which nothing is ever used up.
func (e *FieldError) Bound() (limit, left int64) { return e.Limit, -1 }

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// SHA256 is a digest.
type SHA256 [32]byte

// MemoryID is a UUIDv7.
type MemoryID = uuid.UUID

// Capsule is a container of memories, with roles, quotas and counters.
type Capsule struct {
	ID, Name string
	// Subject, Owners and Controllers are ids of principals. Package access says what each may do.
	Subject             string
	Owners, Controllers []string
	Created             time.Time
	// Memories and Bytes count what is stored, including the trash. Trashed counts the memories in
	// the trash.
	Memories, Bytes, Trashed int64
	// Sessions and Reserved count the open sessions and the bytes that these may still bring.
	Sessions, Reserved int64
	// QuotaBytes and QuotaMemories bound Bytes+Reserved and Memories+Sessions; 0 is no bound.
	QuotaBytes, QuotaMemories int64
	// Seq is the number of the capsule's latest event.
	Seq uint64
	// MIMETypes are the types that contents may have, as patterns; empty: all. See MIMEAllowed.
	MIMETypes []string
}

// Meta is a client's description of a file.
type Meta struct {
	Name        string // 1 to 255 bytes, shown and never used as a path
	Path        string // relative, / between parts, NFC, or empty
	MIME        string
	Description string
	Tags        []string
	Width       int64 // pixels, 0 unknown
	Height      int64
	TakenAt     time.Time // zero: unknown
}

// Memory is one stored file.
type Memory struct {
	ID      MemoryID
	Capsule string
	Meta
	Bytes   int64
	SHA256  SHA256
	Created time.Time
	// Owner is the principal that uploaded it.
	Owner string
	// Seq is the number of the event of its creation. It gives the memory its position in lists,
	// newest first.
	Seq uint64
	// Trashed is the time of its deletion; zero while it is not deleted. PurgeAt is then the
	// running time (ms) of its purge.
	Trashed time.Time
	PurgeAt int64
	// By is the session that brought it, 0 for a create without a session. Idem is the idempotency
	// key, if any.
	By   uint64
	Idem string
}

// Extent is a run of bytes at a place. A recorded extent never changes.
type Extent struct {
	Place  string
	Off    int64 // in the place
	Len    int64
	CRC32C uint32 // Castagnoli, of these bytes
}

// Content is one row per (capsule, SHA-256).
type Content struct {
	Capsule string
	SHA256  SHA256
	Bytes   int64
	Extents []Extent
	// Inline holds the bytes themselves if they are few. Extents is empty then.
	Inline []byte
	// CRC32C is the checksum of Inline.
	CRC32C uint32
	// Refs is how many memories point here.
	Refs int64
	// Damaged is the time when a check found that the bytes are not what was stored; zero: no check
	// has found that. Damaged content is not read, and an upload of the same bytes brings a row
	// without the mark.
	Damaged time.Time
}

// Reservation is what one open session holds of the bounds of its capsule and its owner.
type Reservation struct {
	Session        uint64
	Capsule, Owner string
	// Payer is the principal that it counts for if that is not the Owner: the maker of the ticket
	// that is the owner.
	Payer string
	Bytes int64
}

// Usage is what all open sessions of one principal hold, with those of its tickets.
type Usage struct {
	Owner              string
	Sessions, Reserved int64
}

// Idem records a finished upload under the client's key. It lives as long as its memory, and a
// while after.
type Idem struct {
	Capsule, Owner, Key string
	Fingerprint         []byte // of the request
	Memory              MemoryID
	Session             uint64 // 0 for a create without one
}

// Outcome records what a finished session became. It lives as long as its memory, and a while
// after.
type Outcome struct {
	Session uint64
	Capsule string
	Memory  MemoryID
	SHA256  SHA256
	Bytes   int64
}

// EventType is the kind of an event.
type EventType string

// The events, as docs/api.md names them.
const (
	MemoryCreated  EventType = "memory.created"
	MemoryUpdated  EventType = "memory.updated"
	MemoryDeleted  EventType = "memory.deleted"
	MemoryRestored EventType = "memory.restored"
	MemoryPurged   EventType = "memory.purged"
	SessionExpired EventType = "session.expired"
	SessionAborted EventType = "session.aborted"
	CapsuleCreated EventType = "capsule.created"
	CapsuleUpdated EventType = "capsule.updated"
	CapsuleDeleted EventType = "capsule.deleted"
)

// Event is one change, written in the transaction that made it.
type Event struct {
	Capsule string
	Seq     uint64
	Type    EventType
	Time    time.Time
	Memory  *Memory  // as it was then, for created and updated
	ID      MemoryID // for every memory event
	Session uint64   // for session events
}

// Principal is somebody who calls.
type Principal struct {
	ID, Name string
	Admin    bool
	Created  time.Time
	// MaxOpenSessions and QuotaBytes (of open sessions); 0: the server's setting.
	MaxOpenSessions, QuotaBytes int64
	// Identity says who signs in as the principal with tokens of an issuer. Zero: nobody.
	Identity Identity
}

// Token lets its bearer act as a principal. The catalog keeps only the hash of the secret.
type Token struct {
	Hash      SHA256
	ID, Name  string
	Principal string
	ReadOnly  bool
	Created   time.Time
	Expires   time.Time // zero: never
	LastUsed  time.Time // to the hour; zero: not yet
}

// HashCheckpoint is a saved state of the incremental SHA-256 over the first Off bytes of a session,
// computed while the session was at Gen.
type HashCheckpoint struct {
	Session uint64
	Off     int64
	Gen     uint64
	State   []byte
}

// DueKind is the kind of work that becomes due.
type DueKind uint8

// The kinds. Key of each, in this order: a memory's id, a place, a session's id as 8 bytes,
// IdemKey's bytes, a token's hash, a deleted principal's id, a grant's id, the id of a ticket that
// has ended.
const (
	DuePurge DueKind = iota + 1
	DuePlace
	DueOutcome
	DueIdem
	DueToken
	DuePrincipal
	DueGrant
	DueTicket
)

// Due is work for the collector. At is in running time of the session engine (ms), so a clock that
// jumps deletes nothing.
type Due struct {
	At   int64
	Kind DueKind
	Key  string
}
