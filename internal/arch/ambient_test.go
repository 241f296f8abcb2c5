package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ambient lists the functions and variables that give time or randomness without being handed in,
// by package. A timer is not in it: a timer only wakes.
var ambient = map[string][]string{
	"time":                   {"Now", "Since", "Until"},
	"crypto/rand":            {"Read", "Text", "Reader"},
	"math/rand":              nil, // all names except those in seeded
	"math/rand/v2":           nil,
	"github.com/google/uuid": {"New", "NewString", "NewRandom", "NewUUID", "NewV6", "NewV7"},
}

// seeded lists the names of math/rand that take their randomness from their caller.
var seeded = []string{"New", "NewPCG", "NewChaCha8", "NewSource", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}

// Time and randomness are handed in: only package main and internal/system ask for them. A package
// that takes internal/system as its default keeps it in a field, and does not call it on the spot.
func TestTimeAndRandomnessAreHandedIn(t *testing.T) {
	looked := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "cmd/sluice" || name == "internal/system" || harness(name) {
			continue
		}
		for base, tree := range productTrees(t, p) {
			looked++
			for _, what := range asks(tree) {
				t.Errorf("%s uses %s: let its caller hand it in", path.Join(name, base), what)
			}
		}
	}
	if looked < 100 {
		t.Errorf("%d files were looked at", looked)
	}
}

// asks lists the names of ambient that a file uses, and its calls of internal/system on the spot.
func asks(tree *ast.File) (found []string) {
	imported := map[string]string{} // path, by the name in this file
	for _, i := range tree.Imports {
		from, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(strings.TrimSuffix(from, "/v2"))
		if i.Name != nil {
			name = i.Name.Name
		}
		imported[name] = from
		if _, is := ambient[from]; is && name == "." {
			found = append(found, "a dot import of "+from)
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch x := s.X.(type) {
		case *ast.Ident:
			from := imported[x.Name]
			names, is := ambient[from]
			if is && (slices.Contains(names, s.Sel.Name) || names == nil && !slices.Contains(seeded, s.Sel.Name)) {
				found = append(found, x.Name+"."+s.Sel.Name)
			}
		case *ast.CompositeLit:
			if of, ok := x.Type.(*ast.SelectorExpr); ok {
				pkg, ok := of.X.(*ast.Ident)
				if ok && imported[pkg.Name] == module+"internal/system" {
					found = append(found, fmt.Sprintf("%s.%s{}.%s", pkg.Name, of.Sel.Name, s.Sel.Name))
				}
			}
		}
		return true
	})
	return found
}

func TestWhatAFileAsksForIsFound(t *testing.T) {
	for text, want := range map[string]string{
		`import "time"; var a = time.Now()`:                                   "[time.Now]",
		`import "time"; var a = time.Now`:                                     "[time.Now]",
		`import t "time"; var a = t.Since(b)`:                                 "[t.Since]",
		`import "time"; var a = time.NewTimer(time.Second)`:                   "[]",
		`import "math/rand/v2"; var a = rand.N(5)`:                            "[rand.N]",
		`import "math/rand/v2"; var a = rand.New(rand.NewPCG(1, 2))`:          "[]",
		`import "crypto/rand"; var a = rand.Reader`:                           "[rand.Reader]",
		`import "github.com/google/uuid"; var a, b = uuid.NewV7()`:            "[uuid.NewV7]",
		`import "github.com/google/uuid"; var a, b = uuid.NewV7FromReader(c)`: "[]",
		`import "sluice/internal/system"; var a = system.Clock{}`:             "[]",
		`import "sluice/internal/system"; var a = system.Clock{}.Now()`:       "[system.Clock{}.Now]",
		`import "sluice/internal/system"; var a = c.Clock.Now()`:              "[]",
		`import . "time"; var a = Now()`:                                      "[a dot import of time]",
	} {
		tree, err := parser.ParseFile(token.NewFileSet(), "a.go", "package p; "+text, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(asks(tree)); got != want {
			t.Errorf("%s: found %s, want %s", text, got, want)
		}
	}
}
