package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// record holds the mutants that were caught, by name. Its file has a line of JSON for each.
type record struct {
	root   string
	keys   map[string]string             // of every mutant, see [keysOf]
	caught map[string]map[string]verdict // by name, then by test
	file   *os.File                      // nil: kept in memory alone
}

// result is a line of the file.
type result struct {
	Name  string
	Key   string
	Found map[string]verdict
}

// openRecord reads the results in a file that still hold. It makes the file if it is missing.
func openRecord(ctx context.Context, root, name string, all []mutant) (*record, error) {
	r := &record{root: root, caught: map[string]map[string]verdict{}}
	if name == "" {
		return r, nil
	}
	var err error
	if r.keys, err = keysOf(ctx, root, all); err != nil {
		return nil, err
	}
	if r.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666); err != nil {
		return nil, err
	}
	for d := json.NewDecoder(r.file); ; {
		var one result
		if err := d.Decode(&one); err == io.EOF {
			return r, nil
		} else if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), r.file.Close())
		}
		if r.keys[one.Name] == one.Key {
			r.caught[one.Name] = one.Found
		}
	}
}

// add notes the verdicts on a mutant, if all tests caught it.
func (r *record) add(ctx context.Context, m mutant, found map[string]verdict) error {
	if slices.ContainsFunc(m.tests, func(t string) bool { return found[t] != failed && found[t] != ended }) {
		return nil
	}
	if r.file == nil {
		r.caught[m.name] = found
		return nil
	}
	now, err := keysOf(ctx, r.root, []mutant{m})
	if err != nil {
		return err
	}
	if now[m.name] != r.keys[m.name] {
		return errors.New("the code was changed meanwhile: run it again")
	}
	line, err := json.Marshal(result{m.name, r.keys[m.name], found})
	if err != nil {
		return err
	}
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		return err
	}
	r.caught[m.name] = found
	return nil
}

func (r *record) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// keysOf gives for each mutant a hash of its row and of all code that its tests are built from: the
// files of their package, those that any package of the module gives to its build, and the versions
// of the other modules.
func keysOf(ctx context.Context, root string, all []mutant) (map[string]string, error) {
	keys, code := map[string]string{}, map[string]string{}
	for _, m := range all {
		h := sha256.New()
		fmt.Fprintf(h, "%s\n%q %q %q %q\n", runtime.Version(), m.file, m.old, m.new, m.tests)
		for _, t := range m.tests {
			pkg, _ := split(t)
			if code[pkg] == "" {
				var err error
				if code[pkg], err = codeOf(ctx, root, pkg); err != nil {
					return nil, err
				}
			}
			io.WriteString(h, code[pkg])
		}
		keys[m.name] = hex.EncodeToString(h.Sum(nil))
	}
	return keys, nil
}

// codeOf hashes the files that the tests of a package are built from.
func codeOf(ctx context.Context, root, pkg string) (string, error) {
	pkgs, err := depsOf(ctx, root, "./"+pkg)
	if err != nil {
		return "", err
	}
	if slices.Contains(pkgs, "internal/test/load") { // it builds the program
		program, err := depsOf(ctx, root, "./cmd/sluice")
		if err != nil {
			return "", err
		}
		pkgs = append(pkgs, program...)
	}
	files := []string{"go.mod", "go.sum"}
	slices.Sort(pkgs)
	for _, p := range slices.Compact(pkgs) {
		entries, err := os.ReadDir(filepath.Join(root, p))
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if !e.IsDir() && (p == pkg || !strings.HasSuffix(e.Name(), "_test.go")) {
				files = append(files, filepath.Join(p, e.Name()))
			}
		}
	}
	err = fs.WalkDir(os.DirFS(root), pkg+"/testdata", func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || e != nil && e.IsDir() {
			return nil
		}
		files = append(files, p)
		return err
	})
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(text))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// depsOf gives the folders of this module's packages that the tests of a package need, relative to
// the module.
func depsOf(ctx context.Context, root, pkg string) ([]string, error) {
	cmd := exec.CommandContext(
		ctx, "go", "list", "-deps", "-test", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", pkg,
	)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pkg, err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	var pkgs []string
	for _, dir := range strings.Fields(string(out)) {
		rel, err := filepath.Rel(abs, dir)
		if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, filepath.ToSlash(rel))
	}
	return pkgs, nil
}

// untried is the heading on the page above the mutants without a result.
const untried = "## Without a result"

// document gives the table for people.
func document(all []mutant, caught map[string]map[string]verdict) []byte {
	const head = "| promise | planted bug | in | found by |\n| --- | --- | --- | --- |\n"
	var found, left bytes.Buffer
	found.WriteString("# Planted bugs\n\n" +
		"Each of these bugs was put into the code for one build, and every test that is named beside it\n" +
		"failed, or its process ended while it ran (*ended*). `make mutants` does it again and writes this page;\n" +
		"`go run ./internal/test/mutants NAME` tries those whose names contain NAME. How, and why so:\n" +
		"[adr/0007](adr/0007-planted-bugs-by-overlay.md). The promises are those of [promises.md](promises.md).\n\n" +
		head)
	left.WriteString("\n" + untried + "\n\n" +
		"These are planted too, but have not been tried since their code was changed, or a test did not find " +
		"them.\n\n" + head)
	for _, m := range all {
		b, said := &found, caught[m.name]
		if said == nil {
			b = &left
		}
		var tests []string
		for _, t := range m.tests {
			pkg, test := split(t)
			one := pkg + " `" + test + "`"
			if said[t] == ended {
				one += " (ended)"
			}
			tests = append(tests, one)
		}
		fmt.Fprintf(b, "| %d | %s | `%s` | %s |\n", m.promise, m.title(), m.file, strings.Join(tests, "; "))
	}
	if len(caught) < len(all) {
		found.Write(left.Bytes())
	}
	return found.Bytes()
}

// title is the name as people read it.
func (m mutant) title() string { return strings.ReplaceAll(m.name, "-", " ") }

// onPage gives the titles of the mutants that the page has a result of.
func onPage(root string) (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		return nil, err
	}
	titles := map[string]bool{}
	found, _, _ := strings.Cut(string(text), untried)
	for line := range strings.Lines(found) {
		if cells := strings.Split(line, " | "); len(cells) == 4 {
			titles[cells[1]] = true
		}
	}
	return titles, nil
}
