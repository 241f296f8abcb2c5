package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
)

// tusd speaks tus 1.0: a creation, then the bytes in order. Parallel uploads are partial uploads
// that are concatenated.
type tusd struct {
	p   *process
	url string
}

func startTusd(exe string) func(ctx context.Context, bins, dir string) (server, error) {
	return func(ctx context.Context, bins, dir string) (server, error) {
		args := []string{"-host", "127.0.0.1", "-port", "0", "-upload-dir", filepath.Join(dir, "data")}
		if exe == "tusd" {
			args = append(args, "-verbose=false")
		}
		p, err := launch(dir, nil, filepath.Join(bins, exe), args...)
		if err != nil {
			return nil, err
		}
		s := &tusd{p: p}
		if s.url, err = p.said(ctx, `upload files to: (http://\S+)\n`); err != nil {
			return nil, closing(p, err)
		}
		return s, nil
	}
}

func (s *tusd) process() *process { return s.p }

func tusHead(more ...string) http.Header {
	h := http.Header{"Tus-Resumable": {"1.0.0"}}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = []string{more[i+1]}
	}
	return h
}

const offsetType = "application/offset+octet-stream"

func (s *tusd) store(c *client, it item, inflight int) (string, error) {
	if inflight > 1 && it.chunks() > 1 {
		return s.concatenate(c, it, min(inflight, it.chunks()))
	}
	return s.upload(c, it, 0, it.chunks())
}

// upload sends some chunks of an item as an upload of their own.
func (s *tusd) upload(c *client, it item, from, to int, more ...string) (string, error) {
	start, _ := it.bounds(from)
	off, n := it.bounds(to - 1)
	resp, _, err := c.call(
		"POST", s.url, tusHead(append(more, "Upload-Length", strconv.FormatInt(off+n-start, 10))...), "",
		http.StatusCreated,
	)
	if err != nil {
		return "", err
	}
	at := resp.Header.Get("Location")
	for i := from; i < to; i++ {
		off, n := it.bounds(i)
		h := tusHead("Upload-Offset", strconv.FormatInt(off-start, 10), "Content-Type", offsetType)
		resp, _, err := c.send("PATCH", at, h, it, off, n, http.StatusNoContent, nil)
		if err != nil {
			return "", err
		}
		if got := resp.Header.Get("Upload-Offset"); got != strconv.FormatInt(off-start+n, 10) {
			return "", fmt.Errorf("tusd answers offset %s after %d bytes", got, off-start+n)
		}
	}
	return at, nil
}

// concatenate sends partial uploads, several at a time, each a run of chunks, and joins them.
func (s *tusd) concatenate(c *client, it item, width int) (string, error) {
	parts := make([]string, width)
	err := parallel(width, width, func(i int) (err error) {
		parts[i], err = s.upload(c, it, it.chunks()*i/width, it.chunks()*(i+1)/width, "Upload-Concat", "partial")
		return err
	})
	if err != nil {
		return "", err
	}
	resp, _, err := c.call(
		"POST", s.url, tusHead("Upload-Concat", "final;"+strings.Join(parts, " ")), "", http.StatusCreated,
	)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Location"), nil
}

// create is tus's Creation With Upload.
func (s *tusd) create(c *client, it item) (string, error) {
	resp, _, err := c.send(
		"POST", s.url, tusHead("Upload-Length", strconv.FormatInt(it.size, 10), "Content-Type", offsetType), it, 0,
		it.size, http.StatusCreated, nil,
	)
	if err != nil {
		return "", err
	}
	if got := resp.Header.Get("Upload-Offset"); got != strconv.FormatInt(it.size, 10) {
		return "", fmt.Errorf("tusd answers offset %s after %d bytes", got, it.size)
	}
	return resp.Header.Get("Location"), nil
}

func (s *tusd) fetch(ref string) (*http.Request, error) { return http.NewRequest("GET", ref, nil) }
