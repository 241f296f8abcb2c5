package api_test

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// bodies are all ways to send raw bytes. Each of them takes b.
func (w *world) bodies(b []byte) (ways []struct{ method, path string }) {
	w.t.Helper()
	n := int64(len(b))
	return append(ways, []struct{ method, path string }{
		{"PUT", chunkPath(w.begin(n).SessionID, 0)},
		{"PUT", rangePath(w.begin(n+10).SessionID, 7)},
		{"POST", creates + "?name=a"},
		{"PUT", creates + "/a"},
	}...)
}

// A field that changes what a body means is never ignored.
func TestWhatChangesTheMeaningOfABodyIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	b := random(chunk)
	ways := w.bodies(b)
	for name, value := range map[string]string{
		"Content-Range": "bytes 0-9/100", "Range": "bytes=0-9", "If-Range": `"x"`,
		"Content-Transfer-Encoding": "base64", "If-Match": "*", "If-None-Match": "*",
		"If-Unmodified-Since": "Tue, 01 Jan 2030 00:00:00 GMT", "If-Modified-Since": "Tue, 01 Jan 2030 00:00:00 GMT",
		"If": "(<x>)", "Tus-Resumable": "1.0.0", "Upload-Offset": "5", "Upload-Complete": "?0",
		"Upload-Checksum": "sha1 AAAA", "X-Amz-Checksum-Sha256": "AAAA", "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD",
		"X-Amz-Decoded-Content-Length": "9", "X-Amz-Copy-Source": "/a/b", "X-Goog-Hash": "md5=AAAA",
		"X-Goog-Copy-Source": "/a", "X-Ms-Blob-Content-Md5": "AAAA", "X-Ms-Content-Crc64": "AAAA",
		"X-Ms-Copy-Source": "/a", "X-Ms-Range": "bytes=0-9", "Idempotency-Key": "k", "X-Content-Range": "bytes 0-9/100",
		"X-Upload-Content-Length": "9", "X-Ms-Blob-Type": "AppendBlob", "X-Content-Sha256": "aa", "Content-Crc32c": "1",
		"X-Expected-Entity-Length": "9", "X-File-Size": "9", "X-Checksum-Sha1": "aa", "Oc-Checksum": "MD5:aa",
		"Oc-Chunked": "1", "X-Http-Method-Override": "DELETE", "X-Http-Method": "DELETE", "X-Method-Override": "DELETE",
	} {
		for _, way := range ways {
			a := w.refused(api.CodeInvalidArgument, way.method, way.path, string(b), name, value)
			if !strings.HasPrefix(a.problem.Detail, name+" ") {
				t.Errorf("%s: the field is not named: %s", name, a.problem.Detail)
			}
		}
	}
	for _, kind := range []string{
		"multipart/form-data; boundary=x", "Multipart/Form-Data", "multipart/byteranges; boundary=x",
	} {
		for _, way := range ways {
			a := w.refused(api.CodeUnsupportedMediaType, way.method, way.path, string(b), "Content-Type", kind)
			if !strings.Contains(a.problem.Detail, "curl -T FILE") {
				t.Errorf("%s: no help: %s", kind, a.problem.Detail)
			}
		}
	}
	// A field that describes, or asks for a favour, does no harm. The type that curl --data-binary
	// and others send with any bytes is no type.
	for _, way := range ways {
		a := w.do(way.method, way.path, string(b), "Prefer", "return=minimal", "Content-Location", "/x",
			"Content-Disposition", "inline", "Content-Language", "de",
			"Want-Content-Digest", "sha-256=1", "Content-Type", "application/x-www-form-urlencoded")
		if a.StatusCode >= 300 ||
			a.StatusCode == 200 && !strings.Contains(string(a.body), `"mime_type":"application/octet-stream"`) {
			t.Errorf("%s: %d %s", way.path, a.StatusCode, a.body)
		}
	}
}

// If a field with one value comes twice, or comes empty at first, each line counts.
func TestAFieldThatComesTwiceIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	b := random(chunk)
	for _, way := range w.bodies(b) {
		for _, row := range []struct {
			code  api.Code
			lines []string
		}{
			{api.CodeUnsupportedMediaType, []string{"Content-Encoding: ", "Content-Encoding: gzip"}},
			{api.CodeInvalidArgument, []string{"Content-Type: application/octet-stream", "Content-Type: multipart/form-data; boundary=x"}},
			{api.CodeInvalidArgument, []string{"Content-Type: ", "Content-Type: text/plain"}},
			{api.CodeInvalidArgument, []string{"Expect: 100-continue", "Expect: foo"}},
		} {
			before := w.look()
			w.problem(w.sendWith(way.method, way.path, chunk, b, row.lines...).answer(), row.code)
			w.unchanged(before)
		}
	}
}

// A field that is refused in the head is refused in the trailer, announced or not. Nothing of the
// body is kept, except a range if nobody announced the field.
func TestWhatChangesTheMeaningIsRefusedInATrailer(t *testing.T) {
	w := newWorld(t, nil)
	b := random(chunk)
	for _, way := range w.bodies(b) {
		for field, code := range map[string]api.Code{
			"X-Amz-Checksum-Crc32: AAAA": api.CodeInvalidArgument, "X-Goog-Hash: crc32c=AAAA": api.CodeInvalidArgument,
			"Content-Encoding: gzip":      api.CodeUnsupportedMediaType,
			"Content-Range: bytes 0-4/10": api.CodeInvalidArgument, "If-None-Match: *": api.CodeInvalidArgument,
		} {
			name, _, _ := strings.Cut(field, ":")
			for _, announced := range []string{"Trailer: " + name, "X-Else: 1"} {
				before := w.look()
				c := w.sendWith(way.method, way.path, -1, b, announced)
				_, err := fmt.Fprintf(c, "0\r\n%s\r\n\r\n", field)
				w.check(err)
				w.problem(c.answer(), code)
				if announced == "X-Else: 1" && strings.HasPrefix(way.path, "/v1/uploads_put_range") {
					continue // it records as the bytes come
				}
				before.Stats = w.look().Stats // a create of unknown length has a session meanwhile
				w.unchanged(before)
			}
		}
	}
}

// JSON is one whole text in UTF-8.
func TestJSONIsWholeAndUTF8(t *testing.T) {
	w := newWorld(t, nil)
	w.refused(
		api.CodeInvalidArgument, "POST", "/v1/capsules_create", `{"capsule_id":"x"}`, "Content-Range", "bytes 0-4/10",
	)
	w.refused(
		api.CodeUnsupportedMediaType, "POST", "/v1/capsules_create", `{"capsule_id":"x"}`, "Content-Type",
		"application/json; charset=utf-16",
	)
	if a := w.do(
		"POST", "/v1/capsules_create", `{"capsule_id":"x"}`, "Content-Type", "application/json; charset=UTF-8",
	); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// A condition, or another method, that can't be honoured is refused on every request.
func TestConditionsThatCannotBeHonouredAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	m := w.store("a", "", random(10))
	for _, name := range []string{
		"If-Match", "If-None-Match", "If-Unmodified-Since", "If-Modified-Since", "If", "X-Http-Method-Override",
	} {
		w.refused(
			api.CodeInvalidArgument, "POST", "/v1/memories_delete", fmt.Sprintf(`{"memory_id":%q}`, m.MemoryID), name,
			"*",
		)
	}
	for _, name := range []string{"If-Match", "If-Unmodified-Since", "X-Http-Method", "X-Method-Override"} {
		w.refused(api.CodeInvalidArgument, "GET", "/v1/memories_read/"+m.MemoryID, "", name, `"x"`)
	}
	w.refused(api.CodeInvalidArgument, "GET", m.ContentURL, "", "X-Http-Method-Override", "DELETE")
	if a := w.do(
		"GET", "/v1/memories_read/"+m.MemoryID, "", "If-None-Match", "*", "If-Modified-Since", "x", "Range",
		"bytes=0-1",
	); a.StatusCode != 200 {
		t.Errorf("what is no condition without validators: %d %s", a.StatusCode, a.body)
	}
	w.transport = overHTTP2(t)
	w.refused(api.CodeInvalidArgument, "PUT", creates+"/a", "x", "Expect", "200-ok")
}

func overHTTP2(t *testing.T) *http.Transport {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// promise is a field that promises something of a body. It is wrong for any other body.
type promise struct {
	field string
	of    func(b []byte) string
}

func promisesOf() []promise {
	b64 := base64.StdEncoding.EncodeToString
	out := []promise{
		{"Content-MD5", func(b []byte) string { s := md5.Sum(b); return b64(s[:]) }},
		{"Digest", func(b []byte) string { s := sha256.Sum256(b); return "SHA-256=" + b64(s[:]) }},
		{"Digest", func(b []byte) string { s := sha1.Sum(b); return "UNIXsum=30637, sha=" + b64(s[:]) }},
		{"Digest", func(b []byte) string { s := sha512.Sum512(b); return "id-SHA-512=" + b64(s[:]) }},
		{"Digest", func(b []byte) string { s := md5.Sum(b); return "MD5=" + b64(s[:]) }},
	}
	for _, field := range []string{"Repr-Digest", "Content-Digest"} {
		out = append(
			out,
			promise{field, sha256Field},
			promise{field, crc32cField},
			promise{field, func(b []byte) string { s := sha512.Sum512(b); return "sha-512=:" + b64(s[:]) + ":" }},
			promise{field, func(b []byte) string {
				s := md5.Sum(b)
				return "md5=:" + b64(s[:]) + ":, " + sha256Field(b)
			}},
		)
	}
	return out
}

// Each promise of a body is compared before anything is done, in whatever field it is, with raw
// bytes and with JSON. If there is more than one, all are compared.
func TestPromisesOfABodyAreKept(t *testing.T) {
	w := newWorld(t, nil)
	good, other := random(chunk), random(chunk)
	text := `{"capsule_id":"default","meta":{"name":"a","bytes":9}}`
	for _, p := range promisesOf() {
		for _, way := range w.bodies(good) {
			for _, framing := range [][]string{nil, chunked} {
				before := w.look()
				w.problem(
					w.do(way.method, way.path, string(good), append(framing, p.field, p.of(other))...),
					api.CodeChecksumMismatch,
				)
				if framing != nil { // a create of unknown length begins a session, and aborts it
					before.Stats = w.look().Stats
				}
				w.unchanged(before)
			}
			if p.field != "Content-MD5" {
				w.refused(
					api.CodeChecksumMismatch, way.method, way.path, string(good), p.field, p.of(other), "Content-Md5",
					promisesOf()[0].of(good),
				)
			}
			if a := w.do(way.method, way.path, string(good), p.field, p.of(good)); a.StatusCode >= 300 {
				t.Errorf("%s %s: %d %s", way.path, p.field, a.StatusCode, a.body)
			}
		}
		w.refused(api.CodeChecksumMismatch, "POST", "/v1/uploads_begin", text, p.field, p.of([]byte(text+" ")))
		w.refused(api.CodeChecksumMismatch, "POST", "/v1/sessions_clear_all", "", p.field, p.of([]byte("{}")))
		if a := w.do("POST", "/v1/uploads_begin", text, p.field, p.of([]byte(text))); a.StatusCode != 200 {
			t.Errorf("%s of JSON: %d %s", p.field, a.StatusCode, a.body)
		}
		if a := w.do("PUT", creates+"/empty", "", p.field, p.of(nil)); a.StatusCode != 200 {
			t.Errorf("%s of nothing: %d %s", p.field, a.StatusCode, a.body)
		}
	}
	ways := w.bodies(good)
	for field, values := range map[string][]string{
		"Content-Md5": {"x", "AAAA", " ", hexSum(good)}, "Digest": {"x", "SHA-256", "SHA-256=AAAA", "SHA-256=!", "UNIXsum=1", " ", "MD5=AAAA"},
		"Repr-Digest": {"x", "sha-256=AAAA", "unixsum=:AAAA:", " "},
	} {
		for _, value := range values {
			for _, way := range ways {
				a := w.refused(api.CodeInvalidArgument, way.method, way.path, string(good), field, value)
				if !strings.HasPrefix(a.problem.Detail, field+" ") &&
					!strings.HasPrefix(a.problem.Detail, "Content-Md5 ") {
					t.Errorf("%s: the field is not named: %s", field, a.problem.Detail)
				}
			}
		}
	}
}

// A digest in a trailer is compared like one in the head, over both protocols. One that was not
// announced, or does not come, can't be.
func TestPromisesInATrailer(t *testing.T) {
	w := newWorld(t, nil)
	one := w.transport
	good, other := random(chunk), random(chunk)
	for _, protocol := range []*http.Transport{one, overHTTP2(t)} {
		for _, p := range promisesOf() {
			for _, way := range w.bodies(good) {
				send := func(body []byte, announced, value string) answer {
					t.Helper()
					req, err := http.NewRequestWithContext(
						t.Context(), way.method, w.url+way.path, strings.NewReader(string(body)),
					)
					w.check(err)
					req.ContentLength = -1
					req.Header.Set("Authorization", "Bearer "+w.secret)
					req.Trailer = http.Header{announced: nil}
					if value != "" {
						req.Trailer[announced] = []string{value}
					}
					res, err := protocol.RoundTrip(req)
					w.check(err)
					return w.read(res)
				}
				before := w.look()
				field := http.CanonicalHeaderKey(p.field)
				w.problem(send(good, field, p.of(other)), api.CodeChecksumMismatch)
				w.problem(send(good, field, "x"), api.CodeInvalidArgument)
				w.problem(send(good, field, ""), api.CodeInvalidArgument)
				before.Stats = w.look().Stats // as above
				w.unchanged(before)
				if a := send(good, field, p.of(good)); a.StatusCode >= 300 {
					t.Errorf("%s %s: %d %s", way.path, field, a.StatusCode, a.body)
				}
			}
		}
	}
	// Unannounced, HTTP/1.1 lets it through.
	for _, way := range w.bodies(good) {
		c := w.sendWith(way.method, way.path, -1, good)
		_, err := fmt.Fprintf(c, "0\r\nContent-MD5: %s\r\n\r\n", promisesOf()[0].of(good))
		w.check(err)
		w.problem(c.answer(), api.CodeInvalidArgument)
	}
	// With a length no trailer can come.
	w.problem(w.sendWith("PUT", creates+"/a", chunk, good, "Trailer: Content-MD5").answer(), api.CodeInvalidArgument)
}

// An idempotency key returns its memory only to a request that says nothing else of its bytes.
func TestAKeyIsTiedToTheBytes(t *testing.T) {
	for _, size := range []int{inlineMax, chunk, 3 * chunk} {
		for _, framing := range [][]string{nil, chunked} {
			t.Run(fmt.Sprintf("%d bytes %v", size, framing), func(t *testing.T) {
				w := newWorld(t, nil)
				good, other := random(size), random(size)
				path := creates + "?name=a&idem=k"
				made := w.do("POST", path, string(good), framing...)
				if made.StatusCode != 200 {
					t.Fatalf("%d %s", made.StatusCode, made.body)
				}
				for _, p := range promisesOf() {
					with := slices.Concat(framing, []string{p.field})
					w.refused(api.CodeIdempotencyConflict, "POST", path, string(other), append(with, p.of(other))...)
					// another's promise: of the body, or of the memory's bytes if the head shows
					// that
					code := api.CodeChecksumMismatch
					if strings.Contains(p.of(good), "ha-256=") || strings.Contains(p.of(good), "HA-256=") {
						code = api.CodeIdempotencyConflict
					}
					w.refused(code, "POST", path, string(good), append(with, p.of(other))...)
					if a := w.do("POST", path, string(good), append(with, p.of(good))...); a.StatusCode != 200 ||
						string(a.body) != string(made.body) {
						t.Errorf("the same again with %s: %d %s", p.field, a.StatusCode, a.body)
					}
				}
				if len(framing) == 0 { // the head is enough: the body is not waited for
					w.problem(
						w.sendWith("POST", path, int64(size), nil, "Content-Digest: "+sha256Field(other)).answer(),
						api.CodeIdempotencyConflict,
					)
				}
			})
		}
	}
}

// A content's own conditions are those of RFC 9110 §13.
func TestConditionsOfAContent(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2 * chunk)
	m := w.store("a", "", b)
	tag := fmt.Sprintf(`"sha256:%s"`, m.SHA256)
	date := w.do("HEAD", m.ContentURL, "").Header.Get("Last-Modified")
	made, err := http.ParseTime(date)
	if err != nil || !made.Equal(m.CreatedAt.Time.Truncate(time.Second)) {
		t.Fatalf("Last-Modified %q of %v: %v", date, m.CreatedAt, err)
	}
	earlier, later := made.Add(-time.Second).Format(http.TimeFormat), made.Add(time.Hour).Format(http.TimeFormat)
	for _, row := range []struct {
		headers []string
		status  int
	}{
		{[]string{"If-Match", tag}, 200},
		{[]string{"If-Match", "*"}, 200},
		{[]string{"If-Match", `"x", ` + tag}, 200},
		{[]string{"If-Match", `"x"`}, 412},
		{[]string{"If-Match", "W/" + tag}, 412},
		{[]string{"If-Match", m.SHA256}, 412},
		{[]string{"If-Match", `"x"`, "If-None-Match", tag}, 412},
		{[]string{"If-Match", `"x"`, "Range", "bytes=0-1"}, 412},
		{[]string{"If-Match", tag, "If-None-Match", tag}, 304},
		{[]string{"If-Match", tag, "If-Unmodified-Since", earlier}, 200},
		{[]string{"If-Unmodified-Since", earlier}, 412},
		{[]string{"If-Unmodified-Since", date}, 200},
		{[]string{"If-Unmodified-Since", later}, 200},
		{[]string{"If-Unmodified-Since", "yesterday"}, 200},
		{[]string{"If-Modified-Since", earlier}, 200},
		{[]string{"If-Modified-Since", date}, 304},
		{[]string{"If-Modified-Since", later}, 304},
		{[]string{"If-Modified-Since", "yesterday"}, 200},
		{[]string{"If-Modified-Since", later, "If-None-Match", `"x"`}, 200},
		{[]string{"If-Range", date, "Range", "bytes=0-1"}, 206},
		{[]string{"If-Range", made.Format(time.RFC850), "Range", "bytes=0-1"}, 206},
		{[]string{"If-Range", earlier, "Range", "bytes=0-1"}, 200},
		{[]string{"If-Range", later, "Range", "bytes=0-1"}, 200},
		{[]string{"If-Range", date, "If-Range", tag, "Range", "bytes=0-1"}, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a, status := w.do(method, m.ContentURL, "", row.headers...), row.status
			if method == "HEAD" && status == 206 {
				status = 200
			}
			if a.StatusCode != status {
				t.Errorf("%s %v: %d, want %d", method, row.headers, a.StatusCode, status)
			}
			if status == 412 && (a.Header.Get("ETag") != "" ||
				a.Header.Get("Content-Type") != "application/problem+json" || method == "GET" &&
				a.problem.Code != api.CodePreconditionFailed) {
				t.Errorf("%v: %v %s", row.headers, a.Header, a.body)
			}
		}
	}
}
