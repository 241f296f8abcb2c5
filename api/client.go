package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sluice/internal/system"
	"sluice/session"
)

// Client speaks the wire's other end, with one method per operation. It is safe for concurrent use,
// keeps no state, and retries nothing by itself: the caller decides whether and when to repeat
// (docs/api.md says for each operation what a repeat does). A refusal is an *[Error]. Any other
// error is the transport's, and does not tell whether the server acted.
type Client struct {
	// Clock dates the answers that have no Date. NewClient sets the system's. It may be replaced
	// before the first call.
	Clock session.Clock
	// Tokens gives the token of each request, instead of the one that NewClient was given; nil:
	// that one. It is for tokens that end and are renewed. Its error may be ErrTokenEnded; any
	// other is worth another try. It may be set before the first call, and is then called
	// concurrently.
	Tokens func(ctx context.Context) (string, error)

	base, token string
	http        *http.Client
}

// NewClient makes a Client of the server at baseURL (such as http://127.0.0.1:8080), which sends
// token. If hc is nil, it uses http.DefaultClient. hc must not have a Timeout, since bodies take as
// long as they take; contexts bound calls. The Client follows no redirect, whatever hc says: a
// redirect would take the token, or a body, elsewhere.
func NewClient(baseURL, token string, hc *http.Client) *Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	noRedirects := *hc
	noRedirects.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{Clock: system.Clock{}, base: strings.TrimRight(baseURL, "/"), token: token, http: &noRedirects}
}

// ErrTokenEnded: there is no token to send, nor will there be one.
var ErrTokenEnded = errors.New("the token has ended, and is not renewed")

// PutOptions qualify one put. At most one digest is sent.
type PutOptions struct {
	// Replace withdraws what is recorded there as soon as the request's head is accepted.
	Replace bool
	// CRC32C or SHA256 is the digest of the body. The server compares it before it records the
	// body.
	CRC32C *uint32
	SHA256 *[32]byte
}

func (o PutOptions) apply(h http.Header) {
	switch {
	case o.SHA256 != nil:
		h.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(o.SHA256[:])+":")
	case o.CRC32C != nil:
		h.Set(
			"Content-Digest",
			"crc32c=:"+base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, *o.CRC32C))+":",
		)
	}
}

// UploadConfig returns the server's limits.
func (c *Client) UploadConfig(ctx context.Context) (out UploadConfig, err error) {
	return out, c.get(ctx, "/v1/upload_config", nil, &out)
}

// Begin makes a session, or returns the one that the same idem has made.
func (c *Client) Begin(ctx context.Context, req BeginRequest) (out Session, err error) {
	return out, c.post(ctx, "/v1/uploads_begin", req, &out)
}

// PutChunk stores chunk idx: n bytes of body, or all to its end if n is -1. A nil error is the
// server's durable promise.
func (c *Client) PutChunk(
	ctx context.Context, sessionID string, idx int64, body io.Reader, n int64, o PutOptions,
) error {
	_, err := c.put(ctx, "/v1/uploads_put_chunk/"+url.PathEscape(sessionID)+"/"+strconv.FormatInt(idx, 10), body, n, o)
	return err
}

// PutRange stores n bytes of body (-1: to its end) at an offset in bytes, and returns how many were
// recorded. If it is refused half-way, [Error].Recorded says how many were recorded nevertheless.
func (c *Client) PutRange(
	ctx context.Context, sessionID string, off int64, body io.Reader, n int64, o PutOptions,
) (recorded int64, err error) {
	h, err := c.put(ctx, "/v1/uploads_put_range/"+url.PathEscape(sessionID)+"/"+strconv.FormatInt(off, 10), body, n, o)
	if err != nil {
		return 0, err
	}
	if h.Get(receivedHeader) == "" {
		return 0, foreignStatus(http.StatusNoContent, noServer+": its answer lacks "+receivedHeader)
	}
	recorded, err = strconv.ParseInt(h.Get(receivedHeader), 10, 64)
	if err != nil || recorded < 0 || n >= 0 && recorded > n {
		return 0, fmt.Errorf("the answer says that %.20q bytes of %d are recorded", h.Get(receivedHeader), n)
	}
	return recorded, nil
}

func (c *Client) put(ctx context.Context, path string, body io.Reader, n int64, o PutOptions) (http.Header, error) {
	q := url.Values{}
	if o.Replace {
		q.Set("replace", "true")
	}
	req, err := c.request(ctx, http.MethodPut, path, q, body, n)
	if err != nil {
		return nil, err
	}
	o.apply(req.Header)
	return c.do(req, nil)
}

// Finish verifies the session and makes it a memory. A repeat returns the same one.
func (c *Client) Finish(ctx context.Context, req FinishRequest) (out Memory, err error) {
	return out, c.post(ctx, "/v1/uploads_finish", req, &out)
}

// FinishBatch finishes sessions of one capsule together, or none of them; then [Problem].Failures
// says why.
func (c *Client) FinishBatch(ctx context.Context, reqs []FinishRequest) ([]Memory, error) {
	var out MemoryBatch
	err := c.post(ctx, "/v1/uploads_finish_batch", FinishBatchRequest{reqs}, &out)
	return out.Memories, err
}

// Abort ends a session; a repeat is fine.
func (c *Client) Abort(ctx context.Context, sessionID string) error {
	return c.post(ctx, "/v1/uploads_abort", AbortRequest{sessionID}, nil)
}

// Status returns the caller's session, and with crc also the CRC-32C of its whole chunks.
func (c *Client) Status(ctx context.Context, sessionID string, crc bool) (out Session, err error) {
	q := url.Values{}
	if crc {
		q.Set("crc", "true")
	}
	return out, c.get(ctx, "/v1/uploads_status/"+url.PathEscape(sessionID), q, &out)
}

// Uploads returns a page of the caller's own open sessions. With limit 0 the server's default
// holds.
func (c *Client) Uploads(ctx context.Context, cursor string, limit int) (out SessionList, err error) {
	return out, c.get(ctx, "/v1/uploads_list", pageQuery(cursor, limit), &out)
}

// CreateRequest holds the arguments of memories_create beside the body. Only Name is needed.
type CreateRequest struct {
	CapsuleID, Name, Path, Idem, MIMEType string
	CRC32C                                *uint32
	SHA256                                *[32]byte
}

// Create is a whole upload in one request, of n bytes (-1: to the end of body).
func (c *Client) Create(ctx context.Context, r CreateRequest, body io.Reader, n int64) (out Memory, err error) {
	q := url.Values{"name": {r.Name}}
	setIf(q, "capsule_id", r.CapsuleID)
	setIf(q, "path", r.Path)
	setIf(q, "idem", r.Idem)
	req, err := c.request(ctx, http.MethodPost, "/v1/memories_create", q, body, n)
	if err != nil {
		return out, err
	}
	if r.MIMEType != "" {
		req.Header.Set("Content-Type", r.MIMEType)
	}
	PutOptions{CRC32C: r.CRC32C, SHA256: r.SHA256}.apply(req.Header)
	_, err = c.do(req, &out)
	return out, err
}

// ReadMemory returns one memory.
func (c *Client) ReadMemory(ctx context.Context, memoryID string) (out Memory, err error) {
	return out, c.get(ctx, "/v1/memories_read/"+url.PathEscape(memoryID), nil, &out)
}

// MemoryQuery selects memories of one capsule ("" is default), newest first.
type MemoryQuery struct {
	CapsuleID, PathPrefix, Name, SHA256 string
	Trash                               bool
	Cursor                              string
	Limit                               int // 1 to 1000; 0 is the server's default of 100
}

// ListMemories returns a page. It may be short and still have a NextCursor.
func (c *Client) ListMemories(ctx context.Context, r MemoryQuery) (out MemoryList, err error) {
	q := pageQuery(r.Cursor, r.Limit)
	setIf(q, "capsule_id", r.CapsuleID)
	setIf(q, "path_prefix", r.PathPrefix)
	setIf(q, "name", r.Name)
	setIf(q, "sha256", r.SHA256)
	if r.Trash {
		q.Set("trash", "true")
	}
	return out, c.get(ctx, "/v1/memories_list", q, &out)
}

// UpdateMemory changes what is not nil.
func (c *Client) UpdateMemory(ctx context.Context, req UpdateMemoryRequest) (out Memory, err error) {
	return out, c.post(ctx, "/v1/memories_update", req, &out)
}

// DeleteMemory puts a memory into the trash. With purge it is gone for good.
func (c *Client) DeleteMemory(ctx context.Context, memoryID string, purge bool) error {
	return c.post(ctx, "/v1/memories_delete", DeleteMemoryRequest{memoryID, purge}, nil)
}

// RestoreMemory takes a memory out of the trash.
func (c *Client) RestoreMemory(ctx context.Context, memoryID string) (out Memory, err error) {
	return out, c.post(ctx, "/v1/memories_restore", RestoreMemoryRequest{memoryID}, &out)
}

// Ping says which of at most 1,000 memories the caller could read.
func (c *Client) Ping(ctx context.Context, memoryIDs []string) (map[string]bool, error) {
	var out PingResponse
	err := c.post(ctx, "/v1/memories_ping", PingRequest{memoryIDs}, &out)
	return out.Present, err
}

// CreateCapsule makes a capsule.
func (c *Client) CreateCapsule(ctx context.Context, req CreateCapsuleRequest) (out Capsule, err error) {
	return out, c.post(ctx, "/v1/capsules_create", req, &out)
}

// ReadCapsule returns a capsule with its counters.
func (c *Client) ReadCapsule(ctx context.Context, capsuleID string) (out Capsule, err error) {
	return out, c.get(ctx, "/v1/capsules_read/"+url.PathEscape(capsuleID), nil, &out)
}

// ListCapsules returns a page of the capsules in which the caller has a role. An admin sees all.
func (c *Client) ListCapsules(ctx context.Context, cursor string, limit int) (out CapsuleList, err error) {
	return out, c.get(ctx, "/v1/capsules_list", pageQuery(cursor, limit), &out)
}

// UpdateCapsule changes what is not nil.
func (c *Client) UpdateCapsule(ctx context.Context, req UpdateCapsuleRequest) (out Capsule, err error) {
	return out, c.post(ctx, "/v1/capsules_update", req, &out)
}

// DeleteCapsule deletes an empty capsule.
func (c *Client) DeleteCapsule(ctx context.Context, capsuleID string) error {
	return c.post(ctx, "/v1/capsules_delete", DeleteCapsuleRequest{capsuleID}, nil)
}

// WhoAmI describes the caller.
func (c *Client) WhoAmI(ctx context.Context) (out WhoAmI, err error) {
	return out, c.get(ctx, "/v1/whoami", nil, &out)
}

// CreateToken makes a token. The answer alone has its secret.
func (c *Client) CreateToken(ctx context.Context, req CreateTokenRequest) (out NewToken, err error) {
	return out, c.post(ctx, "/v1/tokens_create", req, &out)
}

// ListTokens returns a page of a principal's tokens; "" is the caller, another one is for admins.
func (c *Client) ListTokens(ctx context.Context, principalID, cursor string, limit int) (out TokenList, err error) {
	q := pageQuery(cursor, limit)
	setIf(q, "principal_id", principalID)
	return out, c.get(ctx, "/v1/tokens_list", q, &out)
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, tokenID string) error {
	return c.post(ctx, "/v1/tokens_revoke", RevokeTokenRequest{tokenID}, nil)
}

// CreatePrincipal makes a principal. Admins only.
func (c *Client) CreatePrincipal(ctx context.Context, name string, admin bool) (out Principal, err error) {
	return out, c.post(ctx, "/v1/principals_create", CreatePrincipalRequest{name, admin}, &out)
}

// ListPrincipals returns a page of all principals. Admins only.
func (c *Client) ListPrincipals(ctx context.Context, cursor string, limit int) (out PrincipalList, err error) {
	return out, c.get(ctx, "/v1/principals_list", pageQuery(cursor, limit), &out)
}

// UpdatePrincipal changes what is not nil. Admins only.
func (c *Client) UpdatePrincipal(ctx context.Context, req UpdatePrincipalRequest) (out Principal, err error) {
	return out, c.post(ctx, "/v1/principals_update", req, &out)
}

// DeletePrincipal ends a principal, its tokens, its roles and its open sessions. Admins only.
func (c *Client) DeletePrincipal(ctx context.Context, principalID string) error {
	return c.post(ctx, "/v1/principals_delete", DeletePrincipalRequest{principalID}, nil)
}

// AdminSessions returns a page of anybody's sessions. An owner and a state ("open", …) that are not
// empty filter it. Admins only.
func (c *Client) AdminSessions(
	ctx context.Context, owner, state, cursor string, limit int,
) (out AdminSessionList, err error) {
	q := pageQuery(cursor, limit)
	setIf(q, "owner", owner)
	setIf(q, "state", state)
	return out, c.get(ctx, "/v1/sessions_list", q, &out)
}

// AdminStats returns the engine's figures. Admins only.
func (c *Client) AdminStats(ctx context.Context) (out SessionStats, err error) {
	return out, c.get(ctx, "/v1/sessions_stats", nil, &out)
}

// AdminClearAll aborts every open session, of anybody, and returns their number. Admins only.
func (c *Client) AdminClearAll(ctx context.Context) (int64, error) {
	var out Cleared
	err := c.post(ctx, "/v1/sessions_clear_all", Empty{}, &out)
	return out.Cleared, err
}

// AdminCleanupExpired ends sessions that are past their time to live now, and returns the number.
// Admins only.
func (c *Client) AdminCleanupExpired(ctx context.Context) (int64, error) {
	var out CleanedUp
	err := c.post(ctx, "/v1/sessions_cleanup_expired", Empty{}, &out)
	return out.Expired, err
}

// Ready returns nil if the server's stores answer and it is not draining.
func (c *Client) Ready(ctx context.Context) error { return c.get(ctx, "/readyz", nil, new(Health)) }

// ContentInfo describes an answer of [Client.Content].
type ContentInfo struct {
	Bytes    int64 // of the whole content
	Off, N   int64 // the bytes that the body has
	MIMEType string
	ETag     string // "sha256:…", with its quotes
}

// Content returns n bytes of a memory's content from off on, or all of the rest if n is -1. The
// caller closes the body. An error in reading it means that it was cut. An off past the end gives
// CodeRangeNotSatisfiable. The error is ErrWhole if something on the way gives no parts. An n of 0
// is an error.
func (c *Client) Content(ctx context.Context, memoryID string, off, n int64) (io.ReadCloser, ContentInfo, error) {
	return c.contentAt(ctx, contentPath+url.PathEscape(memoryID), off, n)
}

// contentAt returns n bytes of what is at a path, as Content does.
func (c *Client) contentAt(ctx context.Context, path string, off, n int64) (io.ReadCloser, ContentInfo, error) {
	req, err := c.request(ctx, http.MethodGet, path, nil, nil, 0)
	if err != nil {
		return nil, ContentInfo{}, err
	}
	whole := off == 0 && n < 0
	switch {
	case off < 0 || n == 0:
		return nil, ContentInfo{}, fmt.Errorf("content: %d bytes from %d can't be asked for", n, off)
	case n > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	case !whole:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	res, err := c.send(req)
	if err != nil {
		return nil, ContentInfo{}, err
	}
	info := ContentInfo{
		Bytes: res.ContentLength, N: res.ContentLength, MIMEType: res.Header.Get("Content-Type"),
		ETag: res.Header.Get("ETag"),
	}
	switch {
	case res.StatusCode == http.StatusOK && whole:
		return res.Body, info, nil
	case res.StatusCode == http.StatusPartialContent && !whole:
		var last int64
		form := res.Header.Get("Content-Range")
		if _, err := fmt.Sscanf(form, "bytes %d-%d/%d", &info.Off, &last, &info.Bytes); err != nil || info.Off != off ||
			last < off || last >= info.Bytes || n > 0 && last >= off+n {
			res.Body.Close()
			return nil, info, fmt.Errorf("content: asked for bytes from %d, got Content-Range %.60q", off, form)
		}
		info.N = last - info.Off + 1
		return res.Body, info, nil
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil, info, wholeOf(res)
	}
	return nil, info, c.readError(res)
}
