package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"sluice/api"
)

// An upload is begun by exactly one reading of its JSON, or not at all. The detail names the field.
func TestStrictJSON(t *testing.T) {
	w := newWorld(t, nil)
	meta := func(members string) string {
		return `{"capsule_id":"default","meta":{"name":"a"` + members + `}}`
	}
	top := func(members string) string {
		return `{"capsule_id":"default","meta":{"name":"a"}` + members + `}`
	}
	deep := strings.Repeat("[", 10_000)
	for _, row := range []struct{ name, body, says string }{
		{"nothing", ``, ""},
		{"space", ` `, ""},
		{"cut", `{"capsule_id":`, ""},
		{"no JSON", `capsule_id=default`, ""},
		{"an array", `[]`, ""},
		{"a string", `"default"`, ""},
		{"null", `null`, ""},
		{"a comment", top(`/**/`), ""},
		{"a last comma", top(`,`), ""},
		{"an unknown member", top(`,"chunksize":1`), "chunksize"},
		{"an unknown member inside", meta(`,"mime":"a/b"`), "meta.mime"},
		{"another case", `{"capsule_id":"default","Meta":{"name":"a"}}`, "Meta"},
		{"another case beside", top(`,"Capsule_ID":"default"`), "Capsule_ID"},
		{"a member twice", top(`,"capsule_id":"default"`), "capsule_id"},
		{"a member twice inside", meta(`,"name":"a"`), "meta.name"},
		{"a member twice, escaped", top(`,"capsule\u005fid":"default"`), "capsule_id"},
		{"trailing data", top(``) + `{}`, ""},
		{"trailing text", top(``) + `x`, ""},
		{"a trailing NUL", top(``) + "\x00", ""},
		{"a byte order mark", "\ufeff" + top(``), ""},
		{"deep", deep, ""},
		{"deep in a member", top(`,"meta":` + deep), ""},
		{"deep in an unknown member", top(`,"x":` + deep), ""},
		{"deep and whole", top(`,"x":` + deep + strings.Repeat("]", 10_000)), "x"},
		{"deep objects", strings.Repeat(`{"meta":`, 10_000), ""},
		{"bad UTF-8", meta(",\"description\":\"\xff\""), ""},
		{"bad UTF-8 in a name", top(",\"\xff\":1"), ""},
		{"half a surrogate", meta(`,"description":"\ud800"`), ""},
		{"a control character", meta(",\"description\":\"\x01\""), ""},
		{"no capsule", `{"meta":{"name":"a"}}`, "capsule_id is required"},
		{"no meta", `{"capsule_id":"default"}`, "meta is required"},
		{"no name", `{"capsule_id":"default","meta":{}}`, "meta.name is required"},
		{"null for a capsule", `{"capsule_id":null,"meta":{"name":"a"}}`, "capsule_id"},
		{"null for meta", `{"capsule_id":"default","meta":null}`, "meta"},
		{"null for a name", `{"capsule_id":"default","meta":{"name":null}}`, "meta.name"},
		{"null for a tag", meta(`,"tags":[null]`), "meta.tags[0]"},
		{"null for a chunk size", top(`,"chunk_size":null`), "chunk_size"},
		{"a fraction", meta(`,"bytes":1.5`), "meta.bytes"},
		{"an exponent", meta(`,"bytes":1e400`), "meta.bytes"},
		{"2^63", meta(`,"bytes":9223372036854775808`), "meta.bytes"},
		{"-2^63-1", meta(`,"bytes":-9223372036854775809`), "meta.bytes"},
		{"minus one", meta(`,"bytes":-1`), "meta.bytes"},
		{"a zero in front", meta(`,"bytes":01`), ""},
		{"hexadecimal", meta(`,"bytes":0x10`), ""},
		{"NaN", meta(`,"bytes":NaN`), ""},
		{"a string for a number", meta(`,"bytes":"1"`), "meta.bytes"},
		{"a number for a string", `{"capsule_id":1,"meta":{"name":"a"}}`, "capsule_id"},
		{"a string for an array", meta(`,"tags":"a"`), "meta.tags"},
		{"no time", meta(`,"taken_at":"yesterday"`), "meta.taken_at"},
		{"a time as a number", meta(`,"taken_at":1700000000`), "meta.taken_at"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := w.in(t).refused(api.CodeInvalidArgument, "POST", begins, row.body)
			if !strings.Contains(a.problem.Detail, row.says) || len(a.body) > 2000 {
				t.Errorf("does not name %q, or is long: %.300s", row.says, a.body)
			}
		})
	}
	w.refused(api.CodeTooLarge, "POST", begins, top(strings.Repeat(" ", 1<<20)))
	w.refused(api.CodeTooLarge, "POST", begins, top(strings.Repeat(" ", 1<<20)), chunked...)
	w.refused(api.CodeUnsupportedMediaType, "POST", begins, top(``), "Content-Type", "text/plain")
	w.refused(api.CodeUnsupportedMediaType, "POST", begins, top(``), "Content-Encoding", "gzip")
}

// The rules of TestStrictJSON for one operation hold for all, and before anything is done.
func TestEveryOperationIsStrict(t *testing.T) {
	w := newWorld(t, nil)
	w.begin(1)
	tried := 0
	for path, item := range w.documented() {
		if item["post"] == nil || path == creates {
			continue
		}
		tried++
		a := w.refused(api.CodeInvalidArgument, "POST", path, `{"no_such":1}`)
		if !strings.Contains(a.problem.Detail, "no_such") {
			t.Errorf("%s: %s", path, a.problem.Detail)
		}
		w.refused(api.CodeInvalidArgument, "POST", path, `{}{}`)
		w.refused(api.CodeUnsupportedMediaType, "POST", path, `{}`, "Content-Type", "application/x-www-form-urlencoded")
		w.refused(api.CodeUnsupportedMediaType, "POST", path, `{}`, "Content-Encoding", "gzip")
	}
	if tried < 12 {
		t.Errorf("%d operations", tried)
	}
}

// A begin is checked field by field.
func TestWhatCanBeBegun(t *testing.T) {
	w := newWorld(t, nil)
	const (
		bad, large   = api.CodeInvalidArgument, api.CodeTooLarge
		kind, absent = api.CodeUnsupportedMediaType, api.CodeNotFound
	)
	capsule := func(id string) string { return fmt.Sprintf(`{"capsule_id":%q,"meta":{"name":"a"}}`, id) }
	meta := func(k, v string) string {
		name := `"name":"a",`
		if k == "name" {
			name = ""
		}
		return fmt.Sprintf(`{"capsule_id":"default","meta":{%s%q:%s}}`, name, k, v)
	}
	sizes := func(bytes, more string) string {
		return fmt.Sprintf(`{"capsule_id":"default","meta":{"name":"a","bytes":%s}%s}`, bytes, more)
	}
	quoted := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, row := range []struct {
		body string
		code api.Code
		says string
	}{
		{capsule("../x"), bad, "capsule_id"},
		{capsule("A"), bad, "capsule_id"},
		{capsule("-a"), bad, "capsule_id"},
		{capsule("a b"), bad, "capsule_id"},
		{capsule("ä"), bad, "capsule_id"},
		{capsule(""), bad, "capsule_id"},
		{capsule(strings.Repeat("a", 64)), bad, "capsule_id"},
		{capsule(strings.Repeat("a", 63)), absent, ""},
		{capsule("missing"), absent, ""},

		{meta("name", `""`), bad, "meta.name"},
		{meta("name", quoted(256)), bad, "meta.name"},
		{meta("name", `"a\u0000b"`), bad, "meta.name"},
		{meta("name", `"a\nb"`), bad, "meta.name"},
		{meta("name", `"\u009b31m"`), bad, "meta.name"}, // the 8-bit CSI of terminals
		{meta("path", `"/a"`), bad, "meta.path"},
		{meta("path", `"a/"`), bad, "meta.path"},
		{meta("path", `"a//b"`), bad, "meta.path"},
		{meta("path", `"."`), bad, "meta.path"},
		{meta("path", `"a/../b"`), bad, "meta.path"},
		{meta("path", quoted(1025)), bad, "meta.path"},
		{meta("description", quoted(1<<16)), bad, "meta.description"},
		{meta("tags", "["+strings.Repeat(`"a",`, 1000)+`"a"]`), bad, "meta.tags"},
		{meta("width", "-1"), bad, "meta.width"},
		{meta("mime_type", `"image"`), kind, "meta.mime_type"},
		{meta("mime_type", `"image/"`), kind, "meta.mime_type"},
		{meta("mime_type", `"/png"`), kind, "meta.mime_type"},
		{meta("mime_type", `"a/b/c"`), kind, "meta.mime_type"},
		{meta("mime_type", `"text html"`), kind, "meta.mime_type"},
		{meta("mime_type", `"text/html\r\nSet-Cookie: a=b"`), kind, "meta.mime_type"},
		{meta("mime_type", `"text/html; x=\"\u0000\""`), kind, "meta.mime_type"},
		{meta("mime_type", `"a/`+strings.Repeat("x", 300)+`"`), kind, "meta.mime_type"},

		{sizes("1099511627777", ""), large, ""},                   // max_bytes + 1
		{sizes("9223372036854775807", ""), large, ""},             // no sum of it overflows
		{sizes("16385", `,"chunk_size":1`), large, ""},            // max_chunks
		{sizes("1", `,"chunk_size":67108865`), bad, "chunk_size"}, // chunk_size_max
		{sizes("1", `,"chunk_size":-1`), bad, "chunk_size"},       //
		{sizes("4097", `,"expected_chunks":1`), bad, "chunks"},    // ceil(4097/4096) is 2
		{sizes("4097", `,"expected_chunks":3`), bad, "chunks"},    //
		{sizes("1", `,"expected_chunks":-1`), bad, "chunks"},      //
		{sizes("0", `,"expected_chunks":1`), bad, "chunks"},       // zero bytes are zero chunks
		{sizes("null", `,"expected_chunks":1`), bad, "chunks"},    // no bytes, no number of chunks
		{sizes("1", `,"idem":"`+strings.Repeat("x", 256)+`"`), bad, "idem"},
		{sizes("1", `,"idem":"a\u0000b"`), bad, "idem"},
	} {
		t.Run(fmt.Sprintf("%.90s", row.body), func(t *testing.T) {
			a := w.in(t).refused(row.code, "POST", begins, row.body)
			if !strings.Contains(a.problem.Detail, row.says) {
				t.Errorf("does not name %q: %s", row.says, a.problem.Detail)
			}
		})
	}
	for _, good := range []string{
		capsule("default"), meta("name", quoted(255)), meta("path", `"a/b c/…"`),
		meta("mime_type", `"Text/HTML; charset=utf-8"`), sizes("16384", `,"chunk_size":1,"expected_chunks":16384`),
		sizes("0", `,"expected_chunks":0`),
	} {
		if a := w.do("POST", begins, good); a.StatusCode != 200 {
			t.Errorf("%.90s: %d %s", good, a.StatusCode, a.body)
		}
	}
}

// memories_create takes by its query and headers what uploads_begin takes as JSON, and refuses the
// same.
func TestWhatCanBeCreated(t *testing.T) {
	w := newWorld(t, nil)
	const bad, kind = api.CodeInvalidArgument, api.CodeUnsupportedMediaType
	long := strings.Repeat("x", 256)
	for _, row := range []struct {
		path, kind string
		code       api.Code
	}{
		{creates, "", bad}, // no name
		{creates + "?name=", "", bad},
		{creates + "?name=" + long, "", bad},
		{creates + "?name=a%00", "", bad},
		{creates + "?name=a%FF", "", bad},
		{creates + "?name=a&name=b", "", bad},
		{creates + "?name=a&path=..", "", bad},
		{creates + "?name=a&idem=" + long, "", bad},
		{creates + "?name=a&capsule_id=A", "", bad},
		{creates + "?name=a&capsule_id=missing", "", api.CodeNotFound},
		{creates + "?name=a&mime_type=a/b", "", bad}, // it is the Content-Type
		{creates + "?name=a", "image", kind},
		{creates + "?name=a", "a/b/c", kind},
		{creates + "/a?name=b", "", bad}, // the path has it
		{creates + "/a%0Ab", "", bad},
		{creates + "/" + long, "", bad},
		{creates + "/", "", api.CodeNotFound},
		{creates + "/a/b", "", api.CodeNotFound},
	} {
		method := "POST"
		if strings.HasPrefix(row.path, creates+"/") {
			method = "PUT"
		}
		t.Run(fmt.Sprintf("%.70s %s", row.path, row.kind), func(t *testing.T) {
			w.in(t).refused(row.code, method, row.path, "x", "Content-Type", row.kind)
		})
	}
	before := w.look()
	w.problem(w.send("POST", creates+"?name=a", 1<<40+1, []byte("x")).answer(), api.CodeTooLarge) // before the body
	w.unchanged(before)
}

// Uploads are never decompressed.
func TestContentEncodingIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	for _, encoding := range []string{"gzip", "br", "identity", "x"} {
		for method, path := range map[string]string{"PUT": chunkPath(id, 1), "POST": creates + "?name=a"} {
			w.refused(
				api.CodeUnsupportedMediaType, method, path, string(b[chunk:2*chunk]), "Content-Encoding", encoding,
			)
		}
		w.refused(api.CodeUnsupportedMediaType, "PUT", rangePath(id, chunk), "x", "Content-Encoding", encoding)
	}
}

// A malformed id names nothing in a path, and is malformed input in a body.
func TestMalformedIDs(t *testing.T) {
	w := newWorld(t, nil)
	id, b := w.partial()
	many := slices.Repeat([]string{finishBody(id, b)}, 1001)
	for _, bad := range []string{
		"0", "-1", "18446744073709551616", "1e3", "01", "0x1", "+1", " 1", "1 ", "١", id + "0000000000", "x",
	} {
		w.refused(api.CodeNotFound, "GET", "/v1/uploads_status/"+url.PathEscape(bad), "")
		w.refused(api.CodeNotFound, "PUT", chunkPath(url.PathEscape(bad), 1), "x")
		w.refused(api.CodeNotFound, "PUT", rangePath(url.PathEscape(bad), 1), "x")
		w.refused(api.CodeInvalidArgument, "POST", finishes, finishBody(bad, b))
		w.refused(api.CodeInvalidArgument, "POST", batches, `{"finishes":[`+finishBody(bad, b)+`]}`)
		w.refused(api.CodeInvalidArgument, "POST", aborts, fmt.Sprintf(`{"session_id":%q}`, bad))
	}
	w.refused(api.CodeInvalidArgument, "POST", aborts, `{"session_id":1}`) // a number loses digits

	known := w.store("a", "", b).MemoryID
	for _, bad := range []string{
		strings.ToUpper(known), "{" + known + "}", "urn:uuid:" + known, strings.ReplaceAll(known, "-", ""), known[1:],
		known + "0", uuid.Nil.String(), "1", "x",
	} {
		w.refused(api.CodeNotFound, "GET", "/v1/memories_read/"+bad, "")
		w.refused(api.CodeNotFound, "GET", "/v1/memories_content/"+bad, "")
		for _, op := range []string{"update", "delete", "restore"} {
			w.refused(api.CodeInvalidArgument, "POST", "/v1/memories_"+op, fmt.Sprintf(`{"memory_id":%q}`, bad))
		}
		w.refused(
			api.CodeInvalidArgument, "POST", "/v1/memories_ping", fmt.Sprintf(`{"memory_ids":[%q,%q]}`, known, bad),
		)
	}
	for _, bad := range []string{"A", "-", "ä", strings.Repeat("a", 64)} {
		w.refused(api.CodeNotFound, "GET", "/v1/capsules_read/"+url.PathEscape(bad), "")
		for _, op := range []string{"create", "update", "delete"} {
			w.refused(api.CodeInvalidArgument, "POST", "/v1/capsules_"+op, fmt.Sprintf(`{"capsule_id":%q}`, bad))
		}
		w.refused(api.CodeInvalidArgument, "GET", "/v1/memories_list?capsule_id="+url.QueryEscape(bad), "")
	}

	sum := hexSum(b)
	for _, bad := range []string{"", sum[1:], sum + "0", strings.ToUpper("ab" + sum[2:]), "g" + sum[1:]} {
		w.refused(api.CodeInvalidArgument, "POST", finishes, strings.Replace(finishBody(id, b), sum, bad, 1))
		w.refused(api.CodeInvalidArgument, "GET", "/v1/memories_list?sha256="+bad, "")
	}
	for _, bad := range []string{
		`"total_len":-1`, `"total_len":"1"`, `"total_len":1.5`, `"total_len":null`,
		`"total_len":1,"chunk_crc32c":["xxxxxxxx"]`, `"total_len":1,"chunk_crc32c":["123"]`,
	} {
		w.refused(
			api.CodeInvalidArgument, "POST", finishes, fmt.Sprintf(`{"session_id":%q,"sha256":%q,%s}`, id, sum, bad),
		)
	}
	w.refused(api.CodeInvalidArgument, "POST", batches, `{"finishes":[]}`)
	for n, says := range map[int]string{2: "twice", 1001: "1000"} {
		a := w.refused(api.CodeInvalidArgument, "POST", batches, `{"finishes":[`+strings.Join(many[:n], ",")+`]}`)
		if !strings.Contains(a.problem.Detail, says) {
			t.Errorf("%d finishes: %s", n, a.problem.Detail)
		}
	}
	w.refused(
		api.CodeInvalidArgument, "POST", "/v1/memories_ping",
		`{"memory_ids":[`+strings.Repeat(`"`+known+`",`, 1000)+`"`+known+`"]}`,
	)
}
