package localblob

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"sluice/internal/durable"
	"sluice/internal/system"
)

// The places and the packs may each be on a disk of their own. An empty mount point looks like an
// empty folder. So each has a file that says to which content folder it belongs, and the content
// folder has the same file once both have it:
//
//	DIR/places/part   "sluice content, part of ID"
//	DIR/packs/part    the same
//	DIR/parts         the same, written last
//
// Folders of earlier programs get the files when they are opened.
const (
	partFile  = "part"
	partsFile = "parts"
	partLine  = "sluice content, part of %s\n"
)

// found is what there is of a content folder before it is opened.
type found struct {
	format   int
	state    state
	hasState bool   // the state was read from its file
	owner    string // the id in the folder's file parts; "": it has none
}

// inspect looks what there is, and refuses a folder that can't be opened. Nothing is changed. With
// rejoin, missing parts or a missing state are no reason to refuse.
func inspect(on durable.FS, dir string, rejoin bool) (was found, err error) {
	if was.format, err = readFormat(on, dir); err == nil && was.format == 0 {
		err = requireNoContent(on, dir, "format", formatRemedy())
	}
	if err != nil {
		return was, err
	}
	if was.state, was.hasState, err = readState(on, dir); err != nil && rejoin && errors.Is(err, errState) {
		was.state, was.hasState, err = state{}, false, nil
	}
	if err == nil && !was.hasState && !rejoin {
		err = requireNoContent(on, dir, "state", stateRemedy) // else one incarnation would begin twice
	}
	if err != nil {
		return was, err
	}
	if was.owner, err = readPart(on, filepath.Join(dir, partsFile)); err != nil || rejoin {
		return was, err
	}
	if !was.hasState { // a new folder
		return was, nil
	}
	for _, part := range []string{"places", "packs"} {
		if part == "packs" && was.format < 2 {
			continue
		}
		if err := was.checkPart(on, filepath.Join(dir, part)); err != nil {
			return was, err
		}
	}
	return was, nil
}

// checkPart gives an error unless this part is there, and belongs to the folder.
func (f found) checkPart(on durable.FS, path string) error {
	refuse := func(problem string) error {
		return fmt.Errorf("%s %s, and this content folder is not new. Is its disk mounted, and the right one? "+
			"Mount it and start again; "+
			"if it is lost for good, restore a backup, or let sluice check --repair --rejoin go on without it",
			path, problem)
	}
	names, err := on.List(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("is not there")
	case err != nil:
		return err
	}
	places := filepath.Base(path) == "places"
	held := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "lost+found" })
	if len(held) == 0 && (places || f.owner != "") { // all packs of an earlier program may have been deleted
		return refuse("is empty")
	}
	if f.owner == "" {
		return nil
	}
	if places {
		for i := range packFolder {
			if name := fmt.Sprintf("%02x", i); !slices.Contains(names, name) {
				return refuse("has no folder " + name)
			}
		}
	}
	switch owner, err := readPart(on, filepath.Join(path, partFile)); {
	case err != nil:
		return err
	case owner == "":
		return refuse("has no file " + partFile + " that says whose it is")
	case owner != f.owner:
		return refuse("is another content folder's, as its file " + partFile + " says")
	}
	return nil
}

// readPart gives the id of the folder that a part belongs to; "" if no file says so.
func readPart(on durable.FS, path string) (owner string, err error) {
	text, err := durable.ReadFile(on, path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if _, err := fmt.Sscanf(string(text), partLine, &owner); err != nil || owner == "" {
		return "", fmt.Errorf("%s is not one of sluice's: %.60q. Restore a backup; or put it back as it was: it "+
			"says the same as the files %s, places/%s and packs/%[4]s of its folder",
			path, text, partsFile, partFile)
	}
	return owner, nil
}

// makeParts makes the folders of the places and the packs, and the files that say to which folder
// they belong.
func (s *Store) makeParts(was found) error {
	if was.owner != "" && was.hasState && was.format == format && !s.opts.Rejoin {
		return nil // all are there, and were on the disk before the file parts
	}
	if err := s.makeFolders(); err != nil {
		return err
	}
	id, err := system.Text(s.opts.Rand)
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, partLine, id)
	for _, name := range []string{"places/" + partFile, "packs/" + partFile, partsFile} {
		if err := s.writeFile(name, text); err != nil {
			return err
		}
	}
	return nil
}

// noteParts remembers which folders the parts are.
func (s *Store) noteParts() error {
	for i, name := range []string{"places", "packs"} {
		info, err := s.fs.Stat(filepath.Join(s.dir, name))
		if errors.Is(err, fs.ErrNotExist) && s.opts.ReadOnly {
			continue // made by a program that had no packs, or lost for good
		}
		if err != nil {
			return err
		}
		s.parts[i] = info.ID
	}
	return nil
}

// InPlace gives an error unless the folders of the places and the packs are the ones that were
// there when the store was opened. Otherwise a disk is not mounted any more, or another is mounted
// over it.
func (s *Store) InPlace() error {
	for i, name := range []string{"places", "packs"} {
		if s.parts[i] == "" {
			continue
		}
		path := filepath.Join(s.dir, name)
		info, err := s.fs.Stat(path)
		if err != nil {
			return err
		}
		if info.ID != s.parts[i] {
			return fmt.Errorf("another folder has the name %s", path)
		}
	}
	return nil
}

// newestIncarnation gives the newest incarnation that a name in the folder has.
func (s *Store) newestIncarnation() (incarnation uint64, err error) {
	for i := range s.folders {
		names, err := s.fs.List(s.folder(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		for _, name := range names {
			p, ok := parse(name)
			if !ok {
				p, _ = parsePack(name)
			}
			incarnation = max(incarnation, p.incarnation)
		}
	}
	return incarnation, nil
}
