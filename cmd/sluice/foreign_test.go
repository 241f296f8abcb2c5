package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// Many web servers answer any request. No command takes such an answer for the answer of Sluice.
func TestNoCommandTakesAWebServerForSluice(t *testing.T) {
	var answer atomic.Value // a string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer.Load().(string))
	}))
	defer front.Close()
	dir := t.TempDir()
	for _, name := range []string{"token", "hh"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("slc_any"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{`{"status":"ok"}`, `{}`, `{"memories":null}`} {
		answer.Store(body)
		for _, args := range slices.Concat([][]string{
			{"put", filepath.Join(dir, "hh")},
			{"put", dir},
			{"get", anyID, "-o", filepath.Join(dir, "file")},
			{"get", "--path-prefix", "a", "-o", filepath.Join(dir, "files")},
		}, askingOnce) {
			out, err := refused(
				t, append(slices.Clone(args), "--server", front.URL, "--token-file", filepath.Join(dir, "token"))...,
			)
			if err == nil || !strings.Contains(out, "this address is answered by something that is no Sluice server") ||
				strings.Count(out, "sluice: ") != 1 {
				t.Errorf("%s takes %s: %v: %s", args, body, err, out)
			}
		}
	}
}
