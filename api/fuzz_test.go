package api

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"mime"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Reading a field of digests returns only digests of an algorithm that is compared, of the right
// length. It returns those that the Client writes.
func FuzzContentDigest(f *testing.F) {
	f.Add("sha-256=:"+base64.StdEncoding.EncodeToString(make([]byte, 32))+":", "crc32c=:AAAAAA==:")
	f.Add("SHA-256="+base64.StdEncoding.EncodeToString(make([]byte, 32)), "id-sha=,MD5=x")
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 16)), "")
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, field := range digestFields {
			all, err := digestsIn(http.Header{field: {one, two}})
			if err != nil {
				wantRefusal(t, err)
				continue
			}
			if len(all) == 0 {
				t.Errorf("%s: a promise is ignored", field)
			}
			for _, d := range all {
				if d.field != field || len(d.sum) != algorithms[d.algorithm]().Size() {
					t.Errorf("%+v", d)
				}
				if field != "Content-Md5" && !strings.Contains(strings.ToLower(one+two), d.algorithm) {
					t.Errorf("%s out of nowhere", d.algorithm)
				}
				again := http.Header{}
				switch d.algorithm {
				case "sha-256":
					PutOptions{SHA256: (*[32]byte)(d.sum)}.apply(again)
				case "crc32c":
					sum := binary.BigEndian.Uint32(d.sum)
					PutOptions{CRC32C: &sum}.apply(again)
				default:
					continue
				}
				if got, err := digestsIn(again); err != nil || len(got) != 1 || !bytes.Equal(got[0].sum, d.sum) {
					t.Errorf("%x: %+v, %v", d.sum, got, err)
				}
			}
		}
	})
}

// wantRefusal fails if the client's mistake is not reported as one, but as an error of the server.
func wantRefusal(t *testing.T, err error) {
	t.Helper()
	var refused *refusal
	if !errors.As(err, &refused) || refused.code == CodeInternal || refused.code == "" {
		t.Fatalf("refused without a code: %v", err)
	}
}

// A range lies within the content, and is the one that was asked for.
func FuzzRange(f *testing.F) {
	f.Add("bytes=0-", int64(10))
	f.Add("bytes=-3", int64(10))
	f.Add("bytes=2-5", int64(10))
	f.Fuzz(func(t *testing.T, field string, size int64) {
		size &= 1<<63 - 1
		off, n, ok := oneRange(field, size)
		if !ok {
			if off != 0 || n != 0 {
				t.Fatalf("ignored, with %d bytes from %d", n, off)
			}
			return
		}
		if off < 0 || n < 0 || off > size || n > size-off || !strings.Contains(strings.ToLower(field), "bytes") ||
			strings.Contains(field, ",") {
			t.Fatalf("%d bytes from %d of %d", n, off, size)
		}
		if n == 0 {
			return
		}
		// In its plainest form it is the same.
		plain := "bytes=" + itoa(off) + "-" + itoa(off+n-1)
		if o, k, ok := oneRange(plain, size); o != off || k != n || !ok {
			t.Fatalf("%s: %d bytes from %d, %v", plain, k, o, ok)
		}
	})
}

func itoa(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// A tag matches only if it is one of the list.
func FuzzIfNoneMatch(f *testing.F) {
	const etag = `"sha256:00"`
	f.Add(etag, `W/"x"`)
	f.Add(`"a", `+etag, "")
	f.Fuzz(func(t *testing.T, one, two string) {
		v := validators{etag: etag}
		got := v.matches([]string{one, two}, true)
		if could := strings.Contains(one+"\n"+two, etag) || strings.Contains(one+two, "*"); got && !could {
			t.Fatalf("%q, %q: %v", one, two, got)
		}
		if !v.matches([]string{one, etag}, true) || !v.matches([]string{"W/" + etag}, true) ||
			!v.matches([]string{`"x", ` + etag}, true) {
			t.Fatal("does not match itself")
		}
		if strong := v.matches([]string{one, two}, false); strong && !got || v.matches([]string{"W/" + etag}, false) {
			t.Fatal("a weak tag is taken for a strong one")
		}
	})
}

// The header is one line of printable ASCII for any name. It says only the form and the name. A
// reader gets the harmless name from it.
func FuzzDisposition(f *testing.F) {
	f.Add("ü 🎉.pdf", "application/pdf")
	f.Add(`a";filename=b`, "text/html")
	f.Fuzz(func(t *testing.T, name, kind string) {
		field := disposition(name, kind)
		for _, r := range field {
			if r < ' ' || r > '~' {
				t.Fatalf("%q has %q", field, r)
			}
		}
		form, params, err := mime.ParseMediaType(field)
		if err != nil || form != "inline" && form != "attachment" || len(params) != 1 {
			t.Fatalf("%q: %s %v, %v", field, form, params, err)
		}
		if form == "inline" && !passive(kind) {
			t.Fatalf("%q for %q", field, kind)
		}
		got := params["filename"]
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool {
			return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
		}) {
			t.Fatalf("%q gives the name %q", field, got)
		}
		if utf8.RuneCountInString(got) != utf8.RuneCountInString(strings.ToValidUTF8(name, "_")) &&
			utf8.ValidString(name) {
			t.Fatalf("%q became %q", name, got)
		}
		if name == got {
			return // nothing had to be replaced
		}
		if again := disposition(got, kind); again != field {
			t.Fatalf("%q: %q, and of its name %q", name, field, again)
		}
	})
}

// A type that a browser runs, or might, is never passive.
func FuzzPassive(f *testing.F) {
	for _, kind := range []string{
		"image/png", "text/html", "image/svg+xml", "TEXT/HTML", "text/plain;charset=utf-8", "image/",
	} {
		f.Add(kind)
	}
	f.Fuzz(func(t *testing.T, kind string) {
		low := strings.ToLower(kind)
		for _, active := range []string{"html", "xml", "svg", "script", "css"} {
			head, _, _ := strings.Cut(low, ";")
			if passive(kind) && strings.Contains(head, active) &&
				!strings.HasPrefix(strings.TrimSpace(head), "image/") {
				t.Fatalf("%q", kind)
			}
		}
		if media, _, err := mime.ParseMediaType(kind); passive(kind) &&
			(err != nil || strings.HasSuffix(media, "+xml")) {
			t.Fatalf("%q: %v", kind, err)
		}
	})
}

// requests are the types of all bodies in JSON.
func requests() (all []reflect.Type) {
	for _, r := range routes() {
		if r.in != nil {
			all = append(all, r.in)
		}
	}
	return all
}

// A request that is accepted is accepted again when it is written again, and means the same. With
// an unknown member, or one that is there twice, it never is.
func FuzzJSON(f *testing.F) {
	types := requests()
	for i, t := range types {
		b, err := json.Marshal(reflect.Zero(t).Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		of := types[int(which)%len(types)]
		accepts := func(b []byte) (any, error) {
			v := reflect.New(of)
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = -1
			return v.Interface(), decode(
				r, bytes.NewReader(b), maxJSON, shapeOf(of), func(int64) error { return nil }, v.Interface(),
			)
		}
		v, err := accepts(b)
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if len(b) == 0 {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("accepted, and can't be written: %v", err)
		}
		same, err := accepts(again)
		if diff := cmp.Diff(v, same, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%s became %s: %v\n%s", b, again, err, diff)
		}
		object := bytes.TrimRight(b, " \t\r\n")
		for _, more := range []string{`"no_such":1}`, `"Session_ID":"1"}`, `"no_such":1,"no_such":1}`} {
			worse := append(bytes.TrimSuffix(bytes.Clone(object), []byte("}")), more...)
			if len(bytes.TrimSpace(object)) > 2 {
				worse = append(append(bytes.TrimSuffix(bytes.Clone(object), []byte("}")), ','), more...)
			}
			if _, err := accepts(worse); err == nil {
				t.Fatalf("accepted: %s", worse)
			}
		}
		if _, err := accepts(append(bytes.Clone(object), object...)); err == nil {
			t.Fatalf("accepted twice: %s", object)
		}
		for name, member := range members(t, object) {
			twice := append(append(bytes.TrimSuffix(bytes.Clone(object), []byte("}")), ','), `"`+name+`":`...)
			if _, err := accepts(append(append(twice, member...), '}')); err == nil {
				t.Fatalf("accepted with %q twice: %s", name, twice)
			}
		}
	})
}

// members returns those of an object whose names need no escape.
func members(t *testing.T, object []byte) map[string]jsontext.Value {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(object, &all); err != nil {
		t.Fatalf("accepted, and no object: %s", object)
	}
	for name := range all {
		if strings.ContainsAny(name, `"\`) {
			delete(all, name)
		}
	}
	return all
}

// A query that is taken has only known parameters, each of them once, and its numbers are those of
// its text.
func FuzzQuery(f *testing.F) {
	params := []param{{name: "limit"}, {name: "cursor"}, {name: "trash"}}
	f.Add("limit=5&cursor=x&trash=true")
	f.Fuzz(func(t *testing.T, raw string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = raw
		c := &call{req: r}
		if err := c.checkQuery(params); err != nil {
			wantRefusal(t, err)
			return
		}
		if len(c.query) > len(params) || len(c.query) > strings.Count(raw, "&")+1 {
			t.Fatalf("%q gives %v", raw, c.query)
		}
		if n, err := c.limit(); err != nil {
			wantRefusal(t, err)
		} else if v, there := c.query["limit"]; n < 1 || n > maxLimit || there && itoa(int64(n)) != v ||
			!there && n != defaultLimit {
			t.Fatalf("%q gives limit %d", raw, n)
		}
		if yes, err := c.flag("trash"); err != nil {
			wantRefusal(t, err)
		} else if yes != (c.query["trash"] == "true") {
			t.Fatalf("%q gives trash %v", raw, yes)
		}
	})
}

// A secret is what follows the one word Bearer of the one header.
func FuzzBearer(f *testing.F) {
	f.Add("Bearer slc_x", "")
	f.Fuzz(func(t *testing.T, one, two string) {
		secret, ok := bearer(http.Header{"Authorization": {one}})
		if ok &&
			(secret == "" || !strings.HasPrefix(strings.ToLower(one), "bearer ") || !strings.Contains(one, secret)) {
			t.Fatalf("%q gives %q", one, secret)
		}
		if _, ok := bearer(http.Header{"Authorization": {one, two}}); ok {
			t.Fatal("two headers give one secret")
		}
	})
}

// Ids and digests have one form each.
func FuzzIDs(f *testing.F) {
	f.Add("0190163d-8694-739b-aea5-966c26f8ad91")
	f.Add(strings.Repeat("0a", 32))
	f.Add("7")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := memoryID(s); ok && id.String() != s {
			t.Errorf("memory %q is taken for %s", s, id)
		}
		if sum, err := digestFrom(s, "f"); err == nil && (len(s) != 64 || strings.ToLower(s) != s || sum == nil) {
			t.Errorf("digest %q", s)
		} else if err != nil {
			wantRefusal(t, err)
		}
		if n, ok := decimal(s); ok && (n < 0 || itoa(n) != s) {
			t.Errorf("number %q is taken for %d", s, n)
		}
		out, err := finishFrom(
			FinishRequest{SessionID: "1", SHA256: strings.Repeat("0", 64), ChunkCRC32C: []string{s}}, "",
		)
		if err == nil && (len(s) != 8 || binary.Size(out.CRC32C) != 4) {
			t.Errorf("CRC %q is taken for %x", s, out.CRC32C)
		}
	})
}
