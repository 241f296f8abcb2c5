package catalog

import (
	"fmt"
	"strings"
)

// CleanTypes checks the types that a ticket is to allow, and gives them in lower case.
func CleanTypes(types []string) ([]string, error) {
	var out []string
	for _, t := range types {
		name, err := cleanMIME(t)
		major, _, _ := strings.Cut(name, "/")
		if err != nil || t == "" || strings.Contains(name, ";") || major == "*" {
			return nil, &FieldError{
				Field: "mime_types", Problem: "must be like image/png, or image/* for all images, without parameters",
			}
		}
		out = append(out, name)
	}
	return out, nil
}

// Allows gives a *FieldError unless the ticket allows uploads of a type, which is in the normal
// form of Meta.Validate. Its parameters do not count. What the bytes are is not looked at.
func (g Grant) Allows(kind string) error {
	kind, _, _ = strings.Cut(kind, ";")
	major, _, _ := strings.Cut(kind, "/")
	for _, t := range g.MIME {
		if t == kind || t == major+"/*" {
			return nil
		}
	}
	if len(g.MIME) == 0 {
		return nil
	}
	return &FieldError{
		Field: "meta.mime_type", MIME: true,
		Problem: fmt.Sprintf("is %s, and the ticket is for %s", kind, strings.Join(g.MIME, ", ")),
	}
}
