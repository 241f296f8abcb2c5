package catalog_test

import (
	"errors"
	"mime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/text/unicode/norm"

	"sluice/catalog"
)

// Accepted metadata obeys the rules, and is accepted again unchanged. A refusal names the field.
func FuzzMeta(f *testing.F) {
	f.Add("name", "a/b", "text/plain; charset=utf-8", "two\nlines", "tag\x00tag2", int64(1), int64(2), int64(3))
	f.Fuzz(func(t *testing.T, name, path, kind, description, tags string, width, height, taken int64) {
		m := catalog.Meta{Name: name, Path: path, MIME: kind, Description: description, Width: width, Height: height}
		if tags != "" {
			m.Tags = strings.Split(tags, "\x00")
		}
		if taken != 0 {
			m.TakenAt = time.UnixMilli(taken).UTC()
		}
		once, err := m.Validate()
		if err != nil {
			var field *catalog.FieldError
			if !errors.As(err, &field) || field.Field == "" || field.Problem == "" {
				t.Fatalf("refused without a field: %v", err)
			}
			return
		}
		again, err := once.Validate()
		if diff := cmp.Diff(once, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-once +again):\n%s", err, diff)
		}
		for what, s := range map[string]string{
			"name": once.Name, "path": once.Path, "MIME type": once.MIME, "tags": strings.Join(once.Tags, ""),
		} {
			if !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
				t.Errorf("%s %q", what, s)
			}
		}
		if once.Name != name || len(name) < 1 || len(name) > 255 {
			t.Errorf("name %q of %q", once.Name, name)
		}
		for part := range strings.SplitSeq(once.Path, "/") {
			if once.Path != "" && (part == "" || part == "." || part == "..") || !norm.NFC.IsNormalString(part) {
				t.Errorf("path %q", once.Path)
			}
		}
		if major, minor, _ := strings.Cut(once.MIME, "/"); major == "" || minor == "" {
			t.Errorf("MIME type %q", once.MIME)
		}
		if _, params, err := mime.ParseMediaType(once.MIME); err != nil {
			t.Errorf("MIME type %q: %v, %v", once.MIME, params, err)
		}
	})
}
