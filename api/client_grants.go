package api

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
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
	path, err := pathOfLink(link)
	if err != nil {
		return nil, ContentInfo{}, err
	}
	return c.contentAt(ctx, path, off, n)
}

func pathOfLink(link string) (string, error) {
	secret, ok := strings.CutPrefix(link, linkPath)
	if !ok || secret == "" || strings.ContainsAny(secret, "/?#") {
		return "", fmt.Errorf("a read link begins with %s, and has one part more", linkPath)
	}
	return linkPath + url.PathEscape(secret), nil
}

// DescribeLink returns what is known of the memory that a read link gives: its Name, MIMEType,
// Bytes and SHA256. That is no download. Name is "" if the answer has none.
func (c *Client) DescribeLink(ctx context.Context, link string) (m Memory, err error) {
	path, err := pathOfLink(link)
	if err != nil {
		return m, err
	}
	req, err := c.request(ctx, http.MethodHead, path, nil, nil, 0)
	if err != nil {
		return m, err
	}
	res, err := c.send(req)
	if err != nil {
		return m, err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return m, c.refusedLink(ctx, path)
	}
	sum, ok := strings.CutPrefix(strings.Trim(res.Header.Get("ETag"), `"`), "sha256:")
	if !ok || res.ContentLength < 0 {
		return m, foreignStatus(res.StatusCode, noServer+": its answer names no SHA-256, or no length")
	}
	m.MIMEType, m.Bytes, m.SHA256 = res.Header.Get("Content-Type"), res.ContentLength, sum
	if _, params, err := mime.ParseMediaType(res.Header.Get("Content-Disposition")); err == nil {
		m.Name = params["filename"]
	}
	return m, nil
}

// refusedLink asks why a link is refused, which the answer to a HEAD does not say. Should the link
// be good meanwhile, the request gives out nothing, and the error is one to try again after.
func (c *Client) refusedLink(ctx context.Context, path string) error {
	req, err := c.request(ctx, http.MethodGet, path, nil, nil, 0)
	if err != nil {
		return err
	}
	req.Header.Set("If-None-Match", "*")
	res, err := c.send(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotModified {
		return &Error{Recorded: -1, Problem: Problem{Fault: Fault{
			Code: CodeUnavailable, Status: http.StatusServiceUnavailable, Detail: "the link was refused, and is good again",
		}}}
	}
	return c.readError(res)
}
