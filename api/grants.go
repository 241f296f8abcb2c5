package api

import (
	"context"
	"net/http"
	"time"

	"sluice/access"
	"sluice/catalog"
)

func (s *Server) createTicket(c *call, in CreateTicketRequest) (NewTicket, error) {
	if err := validCapsule(in.CapsuleID); err != nil {
		return NewTicket{}, err
	}
	uploads := int64(1)
	if in.Uploads != nil {
		uploads = *in.Uploads
	}
	g, secret, err := s.createGrant(c, in.ExpiresInSeconds, catalog.Grant{
		Kind: catalog.Ticket, Name: in.Name, Capsule: in.CapsuleID, MaxBytes: in.MaxBytes, MIME: in.MIMETypes,
		Uploads: uploads,
	})
	return NewTicket{ticketOf(g), secret}, err
}

// createGrant makes a ticket or a link.
func (s *Server) createGrant(c *call, seconds int64, g catalog.Grant) (catalog.Grant, string, error) {
	if seconds < 1 || seconds > int64(catalog.MaxGrantTTL/time.Second) {
		return g, "", access.ErrGrantTTL
	}
	return s.cfg.Access.CreateGrant(c.req.Context(), c.caller, access.GrantRequest{
		Grant: g, TTL: time.Duration(seconds) * time.Second,
	})
}

func ticketOf(g catalog.Grant) Ticket {
	return Ticket{
		TicketID: g.ID, Name: g.Name, CapsuleID: g.Capsule, PrincipalID: g.Maker, MaxBytes: g.MaxBytes,
		MIMETypes: g.MIME, Uploads: g.Uploads, Finished: g.Done, Open: g.Open, CreatedAt: Time{g.Created},
		ExpiresAt: Time{g.Expires},
	}
}

// grants gives a page of grants.
func (s *Server) grants(c *call, kind catalog.GrantKind) (page []catalog.Grant, next string, err error) {
	limit, err := c.limit()
	if err != nil {
		return nil, "", err
	}
	capsule, given := c.query["capsule_id"]
	if given {
		if err := validCapsule(capsule); err != nil {
			return nil, "", err
		}
	}
	return s.cfg.Access.ListGrants(c.req.Context(), c.caller, access.GrantList{
		Kind: kind, Capsule: capsule, Cursor: c.query["cursor"], Limit: limit,
	})
}

func (s *Server) listTickets(c *call) (TicketList, error) {
	page, next, err := s.grants(c, catalog.Ticket)
	out := TicketList{Tickets: make([]Ticket, len(page)), NextCursor: next}
	for i, g := range page {
		out.Tickets[i] = ticketOf(g)
	}
	return out, err
}

// revokeTicket answers when the ticket is gone. What is under way with it is aborted at once; if
// that fails, the keeper goes on.
func (s *Server) revokeTicket(c *call, in RevokeTicketRequest) error {
	if !isID(in.TicketID) {
		return invalid("ticket_id", "must be a ticket's id: a UUID in its lower-case form")
	}
	if err := s.cfg.Access.RevokeGrant(c.req.Context(), c.caller, catalog.Ticket, in.TicketID); err != nil {
		return err
	}
	s.endOwner(c, in.TicketID)
	return nil
}

// endOwner removes what an owner that is gone has left, as far as that is possible now.
func (s *Server) endOwner(c *call, id string) {
	if err := s.cfg.EndOwner(c.req.Context(), id); err != nil {
		s.log.Warn("what an owner has left is removed later", "request_id", c.id, "owner", id, "err", err)
	}
}

func (s *Server) createLink(c *call, in CreateLinkRequest) (NewLink, error) {
	id, err := memoryIDFrom(in.MemoryID, "memory_id")
	if err != nil {
		return NewLink{}, err
	}
	g := catalog.Grant{Kind: catalog.Link, Name: in.Name, Memory: id}
	if in.Downloads != nil {
		if g.Downloads = *in.Downloads; g.Downloads < 1 {
			return NewLink{}, invalid("downloads", "must be 1 at least; without it there is no bound")
		}
	}
	g, secret, err := s.createGrant(c, in.ExpiresInSeconds, g)
	return NewLink{linkOf(g), linkPath + secret}, err
}

func linkOf(g catalog.Grant) Link {
	return Link{
		LinkID: g.ID, Name: g.Name, CapsuleID: g.Capsule, MemoryID: g.Memory.String(), PrincipalID: g.Maker,
		Downloads: g.Downloads, BytesRead: g.Read, CreatedAt: Time{g.Created}, ExpiresAt: Time{g.Expires},
	}
}

func (s *Server) listLinks(c *call) (LinkList, error) {
	page, next, err := s.grants(c, catalog.Link)
	out := LinkList{Links: make([]Link, len(page)), NextCursor: next}
	for i, g := range page {
		out.Links[i] = linkOf(g)
	}
	return out, err
}

func (s *Server) revokeLink(c *call, in RevokeLinkRequest) error {
	if !isID(in.LinkID) {
		return invalid("link_id", "must be a link's id: a UUID in its lower-case form")
	}
	return s.cfg.Access.RevokeGrant(c.req.Context(), c.caller, catalog.Link, in.LinkID)
}

// readLink answers with the content of a read link. All links that can't be read look alike.
func (s *Server) readLink(c *call) error {
	var err error
	if c.caller, err = s.cfg.Access.OpenLink(c.req.Context(), c.req.PathValue("link")); err != nil {
		return s.noteFailure(c, err)
	}
	if err := s.assignSlot(c); err != nil {
		return err
	}
	if err := s.checkRate(c); err != nil {
		return err
	}
	s.watch(c)
	return s.serveContent(c, c.caller.Memory)
}

// promise counts the bytes that a read link is about to give out, before the first one goes. The
// caller must call giveBack when no more go out: what was not sent may be read by others.
func (s *Server) promise(c *call, n, size int64) (giveBack func(), err error) {
	if c.caller.Grant != catalog.Link || c.req.Method != http.MethodGet {
		return func() {}, nil
	}
	if err := s.cfg.Access.Promise(c.req.Context(), c.caller, n, size); err != nil {
		return nil, err
	}
	return func() {
		if c.sent >= n {
			return
		}
		ctx := context.WithoutCancel(c.req.Context())
		if err := s.cfg.Access.Unread(ctx, c.caller, n-c.sent); err != nil {
			s.log.Warn(
				"giving back what of a link was not read", "request_id", c.id, "link", c.caller.TokenID, "err", err,
			)
		}
	}, nil
}
