package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A get whose address redirects says so at the first answer, and does not ask again.
func TestAGetThatIsSentElsewhereEnds(t *testing.T) {
	var asked atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, "/login", http.StatusFound)
	}))
	defer front.Close()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("slc_any"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := refused(
		t, "get", "00000000-0000-7000-8000-000000000000", "-o", filepath.Join(dir, "file"), "--server", front.URL,
		"--token-file", token, "--patience", "1h",
	)
	if err == nil || !strings.Contains(out, "this address leads elsewhere") || asked.Load() != 1 {
		t.Errorf("%d requests, %v: %s", asked.Load(), err, out)
	}
}
