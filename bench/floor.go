package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
)

// floor speaks to the program in floors/, whose package comment has its protocol.
type floor struct {
	p    *process
	url  string
	once bool // all chunks as one body
}

func startFloor(kind string, once bool) func(ctx context.Context, bins, dir string) (server, error) {
	return func(ctx context.Context, bins, dir string) (server, error) {
		p, err := launch(dir, nil, filepath.Join(bins, "floors"), "-kind", kind, "-dir", dir)
		if err != nil {
			return nil, err
		}
		s := &floor{p: p, once: once}
		if s.url, err = p.said(ctx, `listening on (http://\S+)\n`); err != nil {
			return nil, closing(p, err)
		}
		return s, nil
	}
}

func (s *floor) process() *process { return s.p }

func (s *floor) store(c *client, it item, _ int) (string, error) {
	if s.once {
		return s.create(c, it)
	}
	for i := range it.chunks() {
		off, n := it.bounds(i)
		if err := s.put(c, it, off, n); err != nil {
			return "", err
		}
	}
	return it.name, nil
}

func (s *floor) create(c *client, it item) (string, error) {
	return it.name, s.put(c, it, 0, it.size)
}

func (s *floor) put(c *client, it item, off, n int64) error {
	url, want := fmt.Sprintf("%s/%s?off=%d&total=%d", s.url, it.name, off, it.size), http.StatusNoContent
	if off+n == it.size {
		url, want = url+"&sha256="+it.sum, http.StatusOK
	}
	_, _, err := c.send("PUT", url, nil, it, off, n, want, nil)
	return err
}

func (s *floor) fetch(ref string) (*http.Request, error) {
	return http.NewRequest("GET", s.url+"/"+ref, nil)
}
