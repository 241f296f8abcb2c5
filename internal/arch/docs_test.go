package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// The files, functions and tests exist that docs/architecture.md, docs/glossary.md, docs/access.md
// and SECURITY.md name.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	root := "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	glossary, err := os.ReadFile(filepath.Join(root, "docs/glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, glossary...)
	for _, name := range []string{"docs/access.md", "SECURITY.md"} {
		more, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, more...)
	}
	words := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		b, err := os.ReadFile(path)
		for word := range strings.FieldsFuncSeq(
			string(b), func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) },
		) {
			words[word] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([^`\n]+)`").FindAllSubmatch(text, -1)
	if len(named) < 300 {
		t.Fatalf("only %d names", len(named))
	}
	file := regexp.MustCompile(`^[a-z0-9_]+(/[a-z0-9_]+)+\.go$`)
	name := regexp.MustCompile(`^(?:[A-Za-z]+\.)*([A-Z][A-Za-z0-9]+|[a-z]+[A-Z][A-Za-z0-9]*)$`)
	for _, n := range named {
		said := string(n[1])
		if file.MatchString(said) {
			if _, err := os.Stat(filepath.Join(root, said)); err != nil {
				t.Error(err)
			}
			continue
		}
		if m := name.FindStringSubmatch(said); m != nil && !words[m[1]] {
			t.Errorf("%s is nowhere in the code", said)
		}
	}
}
