package api

import (
	"fmt"
	"time"
)

// Time is a point in time as the wire has it: RFC 3339 in UTC with milliseconds.
type Time struct{ time.Time }

const timeForm = "2006-01-02T15:04:05.000Z"

// MarshalJSON writes the wire's form.
func (t Time) MarshalJSON() ([]byte, error) {
	u := t.UTC()
	if y := u.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("year %d has no RFC 3339 form", y)
	}
	return u.AppendFormat(nil, `"`+timeForm+`"`), nil
}

// UnmarshalJSON reads RFC 3339 with any offset and any fraction, and keeps milliseconds.
func (t *Time) UnmarshalJSON(b []byte) error {
	var v time.Time
	if err := v.UnmarshalJSON(b); err != nil || v.UTC().Year() < 0 || v.UTC().Year() > 9999 {
		return fmt.Errorf("must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z")
	}
	t.Time = v.UTC().Truncate(time.Millisecond)
	return nil
}

// Range is [first, last], both inclusive: of chunk indexes, or of bytes if the member's name says
// so.
type Range [2]int64

// UploadConfig answers upload_config: the limits in force. Sizes are in bytes.
type UploadConfig struct {
	InlineMax         int64 `json:"inline_max"`
	ChunkSize         int64 `json:"chunk_size"`
	ChunkSizeMin      int64 `json:"chunk_size_min"`
	ChunkSizeMax      int64 `json:"chunk_size_max"`
	MaxChunks         int64 `json:"max_chunks"`
	MaxBytes          int64 `json:"max_bytes"`
	SessionTTLSeconds int64 `json:"session_ttl_seconds"`
	// SessionMaxAgeSeconds is how long a session lives at most, whatever is sent; absent: no bound.
	SessionMaxAgeSeconds int64 `json:"session_max_age_seconds,omitzero"`
	// RequestsPerSecond bounds the requests of one principal; absent: no bound.
	RequestsPerSecond int64 `json:"requests_per_second,omitzero"`
	// Ticket is there if the caller has an upload ticket. MaxBytes is then that of the ticket.
	Ticket *TicketLimits `json:"ticket,omitzero"`
}

// Meta is what a client says of a file.
type Meta struct {
	Name        string   `json:"name"`
	MIMEType    string   `json:"mime_type,omitzero"`
	Bytes       *int64   `json:"bytes,omitzero"` // nil: the length is not known yet
	Path        string   `json:"path,omitzero"`
	Description string   `json:"description,omitzero"`
	Tags        []string `json:"tags,omitzero" max:"64"`
	Width       int64    `json:"width,omitzero"`
	Height      int64    `json:"height,omitzero"`
	TakenAt     Time     `json:"taken_at,omitzero"`
}

// BeginRequest asks uploads_begin for a session. A nil ExpectedChunks and a zero ChunkSize leave
// these to the server.
type BeginRequest struct {
	CapsuleID      string `json:"capsule_id"`
	Meta           Meta   `json:"meta"`
	ExpectedChunks *int64 `json:"expected_chunks,omitzero"`
	ChunkSize      int64  `json:"chunk_size,omitzero"`
	Idem           string `json:"idem,omitzero"`
}

// Session is an upload as its creator sees it.
type Session struct {
	// SessionID is decimal. It is "0" if an idem answers an upload that needed no session (a small
	// memories_create).
	SessionID string `json:"session_id"`
	// State is open, sealed, finished, aborted or expired.
	State     string `json:"state"`
	ChunkSize int64  `json:"chunk_size"`
	// ExpectedChunks and BytesExpected are nil while the length is not known.
	ExpectedChunks *int64 `json:"expected_chunks"`
	BytesExpected  *int64 `json:"bytes_expected"`
	BytesReceived  int64  `json:"bytes_received"`
	// Missing are chunks that are not whole. MissingBytes are exactly the bytes that are not there.
	// Each has at most 1,000 ranges, then More.
	Missing      []Range `json:"missing"`
	MissingBytes []Range `json:"missing_bytes"`
	More         bool    `json:"more,omitzero"`
	CapsuleID    string  `json:"capsule_id"`
	Meta         Meta    `json:"meta"`
	Idem         string  `json:"idem,omitzero"`
	CreatedAt    Time    `json:"created_at"`
	LastSeen     Time    `json:"last_seen"`
	ExpiresAt    Time    `json:"expires_at,omitzero"` // absent once it has ended
	// MemoryID is what a finished upload became. Deleted: that is gone or in the trash.
	MemoryID string `json:"memory_id,omitzero"`
	Deleted  bool   `json:"deleted,omitzero"`
	// CRC32C is there if it was asked for: the CRC-32C of each whole chunk, from the index in
	// decimal to 8 hex digits.
	CRC32C map[string]string `json:"crc32c,omitzero"`
}

// SessionList is a page of the caller's own open sessions, newest first.
type SessionList struct {
	Sessions   []Session `json:"sessions"`
	NextCursor string    `json:"next_cursor,omitzero"`
}

// FinishRequest says what the whole content of a session must be.
type FinishRequest struct {
	SessionID string `json:"session_id"`
	SHA256    string `json:"sha256"` // 64 lower-case hex digits
	TotalLen  int64  `json:"total_len"`
	// ChunkCRC32C, if given, is the CRC-32C of every chunk as 8 hex digits. A mismatch then names
	// the bad chunks.
	ChunkCRC32C []string `json:"chunk_crc32c,omitzero" max:"16384" hex:"8"`
}

// FinishBatchRequest finishes 1 to 1,000 sessions of one capsule together.
type FinishBatchRequest struct {
	Finishes []FinishRequest `json:"finishes" max:"1000"`
}

// AbortRequest names the session to abort.
type AbortRequest struct {
	SessionID string `json:"session_id"`
}

// Memory is a stored file.
type Memory struct {
	MemoryID    string   `json:"memory_id"`
	CapsuleID   string   `json:"capsule_id"`
	Name        string   `json:"name"`
	Path        string   `json:"path,omitzero"`
	MIMEType    string   `json:"mime_type"`
	Description string   `json:"description,omitzero"`
	Tags        []string `json:"tags,omitzero"`
	Width       int64    `json:"width,omitzero"`
	Height      int64    `json:"height,omitzero"`
	TakenAt     Time     `json:"taken_at,omitzero"`
	Bytes       int64    `json:"bytes"`
	SHA256      string   `json:"sha256"`
	CreatedAt   Time     `json:"created_at"`
	// ContentURL is a path on the server that answered: a Host header never becomes a URL.
	ContentURL string `json:"content_url"`
	DeletedAt  Time   `json:"deleted_at,omitzero"` // only for those in the trash
}

// MemoryList is a page of memories, newest first.
type MemoryList struct {
	Memories   []Memory `json:"memories"`
	NextCursor string   `json:"next_cursor,omitzero"`
}

// MemoryBatch holds the memories that a batch made, in the order of its requests.
type MemoryBatch struct {
	Memories []Memory `json:"memories"`
}

// UpdateMemoryRequest changes what is not nil.
type UpdateMemoryRequest struct {
	MemoryID    string    `json:"memory_id"`
	Name        *string   `json:"name,omitzero"`
	Path        *string   `json:"path,omitzero"`
	Description *string   `json:"description,omitzero"`
	Tags        *[]string `json:"tags,omitzero" max:"64"`
}

// DeleteMemoryRequest puts a memory into the trash, or with Purge removes it for good.
type DeleteMemoryRequest struct {
	MemoryID string `json:"memory_id"`
	Purge    bool   `json:"purge,omitzero"`
}

// RestoreMemoryRequest takes a memory out of the trash.
type RestoreMemoryRequest struct {
	MemoryID string `json:"memory_id"`
}

// PingRequest asks which of at most 1,000 memories the caller could read.
type PingRequest struct {
	MemoryIDs []string `json:"memory_ids" max:"1000"`
}

// PingResponse has an entry for each id that was asked for.
type PingResponse struct {
	Present map[string]bool `json:"present"`
}

// CreateCapsuleRequest makes a capsule. Without a CapsuleID the server makes one up. If no owner is
// named, the caller is the owner.
type CreateCapsuleRequest struct {
	CapsuleID   string   `json:"capsule_id,omitzero"`
	Name        string   `json:"name,omitzero"`
	Subject     string   `json:"subject,omitzero"`
	Owners      []string `json:"owners,omitzero" max:"100"`
	Controllers []string `json:"controllers,omitzero" max:"100"`
	// MIMETypes are the types that contents may have, as type/subtype or type/*; none: all.
	MIMETypes []string `json:"mime_types,omitzero" max:"100"`
}

// UpdateCapsuleRequest changes what is not nil. The quotas are an admin's to change; 0 is no bound.
type UpdateCapsuleRequest struct {
	CapsuleID     string    `json:"capsule_id"`
	Name          *string   `json:"name,omitzero"`
	Subject       *string   `json:"subject,omitzero"`
	Owners        *[]string `json:"owners,omitzero" max:"100"`
	Controllers   *[]string `json:"controllers,omitzero" max:"100"`
	QuotaBytes    *int64    `json:"quota_bytes,omitzero"`
	QuotaMemories *int64    `json:"quota_memories,omitzero"`
	MIMETypes     *[]string `json:"mime_types,omitzero" max:"100"`
}

// DeleteCapsuleRequest names the capsule to delete; it must be empty.
type DeleteCapsuleRequest struct {
	CapsuleID string `json:"capsule_id"`
}

// Capsule is a container with its roles (ids of principals) and counters.
type Capsule struct {
	CapsuleID   string   `json:"capsule_id"`
	Name        string   `json:"name"`
	Subject     string   `json:"subject,omitzero"`
	Owners      []string `json:"owners"`
	Controllers []string `json:"controllers"`
	CreatedAt   Time     `json:"created_at"`
	// Memories and Bytes count the trash too; Trashed is how many are in it.
	Memories int64 `json:"memories"`
	Bytes    int64 `json:"bytes"`
	Trashed  int64 `json:"trashed"`
	// OpenSessions and ReservedBytes are what is being uploaded.
	OpenSessions  int64 `json:"open_sessions"`
	ReservedBytes int64 `json:"reserved_bytes"`
	QuotaBytes    int64 `json:"quota_bytes,omitzero"`
	QuotaMemories int64 `json:"quota_memories,omitzero"`
	// MIMETypes are the types that contents may have, as type/subtype or type/*; absent: all.
	MIMETypes []string `json:"mime_types,omitzero"`
}

// CapsuleList is a page of capsules.
type CapsuleList struct {
	Capsules   []Capsule `json:"capsules"`
	NextCursor string    `json:"next_cursor,omitzero"`
}

// Principal is somebody who calls, as an admin sees it. A bound of 0 is the server's own setting.
type Principal struct {
	PrincipalID     string `json:"principal_id"`
	Name            string `json:"name"`
	Admin           bool   `json:"admin"`
	CreatedAt       Time   `json:"created_at"`
	MaxOpenSessions int64  `json:"max_open_sessions,omitzero"`
	QuotaBytes      int64  `json:"quota_bytes,omitzero"` // of its open sessions together
	// Issuer and Subject say who signs in as it with tokens of an issuer; absent: nobody.
	Issuer  string `json:"issuer,omitzero"`
	Subject string `json:"subject,omitzero"`
}

// PrincipalList is a page of principals, the oldest first.
type PrincipalList struct {
	Principals []Principal `json:"principals"`
	NextCursor string      `json:"next_cursor,omitzero"`
}

// CreatePrincipalRequest makes a principal without a role.
type CreatePrincipalRequest struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin,omitzero"`
}

// UpdatePrincipalRequest changes what is not nil. A bound of 0 is the server's own setting.
type UpdatePrincipalRequest struct {
	PrincipalID     string  `json:"principal_id"`
	Name            *string `json:"name,omitzero"`
	Admin           *bool   `json:"admin,omitzero"`
	MaxOpenSessions *int64  `json:"max_open_sessions,omitzero"`
	QuotaBytes      *int64  `json:"quota_bytes,omitzero"`
}

// DeletePrincipalRequest names the principal to delete.
type DeletePrincipalRequest struct {
	PrincipalID string `json:"principal_id"`
}

// Token is a token without its secret.
type Token struct {
	TokenID     string `json:"token_id"`
	Name        string `json:"name,omitzero"`
	PrincipalID string `json:"principal_id"`
	ReadOnly    bool   `json:"read_only"`
	CreatedAt   Time   `json:"created_at"`
	ExpiresAt   Time   `json:"expires_at,omitzero"`   // absent: it has no end
	LastUsedAt  Time   `json:"last_used_at,omitzero"` // to the hour; absent: not yet
}

// TokenList is a page of tokens, the oldest first.
type TokenList struct {
	Tokens     []Token `json:"tokens"`
	NextCursor string  `json:"next_cursor,omitzero"`
}

// CreateTokenRequest makes a token: for the caller, or, if an admin asks, for another principal.
type CreateTokenRequest struct {
	PrincipalID      string `json:"principal_id,omitzero"`
	Name             string `json:"name,omitzero"`
	ExpiresInSeconds *int64 `json:"expires_in_seconds,omitzero"` // nil: no end
	ReadOnly         bool   `json:"read_only,omitzero"`
}

// NewToken is a token with its secret, which is shown this once.
type NewToken struct {
	TokenID     string `json:"token_id"`
	Token       string `json:"token"`
	Name        string `json:"name,omitzero"`
	PrincipalID string `json:"principal_id"`
	ReadOnly    bool   `json:"read_only"`
	CreatedAt   Time   `json:"created_at"`
	ExpiresAt   Time   `json:"expires_at,omitzero"` // absent: it has no end
}

// RevokeTokenRequest names the token to end.
type RevokeTokenRequest struct {
	TokenID string `json:"token_id"`
}

// WhoAmI is the caller: its principal, its token, its limits, and what it uses of them.
type WhoAmI struct {
	PrincipalID string `json:"principal_id"`
	Name        string `json:"name"`
	Admin       bool   `json:"admin"`
	TokenID     string `json:"token_id,omitzero"` // absent: the token is one of the issuer
	TokenName   string `json:"token_name,omitzero"`
	ReadOnly    bool   `json:"read_only"`
	ExpiresAt   Time   `json:"expires_at,omitzero"` // absent: the token has no end
	// Issuer and Subject say who signs in as the principal with tokens of an issuer; absent:
	// nobody.
	Issuer  string `json:"issuer,omitzero"`
	Subject string `json:"subject,omitzero"`
	// MaxOpenSessions bounds the open sessions, and QuotaBytes their bytes together; absent: no
	// bound.
	MaxOpenSessions int64 `json:"max_open_sessions,omitzero"`
	QuotaBytes      int64 `json:"quota_bytes,omitzero"`
	OpenSessions    int64 `json:"open_sessions"`
	ReservedBytes   int64 `json:"reserved_bytes"`
	// RequestsPerSecond bounds the principal's requests; absent: no bound.
	RequestsPerSecond int64 `json:"requests_per_second,omitzero"`
}

// Health answers /healthz and /readyz.
type Health struct {
	Status string `json:"status"`
}

// Empty is the body of a request that needs no member: nothing at all, or {}.
type Empty struct{}
