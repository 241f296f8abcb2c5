package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// marks stand around the section of a run in docs/benchmarks.md.
type marks struct{ from, to string }

var (
	peersMarks  = marks{"<!-- bench: from here to the end mark `make bench` writes -->", "<!-- bench: end -->"}
	growthMarks = marks{"<!-- growth: from here to the end mark `make growth` writes -->", "<!-- growth: end -->"}
)

// write puts the section between its marks in docs/benchmarks.md. All other text stays as it is.
// Without marks the section goes to the end.
func (m marks) write(docs, section string) error {
	path := filepath.Join(docs, "benchmarks.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := m.between(string(old), section)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (m marks) between(old, section string) (string, error) {
	section = m.from + "\n\n" + strings.TrimSpace(section) + "\n\n" + m.to
	before, rest, found := strings.Cut(old, m.from)
	if !found {
		return strings.TrimLeft(strings.TrimRight(old, "\n")+"\n\n"+section+"\n", "\n"), nil
	}
	_, after, found := strings.Cut(rest, m.to)
	if !found {
		return "", fmt.Errorf("the mark %q has no %q after it: put it back", m.from, m.to)
	}
	return before + section + after, nil
}
