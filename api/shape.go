package api

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxString is how many bytes a string may have in a request, escapes included. The longest string
// that any member may hold has 2 KiB before it is escaped.
const maxString = 16 << 10

// shape is what a wire type lets in. It is made once from the type and its tags. It is compared
// with the JSON while that is read. So a list is refused at its first element too many, before
// anything is made of it.
//
//	json:"name"  max:"1000" (elements of a list)  hex:"8" (digits of each element)
type shape struct {
	typ       reflect.Type
	nullable  bool
	object    bool
	members   []property // of an object
	elem      *shape     // of a list
	maxElems  int        // of a list
	hexDigits int        // length of a string; 0: any string
}

type property struct {
	name     string
	required bool
	*shape
}

// shapeOf panics if a list has no bound: that is a bug in the wire type.
func shapeOf(t reflect.Type) *shape {
	s := &shape{typ: t, nullable: t.Kind() == reflect.Pointer}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s.typ = t
	if t.Kind() == reflect.Slice {
		s.elem = shapeOf(t.Elem())
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[Time]() {
		return s
	}
	s.object = true
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		m := property{name, !strings.Contains(options, "omitzero"), shapeOf(f.Type)}
		if m.elem != nil {
			var err error
			if m.maxElems, err = strconv.Atoi(f.Tag.Get("max")); err != nil {
				panic(fmt.Sprintf("api: the list %s.%s has no bound: %v", t, f.Name, err))
			}
			m.elem.hexDigits, _ = strconv.Atoi(cmp.Or(f.Tag.Get("hex"), "0"))
		}
		s.members = append(s.members, m)
	}
	return s
}

// check reads one value. It checks the kinds, the names, missing members, nulls without a meaning,
// and lengths.
func (s *shape) check(d *jsontext.Decoder) error {
	kind := d.PeekKind()
	switch {
	case kind == 'n':
		if _, err := d.ReadToken(); err != nil {
			return malformed(err)
		}
		if !s.nullable {
			return invalid(currentPath(d), "must not be null")
		}
		return nil
	case s.elem != nil && kind == '[':
		return s.checkList(d)
	case s.object && kind == '{':
		return s.checkObject(d)
	case kind == '[' || kind == '{' || (s.elem != nil || s.object) && kind != 0:
		if _, err := d.ReadToken(); err != nil {
			return malformed(err)
		}
		return invalid(currentPath(d), "must be "+inWords(s.typ))
	}
	v, err := d.ReadValue()
	if err != nil {
		return malformed(err)
	}
	if kind == '"' && s.hexDigits > 0 && len(v) != s.hexDigits+2 {
		return invalid(currentPath(d), fmt.Sprintf("must be %d hex digits", s.hexDigits))
	}
	if len(v) > maxString {
		return tooMuch(currentPath(d), fmt.Sprintf("is longer than %d bytes", maxString), maxString)
	}
	return nil
}

func (s *shape) checkList(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return malformed(err)
	}
	for n := 0; d.PeekKind() != ']'; n++ {
		if n == s.maxElems {
			at := d.StackPointer()
			problem := fmt.Sprintf("may have at most %d elements", s.maxElems)
			return tooMuch(dotted(at.Parent()), problem, int64(s.maxElems))
		}
		if err := s.elem.check(d); err != nil {
			return err
		}
	}
	return readEnd(d)
}

func (s *shape) checkObject(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return malformed(err)
	}
	var seen uint64 // one bit for each member; no type has 64
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return malformed(err)
		}
		text, known := name.String(), false
		for i, m := range s.members {
			if m.name != text {
				continue
			}
			known, seen = true, seen|1<<i
			if err := m.check(d); err != nil {
				return err
			}
		}
		if !known {
			return &refusal{
				code: CodeInvalidArgument, detail: fmt.Sprintf("there is no member %q", dotted(d.StackPointer())),
			}
		}
	}
	if err := readEnd(d); err != nil {
		return err
	}
	for i, m := range s.members {
		if m.required && seen&(1<<i) == 0 {
			return invalid(strings.TrimPrefix(dotted(d.StackPointer())+"."+m.name, "."), "is required")
		}
	}
	return nil
}

func readEnd(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return malformed(err)
	}
	return nil
}

// currentPath names the value that was read last.
func currentPath(d *jsontext.Decoder) string { return orBody(dotted(d.StackPointer())) }
