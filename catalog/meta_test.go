package catalog_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/catalog"
)

func TestMetadataIsRefusedByField(t *testing.T) {
	for _, c := range []struct {
		field string
		meta  catalog.Meta
	}{
		{"meta.name", catalog.Meta{}},
		{"meta.name", catalog.Meta{Name: strings.Repeat("n", 256)}},
		{"meta.name", catalog.Meta{Name: "a\nb"}},
		{"meta.name", catalog.Meta{Name: "\xff"}},
		{"meta.name", catalog.Meta{Name: "esc\x1b[2J"}},
		{"meta.path", catalog.Meta{Name: "a", Path: "/abs"}},
		{"meta.path", catalog.Meta{Name: "a", Path: "a//b"}},
		{"meta.path", catalog.Meta{Name: "a", Path: "a/"}},
		{"meta.path", catalog.Meta{Name: "a", Path: "a/../b"}},
		{"meta.path", catalog.Meta{Name: "a", Path: "."}},
		{"meta.path", catalog.Meta{Name: "a", Path: strings.Repeat("p/", 512) + "p"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "image"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "image/"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "a/b/c"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "image/p ng"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "text/plain; charset"}},
		{"meta.mime_type", catalog.Meta{Name: "a", MIME: "text/plain\r\nX: y"}},
		{"meta.description", catalog.Meta{Name: "a", Description: strings.Repeat("d", 2049)}},
		{"meta.tags", catalog.Meta{Name: "a", Tags: make([]string, 65)}},
		{"meta.tags", catalog.Meta{Name: "a", Tags: []string{""}}},
		{"meta", catalog.Meta{
			Name: "a", Description: strings.Repeat("d", 2048), Path: strings.Repeat("p", 1024),
			Tags: []string{strings.Repeat("t", 256), strings.Repeat("u", 256)},
		}},
		{"meta.width and height", catalog.Meta{Name: "a", Width: -1}},
	} {
		_, err := c.meta.Validate()
		var field *catalog.FieldError
		if !errors.As(err, &field) || field.Field != c.field || field.MIME != (c.field == "meta.mime_type") {
			t.Errorf("%+v: %v", c.meta, err)
		}
	}
}

func TestMetadataIsBroughtIntoNormalForm(t *testing.T) {
	m, err := catalog.Meta{Name: "../ü 🎉.tar.gz", Path: "u\u0308ber/x", MIME: "Text/HTML; Charset=\"utf-8\""}.Validate()
	if err != nil || m.Path != "über/x" || m.MIME != "text/html; charset=utf-8" || m.Name != "../ü 🎉.tar.gz" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := (catalog.Meta{Name: "a"}).Validate(); err != nil || m.MIME != "application/octet-stream" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestCapsuleIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"default": true, "0": true, "a.b_c-d": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "-a": false, ".": false, "A": false, "a b": false,
		"ü": false, "a\x00": false,
	} {
		if catalog.ValidCapsuleID(id) != ok {
			t.Errorf("%q: %v", id, !ok)
		}
	}
}
