package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"sluice/api"
	"sluice/catalog"
)

// One range is given. A malformed field or several ranges are ignored (RFC 9110 §14.2). A range
// that starts past the end is refused.
func TestRanges(t *testing.T) {
	w := newWorld(t, nil)
	for _, b := range [][]byte{random(1000), random(3 * chunk)} { // in the catalog, and in places
		m := w.store("a", "", b)
		n := len(b)
		for _, row := range []struct {
			field      string
			first, end int // end 0: 416; first -1: ignored
		}{
			{"bytes=0-0", 0, 1},
			{"bytes=0-9", 0, 10},
			{"bytes=10-19", 10, 20},
			{"bytes=999-999", 999, 1000},
			{"bytes=10-", 10, n},
			{"bytes=0-", 0, n},
			{"bytes=-1", n - 1, n},
			{"bytes=-10", n - 10, n},
			{fmt.Sprintf("bytes=-%d", n), 0, n},
			{fmt.Sprintf("bytes=-%d", n+1), 0, n},
			{fmt.Sprintf("bytes=%d-%d", n-1, n-1), n - 1, n},
			{fmt.Sprintf("bytes=%d-%d", n-10, n+10), n - 10, n},
			{"bytes=5-99999999999999999999", 5, n},
			{"Bytes=5-6", 5, 7},
			{fmt.Sprintf("bytes=%d-", n), 0, 0},
			{fmt.Sprintf("bytes=%d-%d", n, n), 0, 0},
			{"bytes=99999999999999999999-", 0, 0},
			{"bytes=-0", 0, 0},
			{"bytes=0-1,3-4", -1, 0},
			{"bytes=0-1, -1", -1, 0},
			{"bytes=9-8", -1, 0},
			{"bytes=-", -1, 0},
			{"bytes=", -1, 0},
			{"bytes", -1, 0},
			{"bytes=a-b", -1, 0},
			{"bytes=--1", -1, 0},
			{"bytes=+1-2", -1, 0},
			{"bytes=1.0-2", -1, 0},
			{"lines=0-1", -1, 0},
			{"", -1, 0},
		} {
			t.Run(fmt.Sprintf("%q of %d", row.field, n), func(t *testing.T) {
				w := w.in(t)
				a := w.do("GET", m.ContentURL, "", "Range", row.field)
				want, status, where := b, 200, ""
				switch {
				case row.first < 0:
				case row.end == 0:
					w.problem(a, api.CodeRangeNotSatisfiable)
					if got := a.Header.Get("Content-Range"); got != fmt.Sprintf("bytes */%d", n) {
						t.Errorf("Content-Range %q", got)
					}
					return
				default:
					want, status = b[row.first:row.end], 206
					where = fmt.Sprintf("bytes %d-%d/%d", row.first, row.end-1, n)
				}
				if a.StatusCode != status || string(a.body) != string(want) || a.Header.Get("Content-Range") != where ||
					a.ContentLength != int64(len(want)) {
					t.Errorf(
						"%d, %d bytes of %d, Content-Range %q, want %d, %d, %q", a.StatusCode, len(a.body),
						a.ContentLength, a.Header.Get("Content-Range"), status, len(want), where,
					)
				}
				w.describes(a, m, b)
			})
		}
		if a := w.do("GET", m.ContentURL, "", "Range", "bytes=0-1", "Range", "bytes=3-4"); a.StatusCode != 200 {
			t.Errorf("two fields: %d", a.StatusCode)
		}
		// ranges are GET's alone
		if a := w.do("HEAD", m.ContentURL, "", "Range", "bytes=0-1"); a.StatusCode != 200 ||
			a.ContentLength != int64(n) {
			t.Errorf("HEAD: %d, %d bytes", a.StatusCode, a.ContentLength)
		}
	}
	empty := w.store("empty", "", nil)
	w.problem(w.do("GET", empty.ContentURL, "", "Range", "bytes=0-"), api.CodeRangeNotSatisfiable)
	if a := w.do("GET", empty.ContentURL, ""); a.StatusCode != 200 || a.ContentLength != 0 {
		t.Errorf("empty: %d, %d bytes", a.StatusCode, a.ContentLength)
	}
}

// describes checks the headers of the content. They are those of the whole content, whatever part
// is sent.
func (w *world) describes(a answer, m api.Memory, b []byte) {
	w.t.Helper()
	sum := sha256.Sum256(b)
	for name, want := range map[string]string{
		"ETag":                    `"sha256:` + hexSum(b) + `"`,
		"Repr-Digest":             "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":",
		"Accept-Ranges":           "bytes",
		"Content-Type":            m.MIMEType,
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
	} {
		if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
			w.t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	if a.Header.Get("X-Request-Id") == "" {
		w.t.Error("no X-Request-Id")
	}
}

// Content that is found missing when it is opened counts as damaged, as does content that a scrub
// has marked, however a reader learns of it.
func TestContentThatIsGoneIsDamaged(t *testing.T) {
	w := newWorld(t, nil)
	m := w.store("a", "image/png", random(2*chunk))
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	for _, p := range places {
		w.check(w.blobs.Delete(t.Context(), p.Name))
	}
	w.problem(w.do("GET", m.ContentURL, ""), api.CodeDamaged)
	w.problem(w.do("GET", m.ContentURL, "", "Range", "bytes=1-2"), api.CodeDamaged)
	if a := w.do("HEAD", m.ContentURL, ""); a.StatusCode != 500 || a.Header.Get("ETag") != "" {
		t.Errorf("HEAD: %d, %v", a.StatusCode, a.Header)
	}
}

// A content that the client has already is not sent again, and a part is not added to another
// content.
func TestConditions(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2 * chunk)
	m := w.store("a", "image/png", b)
	tag := `"sha256:` + m.SHA256 + `"`
	date := "Mon, 02 Jan 2034 15:04:05 GMT"
	for _, row := range []struct {
		headers []string
		status  int
	}{
		{[]string{"If-None-Match", tag}, 304},
		{[]string{"If-None-Match", "W/" + tag}, 304},
		{[]string{"If-None-Match", `"x", ` + tag + `, "y"`}, 304},
		{[]string{"If-None-Match", `"x"`, "If-None-Match", tag}, 304},
		{[]string{"If-None-Match", "*"}, 304},
		{[]string{"If-None-Match", tag, "Range", "bytes=0-1"}, 304},
		{[]string{"If-None-Match", tag, "Range", "bytes=999999-"}, 304},
		{[]string{"If-None-Match", `"x"`}, 200},
		{[]string{"If-None-Match", m.SHA256}, 200},
		{[]string{"If-None-Match", `"x"`, "Range", "bytes=0-1"}, 206},
		{[]string{"If-Range", tag, "Range", "bytes=0-1"}, 206},
		{[]string{"If-Range", tag, "Range", "bytes=999999-"}, 416},
		{[]string{"If-Range", `"x"`, "Range", "bytes=0-1"}, 200},
		{[]string{"If-Range", "W/" + tag, "Range", "bytes=0-1"}, 200},
		{[]string{"If-Range", date, "Range", "bytes=0-1"}, 200},
		{[]string{"If-Range", `"x"`, "Range", "bytes=999999-"}, 200},
		{[]string{"If-Range", tag}, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a, status, n := w.do(method, m.ContentURL, "", row.headers...), row.status, len(b)
			switch {
			case method == "HEAD":
				n = 0
				if status != 304 {
					status = 200
				}
			case status == 206:
				n = 2
			case status == 304:
				n = 0
			}
			if a.StatusCode != status || status < 400 && len(a.body) != n {
				t.Errorf("%s %v: %d, %d bytes, want %d, %d", method, row.headers, a.StatusCode, len(a.body), status, n)
			}
			if status == 304 && (a.Header.Get("ETag") != tag || a.Header.Get("Content-Length") != "") {
				t.Errorf("%v: %v", row.headers, a.Header)
			}
		}
	}
}

// Content that differs from what was stored, in the catalog or in the content store, is refused by
// name, whole or in part, over both protocols.
func TestRotIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	for _, size := range []int{10, chunk} {
		m := w.store("a", "", random(size))
		w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
			sum, err := hex.DecodeString(m.SHA256)
			w.check(err)
			key := catalog.ContentKey{Capsule: "default", SHA256: catalog.SHA256(sum)}
			content, err := catalog.Contents.Get(tx, key)
			if err != nil || content.Inline == nil {
				return err
			}
			content.Inline = bytes.Clone(content.Inline)
			content.Inline[5] ^= 1
			return catalog.Contents.Put(tx, key, content)
		}))
		places, err := w.blobs.Places(t.Context(), "", 10)
		w.check(err)
		for _, p := range places {
			w.blobs.Corrupt(p.Name, 5)
		}
		one := w.transport
		for _, protocol := range []*http.Transport{one, overHTTP2(t)} {
			w.transport = protocol
			for _, field := range [][]string{nil, {"Range", "bytes=5-5"}, {"Range", "bytes=0-2"}} {
				a := w.do("GET", m.ContentURL, "", field...)
				w.problem(a, api.CodeDamaged)
				if a.Header.Get("ETag") != "" || a.Header.Get("Content-Range") != "" ||
					a.Header.Get("Last-Modified") != "" {
					t.Errorf("a refusal is described as the content: %v", a.Header)
				}
			}
		}
		w.transport = one
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	w := newWorld(t, nil)
	for _, size := range sizes {
		b := random(size)
		m := w.store("a", "image/png", b)
		get, head := w.do("GET", m.ContentURL, ""), w.do("HEAD", m.ContentURL, "")
		w.describes(get, m, b)
		for _, h := range []http.Header{get.Header, head.Header} {
			h.Del("Date")
			h.Del("X-Request-Id")
		}
		if head.StatusCode != 200 || len(head.body) != 0 || fmt.Sprint(head.Header) != fmt.Sprint(get.Header) ||
			head.ContentLength != int64(size) {
			t.Errorf("%d bytes: HEAD %d %v, GET %v", size, head.StatusCode, head.Header, get.Header)
		}
	}
	if a := w.do("HEAD", "/v1/memories_content/x", ""); a.StatusCode != 404 || len(a.body) != 0 ||
		a.Header.Get("ETag") != "" {
		t.Errorf("absent: %d %v", a.StatusCode, a.Header)
	}
}

// A type that a browser could run is only ever an attachment.
func TestActiveTypesAreAttachments(t *testing.T) {
	w := newWorld(t, nil)
	for form, kinds := range map[string][]string{
		"attachment": {
			"text/html", "TEXT/HTML", "text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml",
			"Image/SVG+XML", "text/xml", "application/xml", "application/rss+xml", "text/javascript",
			"application/javascript", "application/ecmascript", "text/css", "text/vbscript", "application/wasm",
			"application/x-shockwave-flash", "multipart/x-mixed-replace; boundary=x", "message/rfc822",
			"text/x-unheard-of", "application/octet-stream", "application/zip", "",
		},
		"inline": {"image/png", "image/jpeg", "image/gif", "image/webp", "video/mp4", "audio/mpeg"},
	} {
		for _, kind := range kinds {
			m := w.store("a", kind, []byte("<script>alert(1)</script>"))
			a := w.do("GET", m.ContentURL, "")
			w.describes(a, m, []byte("<script>alert(1)</script>"))
			if got, _, _ := strings.Cut(a.Header.Get("Content-Disposition"), ";"); got != form {
				t.Errorf("%s (%s) is %s, want %s", kind, m.MIMEType, got, form)
			}
		}
	}
}

// A name comes back in JSON as it was given, and in Content-Disposition as RFC 8187 has it, with /
// and \ as _.
func TestNames(t *testing.T) {
	w := newWorld(t, nil)
	for name, plain := range map[string]string{
		"a.txt":                  "a.txt",
		"a b  c.txt":             "a b  c.txt",
		" a ":                    " a ",
		"Größe.txt":              "Gr__e.txt",
		"e\u0301.txt":            "e_.txt", // stays decomposed
		"名前.png":                 "__.png",
		"🎉.png":                  "_.png",
		"../../etc/passwd":       ".._.._etc_passwd",
		`..\..\a`:                ".._.._a",
		"..":                     "..",
		`say "hi".txt`:           "say _hi_.txt",
		`a'b.txt`:                "a'b.txt",
		"100%.txt":               "100_.txt",
		"a%2fb":                  "a_2fb",
		"a;b=c, d.txt":           "a;b=c, d.txt",
		"a+b&c?d#e.txt":          "a+b&c?d#e.txt",
		"<script>.html":          "<script>.html",
		strings.Repeat("ü", 127): strings.Repeat("_", 127),
	} {
		w.named(name, plain)
	}
	// No character that turns text around in a dialogue is passed on.
	m := w.store("a\u202egpj.exe", "", nil)
	if got := w.do("GET", m.ContentURL, "").Header.Get("Content-Disposition"); m.Name != "a\u202egpj.exe" ||
		got != `attachment; filename="a_gpj.exe"; filename*=UTF-8''a_gpj.exe` {
		t.Errorf("%q, %s", m.Name, got)
	}
}

// named stores a file of that name by each operation that takes one, and compares what comes back.
func (w *world) named(name, plain string) {
	w.t.Helper()
	ctx := w.t.Context()
	s, err := w.client.Begin(ctx, api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: name, Bytes: ptr(0)}})
	w.check(err)
	finished, err := w.client.Finish(ctx, finishOf(s.SessionID, nil))
	w.check(err)
	safe := strings.NewReplacer("/", "_", `\`, "_").Replace(name)
	for _, m := range []api.Memory{finished, w.store(name, "", nil)} {
		read, err := w.client.ReadMemory(ctx, m.MemoryID)
		w.check(err)
		by, err := w.client.ListMemories(ctx, api.MemoryQuery{Name: name})
		w.check(err)
		if m.Name != name || read.Name != name || len(by.Memories) != 2 {
			w.t.Errorf("%q came back as %q, %q, and is found %d times", name, m.Name, read.Name, len(by.Memories))
		}
		got := w.do("GET", m.ContentURL, "").Header.Get("Content-Disposition")
		extended := strings.ReplaceAll(url.QueryEscape(safe), "+", "%20")
		if want := `attachment; filename="` + plain + `"; filename*=UTF-8''` + extended; got != want {
			w.t.Errorf("%q: %s, want %s", name, got, want)
		}
		if _, params, err := mime.ParseMediaType(got); err != nil || params["filename"] != safe {
			w.t.Errorf("%q is read as %q, %v", name, params["filename"], err)
		}
	}
}

// The header is printable ASCII for any name. It has exactly these two parameters, and no path.
func TestAnyNameIsSafeInAHeader(t *testing.T) {
	w := newWorld(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.StringN(1, 100, 255).Draw(rt, "name")
		a := w.do("POST", creates+"?name="+url.QueryEscape(name), "")
		want := 200
		if strings.ContainsFunc(name, unicode.IsControl) {
			want = 400
		}
		if a.StatusCode != want {
			rt.Fatalf("%q: %d %s", name, a.StatusCode, a.body)
		}
		if want == 400 {
			return
		}
		_, after, _ := strings.Cut(string(a.body), `"memory_id":"`)
		id, _, _ := strings.Cut(after, `"`)
		got := w.do("GET", "/v1/memories_content/"+id, "").Header.Get("Content-Disposition")
		form, params, err := mime.ParseMediaType(got)
		if err != nil || form != "attachment" || len(params) != 1 || params["filename"] == "" ||
			strings.ContainsAny(params["filename"], `/\`) {
			rt.Errorf("%q: %s is read as %v, %v", name, got, params, err)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 ||
			strings.Count(got, `"`) != 2 {
			rt.Errorf("%q: %q", name, got)
		}
	})
}
