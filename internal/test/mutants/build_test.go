package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Each planted bug builds. One that does not would be caught by the compiler alone.
func TestThePlantedBugsBuild(t *testing.T) {
	if withRace {
		t.Skip("it only compiles: go test ./internal/test/mutants")
	}
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table() {
		text, err := m.planted(root)
		if err != nil {
			continue // TestTheTableFits reports it
		}
		if err := c.check(m.file, text); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	if err := c.check("session/ranges.go", []byte("package session\n\nfunc f() { x := 1 }\n")); err == nil {
		t.Error("an unused variable was not noticed")
	}
}

// checker checks the types of packages of this module, with one of their files replaced.
type checker struct {
	fset     *token.FileSet
	packages map[string]listed // by folder, relative to the module
	config   types.Config
	parsed   map[string]*ast.File // by path
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func newChecker() (*checker, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	c := &checker{fset: token.NewFileSet(), packages: map[string]listed{}, parsed: map[string]*ast.File{}}
	exports := map[string]string{}
	base, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if rel, err := filepath.Rel(base, p.Dir); err == nil {
			c.packages[rel] = p
		}
	}
	c.config.Importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	return c, nil
}

// check checks the package of a file, with this text in the file's place.
func (c *checker) check(file string, text []byte) error {
	p, ok := c.packages[filepath.Dir(file)]
	if !ok {
		return fmt.Errorf("%s is in no package", file)
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		if name == filepath.Base(file) {
			f, err := parser.ParseFile(c.fset, file, text, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			files = append(files, f)
			continue
		}
		path := filepath.Join(p.Dir, name)
		if c.parsed[path] == nil {
			f, err := parser.ParseFile(c.fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			c.parsed[path] = f
		}
		files = append(files, c.parsed[path])
	}
	_, err := c.config.Check(p.ImportPath, c.fset, files, nil)
	return err
}
