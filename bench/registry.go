package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// registry speaks the OCI distribution protocol. An upload is opened, takes its chunks in order,
// and is closed with its digest.
type registry struct {
	p   *process
	url string
}

const registryConfig = `version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: %s
http:
  addr: %s
  secret: bench
`

func startRegistry(ctx context.Context, bins, dir string) (server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(
		config, fmt.Appendf(nil, registryConfig, filepath.Join(dir, "data"), addr), 0o600,
	); err != nil {
		return nil, err
	}
	p, err := launch(dir, []string{"OTEL_TRACES_EXPORTER=none"}, filepath.Join(bins, "registry"), "serve", config)
	if err != nil {
		return nil, err
	}
	if err := p.listens(ctx, addr); err != nil {
		return nil, closing(p, err)
	}
	return &registry{p, "http://" + addr}, nil
}

func (s *registry) process() *process { return s.p }

func (s *registry) open(c *client) (string, error) {
	resp, _, err := c.call("POST", s.url+"/v2/bench/blobs/uploads/", nil, "", http.StatusAccepted)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Location"), nil
}

func (s *registry) store(c *client, it item, inflight int) (string, error) {
	if inflight > 1 {
		return "", errors.New("a registry takes chunks in order only")
	}
	if it.chunks() == 1 {
		return s.create(c, it)
	}
	at, err := s.open(c)
	if err != nil {
		return "", err
	}
	for i := range it.chunks() {
		off, n := it.bounds(i)
		h := http.Header{
			"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", off, off+n-1)},
		}
		resp, _, err := c.send("PATCH", at, h, it, off, n, http.StatusAccepted, nil)
		if err != nil {
			return "", err
		}
		at = resp.Header.Get("Location")
	}
	end, err := withDigest(at, it)
	if err != nil {
		return "", err
	}
	resp, _, err := c.call("PUT", end, nil, "", http.StatusCreated)
	if err != nil {
		return "", err
	}
	return s.stored(resp, it)
}

// create opens an upload, and sends all bytes with the digest: no form has one request.
func (s *registry) create(c *client, it item) (string, error) {
	at, err := s.open(c)
	if err != nil {
		return "", err
	}
	if at, err = withDigest(at, it); err != nil {
		return "", err
	}
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	resp, _, err := c.send("PUT", at, h, it, 0, it.size, http.StatusCreated, nil)
	if err != nil {
		return "", err
	}
	return s.stored(resp, it)
}

func withDigest(at string, it item) (string, error) {
	u, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("digest", "sha256:"+it.sum)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func (s *registry) stored(resp *http.Response, it item) (string, error) {
	if got := resp.Header.Get("Docker-Content-Digest"); got != "sha256:"+it.sum {
		return "", fmt.Errorf("the registry answers digest %q for %s", got, it.sum)
	}
	return it.sum, nil
}

func (s *registry) fetch(ref string) (*http.Request, error) {
	return http.NewRequest("GET", s.url+"/v2/bench/blobs/sha256:"+ref, nil)
}
