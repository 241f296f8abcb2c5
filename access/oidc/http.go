package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	// requestTimeout bounds one request to an issuer with its answer. maxAnswer bounds the answer
	// in bytes.
	requestTimeout = 10 * time.Second
	maxAnswer      = 1 << 20
	// maxURL bounds an issuer's URL in bytes.
	maxURL = 255
)

// CheckURL refuses a URL that is none for an issuer, or for what belongs to one. It must be https.
// Only an issuer on this very machine may have http: whoever could change its answers could sign in
// as anybody.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(s) > maxURL:
		return fmt.Errorf("must be like https://issuer.example, not %.100q", s)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fmt.Errorf("must be https; only one on this machine (127.0.0.1, localhost) may be http: %.100q", s)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("must be https, not %.100q", s)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// NewHTTPClient makes a client for requests to an issuer. Answers and their time are bounded, and
// it goes nowhere that CheckURL refuses. A nil transport takes a new one of net/http.
func NewHTTPClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableKeepAlives = true // the next request is minutes away
		transport = t
	}
	return &http.Client{
		Transport: bounded{transport},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("it redirects again and again")
			}
			return nil
		},
	}
}

// bounded bounds the answers of a transport, their time, and where its requests go. The time ends
// with the body's last byte too: oauth2 closes not all bodies.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	at := *req.URL
	at.RawQuery = ""
	if err := CheckURL(at.String()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
	resp, err := b.RoundTripper.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer, end: cancel}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
	end  context.CancelFunc
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	if b.left -= n; err != nil {
		b.end()
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

// get gives the body of a good answer.
func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", at, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// Endpoints says where an issuer has what. Device and Revocation are empty if it has none.
type Endpoints struct {
	Keys       string `json:"jwks_uri"`
	Token      string `json:"token_endpoint"`
	Device     string `json:"device_authorization_endpoint"`
	Revocation string `json:"revocation_endpoint"`
}

// Discover asks an issuer where it has what (OpenID Connect Discovery §4). The client is one of
// NewHTTPClient.
func Discover(ctx context.Context, client *http.Client, issuer string) (at Endpoints, err error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer)
	if err == nil {
		err = provider.Claims(&at)
	}
	if err != nil {
		return at, fmt.Errorf("asking the issuer %s: %.300w", issuer, err)
	}
	return at, nil
}
