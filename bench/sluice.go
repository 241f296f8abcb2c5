package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// sluice is the real program, used as any client would.
type sluice struct {
	p     *process
	url   string
	token []string
}

func startSluice(ctx context.Context, bins, dir string) (server, error) {
	return openSluice(ctx, bins, dir)
}

func startOther(ctx context.Context, bins, dir string) (server, error) {
	return open(ctx, filepath.Join(bins, otherBuild), dir)
}

func openSluice(ctx context.Context, bins, dir string, flags ...string) (*sluice, error) {
	return open(ctx, filepath.Join(bins, "sluice"), dir, flags...)
}

func open(ctx context.Context, exe, dir string, flags ...string) (*sluice, error) {
	data := filepath.Join(dir, "data")
	p, err := launch(dir, nil, exe,
		append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", ""}, flags...)...)
	if err != nil {
		return nil, err
	}
	s := &sluice{p: p}
	if s.url, err = p.said(ctx, `listening on (http://\S+)\n`); err != nil {
		return nil, closing(p, err)
	}
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		return nil, closing(p, err)
	}
	s.token = []string{"Bearer " + strings.TrimSpace(string(token))}
	return s, nil
}

func closing(p *process, err error) error {
	p.stop()
	return err
}

func (s *sluice) process() *process { return s.p }

func (s *sluice) head() http.Header { return http.Header{"Authorization": s.token} }

// ask sends a JSON operation; in and out may be nil.
func (s *sluice) ask(c *client, method, path string, in, out any) error {
	body := ""
	h := s.head()
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = string(b)
		h.Set("Content-Type", "application/json")
	}
	_, b, err := c.call(method, s.url+path, h, body, http.StatusOK)
	if err != nil || out == nil {
		return err
	}
	return json.NewDecoder(bytes.NewReader(b)).Decode(out)
}

type (
	meta struct {
		Name  string `json:"name"`
		Bytes int64  `json:"bytes"`
	}
	beginRequest struct {
		CapsuleID string `json:"capsule_id"`
		Meta      meta   `json:"meta"`
		ChunkSize int64  `json:"chunk_size,omitempty"`
	}
	finishRequest struct {
		SessionID string `json:"session_id"`
		SHA256    string `json:"sha256"`
		TotalLen  int64  `json:"total_len"`
	}
	memory struct {
		MemoryID string `json:"memory_id"`
		SHA256   string `json:"sha256"`
		Bytes    int64  `json:"bytes"`
	}
)

func (s *sluice) begin(c *client, it item) (session string, err error) {
	var out struct {
		SessionID string `json:"session_id"`
	}
	in := beginRequest{CapsuleID: "default", Meta: meta{it.name, it.size}}
	if it.size > it.chunk {
		in.ChunkSize = it.chunk
	}
	return out.SessionID, s.ask(c, "POST", "/v1/uploads_begin", in, &out)
}

func (s *sluice) put(c *client, session string, it item, i int) error {
	off, n := it.bounds(i)
	_, _, err := c.send(
		"PUT", fmt.Sprintf("%s/v1/uploads_put_chunk/%s/%d", s.url, session, i), s.head(), it, off, n,
		http.StatusNoContent, nil,
	)
	return err
}

func (s *sluice) finish(c *client, session string, it item) (string, error) {
	var m memory
	if err := s.ask(c, "POST", "/v1/uploads_finish", finishRequest{session, it.sum, it.size}, &m); err != nil {
		return "", err
	}
	return m.MemoryID, m.is(it)
}

func (m memory) is(it item) error {
	if m.SHA256 != it.sum || m.Bytes != it.size {
		return fmt.Errorf(
			"%s was answered as %d bytes with SHA-256 %s, instead of %d and %s", it.name, m.Bytes, m.SHA256, it.size,
			it.sum,
		)
	}
	return nil
}

func (s *sluice) store(c *client, it item, inflight int) (string, error) {
	session, err := s.begin(c, it)
	if err != nil {
		return "", err
	}
	if err := parallel(it.chunks(), inflight, func(i int) error { return s.put(c, session, it, i) }); err != nil {
		return "", err
	}
	return s.finish(c, session, it)
}

func (s *sluice) create(c *client, it item) (string, error) {
	_, b, err := c.send(
		"POST", s.url+"/v1/memories_create?name="+url.QueryEscape(it.name), s.head(), it, 0, it.size, http.StatusOK,
		nil,
	)
	if err != nil {
		return "", err
	}
	var m memory
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	return m.MemoryID, m.is(it)
}

func (s *sluice) fetch(ref string) (*http.Request, error) {
	r, err := http.NewRequest("GET", s.url+"/v1/memories_content/"+ref, nil)
	if err == nil {
		r.Header = s.head()
	}
	return r, err
}
