package api

import (
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

// decode reads the request's JSON body into v, strictly: names are case-sensitive and neither unknown, repeated nor missing,
// nothing trails, the text is UTF-8, and a null stands only where the member may be absent and has a meaning without a value. How
// deep it nests is bounded by v's type. Where v has no member at all, an empty body will do.
func decode(r *http.Request, body io.Reader, max int64, v any) error {
	if r.Header.Get("Content-Encoding") != "" {
		return errEncoded
	}
	if r.ContentLength > max {
		return &denial{code: CodeTooLarge, detail: fmt.Sprintf("the body has more than %d bytes", max)}
	}
	b, err := io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > max {
		return &denial{code: CodeTooLarge, detail: fmt.Sprintf("the body has more than %d bytes", max)}
	}
	if len(b) == 0 {
		b = []byte("{}") // what is missing is told by its name
	} else if kind := r.Header.Get("Content-Type"); kind != "" {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			return &denial{code: CodeUnsupportedMediaType, detail: "the body must be sent with Content-Type: application/json"}
		}
	}
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		return malformed(err)
	}
	return present(b, reflect.TypeOf(v).Elem(), "")
}

// malformed says where the JSON is wrong, in the client's words.
func malformed(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		at := dotted(semantic.JSONPointer)
		switch {
		case errors.Is(err, json.ErrUnknownName):
			return &denial{code: CodeInvalidArgument, detail: fmt.Sprintf("there is no member %q", at)}
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
		return &denial{code: CodeInvalidArgument, detail: fmt.Sprintf("the body is not valid JSON at byte %d: %v", syntax.ByteOffset, syntax.Err)}
	}
	return &denial{code: CodeInvalidArgument, detail: "the body is not valid JSON"}
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

// present finds members that are required and missing, and nulls that mean nothing. It runs on what has been decoded without an error.
func present(b jsontext.Value, t reflect.Type, at string) error {
	nullable := t.Kind() == reflect.Pointer
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case b.Kind() == 'n':
		if nullable {
			return nil
		}
		return invalid(orBody(at), "must not be null")
	case t == reflect.TypeFor[Time]():
		return nil
	case t.Kind() == reflect.Slice:
		var items []jsontext.Value
		if err := json.Unmarshal(b, &items); err != nil {
			return malformed(err)
		}
		for i, item := range items {
			if err := present(item, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct:
		var members map[string]jsontext.Value
		if err := json.Unmarshal(b, &members); err != nil {
			return malformed(err)
		}
		for i := range t.NumField() {
			name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			path := strings.TrimPrefix(at+"."+name, ".")
			member, ok := members[name]
			switch {
			case ok:
				if err := present(member, t.Field(i).Type, path); err != nil {
					return err
				}
			case !strings.Contains(options, "omitzero"):
				return invalid(path, "is required")
			}
		}
	}
	return nil
}
