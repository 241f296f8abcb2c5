package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Class says what an error of a [Client]'s call means for the next attempt.
type Class uint8

const (
	// Permanent: the same request fares no better later.
	Permanent Class = iota
	// Later: try the same request again, after [Error].RetryAfter or a pause. Every request to the
	// server should wait.
	Later
	// Gateway is Later, of something in front that has waited for the server in vain. If it happens
	// again and again, a large body may be the reason.
	Gateway
	// TooLarge: something in front of the server refuses bodies of this length.
	TooLarge
	// Cut: the connection broke, or stood still. Perhaps only a shorter body gets through.
	Cut
)

// foreignAnswers says, by status, what an answer means that is not Sluice's. The first row that
// holds counts.
var foreignAnswers = []struct {
	from, to int
	class    Class
	says     string
}{
	{200, 299, Permanent, noServer + "; is it the right one?"},
	{300, 399, Permanent, "this address leads elsewhere, and nothing is sent after it; is it the right one?"},
	{401, 401, Permanent, "something in front of the server wants a login of its own"},
	{407, 407, Permanent, "the proxy on the way wants a login of its own"},
	{403, 403, Permanent, "something in front of the server refuses this"},
	{404, 405, Permanent, "there is no Sluice server at this address"},
	{408, 408, Gateway, "something in front of the server found the request too slow"},
	{413, 413, TooLarge, "something in front of the server refuses large requests"},
	{425, 425, Later, "something in front of the server wants the request later"},
	{429, 429, Later, "something in front of the server takes no more requests for now"},
	{400, 499, Permanent, "something in front of the server does not take this request"},
	{501, 501, Permanent, "something in front of the server does not take this request"},
	{503, 503, Later, "the server is away, says something in front of it"},
	{500, 599, Gateway, "something in front of the server gets no answer from it"},
}

const noServer = "this address is answered by something that is no Sluice server"

func foreignAnswer(status int) (Class, string) {
	for _, row := range foreignAnswers {
		if row.from <= status && status <= row.to {
			return row.class, row.says
		}
	}
	return Permanent, noServer + "; is it the right one?"
}

// ClassOf is the one place that decides what is worth trying again. err is the error of a call, and
// not nil. An end of the caller's own context is Permanent.
func ClassOf(err error) Class {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.class()
	}
	var (
		scheme  *schemeError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
		address *net.AddrError
		op      *net.OpError
		token   *tokenError
	)
	switch {
	case errors.As(err, &token) && !errors.Is(err, ErrTokenEnded) && !errors.Is(err, context.Canceled):
		return Later
	case errors.Is(err, ErrTokenEnded), errors.Is(err, context.Canceled), errors.As(err, &scheme),
		errors.As(err, &cert), errors.As(err, &alert), errors.As(err, &address):
		return Permanent
	case errors.As(err, &op) && op.Op == "dial":
		return Later // no server is there: shorter requests don't help
	}
	return Cut
}

func (e *Error) class() Class {
	if e.Foreign {
		class, _ := foreignAnswer(e.Status)
		return class
	}
	switch {
	case e.Code == CodeDamaged:
		return Permanent
	case e.Renewed, e.Code == CodeSuperseded, e.Code == CodeTimeout, e.Status == http.StatusTooManyRequests,
		e.Status == http.StatusServiceUnavailable, e.Status == http.StatusInternalServerError:
		return Later
	}
	return Permanent
}

// Everywhere reports whether an error of the class [Later] concerns all requests to the server, and
// not this one alone.
func Everywhere(err error) bool {
	var refused *Error
	return !errors.As(err, &refused) || refused.Foreign || refused.Status == http.StatusServiceUnavailable
}

// tokenError is an error of Client.Tokens: no request was sent.
type tokenError struct{ error }

func (e *tokenError) Unwrap() error { return e.error }

// schemeError is the error of speaking to a wrong server, or in a wrong protocol.
type schemeError struct{ says string }

func (e *schemeError) Error() string { return e.says }

var (
	errSpeaksTLS   = &schemeError{"the server speaks TLS: its address begins with https://"}
	errSpeaksHTTP  = &schemeError{"the server does not speak TLS: its address begins with http://"}
	errSpeaksOther = &schemeError{"what answers there does not speak HTTP"}
)

// protocolError recognises the errors of another server, or of another protocol than the request's.
func protocolError(err error) error {
	var noTLS tls.RecordHeaderError
	switch s := err.Error(); {
	case errors.Is(err, http.ErrSchemeMismatch):
		return errSpeaksHTTP
	case errors.As(err, &noTLS):
		return errSpeaksOther
	case strings.Contains(s, `malformed HTTP response "\x15\x03`):
		return errSpeaksTLS
	case strings.Contains(s, "parse Location header"):
		_, says := foreignAnswer(http.StatusFound)
		return &schemeError{says}
	case strings.Contains(s, "malformed HTTP response"):
		return errSpeaksOther
	}
	return err
}

// send sends req. Its errors are the transport's.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	var failed *url.Error
	if errors.As(err, &failed) {
		failed.Err = protocolError(failed.Err)
	}
	if err == nil {
		if _, undated := http.ParseTime(res.Header.Get("Date")); undated != nil {
			res.Header.Set("Date", c.Clock.Now().UTC().Format(http.TimeFormat)) // RFC 9110 §6.6.1
		}
	}
	return res, err
}

// RefusedByProxy is for the OnProxyConnectResponse of an http.Transport: a proxy that opens no
// tunnel is a foreign answer too.
func RefusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return foreign(res, nil)
}

// foreign makes the error of an answer that is not the server's. b is the beginning of its body.
func foreign(res *http.Response, b []byte) *Error {
	_, says := foreignAnswer(res.StatusCode)
	if res.StatusCode == http.StatusBadRequest && wantsTLS.Match(b) {
		says = errSpeaksTLS.says
	}
	if res.StatusCode == http.StatusRequestEntityTooLarge && res.Request != nil &&
		res.Request.Method == http.MethodGet {
		says = "something in front of the server does not take this request" // a GET has nothing large in it
	}
	if to := movedTo(res); to != "" {
		says = "the server has moved to " + to + ": give that address"
	}
	if excerpt := excerptOf(b); excerpt != "" {
		says += ", which says " + excerpt
	}
	e := foreignStatus(res.StatusCode, says)
	e.RetryAfter = retryAfter(res.Header)
	return e
}

// foreignLacking makes the error of a good answer that lacks a member that the server's own has.
func foreignLacking(res *http.Response, member string) *Error {
	return foreignStatus(res.StatusCode, noServer+": its answer lacks "+member)
}

func foreignStatus(status int, says string) *Error {
	return &Error{
		Foreign: true, Recorded: -1,
		Problem: Problem{Title: http.StatusText(status), Fault: Fault{Status: status, Detail: says}},
	}
}

// wantsTLS matches the answers of servers to plain HTTP on a port for TLS (Go, nginx, Apache).
var wantsTLS = regexp.MustCompile(
	`(?i)HTTP request (was sent )?to (an )?HTTPS (server|port)|speaking plain HTTP to an SSL-enabled`,
)

// movedTo returns the address of the server that a redirect names, or "" if it names none.
func movedTo(res *http.Response) string {
	if res.StatusCode/100 != 3 || res.Request == nil {
		return ""
	}
	to, err := res.Location()
	if err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return ""
	}
	// The server's base comes before the path of the operation. A location without that path is
	// another page.
	at := strings.Index(to.Path, "/v1/")
	base := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path[:max(at, 0)]}).String()
	if at < 0 || len(base) > 200 || strings.ContainsFunc(base, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return base
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlPage  = regexp.MustCompile(`(?i)<(!doctype|html|head|body|script|\?xml)`)
)

// excerptOf returns what an answer says in a few words, quoted: the title of a page, or the
// beginning of a plain text. Markup is never shown.
func excerptOf(b []byte) string {
	s := string(b[:min(len(b), 4096)])
	switch title := htmlTitle.FindStringSubmatch(s); {
	case title != nil:
		s = html.UnescapeString(title[1])
	case htmlPage.MatchString(s), strings.ContainsAny(s, "<>"):
		return ""
	}
	if s = printable(strings.Join(strings.Fields(s), " "), 80); s == "" {
		return ""
	}
	return strconv.QuoteToASCII(s)
}

// printable keeps the visible characters of s, up to n bytes.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}

// retryAfter reads Retry-After (RFC 9110 §10.2.3): seconds, or a time by the clock of the answer's
// own Date. It returns 0 if either is missing.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return max(time.Duration(s)*time.Second, 0)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// ErrWhole: the answer is the whole content although the request asked for a part. Something in
// front of the server removes the Range header.
var ErrWhole = errors.New("something in front of the server gives no parts of a content")

// wholeOf makes the error of a 200 to a request with a Range. It is ErrWhole if the answer is a
// content of the server's, which has an ETag of its own.
func wholeOf(res *http.Response) error {
	if strings.Contains(res.Header.Get("ETag"), `"sha256:`) {
		return fmt.Errorf("%w (%d where 206 was due)", ErrWhole, res.StatusCode)
	}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	return foreign(res, b)
}

// NoServer reports whether an error means that no request can get to a Sluice server by this
// address: the server has moved, it is something else, or it can't be verified.
func NoServer(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Foreign && (refused.Status < 400 || strings.HasPrefix(refused.Detail, errSpeaksTLS.says))
	}
	return ClassOf(err) == Permanent && !errors.Is(err, context.Canceled)
}
