package api

// AdminSession is a session as an admin sees it: nothing of what it is for.
type AdminSession struct {
	SessionID      string `json:"session_id"`
	State          string `json:"state"`
	Owner          string `json:"owner"`
	ChunkSize      int64  `json:"chunk_size"`
	ExpectedChunks *int64 `json:"expected_chunks"`
	BytesExpected  *int64 `json:"bytes_expected"`
	BytesReceived  int64  `json:"bytes_received"`
	CreatedAt      Time   `json:"created_at"`
	LastSeen       Time   `json:"last_seen"`
	ExpiresAt      Time   `json:"expires_at,omitzero"`
}

// AdminSessionList is a page of anybody's sessions.
type AdminSessionList struct {
	Sessions   []AdminSession `json:"sessions"`
	NextCursor string         `json:"next_cursor,omitzero"`
	// Damaged are records that can't be read, as far as they were met since the start, at most 100.
	// No list has those of sessions.
	Damaged []string `json:"damaged,omitzero"`
}

// SessionStats are the figures of the session engine. Open to BytesReceived are current figures.
// Begun to Expired are totals since the store was made.
type SessionStats struct {
	Open           int64 `json:"open"`
	Sealed         int64 `json:"sealed"`
	BytesExpected  int64 `json:"bytes_expected"`
	BytesReceived  int64 `json:"bytes_received"`
	OldestLastSeen Time  `json:"oldest_last_seen,omitzero"` // of the open sessions; absent if there is none
	Begun          int64 `json:"begun"`
	Finished       int64 `json:"finished"`
	Aborted        int64 `json:"aborted"`
	Expired        int64 `json:"expired"`
}

// Cleared answers sessions_clear_all.
type Cleared struct {
	Cleared int64 `json:"cleared"`
}

// CleanedUp answers sessions_cleanup_expired.
type CleanedUp struct {
	Expired int64 `json:"expired"`
}
