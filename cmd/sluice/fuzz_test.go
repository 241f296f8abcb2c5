package main

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Text for a terminal moves no cursor, and changes no direction. A harmless name is shown as it is.
func FuzzClean(f *testing.F) {
	f.Add("ü 🎉.tar.gz")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if lines := cleanLines(s); strings.ContainsFunc(lines, unicode.IsControl) {
			t.Fatalf("%q is shown as %q", s, lines)
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q is shown as %q", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Zl, r) ||
				unicode.Is(unicode.Zp, r) {
				t.Fatalf("%q is shown as %q", s, got)
			}
		}
		if again := clean(got); again != got {
			t.Fatalf("%q is shown as %q, and that as %q", s, got, again)
		}
	})
}

// The file of a memory with any name lies in the folder that the user gave.
func FuzzSafeName(f *testing.F) {
	f.Add("a.txt", "x/y")
	f.Add("../../etc/passwd", "../..")
	f.Fuzz(func(t *testing.T, name, path string) {
		file := safeName(name)
		if !filepath.IsLocal(file) || filepath.Base(file) != file || strings.ContainsFunc(file, unicode.IsControl) {
			t.Fatalf("%q becomes the file %q", name, file)
		}
		folder := safePath(path)
		if folder != "" && (!filepath.IsLocal(folder) || strings.ContainsFunc(folder, unicode.IsControl)) {
			t.Fatalf("%q becomes the folder %q", path, folder)
		}
		if rel, err := filepath.Rel("root", filepath.Join("root", folder, file)); err != nil ||
			!filepath.IsLocal(rel) || rel == "." {
			t.Fatalf("%q in %q becomes %q, %v", name, path, rel, err)
		}
		if utf8.ValidString(name) && !strings.ContainsAny(name, `/\`) &&
			!strings.ContainsFunc(name, unicode.IsControl) && len(name) > 2 && file != name {
			t.Fatalf("%q becomes %q for nothing", name, file)
		}
	})
}
