package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/api"
	"sluice/signin"
)

// remote has the flags of every command that talks to a server.
type remote struct {
	Server    string `default:"${server}" env:"SLUICE_URL" placeholder:"URL" help:"The server."`
	TokenFile string `placeholder:"FILE" help:"A file with the token; else $$SLUICE_TOKEN, else sluice-data/admin-token, else that of sluice login."`
}

// client makes the client that the flags ask for.
func (r remote) client() (*api.Client, error) { return r.clientOver(newHTTPClient()) }

func (r remote) clientOver(hc *http.Client) (*api.Client, error) {
	base, err := serverURL(r.Server)
	if err != nil {
		return nil, err
	}
	token, err := r.token()
	if errors.Is(err, errNoToken) {
		source, err := loginSource(base)
		if err != nil {
			return nil, err
		}
		client := api.NewClient(base, "", hc)
		client.Tokens = func(ctx context.Context) (string, error) {
			token, err := source.Token(ctx)
			if errors.Is(err, signin.ErrEnded) {
				err = fmt.Errorf("%w: sign in again with sluice login %s (%w)", err, base, api.ErrTokenEnded)
			}
			return token, err
		}
		return client, nil
	}
	if err != nil {
		return nil, err
	}
	return api.NewClient(base, token, hc), nil
}

// maxConns bounds the idle connections that are kept: as many as puts may run at a time.
const maxConns = 64

// serverURL checks the server's address.
func serverURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", usageError(fmt.Sprintf("--server must be like %s, not %q", defaultServer, s))
	}
	return s, nil
}

// errNoToken: no flag, variable or file names a token.
var errNoToken = errors.New(
	"no token: give --token-file FILE or set SLUICE_TOKEN (the server wrote one to admin-token in its data " +
		"folder), or sign in with sluice login",
)

// token finds the token. No message ever shows it. errNoToken: there may be a login.
func (r remote) token() (string, error) {
	path := r.TokenFile
	if path == "" {
		if t := strings.TrimSpace(os.Getenv("SLUICE_TOKEN")); t != "" {
			return t, validToken(t, "SLUICE_TOKEN")
		}
		path = filepath.Join("sluice-data", "admin-token")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && r.TokenFile == "" {
		return "", errNoToken
	}
	if err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	return t, validToken(t, path)
}

// validToken refuses a text that can't be in a header.
func validToken(t, from string) error {
	if t == "" || strings.IndexFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return fmt.Errorf("%s does not hold a token", from)
	}
	return nil
}

// newHTTPClient makes a client for a few long-lived connections that carry large bodies. HTTP/1.1
// serves that best: a connection for each put, and no flow control on top of TCP's.
func newHTTPClient() *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return api.FastConn(c), nil
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			OnProxyConnectResponse: api.RefusedByProxy,
			DialContext:            dial,
			Protocols:              &protocols,
			MaxIdleConns:           maxConns,
			MaxIdleConnsPerHost:    maxConns,
			IdleConnTimeout:        time.Minute,
			TLSHandshakeTimeout:    10 * time.Second,
			WriteBufferSize:        16 << 10, // of heads, and of the beginning of a body: the rest goes around it
			ReadBufferSize:         256 << 10,
			DisableCompression:     true,
			ExpectContinueTimeout:  time.Second,
		},
	}
}
