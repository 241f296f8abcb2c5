package folder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"sluice/internal/durable"
)

// markFormat is the version of the marks.
const markFormat = 1

// mark is the file that identifies the folder, or a half.
type mark struct {
	Format int    `json:"format"`
	Folder string `json:"folder"`
	Part   string `json:"part"`
	State  string `json:"state,omitempty"`
	// Replaced is, while metadata are being replaced, the name that the old metadata are to have.
	Replaced string `json:"replaced,omitempty"`
	// Members of the metadata's mark:
	Incarnation uint64      `json:"life,omitempty"` // the newest that has begun
	Next        uint64      `json:"next,omitempty"` // the one that is about to
	Open        bool        `json:"open,omitempty"`
	Unknown     [][2]uint64 `json:"unknown,omitempty"` // from, to
}

const (
	whole   = "whole"
	isNew   = "new"
	joining = "joining"
)

// errMark: a mark can't be understood.
var errMark = errors.New("is damaged, or not one of sluice's")

// The remedies for such a mark. The mark of the folder follows from those of its halves.
const (
	wholeRemedy = "Remove it, and the next start writes it again, from the marks of meta and content; or restore a " +
		"backup"
	halfRemedy = "Restore a backup; or remove it, and let sluice check --repair --rejoin take the halves for one " +
		"folder"
)

// withRemedy adds what can be done if a mark can't be understood.
func withRemedy(err error, remedy string) error {
	if errors.Is(err, errMark) {
		return fmt.Errorf("%w. Nothing was touched. %s", err, remedy)
	}
	return err
}

var validID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// readMark gives the mark in a file; ok is false if there is none.
func readMark(on durable.FS, path string) (m mark, ok bool, err error) {
	text, err := durable.ReadFile(on, path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(text, &m); err == nil && m.Format > markFormat {
		return m, false, fmt.Errorf("%s has format %d, and this program knows formats up to %d: use a newer sluice",
			path, m.Format, markFormat)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	m = mark{}
	if err := d.Decode(&m); err != nil || m.Format < 1 || !validID.MatchString(m.Folder) {
		return m, false, fmt.Errorf("%s %w: %.80q", path, errMark, text)
	}
	return m, true, nil
}

func writeMark(on durable.FS, path string, m mark) error {
	m.Format = markFormat
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(on, path, append(text, '\n'), 0o600)
}

func (f *Folder) markPath() string { return filepath.Join(f.Path, "folder") }

func (h *Half) markPath() string { return filepath.Join(h.Path, h.file) }

// state is what was found of a half.
type state struct {
	exists    bool   // there is such a folder
	empty     bool   // nothing is in it, or it is not there
	used      bool   // a store has made something in it
	firstName string // a file that is in it
	mark      mark
	marked    bool
}

// inspect opens a half and gives what it finds there.
func (f *Folder) inspect(h *Half) (s state, err error) {
	names, err := f.FS.List(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{empty: true}, nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return s, h.refuse("is a file, and no folder", h.remedy())
	}
	if err != nil {
		return s, err
	}
	s.exists = true
	if err := f.openHalf(h); err != nil {
		return s, err
	}
	// a mark of the other half shows that both are exchanged
	for _, file := range []string{h.file, f.Meta.file, f.Content.file} {
		if s.mark, s.marked, err = readMark(h.FS, filepath.Join(h.Path, file)); err != nil || s.marked {
			break
		}
	}
	if err != nil {
		return s, withRemedy(err, halfRemedy)
	}
	s.used = slices.Contains(names, h.format)
	names = slices.DeleteFunc(names, leftover)
	if s.empty = len(names) == 0; !s.empty {
		s.firstName = names[0]
	}
	return s, nil
}

// openHalf opens a half, which is there.
func (f *Folder) openHalf(h *Half) (err error) {
	if h.FS, err = f.keepOpen(f.FS, h.Path); err == nil {
		h.HeldPath = heldPathOf(h.FS, h.Path)
	}
	return err
}
