package api

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// CreateTicket makes an upload ticket. The answer alone has its secret.
func (c *Client) CreateTicket(ctx context.Context, req CreateTicketRequest) (out NewTicket, err error) {
	return out, c.post(ctx, "/v1/upload_tickets_create", req, &out)
}

// ListTickets returns a page of upload tickets: of a capsule, or, with "", those that the caller
// has made.
func (c *Client) ListTickets(ctx context.Context, capsuleID, cursor string, limit int) (out TicketList, err error) {
	return out, c.get(ctx, "/v1/upload_tickets_list", grantQuery(capsuleID, cursor, limit), &out)
}

// RevokeTicket ends an upload ticket, and aborts what is under way with it.
func (c *Client) RevokeTicket(ctx context.Context, ticketID string) error {
	return c.post(ctx, "/v1/upload_tickets_revoke", RevokeTicketRequest{ticketID}, nil)
}

// CreateLink makes a read link. The answer alone has its address.
func (c *Client) CreateLink(ctx context.Context, req CreateLinkRequest) (out NewLink, err error) {
	return out, c.post(ctx, "/v1/read_links_create", req, &out)
}

// ListLinks returns a page of read links: of a capsule, or, with "", those that the caller has
// made.
func (c *Client) ListLinks(ctx context.Context, capsuleID, cursor string, limit int) (out LinkList, err error) {
	return out, c.get(ctx, "/v1/read_links_list", grantQuery(capsuleID, cursor, limit), &out)
}

// RevokeLink ends a read link.
func (c *Client) RevokeLink(ctx context.Context, linkID string) error {
	return c.post(ctx, "/v1/read_links_revoke", RevokeLinkRequest{linkID}, nil)
}

func grantQuery(capsuleID, cursor string, limit int) url.Values {
	q := pageQuery(cursor, limit)
	setIf(q, "capsule_id", capsuleID)
	return q
}

// Linked returns n bytes of what a read link gives, from off on, as Content does. link is the url
// of a NewLink. The client needs no token for it.
func (c *Client) Linked(ctx context.Context, link string, off, n int64) (io.ReadCloser, ContentInfo, error) {
	secret, ok := strings.CutPrefix(link, linkPath)
	if !ok || strings.ContainsAny(secret, "/?#") {
		return nil, ContentInfo{}, fmt.Errorf("a read link begins with %s, and has one part more", linkPath)
	}
	return c.contentAt(ctx, linkPath+url.PathEscape(secret), off, n)
}
