// Package arch holds the repository's rules of structure, as tests: which package may import which,
// what the session engine may know, how long a file may get, and that each package says what it
// owns. It has no code of its own.
package arch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/test/leak"
)

// arrows says which packages of this module a package may import. The tests of a package may import
// more (its conformance suites). A package without a row fails: add it to the ownership table of
// the README first.
var arrows = map[string][]string{
	"session":                 {"internal/system"},
	"session/sessiontest":     {"session"},
	"session/journal":         {"session", "internal/durable"},
	"metadata":                {"session", "catalog"},
	"metadata/metadatatest":   {"metadata", "session", "session/sessiontest", "catalog", "catalog/catalogtest"},
	"catalog":                 {"session"},
	"catalog/catalogtest":     {"catalog"},
	"blob":                    {"session", "catalog"},
	"blob/blobtest":           {"blob", "session", "catalog"},
	"audit":                   {},
	"access":                  {"catalog", "internal/system"},
	"access/oidc":             {"access", "catalog"},
	"upload":                  {"blob", "session", "catalog", "metadata", "access", "internal/panics", "internal/system"},
	"memories":                {"blob", "catalog", "access", "internal/system"},
	"keeper":                  {"audit", "blob", "session", "catalog", "upload", "internal/panics"},
	"backup":                  {"blob", "session", "catalog", "upload", "internal/durable", "internal/system"},
	"store/localblob":         {"blob", "session", "catalog", "internal/direct", "internal/durable", "internal/system"},
	"store/folder":            {"internal/durable", "internal/system"},
	"store/pebblemeta":        {"metadata", "session", "catalog", "internal/durable", "internal/pebblelog"},
	"api":                     {"audit", "blob", "session", "catalog", "access", "upload", "memories", "internal/httpwire", "internal/system"},
	"signin":                  {"access/oidc", "internal/durable"},
	"sender":                  {"api", "internal/backoff", "internal/concurrency", "internal/system"},
	"download":                {"session", "session/journal", "internal/backoff", "internal/durable", "internal/concurrency", "internal/system"},
	"internal/budget":         {},
	"internal/system":         {},
	"internal/direct":         {"internal/durable"},
	"internal/durable":        {},
	"internal/httpwire":       {},
	"internal/backoff":        {},
	"internal/test/crashfs":   {"internal/durable"},
	"internal/test/attack":    {}, // tests alone, which may name concrete stores
	"internal/test/crashtest": {}, // tests alone, which may name concrete stores
	"internal/concurrency":    {},
	"internal/panics":         {},
	"internal/pebblelog":      {},
	"internal/test/issuer":    {},
	"internal/test/load":      {"api"},
	"internal/test/soak":      {},
	"internal/test/world":     nil, // wires everything, as cmd/sluice does
	"internal/test/realdisk":  {},
	"internal/test/linear":    {}, // tests alone, which may name concrete stores
	"internal/test/mutants":   {},
	"internal/test/leak":      {},
	"internal/arch":           {},
	"cmd/sluice":              nil, // wires everything
}

// standardOnly may import nothing but the standard library and this module.
var standardOnly = []string{"session", "session/journal", "download"}

// wires lists the packages that may name concrete stores, and import everything.
var wires = []string{"cmd/sluice", "internal/test/world"}

// concrete lists the stores that only the packages of wires may name.
var concrete = []string{"store/folder", "store/localblob", "store/pebblemeta"}

const module = "sluice/"

type pkg struct {
	ImportPath, Dir, Doc                        string
	GoFiles, TestGoFiles, XTestGoFiles, Imports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArrowsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := arrows[name]
		if !known {
			t.Errorf("%s has no row in the table of arrows", name)
			continue
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, module)
			if ours && allowed != nil && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s, and may import only %v", name, to, allowed)
			}
			if ours && harness(to) && !harness(name) {
				t.Errorf("%s imports %s, which is for tests", name, to)
			}
			if ours && slices.Contains(concrete, to) && !slices.Contains(wires, name) {
				t.Errorf("%s names the concrete store %s, and does not wire", name, to)
			}
			if !ours && slices.Contains(standardOnly, name) && strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				t.Errorf("%s imports %s, and may import only the standard library", name, i)
			}
		}
	}
}

// harness reports whether a package is for tests alone: a conformance suite, or one of
// internal/test.
func harness(name string) bool {
	return strings.HasSuffix(name, "test") || strings.HasPrefix(name, "internal/test/")
}

// The engine must stay generic: none of these words may be part of one of its names.
func TestSessionKnowsNothingOfUploads(t *testing.T) {
	banned := []string{
		"upload", "mime", "hash", "sha256", "digest", "http", "file", "memory", "capsule", "asset", "catalog", "blob",
	}
	files, err := filepath.Glob(filepath.Join(root(t), "session", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, f := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok || strings.HasSuffix(f, "_test.go") {
				return true
			}
			for _, word := range banned {
				if strings.Contains(strings.ToLower(id.Name), word) {
					t.Errorf(
						"%s: the name %s is about something that the engine does not know", filepath.Base(f), id.Name,
					)
				}
			}
			return true
		})
	}
}

func TestEachPackageSaysWhatItOwns(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && len(p.Doc) < 20 {
			t.Errorf("%s: the package comment says too little: %q", p.ImportPath, p.Doc)
		}
	}
}

// columns gives the width of a line if tabs stop at every fourth column.
func columns(line string) (n int) {
	for _, r := range line {
		if r == '\t' {
			n += 3 - n%4
		}
		n++
	}
	return n
}

// goFiles lists all Go files of the repository.
func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	apart := []string{"bin", "sluice-data"}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 1
		switch {
		case err != nil:
			return err
		case d.IsDir() && (hidden || slices.Contains(apart, d.Name())):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go"):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A file has a bounded length, tests excepted, and a comment line has a bounded width.
func TestFilesStayReadable(t *testing.T) {
	const most, widest = 400, 100
	for _, path := range goFiles(t) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for sc := bufio.NewScanner(f); sc.Scan(); lines++ {
			if n := columns(sc.Text()); n > widest && strings.HasPrefix(strings.TrimSpace(sc.Text()), "//") {
				t.Errorf("%s:%d: a comment of %d columns, and %d are the most", path, lines+1, n, widest)
			}
			for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
				if strings.Contains(sc.Text(), mark) {
					t.Errorf("%s:%d is left to do", path, lines+1)
				}
			}
		}
		f.Close()
		if lines > most && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s has %d lines: split it along its topics", path, lines)
		}
	}
}

// bigInterfaces lists the interfaces that may have more methods: that of an open file.
var bigInterfaces = []string{"internal/durable.File"}

// An interface has at most eight methods, with those of the interfaces of its package that it
// embeds.
func TestInterfacesStaySmall(t *testing.T) {
	const most = 8
	found := 0
	for _, p := range packages(t) {
		trees := productTrees(t, p)
		interfaces := map[string]*ast.InterfaceType{}
		for _, tree := range trees {
			ast.Inspect(tree, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok {
					if i, ok := spec.Type.(*ast.InterfaceType); ok {
						interfaces[spec.Name.Name] = i
					}
				}
				return true
			})
		}
		for name, i := range interfaces {
			full := strings.TrimPrefix(p.ImportPath, module) + "." + name
			n := methods(i, interfaces)
			if found++; n > most && !slices.Contains(bigInterfaces, full) {
				t.Errorf(
					"%s has %d methods, and %d are the most: split it, or take the one type that has them", full, n,
					most,
				)
			}
		}
	}
	if found == 0 {
		t.Error("no interfaces were found")
	}
}

// methods counts the methods of an interface, with those of the interfaces of its package that it
// embeds. An interface of another package counts as one.
func methods(i *ast.InterfaceType, others map[string]*ast.InterfaceType) (n int) {
	for _, m := range i.Methods.List {
		embedded, ours := m.Type.(*ast.Ident)
		switch {
		case len(m.Names) > 0:
			n += len(m.Names)
		case ours && others[embedded.Name] != nil:
			n += methods(others[embedded.Name], others)
		default:
			n++
		}
	}
	return n
}

// productTrees parses the files of a package, except its tests.
func productTrees(t *testing.T, p pkg) map[string]*ast.File {
	t.Helper()
	trees := map[string]*ast.File{}
	for _, name := range p.GoFiles {
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		trees[name] = tree
	}
	return trees
}

// held lists the packages whose tests leave goroutines behind on purpose: those of a server that
// died in the middle of something.
var held = []string{"internal/test/crashtest"}

func TestNoTestsLeaveAnythingBehind(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		var text []byte
		for _, f := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, b...)
		}
		if len(text) > 0 && !slices.Contains(held, name) && !bytes.Contains(text, []byte("leak.Check(m)")) &&
			name != "internal/test/leak" {
			t.Errorf("%s: its tests have no TestMain with leak.Check", name)
		}
	}
}

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// A new dependency comes with a line that says what it is for.
func TestEachDependencyHasItsReason(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	reasons := read("docs/dependencies.md")
	for line := range strings.Lines(read("go.mod")) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " v")
		if strings.Contains(line, "// indirect") || !strings.Contains(name, ".") || strings.Contains(name, " ") {
			continue
		}
		short := strings.TrimPrefix(name, "golang.org/")
		if !strings.Contains(reasons, name) && !strings.Contains(reasons, short) {
			t.Errorf("%s has no line in docs/dependencies.md", name)
		}
	}
}
