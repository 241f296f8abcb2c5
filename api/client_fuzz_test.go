package api_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"sluice/api"
)

// answers is a transport that gives one answer to everything.
type answers func(*http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	return a(r), nil
}

// Anything may answer in the server's place. Only the server's own answer is taken for a promise,
// any other is reported as foreign, and a content is the part that was asked for.
func FuzzForeignAnswer(f *testing.F) {
	f.Add(uint16(4), "", "", "3", "")
	f.Add(
		uint16(204), "application/problem+json",
		`{"type":"about:blank","title":"t","status":404,"code":"NotFound","detail":"d"}`, "", "",
	)
	f.Add(uint16(6), "text/plain", "abc", "", "bytes 2-4/9")
	f.Fuzz(func(t *testing.T, status uint16, kind, body, received, contentRange string) {
		code := 200 + int(status)%400
		transport := answers(func(r *http.Request) *http.Response {
			h := http.Header{
				"Content-Type": {kind}, "Upload-Received": {received}, "Content-Range": {contentRange},
				"Retry-After": {received},
			}
			return &http.Response{
				Request: r, StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code), Header: h,
				Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
			}
		})
		client := api.NewClient("http://there", "", &http.Client{Transport: transport})
		bytesOf := func() io.Reader { return bytes.NewReader([]byte("abc")) }
		errPut := client.PutChunk(t.Context(), "1", 0, bytesOf(), 3, api.PutOptions{})
		n, errRange := client.PutRange(t.Context(), "1", 0, bytesOf(), 3, api.PutOptions{})
		session, errStatus := client.Status(t.Context(), "1", false)
		errAbort := client.Abort(t.Context(), "1")
		for _, err := range []error{errPut, errRange, errAbort} {
			if err == nil && code != http.StatusNoContent {
				t.Errorf("%d is taken for a promise", code)
			}
		}
		if errRange == nil && (n < 0 || n > 3) {
			t.Errorf("%d bytes of 3 are said to be recorded", n)
		}
		memory, errFinish := client.Finish(t.Context(), api.FinishRequest{})
		if errStatus == nil && session.State == "" || errFinish == nil && memory.MemoryID == "" {
			t.Errorf("%s is taken for an answer", body)
		}
		for _, err := range []error{errPut, errRange, errStatus, errAbort, errFinish} {
			checkRefusal(t, err, code)
		}
		content, info, err := client.Content(t.Context(), "m", 2, 3)
		if err != nil {
			checkRefusal(t, err, code)
			return
		}
		content.Close()
		if code != http.StatusPartialContent || info.Off != 2 || info.N < 1 || info.N > 3 ||
			info.Off+info.N > info.Bytes {
			t.Errorf("%d with %q gives %+v", code, contentRange, info)
		}
	})
}

func checkRefusal(t *testing.T, err error, code int) {
	t.Helper()
	var refused *api.Error
	if !errors.As(err, &refused) {
		return
	}
	if refused.RetryAfter < 0 || refused.Recorded < -1 {
		t.Errorf("%+v", refused)
	}
	if refused.Foreign != (refused.Code == "") || refused.Foreign && refused.Status != code ||
		refused.Status/100 < 4 && !refused.Foreign {
		t.Errorf("answer %d became %+v", code, refused)
	}
	if refused.Foreign && strings.ContainsFunc(refused.Detail, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("detail %q", refused.Detail)
	}
}
