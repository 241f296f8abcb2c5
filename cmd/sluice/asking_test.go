package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A server that takes a request and does not answer, or stops in the middle of an answer, ends each
// command that sends one request.
func TestNoCommandWaitsForASilentServerWithoutEnd(t *testing.T) {
	for how, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"memories":[`)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		for _, args := range askingOnce {
			t.Run(how+" "+strings.Join(args[:min(len(args), 2)], " "), func(t *testing.T) {
				if how == "half" && slices.Contains(args, "rm") {
					t.Skip("a good answer to it has no body")
				}
				t.Parallel()
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body) // else the server does not notice the end of the connection
					answer(w, r)
				}))
				defer front.Close()
				token := filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(token, []byte("slc_any"), 0o600); err != nil {
					t.Fatal(err)
				}
				ask := append(args[:len(args):len(args)], "--server", front.URL, "--token-file", token, "--patience")
				out, err := refused(t, append(ask, "300ms")...)
				if err == nil || strings.Count(out, "the server does not answer: nothing has come for 300ms\n") != 1 {
					t.Errorf("%v: %s", err, out)
				}
				if out, err := refused(t, append(ask, "0s")...); err == nil ||
					!strings.Contains(out, "--patience must be more than 0") {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// anyID has the form of a memory's id.
const anyID = "00000000-0000-7000-8000-000000000000"

// askingOnce lists the commands that send one request, each with valid arguments.
var askingOnce = [][]string{
	{"ls"},
	{"rm", anyID},
	{"undelete", anyID},
	{"capsules", "ls"},
	{"capsules", "show", "default"},
	{"capsules", "create", "zz"},
	{"capsules", "update", "zz", "--name", "z"},
	{"capsules", "rm", "zz"},
	{"sessions", "ls"},
	{"sessions", "stats"},
	{"sessions", "clear", "--yes"},
	{"sessions", "cleanup"},
}
