package api

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// maxAnswer bounds a JSON answer in bytes.
const maxAnswer = 64 << 20

func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	req, err := c.request(ctx, http.MethodGet, path, q, nil, 0)
	if err != nil {
		return err
	}
	_, err = c.do(req, out)
	return err
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := c.request(ctx, http.MethodPost, path, nil, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	_, err = c.do(req, out)
	return err
}

// request makes a request whose body has n bytes, or an unknown number if n is -1. A body that can
// be read at any offset can be sent again. So the transport may repeat a request that a closing
// connection never took.
func (c *Client) request(
	ctx context.Context, method, path string, q url.Values, body io.Reader, n int64,
) (*http.Request, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	token := c.token
	if c.Tokens != nil {
		if token, err = c.Tokens(ctx); err != nil {
			return nil, &tokenError{err}
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body == nil || n == 0 {
		return req, nil
	}
	req.ContentLength = n
	req.Body = io.NopCloser(body)
	at, ok := body.(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok || n < 0 {
		return req, nil
	}
	start, err := at.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe: it can be sent once
		return req, nil
	}
	req.GetBody = func() (io.ReadCloser, error) { return newSection(at, start, n), nil }
	req.Body, err = req.GetBody()
	return req, err
}

// do sends req and decodes a good answer into out, unless out is nil.
func (c *Client) do(req *http.Request, out any) (http.Header, error) {
	req.Header.Set("Accept", "application/json")
	res, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.Header, c.readError(res)
	}
	if out == nil {
		if res.StatusCode != http.StatusNoContent {
			return res.Header, foreign(res, nil) // a page in between has answered: there is no promise
		}
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return res.Header, err
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return res.Header, err
	}
	return res.Header, decodeAnswer(res, b, out)
}

// readError reads an error answer. An answer that is not Sluice's problem is Foreign.
func (c *Client) readError(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	e := &Error{Recorded: -1, RetryAfter: retryAfter(res.Header)}
	if n, err := strconv.ParseInt(res.Header.Get("Upload-Received"), 10, 64); err == nil && n >= 0 {
		e.Recorded = n
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "application/problem+json" || json.Unmarshal(b, &e.Problem) != nil || e.Code == "" {
		return foreign(res, b)
	}
	if e.RetryAfterMS > 0 {
		e.RetryAfter = time.Duration(e.RetryAfterMS) * time.Millisecond
	}
	if e.RequestID == "" {
		e.RequestID = res.Header.Get("X-Request-Id")
	}
	if e.Code == CodeUnauthenticated && c.Tokens != nil {
		token, err := c.Tokens(res.Request.Context())
		e.Renewed = err == nil && res.Request.Header.Get("Authorization") != "Bearer "+token
	}
	return e
}

func pageQuery(cursor string, limit int) url.Values {
	q := url.Values{}
	setIf(q, "cursor", cursor)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}

func setIf(q url.Values, k, v string) {
	if v != "" {
		q.Set(k, v)
	}
}
