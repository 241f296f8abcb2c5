package api

import (
	"bytes"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// answerShape is what an answer of a wire type must have. It is made once from the type and its
// tags: each member without omitzero is there, lists are arrays, and null stands only if the type
// is a pointer. Other members may be there too: a newer server has more. So a member that an answer
// gets later must have omitzero, or an older server is not taken for a Sluice server.
type answerShape struct {
	nullable bool
	members  []answerMember // of an object
	elem     *answerShape   // of a list
	kind     jsontext.Kind  // '{', '[' or '"'; 0: any but null
}

type answerMember struct {
	name     string
	required bool
	*answerShape
}

// answerTypes are the types of the server's answers. Nothing changes the map.
var answerTypes = func() map[reflect.Type]*answerShape {
	of := map[reflect.Type]*answerShape{}
	for _, r := range routes() {
		if r.out != nil {
			of[r.out] = answerShapeOf(r.out)
		}
	}
	return of
}()

func answerShapeOf(t reflect.Type) *answerShape {
	e := &answerShape{nullable: t.Kind() == reflect.Pointer}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Time](), t.Kind() == reflect.String:
		e.kind = '"'
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		e.kind, e.elem = '[', answerShapeOf(t.Elem())
	case t.Kind() == reflect.Map:
		e.kind = '{'
	case t.Kind() == reflect.Struct:
		e.kind = '{'
		for f := range t.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			e.members = append(e.members, answerMember{
				name, !slices.Contains(strings.Split(options, ","), "omitzero"), answerShapeOf(f.Type),
			})
		}
	}
	return e
}

// missing reads one value and names the first thing that is not as expected, or "" if there is
// none. at is the value's own name.
func (e *answerShape) missing(d *jsontext.Decoder, at string) (string, error) {
	switch kind := d.PeekKind(); {
	case kind == 'n' && e.nullable, kind != 'n' && e.kind == 0:
		return "", d.SkipValue()
	case kind != e.kind:
		return at, d.SkipValue()
	case e.elem != nil:
		return e.inList(d, at)
	case e.members != nil:
		return e.inObject(d)
	}
	return "", d.SkipValue()
}

func (e *answerShape) inList(d *jsontext.Decoder, at string) (lacks string, err error) {
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	for d.PeekKind() != ']' {
		if lacks, err = e.elem.missing(d, at); lacks != "" || err != nil {
			return lacks, err
		}
	}
	_, err = d.ReadToken()
	return "", err
}

func (e *answerShape) inObject(d *jsontext.Decoder) (string, error) {
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	var seen uint64 // one bit for each member; no type has 64
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(e.members, func(m answerMember) bool { return m.name == name.String() })
		if i < 0 {
			if err := d.SkipValue(); err != nil {
				return "", err
			}
			continue
		}
		seen |= 1 << i
		m := e.members[i]
		if d.PeekKind() == 'n' && !m.required { // as good as not there
			if err := d.SkipValue(); err != nil {
				return "", err
			}
			continue
		}
		if lacks, err := m.missing(d, m.name); lacks != "" || err != nil {
			return lacks, err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	for i, m := range e.members {
		if m.required && seen&(1<<i) == 0 {
			return m.name, nil
		}
	}
	return "", nil
}

// decodeAnswer decodes an answer with the body b into out, a pointer to one of answerTypes. An
// answer that is not the server's own is [Error].Foreign: JSON from something in between must not
// be taken for a promise.
func decodeAnswer(res *http.Response, b []byte, out any) error {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if d.PeekKind() != '{' {
		return foreign(res, b)
	}
	lacks, err := answerTypes[reflect.TypeOf(out).Elem()].missing(d, "")
	if err == nil && lacks != "" {
		return foreignLacking(res, lacks)
	}
	if err != nil || json.Unmarshal(b, out) != nil {
		return foreign(res, b)
	}
	if lacks = emptyMember(out); lacks != "" {
		return foreignLacking(res, lacks)
	}
	return nil
}

// emptyMember names an identifying member that is empty although all members are there, or "" if
// there is none.
func emptyMember(out any) string {
	switch v := out.(type) {
	case *Session:
		if v.State == "" {
			return "state"
		}
	case *Memory:
		if v.MemoryID == "" {
			return "memory_id"
		}
	case *MemoryBatch:
		if len(v.Memories) == 0 || slices.ContainsFunc(v.Memories, func(m Memory) bool { return m.MemoryID == "" }) {
			return "memory_id"
		}
	}
	return ""
}
