package api

// CreateTicketRequest makes an upload ticket.
type CreateTicketRequest struct {
	CapsuleID string `json:"capsule_id"`
	Name      string `json:"name,omitzero"`
	// MaxBytes bounds each upload. MIMETypes are the types that are allowed, as image/png or
	// image/*; none: all.
	MaxBytes  int64    `json:"max_bytes"`
	MIMETypes []string `json:"mime_types,omitzero" max:"100"`
	// Uploads is how many there may be, finished or under way; nil: one.
	Uploads          *int64 `json:"uploads,omitzero"`
	ExpiresInSeconds int64  `json:"expires_in_seconds"`
}

// NewTicket is a ticket with its secret, which is shown this once.
type NewTicket struct {
	Ticket
	Secret string `json:"ticket"`
}

// Ticket is an upload ticket as lists show it.
type Ticket struct {
	TicketID    string   `json:"ticket_id"`
	Name        string   `json:"name,omitzero"`
	CapsuleID   string   `json:"capsule_id"`
	PrincipalID string   `json:"principal_id"` // who has made it
	MaxBytes    int64    `json:"max_bytes"`
	MIMETypes   []string `json:"mime_types,omitzero"`
	// Uploads is how many there may be. Finished and Open count those that there are.
	Uploads   int64 `json:"uploads"`
	Finished  int64 `json:"finished"`
	Open      int64 `json:"open"`
	CreatedAt Time  `json:"created_at"`
	ExpiresAt Time  `json:"expires_at"`
}

// TicketList is a page of tickets.
type TicketList struct {
	Tickets    []Ticket `json:"upload_tickets"`
	NextCursor string   `json:"next_cursor,omitzero"`
}

// RevokeTicketRequest names the ticket to end.
type RevokeTicketRequest struct {
	TicketID string `json:"ticket_id"`
}

// CreateLinkRequest makes a read link.
type CreateLinkRequest struct {
	MemoryID         string `json:"memory_id"`
	Name             string `json:"name,omitzero"`
	ExpiresInSeconds int64  `json:"expires_in_seconds"`
	// Downloads is how often the whole memory may be read: a range counts as its part of one. nil:
	// as often as anybody likes.
	Downloads *int64 `json:"downloads,omitzero"`
}

// NewLink is a read link with its address, which is a secret, and is shown this once.
type NewLink struct {
	Link
	// URL begins at the server's root.
	URL string `json:"url"`
}

// Link is a read link as lists show it.
type Link struct {
	LinkID      string `json:"link_id"`
	Name        string `json:"name,omitzero"`
	CapsuleID   string `json:"capsule_id"`
	MemoryID    string `json:"memory_id"`
	PrincipalID string `json:"principal_id"` // who has made it
	// Downloads is how often the memory may be read; absent: no bound. BytesRead counts what was
	// read of a link with a bound.
	Downloads int64 `json:"downloads,omitzero"`
	BytesRead int64 `json:"bytes_read,omitzero"`
	CreatedAt Time  `json:"created_at"`
	ExpiresAt Time  `json:"expires_at"`
}

// LinkList is a page of read links.
type LinkList struct {
	Links      []Link `json:"read_links"`
	NextCursor string `json:"next_cursor,omitzero"`
}

// RevokeLinkRequest names the link to end.
type RevokeLinkRequest struct {
	LinkID string `json:"link_id"`
}

// TicketLimits are what the ticket of the caller allows.
type TicketLimits struct {
	TicketID  string   `json:"ticket_id"`
	CapsuleID string   `json:"capsule_id"`
	MIMETypes []string `json:"mime_types,omitzero"`
	// UploadsLeft is how many more may begin.
	UploadsLeft int64 `json:"uploads_left"`
	ExpiresAt   Time  `json:"expires_at"`
}
