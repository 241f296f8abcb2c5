package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MostMIMETypes bounds the patterns of one list of MIME types.
const MostMIMETypes = 100

// ErrMIME: the type is not among those that are taken. See *MIMEError.
var ErrMIME = errors.New("the type is not taken here")

// MIMEError says that a content has a type which a list does not allow.
type MIMEError struct {
	// Declared is the type that the client gave. Sniffed is the type that the first bytes show, if
	// these are the reason for the refusal; otherwise it is empty.
	Declared, Sniffed string
	// Allowed is the list, in its normal form.
	Allowed []string
}

// mostNamed is how many bytes of patterns the text of a MIMEError names. It bounds an answer about
// many files.
const mostNamed = 400

func (e *MIMEError) Error() string {
	var named strings.Builder
	for i, p := range e.Allowed {
		if i > 0 && named.Len()+len(p) > mostNamed {
			fmt.Fprintf(&named, " and %d more", len(e.Allowed)-i)
			break
		}
		if i > 0 {
			named.WriteString(", ")
		}
		named.WriteString(p)
	}
	if e.Sniffed != "" {
		return fmt.Sprintf("the content is %s, and not %s as declared; taken here: %s", e.Sniffed, e.Declared, &named)
	}
	return fmt.Sprintf("%s is not taken here; taken here: %s", e.Declared, &named)
}

// Unwrap makes errors.Is(err, ErrMIME) true.
func (e *MIMEError) Unwrap() error { return ErrMIME }

// MIMEAllowed reports whether a list of patterns allows a MIME type. A pattern is type/subtype or
// type/*, in the normal form of [CleanMIMEPatterns]. An empty list allows all types. Upper case and
// parameters of the type do not count. A malformed type is only allowed by an empty list.
func MIMEAllowed(patterns []string, mime string) bool {
	if len(patterns) == 0 {
		return true
	}
	name, _, _ := strings.Cut(mime, ";")
	name = strings.ToLower(strings.TrimSpace(name))
	major, minor, ok := strings.Cut(name, "/")
	if !ok || !isToken(major) || !isToken(minor) {
		return false
	}
	for _, p := range patterns {
		if p == name || p == major+"/*" {
			return true
		}
	}
	return false
}

// CheckMIME gives a *MIMEError if one of the lists does not allow the type.
func CheckMIME(mime string, lists ...[]string) error {
	for _, patterns := range lists {
		if !MIMEAllowed(patterns, mime) {
			return &MIMEError{Declared: mime, Allowed: patterns}
		}
	}
	return nil
}

// CleanMIMEPatterns checks a list of patterns of MIME types and gives it in its normal form: lower
// case, each pattern once, in the order of the list. It gives a *FieldError that names the field:
// for more than MostMIMETypes patterns, and for a pattern that is neither type/subtype nor type/*,
// has parameters, or has more than 255 bytes.
func CleanMIMEPatterns(field string, patterns []string) ([]string, error) {
	if len(patterns) > MostMIMETypes {
		return nil, &FieldError{
			Field:   field,
			Problem: fmt.Sprintf("has %d patterns, and %d are allowed", len(patterns), MostMIMETypes), Limit: MostMIMETypes,
		}
	}
	var out []string
	for _, p := range patterns {
		clean := strings.ToLower(p)
		major, minor, ok := strings.Cut(clean, "/")
		if len(p) > maxMIME || !ok || !isToken(major) || !isToken(minor) || strings.Contains(major, "*") ||
			strings.Contains(minor, "*") && minor != "*" {
			return nil, &FieldError{
				Field: field,
				Problem: fmt.Sprintf("has %.60q: a pattern is type/subtype or type/*, without parameters, "+
					"and has at most %d bytes; an empty list takes everything", p, maxMIME),
			}
		}
		if !slices.Contains(out, clean) {
			out = append(out, clean)
		}
	}
	return out, nil
}
