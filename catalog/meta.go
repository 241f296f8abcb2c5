package catalog

import (
	"fmt"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of metadata, in bytes unless something else is said.
const (
	maxName        = 255
	maxPath        = 1024
	maxMIME        = 255
	maxDescription = 2048
	maxTags        = 64 // tags
	maxTag         = 256
	maxMeta        = 3584 // of all fields together: they have to fit the note of a session
	maxPixels      = 1 << 31
	maxIdem        = 255
)

// defaultMIME is the type of content for which no type is given (RFC 9110 §8.3).
const defaultMIME = "application/octet-stream"

// Comparable gives the form in which two names or paths are compared: NFC. Both sides are
// converted, stored ones too: names are stored as they were given, and an earlier version may have
// stored a path in another form.
func Comparable(s string) string { return norm.NFC.String(s) }

// Validate checks the metadata and gives it in normal form: the path in NFC, the names of the MIME
// type in lower case, and application/octet-stream if there is no type. It gives a *FieldError if a
// field is malformed.
func (m Meta) Validate() (Meta, error) {
	if err := checkText("meta.name", m.Name, 1, maxName, false); err != nil {
		return m, err
	}
	path, err := cleanPath(m.Path)
	if err != nil {
		return m, err
	}
	m.Path = path
	if m.MIME, err = cleanMIME(m.MIME); err != nil {
		return m, err
	}
	if err := checkText("meta.description", m.Description, 0, maxDescription, true); err != nil {
		return m, err
	}
	if len(m.Tags) > maxTags {
		return m, &FieldError{
			Field:   "meta.tags",
			Problem: fmt.Sprintf("has %d tags, and %d are allowed", len(m.Tags), maxTags), Limit: maxTags,
		}
	}
	size := len(m.Name) + len(m.Path) + len(m.MIME) + len(m.Description)
	for _, tag := range m.Tags {
		if err := checkText("meta.tags", tag, 1, maxTag, false); err != nil {
			return m, err
		}
		size += len(tag) + 2
	}
	if size > maxMeta {
		return m, &FieldError{
			Field:   "meta",
			Problem: fmt.Sprintf("has %d bytes in all its fields together, and %d are allowed", size, maxMeta), Limit: maxMeta,
		}
	}
	if m.Width < 0 || m.Width > maxPixels || m.Height < 0 || m.Height > maxPixels {
		return m, &FieldError{Field: "meta.width and height", Problem: "must be 0 to 2^31"}
	}
	if y := m.TakenAt.Year(); !m.TakenAt.IsZero() && (y < 1 || y > 9999) {
		return m, &FieldError{Field: "meta.taken_at", Problem: "must be of the years 1 to 9999"}
	}
	return m, nil
}

// checkText checks that s has least to most bytes of UTF-8 without control characters. lines allows
// tabs and ends of lines.
func checkText(field, s string, least, most int, lines bool) error {
	switch {
	case len(s) < least:
		return &FieldError{Field: field, Problem: "must not be empty"}
	case len(s) > most:
		problem := fmt.Sprintf("has %d bytes, and %d are allowed", len(s), most)
		return &FieldError{Field: field, Problem: problem, Limit: int64(most)}
	case !utf8.ValidString(s):
		return &FieldError{Field: field, Problem: "is not UTF-8"}
	}
	for _, r := range s {
		if unicode.IsControl(r) && (!lines || r != '\n' && r != '\r' && r != '\t') {
			return &FieldError{Field: field, Problem: fmt.Sprintf("has the control character U+%04X", r)}
		}
	}
	return nil
}

// cleanPath checks a relative path with / between its parts.
func cleanPath(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	if err := checkText("meta.path", p, 0, maxPath, false); err != nil {
		return "", err
	}
	p = Comparable(p)
	if len(p) > maxPath {
		problem := fmt.Sprintf("has more than %d bytes in NFC", maxPath)
		return "", &FieldError{Field: "meta.path", Problem: problem, Limit: maxPath}
	}
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "":
			return "", &FieldError{
				Field:   "meta.path",
				Problem: "has an empty part; it must be relative, with one / between its parts",
			}
		case ".", "..":
			return "", &FieldError{Field: "meta.path", Problem: "has a part " + part}
		}
	}
	return p, nil
}

// cleanMIME checks a media type with its parameters (RFC 9110 §8.3.1).
func cleanMIME(s string) (string, error) {
	if s == "" {
		return defaultMIME, nil
	}
	bad := &FieldError{
		Field:   "meta.mime_type",
		Problem: "must be type/subtype, as in image/png (RFC 9110, section 8.3.1)",
		MIME:    true,
	}
	if len(s) > maxMIME {
		return "", &FieldError{
			Field:   "meta.mime_type",
			Problem: fmt.Sprintf("has %d bytes, and %d are allowed", len(s), maxMIME), Limit: maxMIME,
			MIME: true,
		}
	}
	name, params, err := mime.ParseMediaType(s)
	if err != nil || checkText("", s, 1, maxMIME, false) != nil {
		return "", bad
	}
	major, minor, ok := strings.Cut(name, "/")
	if !ok || !isToken(major) || !isToken(minor) {
		return "", bad
	}
	out := mime.FormatMediaType(name, params)
	if out == "" || len(out) > maxMIME {
		return "", bad
	}
	return out, nil
}

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// ValidCapsuleID reports whether s is [a-z0-9][a-z0-9._-]{0,62}.
func ValidCapsuleID(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !plain && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// ValidIdem checks an idempotency key: 1 to 255 bytes of UTF-8 without control characters.
func ValidIdem(s string) error { return checkText("idem", s, 1, maxIdem, false) }
