package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sluice/api"
)

// A get that gives up says so, and why. That holds for each kind of last request and each kind of
// target.
func TestAGetSaysThatItGivesUp(t *testing.T) {
	const id = "00000000-0000-7000-8000-000000000000"
	memory := api.Memory{
		MemoryID: id, CapsuleID: "default", Name: "file", Bytes: 9_000_000, SHA256: strings.Repeat("0", 64),
	}
	for how, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"away":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"cut":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		},
	} {
		for _, at := range []string{"memories_read", "memories_list", "memories_content"} {
			t.Run(how+" "+at, func(t *testing.T) {
				t.Parallel()
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch op := strings.Split(r.URL.Path, "/")[2]; {
					case op == at:
						answer(w, r)
					case op == "memories_read":
						tellJSON(t, w, memory)
					default:
						tellJSON(t, w, api.MemoryList{Memories: []api.Memory{memory}})
					}
				}))
				defer front.Close()
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "token"), []byte("slc_any"), 0o600); err != nil {
					t.Fatal(err)
				}
				for _, what := range [][]string{{id, "-o", filepath.Join(dir, "file")}, {id, "-o", "-"}, {
					"--path-prefix", "a", "-o", filepath.Join(dir, "files"),
				}} {
					if asked := what[0] == "--path-prefix"; asked && at == "memories_read" ||
						!asked && at == "memories_list" {
						continue
					}
					args := append(
						[]string{
							"get", "--server", front.URL, "--token-file", filepath.Join(dir, "token"), "--patience",
							"1s",
						},
						what...,
					)
					out, err := refused(t, args...)
					says := "giving up: nothing has arrived for a long time: "
					if how == "too large" {
						says = "something in front of the server does not take this request (answer 413"
					}
					if err == nil || strings.Count(out, says) != 1 || strings.Contains(out, "deadline") {
						t.Errorf("%q: %v: %s", what, err, out)
					}
				}
			})
		}
	}
}

func tellJSON(t *testing.T, w io.Writer, v any) {
	if err := json.MarshalWrite(w, v); err != nil {
		t.Error(err)
	}
}
