package catalog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/catalog"
)

func TestMIMEAllowed(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		mime     string
		want     bool
	}{
		{nil, "image/png", true},
		{nil, "", true},
		{nil, "nonsense", true},
		{[]string{}, "text/html", true},
		{[]string{"image/png"}, "image/png", true},
		{[]string{"image/png"}, "IMAGE/PNG", true},
		{[]string{"text/plain"}, "text/plain; charset=utf-8", true},
		{[]string{"text/plain"}, " text/plain ;charset=utf-8", true},
		{[]string{"image/png"}, "image/jpeg", false},
		{[]string{"image/png", "image/jpeg"}, "image/jpeg", true},
		{[]string{"image/*"}, "image/svg+xml", true},
		{[]string{"image/*"}, "images/png", false},
		{[]string{"image/*"}, "image", false},
		{[]string{"image/*"}, "image/", false},
		{[]string{"image/*"}, "image/a/b", false},
		{[]string{"image/p"}, "image/png", false},
		{[]string{"image/*"}, "text/html; x=image/png", false},
		{[]string{"image/*"}, "", false},
	} {
		if got := catalog.MIMEAllowed(c.patterns, c.mime); got != c.want {
			t.Errorf("%v allow %q: %v", c.patterns, c.mime, got)
		}
	}
}

func TestPatternsOfMIMETypes(t *testing.T) {
	got, err := catalog.CleanMIMEPatterns("f", []string{"Image/*", "image/*", "application/VND.x+json", "a/b"})
	if want := []string{"image/*", "application/vnd.x+json", "a/b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	many := make([]string, catalog.MostMIMETypes)
	for i := range many {
		many[i] = fmt.Sprintf("a/%d", i)
	}
	if got, err := catalog.CleanMIMEPatterns("f", many); err != nil || len(got) != len(many) {
		t.Errorf("%d of %d: %v", len(got), len(many), err)
	}
	for name, patterns := range map[string][]string{
		"too many":      append(many, "a/b"),
		"everything":    {"*/*"},
		"no subtype":    {"image"},
		"empty":         {""},
		"no type":       {"/png"},
		"a part":        {"image/p*"},
		"any of a type": {"im*/png"},
		"parameters":    {"text/plain; charset=utf-8"},
		"spaces":        {" image/png"},
		"two slashes":   {"a/b/c"},
		"not ASCII":     {"image/pñg"},
		"too long":      {"a/" + strings.Repeat("b", 254)},
	} {
		var field *catalog.FieldError
		if _, err := catalog.CleanMIMEPatterns("f", patterns); !errors.As(err, &field) || field.Field != "f" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The text of a refusal names what is taken, and has a bound.
func TestARefusedTypeNamesThoseThatAreTaken(t *testing.T) {
	err := catalog.CheckMIME("text/html", nil, []string{"image/*", "application/pdf"})
	var refused *catalog.MIMEError
	if !errors.As(err, &refused) || !errors.Is(err, catalog.ErrMIME) ||
		err.Error() != "text/html is not taken here; taken here: image/*, application/pdf" {
		t.Errorf("%v", err)
	}
	long := make([]string, catalog.MostMIMETypes)
	for i := range long {
		long[i] = fmt.Sprintf("a/%03d%s", i, strings.Repeat("b", 250))
	}
	text := catalog.CheckMIME("text/html", long).Error()
	if len(text) > 1000 || !strings.Contains(text, "a/000bbb") || !strings.HasSuffix(text, " and 99 more") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

// A capsule keeps its patterns in their normal form, and takes no memory of another type.
func TestACapsuleTakesItsTypesAlone(t *testing.T) {
	store := catalog.NewMem()
	update := func(f func(catalog.Tx) error) error { return store.Update(t.Context(), f) }
	must(t, update(func(tx catalog.Tx) error {
		c, err := catalog.NewCapsule(
			tx, catalog.Capsule{ID: "c", Owners: []string{"o"}, MIMETypes: []string{"Image/PNG"}}, catalog.Moment{},
		)
		if !slices.Equal(c.MIMETypes, []string{"image/png"}) {
			t.Errorf("%q", c.MIMETypes)
		}
		return err
	}))
	publish := func(mime string) error {
		return update(func(tx catalog.Tx) error {
			_, err := catalog.Publish(tx, catalog.Publication{
				Memory:  catalog.Memory{ID: catalog.MemoryID{1}, Capsule: "c", Meta: catalog.Meta{Name: "a", MIME: mime}},
				Content: catalog.Content{Capsule: "c"},
			})
			return err
		})
	}
	if err := publish("text/html"); !errors.Is(err, catalog.ErrMIME) {
		t.Errorf("%v", err)
	}
	must(t, publish("image/png"))
	if err := update(func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(
			tx, "c", func(c *catalog.Capsule) error { c.MIMETypes = []string{"x"}; return nil }, catalog.Moment{},
		)
		return err
	}); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("a malformed pattern: %v", err)
	}
}
