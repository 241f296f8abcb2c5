// Package catalog says what is stored: capsules with their roles and counters,
// memories with their metadata, the content they point to, and everything that
// must change in the same transaction with those: reservations, idempotency
// rows, events, and the list of what is due to be cleaned up.
//
// It owns the rules, as pure functions over a transaction, and declares the
// [Store] that keeps the rows. It owns no I/O, no bytes of content, and decides
// nobody's access (package access does).
//
//	capsule ──┬── memory ──▶ content (capsule, SHA-256) ──▶ extents ──▶ places
//	          ├── event (numbered without a gap)              (counted references)
//	          └── reservation (one per open session)
//
// Content is a list of extents. A place is named in its store by a name that
// belongs to one writer and never comes back; the catalog counts how many content
// rows name a place, and at zero the place becomes garbage, for good: so a new
// upload of the same bytes brings its own place and has no collector to race with.
package catalog

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// The errors of the rules. All but ErrNotFound of a Get are final for the request.
var (
	ErrNotFound = errors.New("not found")
	// ErrExists: the capsule id is taken.
	ErrExists = errors.New("already exists")
	// ErrNotEmpty: the capsule still has memories, trashed ones included, or open sessions.
	ErrNotEmpty = errors.New("the capsule is not empty")
	// ErrQuota: see *QuotaError.
	ErrQuota = errors.New("quota exceeded")
	// ErrTooManySessions: the owner's bound of open sessions is reached.
	ErrTooManySessions = errors.New("too many open sessions")
	// ErrInvalid: see *FieldError.
	ErrInvalid = errors.New("invalid")
	// ErrKeyTaken: the idempotency key belongs to another request, or to the same one with other
	// bytes.
	ErrKeyTaken = errors.New("the idempotency key belongs to other bytes")
	// ErrDeleted: the memory that an idempotency row points to is gone or in the trash.
	ErrDeleted = errors.New("the memory was deleted")
)

// QuotaError says which quota refused what.
type QuotaError struct {
	Of          string // "capsule" or "principal"
	Limit, Used int64  // bytes, or memories where Count
	Wanted      int64
	Count       bool
}

// FieldError says which field of the metadata is malformed, and how to mend it.
type FieldError struct {
	Field, Problem string
	MIME           bool // the MIME type is malformed or not allowed
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// SHA256 is a digest.
type SHA256 [32]byte

// MemoryID is a UUIDv7.
type MemoryID = uuid.UUID

// Capsule is a container with roles, quota and counters.
type Capsule struct {
	ID, Name string
	// Subject, Owners, Controllers are ids of principals. See package access for what each may do.
	Subject             string
	Owners, Controllers []string
	Created             time.Time
	// Memories and Bytes count what is stored, the trash included; Trashed is how many of them are
	// trashed.
	Memories, Bytes, Trashed int64
	// Sessions and Reserved count open sessions and the bytes they may still bring.
	Sessions, Reserved int64
	// QuotaBytes and QuotaMemories bound Bytes+Reserved and Memories+Sessions; 0 is no bound.
	QuotaBytes, QuotaMemories int64
	// Seq is the number of the capsule's latest event.
	Seq uint64
}

// Meta is what a client says of a file.
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
	// Owner is the identity that brought it.
	Owner string
	// Seq is the number of the event of its creation: its place in lists, newest first.
	Seq uint64
	// Trashed is when it was deleted; zero while it is not. PurgeAt is then the running time (ms)
	// of its end.
	Trashed time.Time
	PurgeAt int64
	// By is the session that brought it, 0 for a create without one; Idem is the idempotency key,
	// if any.
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
	// Inline holds the bytes themselves where they are few; Extents is empty then.
	Inline []byte
	// CRC32C is that of Inline.
	CRC32C uint32
	// Refs is how many memories point here.
	Refs int64
	// Damaged is when the bytes were found not to be what was stored; zero: as far as anybody knows
	// they are. Nobody reads them then, and an upload of the same bytes brings a row without it.
	Damaged time.Time
}

// Reservation is what one open session holds of its capsule's and owner's bounds.
type Reservation struct {
	Session        uint64
	Capsule, Owner string
	Bytes          int64
}

// Usage is what one owner holds.
type Usage struct {
	Owner              string
	Sessions, Reserved int64
}

// Idem remembers a finished upload under the client's key. It lives as long as
// its memory, and a while after.
type Idem struct {
	Capsule, Owner, Key string
	Fingerprint         []byte // of the request
	Memory              MemoryID
	Session             uint64 // 0 for a create without one
}

// Outcome remembers what became of a finished session, as long as its memory lives, and a while
// after.
type Outcome struct {
	Session uint64
	Capsule string
	Memory  MemoryID
	SHA256  SHA256
	Bytes   int64
}

// EventType is what happened.
type EventType string

// The events of API.md's "Events".
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
	Memory  *Memory  // as of then, for created and updated
	ID      MemoryID // for every memory event
	Session uint64   // for session events
}

// Principal is somebody who calls.
type Principal struct {
	ID, Name string
	Admin    bool
	Created  time.Time
	// MaxOpenSessions and QuotaBytes (of open sessions); 0 takes the server's setting.
	MaxOpenSessions, QuotaBytes int64
}

// Token lets its bearer act as a principal. Only the hash of the secret is kept.
type Token struct {
	Hash      SHA256
	ID, Name  string
	Principal string
	ReadOnly  bool
	Created   time.Time
	Expires   time.Time // zero: never
}

// HashCheckpoint is a saved state of the incremental SHA-256 over the first Off bytes of a session,
// computed while it was at Gen.
type HashCheckpoint struct {
	Session uint64
	Off     int64
	Gen     uint64
	State   []byte
}

// DueKind is what is to be done when its time comes.
type DueKind uint8

// The kinds. Key of each: a memory's id, a place, a session's id as 8 bytes, IdemKey's bytes, a
// token's hash.
const (
	DuePurge DueKind = iota + 1
	DuePlace
	DueOutcome
	DueIdem
	DueToken
)

// Due is work for the collector. At counts the running time of the session
// engine in ms, so that a clock that jumps deletes nothing.
type Due struct {
	At   int64
	Kind DueKind
	Key  string
}
