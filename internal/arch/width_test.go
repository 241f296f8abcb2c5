package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// widestCode is how many columns a line of code has at most.
const widestCode = 120

var (
	// tag is a field with a struct tag.
	tag = regexp.MustCompile("`[a-z]+:\"")
	// row is a row of a table: an element of a composite literal that stands in one line.
	row = regexp.MustCompile(`^(\{|("[^"]*"|` + "`[^`]*`" + `|[\w.]+(\[[^]]*\])?): *|"[\w/.]+", ").*[,{]$`)
)

// A line of code fits on a screen. Rows of tables and fields with tags may be longer, since they
// are read as columns.
func TestCodeIsNotTooWide(t *testing.T) {
	looked := 0
	for _, path := range goFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw := rawLines(t, path)
		for i, line := range strings.Split(string(text), "\n") {
			looked++
			trimmed := strings.TrimSpace(line)
			n := columns(line)
			apart := raw[i+1] || strings.HasPrefix(trimmed, "//") || tag.MatchString(line) || row.MatchString(trimmed)
			if n <= widestCode || apart {
				continue
			}
			t.Errorf("%s:%d: a line of %d columns, and %d are the most", path, i+1, n, widestCode)
		}
	}
	if looked < 50_000 {
		t.Errorf("%d lines were looked at", looked)
	}
}

// rawLines are the lines that lie in a string of several lines, which is text and not code.
func rawLines(t *testing.T, path string) map[int]bool {
	t.Helper()
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		s, ok := n.(*ast.BasicLit)
		if !ok || s.Kind != token.STRING {
			return true
		}
		first, last := files.Position(s.Pos()).Line, files.Position(s.End()).Line
		for l := first; first != last && l <= last; l++ {
			out[l] = true
		}
		return true
	})
	return out
}
