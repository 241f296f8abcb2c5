//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/api"
)

// rotting is a server whose disk has flipped bits, with its clients over both protocols.
type rotting struct {
	t      *testing.T
	srv    *child
	data   string
	secret string
}

// flip changes one bit of the stored bytes: through the page cache as another program would, or,
// cold, on the disk alone.
func (r *rotting) flip(needle []byte, cold bool) {
	r.t.Helper()
	found := 0
	err := filepath.WalkDir(filepath.Join(r.data, "content"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		at := bytes.Index(b, needle)
		if err != nil || at < 0 {
			return err
		}
		found++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{b[at] ^ 16}, int64(at)); err != nil || !cold {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil || found != 1 {
		r.t.Fatalf("stored %d times, %v", found, err)
	}
}

// get gives the status and the body of a response, and whether the body came to its end (whole).
// The status is 0 if the answer was cut off before its head was sent.
func (r *rotting) get(
	tr *http.Transport, method string, m api.Memory, field string,
) (status int, b []byte, whole bool) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, r.srv.url+m.ContentURL, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.secret)
	if field != "" {
		req.Header.Set("Range", field)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, nil, false
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	return res.StatusCode, b, err == nil
}

// A flipped bit in stored content is never read as good, with the defaults of serve: whole or in
// part, over both protocols, whether the content was read before or not, and whether the page cache
// has the wrong byte or the disk.
func TestRotIsNeverRead(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	r := &rotting{t: t, data: filepath.Join(t.TempDir(), "data")}
	r.srv = startServer(t, r.data, "--scrub-rate", "0")
	token, err := os.ReadFile(filepath.Join(r.data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	r.secret = strings.TrimSpace(string(token))
	two := new(http.Protocols)
	two.SetUnencryptedHTTP2(true)
	transports := map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2": {Protocols: two}}
	for kind, n := range map[string]int{
		"an item of a pack": 5_000, "a large item": 300_000, "a place": 2 << 20,
		"a content of several extents": 20<<20 + 5,
	} {
		for _, before := range []string{"", "whole", "a part"} {
			for _, cold := range []bool{true, false} {
				what := fmt.Sprintf("%s, read before: %q, cold: %v", kind, before, cold)
				b, bad := noise(n), n/2+17
				m, err := r.srv.client.Create(t.Context(), api.CreateRequest{Name: "a"}, bytes.NewReader(b), int64(n))
				if err != nil {
					t.Fatal(err)
				}
				switch status, got, whole := r.get(
					transports["HTTP/1.1"], "GET", m, map[string]string{"a part": "bytes=3-"}[before],
				); {
				case before == "":
				case status >= 300 || !whole || !bytes.HasSuffix(b, got):
					t.Fatalf("%s: %d", what, status)
				}
				r.flip(b[bad:bad+64], cold)
				for name, tr := range transports {
					if status, got, whole := r.get(tr, "GET", m, ""); status == 200 && whole ||
						status > 200 && status != 500 || len(got) >= n {
						t.Errorf("%s, %s: %d, %d bytes, whole: %v", what, name, status, len(got), whole)
					}
					for _, first := range []int{bad, bad - 100, bad - n/3} {
						if status, got, whole := r.get(
							tr, "GET", m, fmt.Sprintf("bytes=%d-%d", first, bad+50),
						); status == 206 && whole || status == 200 || status > 206 && status != 500 {
							t.Errorf(
								"%s, %s, from %d: %d, %d bytes, whole: %v", what, name, first, status, len(got), whole,
							)
						}
					}
					if status, got, _ := r.get(tr, "GET", m, fmt.Sprintf("bytes=%d-%d", bad, bad)); status != 500 ||
						!bytes.Contains(got, []byte(`"code":"Damaged"`)) {
						t.Errorf("%s, %s, the byte alone: %d %s", what, name, status, got)
					}
					// it reads nothing, and says nothing of the bytes
					if status, _, _ := r.get(tr, "HEAD", m, ""); status != 200 {
						t.Errorf("%s, %s: HEAD %d", what, name, status)
					}
				}
			}
		}
	}
	for _, tr := range transports {
		tr.CloseIdleConnections()
	}
}
