package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of a JSON request in bytes: batches may be long.
const (
	maxJSON      = 1 << 20
	maxBatchJSON = 8 << 20
)

// jsonCost is how many bytes a byte of a JSON body counts for: itself, the buffer that grows for
// it, and the values that are made of it (TestWhatJSONCosts).
const jsonCost = 4

// decode reads the request's JSON body into v. It is strict: names are case-sensitive, and none is
// unknown, repeated or missing. Nothing trails, and the text is UTF-8. A null stands only if the
// member may be absent and has a meaning without a value. No list or string is longer than its
// shape allows; that is checked while the body is read. decode calls charge for memory before it
// uses it. If v has no member at all, the body may be empty.
func decode(r *http.Request, body io.Reader, max int64, of *shape, charge func(n int64) error, v any) error {
	if r.ContentLength > max {
		return tooLong(max)
	}
	in := &jsonReader{r: body, max: max, charge: charge}
	d := jsontext.NewDecoder(in)
	kind := d.PeekKind()
	if len(in.b) > 0 {
		if kind := r.Header.Get("Content-Type"); kind != "" {
			media, more, err := mime.ParseMediaType(kind)
			if err != nil || media != "application/json" {
				return &refusal{
					code: CodeUnsupportedMediaType, detail: "the body must be sent with Content-Type: application/json",
				}
			}
			if set, named := more["charset"]; named && !strings.EqualFold(set, "utf-8") {
				return &refusal{
					code: CodeUnsupportedMediaType, detail: "JSON is taken in UTF-8 alone (RFC 8259, section 8.1)",
				}
			}
		}
	} else if kind == 0 && in.err == nil {
		in.b = append(in.b, "{}"...) // the shape then names the missing members
		d = jsontext.NewDecoder(bytes.NewReader(in.b))
	}
	err := of.check(d)
	if err == nil {
		if _, behind := d.ReadToken(); behind != io.EOF {
			err = &refusal{
				code:   CodeInvalidArgument,
				detail: fmt.Sprintf("the body goes on behind its JSON value, at byte %d", d.InputOffset()),
			}
		}
	}
	if in.err != nil {
		return in.err
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(in.b, v); err != nil {
		return malformed(err)
	}
	return nil
}

func tooLong(max int64) error {
	return &refusal{code: CodeTooLarge, detail: fmt.Sprintf("the body has more than %d bytes", max), limit: max}
}

// jsonReader keeps what is read.
type jsonReader struct {
	r      io.Reader
	max    int64
	charge func(n int64) error
	b      []byte
	err    error // why reading ended, unless it ended well
}

// Read implements io.Reader.
func (j *jsonReader) Read(p []byte) (int, error) {
	if j.err != nil {
		return 0, j.err
	}
	n, err := j.r.Read(p)
	if int64(len(j.b)+n) > j.max {
		j.err = tooLong(j.max)
	} else if n > 0 {
		j.err = j.charge(jsonCost * int64(n))
	}
	if j.err != nil {
		return 0, j.err
	}
	if len(j.b)+n > cap(j.b) { // append would leave more garbage
		j.b = append(make([]byte, 0, max(2*cap(j.b), len(j.b)+n, 512)), j.b...)
	}
	j.b = append(j.b, p[:n]...)
	if err != nil && err != io.EOF {
		j.err = err
	}
	return n, err
}

// malformed says what is wrong with the JSON, in the client's terms.
func malformed(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		at := dotted(semantic.JSONPointer)
		switch {
		case semantic.GoType != nil && semantic.GoType != reflect.TypeFor[Time]():
			return invalid(orBody(at), "must be "+inWords(semantic.GoType))
		case semantic.Err != nil:
			return invalid(orBody(at), semantic.Err.Error())
		}
		return invalid(orBody(at), "has a value that can't be used")
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		at := dotted(syntax.JSONPointer)
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return invalid(orBody(at), "is there twice")
		}
		return &refusal{
			code:   CodeInvalidArgument,
			detail: fmt.Sprintf("the body is not valid JSON at byte %d: %v", syntax.ByteOffset, syntax.Err),
		}
	}
	return &refusal{code: CodeInvalidArgument, detail: "the body is not valid JSON"}
}

func orBody(at string) string {
	if at == "" {
		return "the body"
	}
	return at
}

// dotted turns /finishes/3/sha256 into finishes[3].sha256.
func dotted(p jsontext.Pointer) string {
	var b strings.Builder
	for t := range p.Tokens() {
		if _, err := strconv.ParseUint(t, 10, 31); err == nil {
			b.WriteString("[" + t + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(t[:min(len(t), 64)])
	}
	return b.String()
}

func inWords(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "a whole number within 64 bits"
	case reflect.Slice, reflect.Array:
		return "an array"
	}
	return "an object"
}
