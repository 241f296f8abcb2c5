package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// A path that is not in its plain form is not found. It is neither mended nor redirected.
func TestOddPathsAreNotFound(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	m := w.store("a", "", b)
	for _, path := range []string{
		"/", "/v1", "/v1/", "//v1//", "//v1/upload_config", "/v1//upload_config", "/v1/upload_config/",
		"/v1/upload_config//", "/v1/./upload_config", "/v1/../v1/upload_config", "/v1/%2e/upload_config",
		"/v1/%2e%2e/v1/upload_config", "/v1/..%2fv1/upload_config", "/v1/..%2f..%2fetc%2fpasswd", "/v1%2fupload_config",
		"/v1/upload_config%2f", "/v1/upload_config%00", "/v1/upload_config;x", "/V1/upload_config", "/v1/Upload_Config",
		"/v2/upload_config", "/v1/uploads_status", "/v1/uploads_status/", "/v1/uploads_status/" + id + "/",
		"/v1/uploads_status/" + id + "/1", "/v1/memories_content/" + m.MemoryID + "/", "/v1/memories_content/%2e%2e",
		"/v1/capsules_read/..", "/metrics", "/debug/pprof/", "/openapi.json/", "/healthz/x", "/favicon.ico",
		"/.well-known/x",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			w.refused(api.CodeNotFound, method, path, "")
		}
		if a := w.do("GET", path, "", "Authorization", ""); a.StatusCode != 404 { // a token makes no difference either
			t.Errorf("%s without a token: %d", path, a.StatusCode)
		}
	}
	// An escaped slash is a part of an id, and makes it invalid.
	for _, path := range []string{
		"/v1/uploads_status/" + id + "%2f..", "/v1/memories_read/..%2f" + m.MemoryID, "/v1/capsules_read/default%2f..",
	} {
		w.refused(api.CodeNotFound, "GET", path, "")
	}
	for _, path := range []string{creates + "/%2e%2e", creates + "/%2E", creates + "//a", creates + "/a//"} {
		w.refused(api.CodeNotFound, "PUT", path, "x")
	}
	// In a name dots and slashes are only characters.
	for path, name := range map[string]string{"..%2f..%2fa": "../../a", "a%2f..": "a/.."} {
		if a := w.do("PUT", creates+"/"+path, "x"); a.StatusCode != http.StatusOK ||
			!strings.Contains(string(a.body), `"name":"`+name+`"`) {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
}

// A method that a path does not have is refused with a list of those that it has.
func TestMethods(t *testing.T) {
	w := newWorld(t, nil)
	for path, item := range w.documented() {
		var have []string
		for method := range item {
			have = append(have, strings.ToUpper(method))
		}
		if slices.Contains(have, "GET") && !slices.Contains(have, "HEAD") {
			have = append(have, "HEAD")
		}
		have = append(have, "OPTIONS")
		slices.Sort(have)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
			if slices.Contains(have, method) {
				continue
			}
			a := w.do(method, path, "")
			if method == "HEAD" { // has no body that could differ
				if a.StatusCode != 405 || len(a.body) > 0 {
					t.Errorf("HEAD %s: %d %s", path, a.StatusCode, a.body)
				}
			} else {
				w.problem(a, api.CodeMethodNotAllowed)
			}
			if got := strings.Split(a.Header.Get("Allow"), ", "); !slices.Equal(got, have) {
				t.Errorf("%s %s: Allow %q, want %q", method, path, got, have)
			}
		}
	}
}

// No option is silently ignored: an unknown or repeated parameter, or an invalid value, is refused.
func TestQueries(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	m := w.store("a", "", b)
	for _, op := range w.operations() {
		path := strings.Replace(op.path, "uploads_status/1", "uploads_status/"+id, 1)
		for _, query := range []string{"?x=1", "?Limit=1", "?limit", "?%zz", "?a;b", "?=", "?token="} {
			if query == "?limit" && strings.Contains(path, "_list") {
				continue
			}
			if op.method == "HEAD" {
				continue
			}
			w.problem(w.do(op.method, path+query, ""), api.CodeInvalidArgument)
		}
	}
	const bad = api.CodeInvalidArgument
	for _, list := range []string{"uploads_list", "memories_list", "capsules_list", "sessions_list"} {
		for _, limit := range []string{
			"0", "1001", "2147483648", "4294967297", "9223372036854775808", "-1", "01", "1e2", "+1", "%201", "x", "",
			"1&limit=1",
		} {
			a := w.refused(bad, "GET", "/v1/"+list+"?limit="+limit, "")
			if !strings.Contains(a.problem.Detail, "limit") {
				t.Errorf("%s %s: %s", list, limit, a.problem.Detail)
			}
		}
		for _, limit := range []string{"1", "1000"} {
			if a := w.do("GET", "/v1/"+list+"?limit="+limit, ""); a.StatusCode != 200 {
				t.Errorf("%s %s: %d", list, limit, a.StatusCode)
			}
		}
	}
	for _, flag := range []string{"1", "0", "yes", "True", "", "true&" + "trash=true"} {
		w.refused(bad, "GET", "/v1/memories_list?trash="+flag, "")
		w.refused(bad, "GET", "/v1/uploads_status/"+id+"?crc="+strings.ReplaceAll(flag, "trash", "crc"), "")
		w.refused(
			bad, "PUT", chunkPath(id, 0)+"?replace="+strings.ReplaceAll(flag, "trash", "replace"),
			string(random(chunk)),
		)
	}
	w.refused(bad, "GET", "/v1/sessions_list?state=gone", "")
	w.refused(bad, "GET", "/v1/sessions_list?state=Open", "")
	w.refused(bad, "PUT", chunkPath(id, 1)+"?crc=true", "")
	w.refused(bad, "GET", m.ContentURL+"?download=true", "")
}

// A cursor is taken only by the list that gave it, and only unchanged.
func TestForgedCursors(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3 {
		w.begin(1)
		w.store("a", "", []byte("a"))
		_, err := w.client.CreateCapsule(t.Context(), api.CreateCapsuleRequest{CapsuleID: fmt.Sprint("c", i)})
		w.check(err)
	}
	uploads, err := w.client.Uploads(t.Context(), "", 1)
	w.check(err)
	memories, err := w.client.ListMemories(t.Context(), api.MemoryQuery{Limit: 1})
	w.check(err)
	capsules, err := w.client.ListCapsules(t.Context(), "", 1)
	w.check(err)
	given := map[string]string{
		"uploads_list": uploads.NextCursor, "memories_list": memories.NextCursor, "capsules_list": capsules.NextCursor,
	}
	for list, cursor := range given {
		if cursor == "" {
			t.Fatalf("%s has no next page", list)
		}
		forged := []string{"x", "!", "AAAA====", "../..", "' OR 1=1", "\x00", "-1", strings.Repeat("A", 4000)}
		if list == "memories_list" { // it carries a check sum
			forged = append(
				forged, other(cursor, 0), other(cursor, len(cursor)/2), other(cursor, len(cursor)-1), cursor+"A",
				cursor[1:],
			)
		}
		for of, foreign := range given {
			if of != list {
				forged = append(forged, foreign)
			}
		}
		for _, c := range forged {
			w.refused(api.CodeInvalidArgument, "GET", "/v1/"+list+"?cursor="+url.QueryEscape(c), "")
		}
	}
	w.refused(api.CodeInvalidArgument, "GET", "/v1/sessions_list?cursor="+url.QueryEscape(memories.NextCursor), "")
}

// Headers past 64 KiB are refused before a handler sees them.
func TestHugeHeaders(t *testing.T) {
	w := newWorld(t, nil)
	for n, want := range map[int]int{48 << 10: 200, 80 << 10: 431} {
		if a := w.do("GET", "/v1/upload_config", "", "X-Long", strings.Repeat("x", n)); a.StatusCode != want {
			t.Errorf("%d bytes: %d, want %d", n, a.StatusCode, want)
		}
	}
	if a := w.do("GET", "/v1/upload_config?x="+strings.Repeat("x", 80<<10), ""); a.StatusCode != 431 {
		t.Errorf("a long path: %d", a.StatusCode)
	}
}
