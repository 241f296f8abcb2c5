package main

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"sluice/download"
)

// names gives each memory of a folder its own file. Two memories whose names become one name here
// get different files. It is not safe for concurrent use.
type names struct {
	root  string
	folds func() bool     // whether the target's file system ignores case, or the form of Unicode, in names
	exact map[string]bool // path and name of the memories
	taken map[string]bool // files, as the file system compares them
}

func newNames(root string) *names {
	n := &names{root: root, exact: map[string]bool{}, taken: map[string]bool{}}
	n.folds = sync.OnceValue(func() bool { return folds(root) })
	return n
}

// file gives the file of a memory. older: a newer memory has the same path and name. renamed: its
// own name is taken by another memory.
func (n *names) file(dir, name string) (file string, older, renamed bool) {
	key := dir + "\x00" + name
	if n.exact[key] {
		return filepath.Join(n.root, safePath(dir), safeName(name)), true, false
	}
	n.exact[key] = true
	into, base := filepath.Join(n.root, safePath(dir)), safeName(name)
	for i := 1; ; i++ {
		file = filepath.Join(into, numbered(base, i))
		if n.claim(file) {
			return file, false, i > 1
		}
	}
}

// claim takes a file's name. It gives false if another memory has the name, or if get keeps
// something beside another file under it.
func (n *names) claim(file string) bool {
	if n.folds() {
		file = cases.Fold().String(norm.NFC.String(file))
	}
	if n.taken[file] {
		return false
	}
	for _, suffix := range download.Suffixes() {
		if bare, is := strings.CutSuffix(file, suffix); n.taken[file+suffix] || is && n.taken[bare] {
			return false
		}
	}
	n.taken[file] = true
	return true
}

// longestName is how many bytes a file's name may have.
const longestName = 255

// numbered puts a number before a name's ending: a~2.txt.
func numbered(name string, i int) string {
	if i == 1 {
		return name
	}
	ext, mark := filepath.Ext(name), "~"+strconv.Itoa(i)
	if len(ext) == len(name) || len(ext) > 20 {
		ext = ""
	}
	stem := strings.TrimSuffix(name, ext)
	for len(stem)+len(mark)+len(ext) > longestName {
		_, n := utf8.DecodeLastRuneInString(stem)
		stem = stem[:len(stem)-n]
	}
	return stem + mark + ext
}

// folds tries whether one file of a folder has two names that differ in case, or in the form of
// Unicode. If it can't try, it reports true: that costs a number in a name.
func folds(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
	}
	f, err := os.CreateTemp(dir, ".sluice-\u00e9-a")
	if err != nil {
		return true
	}
	defer os.Remove(f.Name())
	defer f.Close()
	base := filepath.Base(f.Name())
	for _, other := range []string{strings.ToUpper(base), norm.NFD.String(base)} {
		if _, err := os.Lstat(filepath.Join(dir, other)); err == nil {
			return true
		}
	}
	return false
}

// safeName makes the name of a file in one folder of any memory's name.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
	if name == "" || name == "." || name == ".." {
		return strings.Repeat("_", max(len(name), 1))
	}
	return name
}

// safePath makes a path below a folder of any memory's path.
func safePath(p string) string {
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" {
			parts = append(parts, safeName(part))
		}
	}
	return filepath.FromSlash(path.Join(parts...))
}
