package folder

import (
	"errors"
	"fmt"

	"sluice/internal/durable"
	"sluice/internal/system"
)

// identify makes sure that the halves belong to this folder. It gives ids to a folder that holds
// nothing.
func (f *Folder) identify(existing bool) error {
	if err := f.resumeReplace(); err != nil {
		return err
	}
	root, named, err := readMark(f.FS, f.markPath())
	if err != nil {
		return err
	}
	meta, err := f.inspect(&f.Meta)
	if err != nil {
		return err
	}
	content, err := f.inspect(&f.Content)
	if err != nil {
		return err
	}
	f.id, f.meta = root.Folder, meta.mark
	switch {
	case f.rejoin:
		return f.acceptHalves(meta, content)
	case named && root.State == "":
		return errors.Join(f.Meta.checkBelongs(f, meta, content), f.Content.checkBelongs(f, content, meta))
	case named && root.State == isNew && existing:
		return fmt.Errorf("%s is no data folder of sluice yet: the first sluice serve was stopped while it made "+
			"it; start it again", f.Path)
	case named && root.State == isNew:
		return f.create(meta, content)
	case named: // joining
		f.joining = true
		return errors.Join(f.Meta.checkJoins(f, meta, content), f.Content.checkJoins(f, content, meta))
	case meta.marked && content.marked && meta.mark.Folder == content.mark.Folder: // both halves were moved together
		f.id = meta.mark.Folder
		if err := errors.Join(f.Meta.checkBelongs(f, meta, content),
			f.Content.checkBelongs(f, content, meta)); err != nil {
			return err
		}
		return f.writeMark("")
	case meta.marked && content.marked:
		return fmt.Errorf("%s and %s are halves of two data folders (%s and %s), and %s, which says which one this "+
			"is, is gone. Nothing was touched. "+
			"Put back the half, or the file, that was there; what belongs together beyond doubt sluice check "+
			"--repair --rejoin takes so",
			f.Meta.Path, f.Content.Path, meta.mark.Folder, content.mark.Folder, f.markPath())
	case meta.marked || content.marked: // the other half is missing, empty or unknown
		if f.id = meta.mark.Folder; !meta.marked {
			f.id = content.mark.Folder
		}
		return errors.Join(f.Meta.checkBelongs(f, meta, content), f.Content.checkBelongs(f, content, meta))
	case meta.empty && content.empty:
		return f.createNew(existing, meta, content)
	}
	if err := f.drawID(); err != nil {
		return err
	}
	f.joining = true
	return errors.Join(f.Meta.checkJoins(f, meta, content), f.Content.checkJoins(f, content, meta))
}

// drawID gives the folder a new id.
func (f *Folder) drawID() (err error) {
	f.id, err = system.Text(f.random)
	return err
}

// createNew begins a folder. It refuses if another file says that the folder was used: then the
// disk of neither half is mounted.
func (f *Folder) createNew(existing bool, meta, content state) error {
	for _, of := range []string{"admin-token", "id"} {
		if _, err := f.FS.Stat(f.Path + "/" + of); err == nil {
			return fmt.Errorf("%s and %s are empty, but this data folder has been used: there is %s. Are their "+
				"disks mounted? "+
				"Nothing was touched. Mount them and start again; for a new data folder give another, or remove "+
				"%[3]s too", f.Meta.Path, f.Content.Path, f.Path+"/"+of)
		}
	}
	if existing {
		return fmt.Errorf("%s is no data folder of sluice: its meta and content are empty, or not there (see --data)",
			f.Path)
	}
	if err := f.drawID(); err != nil {
		return err
	}
	if err := f.writeMark(isNew); err != nil {
		return err
	}
	return f.create(meta, content)
}

// create gives both halves their ids. Either half was made by nobody, or by a start that was
// stopped before this step.
func (f *Folder) create(meta, content state) error {
	for _, of := range []struct {
		h *Half
		state
	}{{&f.Meta, meta}, {&f.Content, content}} {
		if !of.empty && !of.marked {
			return of.h.refuse("holds %s, and is no half of a data folder that is being made",
				"Give an empty folder with --data.", of.firstName)
		}
		if of.marked && (of.mark.Folder != f.id || of.mark.Part != of.h.part) {
			return of.h.checkBelongs(f, of.state, of.state)
		}
		if err := f.makeHalf(of.h, of.exists); err != nil {
			return err
		}
		var err error
		if of.marked {
			err = durable.SyncDir(of.h.FS, of.h.Path) // the mark that was read may not be on the disk
		} else {
			err = writeMark(of.h.FS, of.h.markPath(), mark{Folder: f.id, Part: of.h.part})
		}
		if err != nil {
			return err
		}
	}
	f.meta = mark{Folder: f.id, Part: f.Meta.part}
	return f.writeMark("")
}

// makeHalf makes and opens a half if it is not there. It syncs the entry in any case: the entry of
// a half that is there may not be on the disk.
func (f *Folder) makeHalf(h *Half, there bool) error {
	if !there {
		if err := f.FS.Mkdir(h.Path, 0o700); err != nil {
			return err
		}
		if err := f.openHalf(h); err != nil {
			return err
		}
	}
	return durable.SyncDir(f.FS, f.Path)
}

func (f *Folder) writeMark(state string) error {
	if f.readOnly {
		return nil
	}
	return writeMark(f.FS, f.markPath(), mark{Folder: f.id, Part: whole, State: state})
}

// The remedies for a half that is not there, or not the right one.
const (
	mountRemedy = "Is its disk mounted, and the right one? Mount it and start again"
	lostRemedy  = mountRemedy + "; if it is lost for good, restore a backup, or let sluice check --repair --rejoin " +
		"go on without it"
)

func (h *Half) refuse(problem, remedy string, args ...any) error {
	return fmt.Errorf("%s "+problem+". Nothing was touched. %s", append(append([]any{h.Path}, args...), remedy)...)
}

// remedy says what can be done if a half is gone. The content may be given up, the records of it
// may not.
func (h *Half) remedy() string {
	if h.part == "content" {
		return lostRemedy
	}
	return mountRemedy + "; if it is lost for good, restore a backup into another folder"
}

// checkBelongs gives an error unless the half is this folder's.
func (h *Half) checkBelongs(f *Folder, s, other state) error {
	switch {
	case s.marked && s.mark.Folder == f.id && s.mark.Part == h.part:
		return nil
	case !s.exists:
		return h.refuse("is not there", h.remedy())
	case s.empty:
		return h.refuse("is empty, and this data folder is not new", h.remedy())
	case !s.marked:
		return h.refuse("has no file %s that says which data folder it is of: it is not the one that this data "+
			"folder had", h.remedy()+". What belongs together beyond doubt sluice check --repair --rejoin takes so",
			h.file)
	case s.mark.Folder == f.id:
		return h.refuse("holds the other half of this data folder (%s): are meta and content exchanged?",
			"Put them where they belong and start again.", s.mark.Part)
	}
	return h.refuse("belongs to another data folder (%s, and this one is %s)", h.remedy(), s.mark.Folder, f.id)
}

// checkJoins gives an error unless the half may get this folder's id: it has that id already, or it
// has none and holds something.
func (h *Half) checkJoins(f *Folder, s, other state) error {
	switch {
	case s.marked:
		return h.checkBelongs(f, s, other)
	case !s.exists:
		return h.refuse("is not there, and the other half of the data folder is", h.remedy())
	case s.empty:
		return h.refuse("is empty, and the other half of the data folder is not", h.remedy())
	case !s.used:
		return h.refuse("is no half of a data folder: it holds %s, but no file %s that says what format it is",
			h.remedy(), s.firstName, h.format)
	}
	return nil
}

// acceptHalves takes the halves as they are. Begin writes their marks.
func (f *Folder) acceptHalves(meta, content state) error {
	if !meta.used {
		return f.Meta.refuse("has no metadata of sluice: there is nothing that content could be joined to",
			mountRemedy+".")
	}
	if meta.marked && meta.mark.Part != f.Meta.part || content.marked && content.mark.Part != f.Content.part {
		return fmt.Errorf("%s and %s are exchanged: put them where they belong", f.Meta.Path, f.Content.Path)
	}
	if !content.used && !content.empty && !content.marked {
		return f.Content.checkJoins(f, content, meta)
	}
	if err := f.drawID(); err != nil {
		return err
	}
	f.joining = true
	return f.makeHalf(&f.Content, content.exists)
}
