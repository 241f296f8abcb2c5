package api

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sluice/audit"
)

// auditedValues are the members whose new values a record has: roles, rights and bounds. Of all
// other members it has the names alone.
var auditedValues = []string{
	"subject", "owners", "controllers", "quota_bytes", "quota_memories", "max_open_sessions", "admin", "read_only",
	"expires_in_seconds", "expires_at", "purge", "max_bytes", "uploads", "downloads",
}

// auditedCounts are the members of an answer that say how many things an act has changed.
var auditedCounts = []string{"cleared", "expired"}

// idField is a member of a request that says what it is about.
type idField struct {
	index int
	name  string
}

// idFieldsOf finds such members of a wire type.
func idFieldsOf(t reflect.Type) (out []idField) {
	for i := range t.NumField() {
		if name := memberName(t.Field(i)); slices.Contains(targetMembers, name) {
			out = append(out, idField{i, name})
		}
	}
	return out
}

func memberName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// noteRequest keeps of a request's JSON what a record may need: in points to a wire message.
func (c *call) noteRequest(ids []idField, in any) {
	if len(ids) > 0 {
		v := reflect.ValueOf(in).Elem()
		for _, f := range ids {
			setTarget(&c.target, f.name, v.Field(f.index).String())
		}
	}
	if c.route.audit == auditAlways {
		c.in = in
	}
}

// noteAnswer keeps the answer of an act.
func (c *call) noteAnswer(out any) {
	if c.route.audit == auditAlways {
		c.out = out
	}
}

// addMembers adds to a record which members the request has, without those that are in its target.
func (c *call) addMembers(r *audit.Record) {
	for name := range given(c.in) {
		if !slices.Contains(targetMembers, name) {
			r.Changed = append(r.Changed, name)
		}
	}
	slices.Sort(r.Changed)
}

// addChanges adds to the record of an act what it has changed: the members that the request has,
// and the new values of some. If something was made, its id and its values are those of the answer.
func (c *call) addChanges(r *audit.Record) {
	c.addMembers(r)
	values := given(c.in)
	for name, v := range given(c.out) {
		if slices.Contains(auditedCounts, name) {
			r.Count = v.Int()
		}
		if !strings.HasSuffix(r.Action, "_create") {
			continue
		}
		if v.Kind() == reflect.String {
			setTarget(&r.Target, name, v.String())
		}
		values[name] = v
	}
	for _, name := range auditedValues {
		if v, ok := values[name]; ok {
			r.New = append(r.New, slog.Attr{Key: name, Value: logged(v)})
		}
	}
}

// logged gives a member's value as records have it.
func logged(v reflect.Value) slog.Value {
	if t, ok := v.Interface().(Time); ok {
		return slog.StringValue(t.UTC().Format(timeForm))
	}
	return slog.AnyValue(v.Interface())
}

// given gives the members of a wire message that are there: a pointer that is not nil, or a value
// that is not zero.
func given(message any) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	v := reflect.ValueOf(message)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return out
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Anonymous { // its members stand beside the others
			maps.Copy(out, given(v.Field(i).Interface()))
			continue
		}
		name, f := memberName(v.Type().Field(i)), v.Field(i)
		if name == "" || f.IsZero() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		out[name] = f
	}
	return out
}
