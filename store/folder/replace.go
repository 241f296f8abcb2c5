package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"sluice/internal/durable"
)

// The metadata is replaced in steps, each of which is on the disk before the next:
//
//	DIR/meta.salvaged is filled, and gets the mark of the metadata as its last file
//	DIR/folder gets "state":"replacing" and the name that the old metadata is to have
//	DIR/meta gets that name
//	DIR/meta.salvaged becomes DIR/meta
//	DIR/folder loses its state
//
// Before the second step is done, the old metadata are the valid ones, and after it the new. The
// next opening of the folder resumes the steps.
const (
	salvaged  = "meta.salvaged"
	replacing = "replacing"
)

// BeginReplace makes an empty folder for new metadata, which take the place of the present ones by
// Replace.
func (f *Folder) BeginReplace() (h Half, err error) {
	h = f.Meta
	h.Path = filepath.Join(f.Path, salvaged)
	if err := durable.RemoveAll(f.FS, h.Path); err != nil {
		return h, fmt.Errorf("removing what a former run has left: %w", err)
	}
	if err := durable.Mkdir(f.FS, h.Path, 0o700); err != nil {
		return h, err
	}
	if h.FS, err = f.keepOpen(f.FS, h.Path); err == nil {
		h.HeldPath = heldPathOf(h.FS, h.Path)
	}
	return h, err
}

// Replace puts new metadata, closed and in the folder that BeginReplace gave, in the place of the
// old ones. It keeps the old ones under the name that it returns. last is the newest state of the
// content: content that was made until now is no garbage for having no row. The folder is to be
// closed then.
func (f *Folder) Replace(next Half, last ContentState, now time.Time) (kept string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.joining {
		m := f.meta
		m.Folder, m.Part = f.id, f.Meta.part
		if err := f.join(m); err != nil {
			return "", err
		}
	}
	name := "meta.damaged-" + now.UTC().Format("20060102T150405Z")
	for n := 2; ; n++ {
		if _, err := f.FS.Stat(filepath.Join(f.Path, name)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		name = fmt.Sprintf("meta.damaged-%s-%d", now.UTC().Format("20060102T150405Z"), n)
	}
	incarnation := max(last.Incarnation, f.meta.Incarnation, f.meta.Next)
	m := mark{Folder: f.id, Part: f.Meta.part, Incarnation: last.Incarnation, Unknown: [][2]uint64{{0, incarnation}}}
	if err := writeMark(next.FS, filepath.Join(next.Path, f.Meta.file), m); err != nil {
		return "", err
	}
	if err := durable.SyncDir(f.FS, f.Path); err != nil {
		return "", err
	}
	root := mark{Folder: f.id, Part: whole, State: replacing, Replaced: name}
	if err := writeMark(f.FS, f.markPath(), root); err != nil {
		return "", err
	}
	return filepath.Join(f.Path, name), f.replace(root)
}

// replace resumes a replacement at the step that it had got to.
func (f *Folder) replace(root mark) error {
	meta, next, kept := f.Meta.Path, filepath.Join(f.Path, salvaged), filepath.Join(f.Path, root.Replaced)
	there, err := f.exists(next)
	if err != nil {
		return err
	}
	if there {
		old, err := f.exists(kept)
		if err != nil {
			return err
		}
		if !old {
			if err := f.FS.Rename(meta, kept); err != nil {
				// A mount point can't be renamed: nothing has changed, and nothing will.
				err = fmt.Errorf("%s can't be renamed, so the new metadata can't take its place: %w", meta, err)
				return errors.Join(err, f.writeMark(""))
			}
			if err := durable.SyncDir(f.FS, f.Path); err != nil {
				return err
			}
		}
		if err := f.FS.Rename(next, meta); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(f.FS, f.Path); err != nil {
		return err
	}
	return f.writeMark("")
}

func (f *Folder) exists(path string) (bool, error) {
	_, err := f.FS.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// resumeReplace ends a replacement of the metadata that was stopped.
func (f *Folder) resumeReplace() error {
	root, _, err := readMark(f.FS, f.markPath())
	if err != nil || root.State != replacing {
		return withRemedy(err, wholeRemedy)
	}
	if f.readOnly {
		return fmt.Errorf("%s: sluice check --repair was stopped while it put new metadata in place; run it again, "+
			"or start the server, and either goes on", f.Path)
	}
	if name := root.Replaced; name == "" || name != filepath.Base(name) {
		return fmt.Errorf("%s is not one of sluice's", f.markPath())
	}
	f.id = root.Folder
	// The steps that were done may not be on the disk. The next one goes by them.
	if err := durable.SyncDir(f.FS, f.Path); err != nil {
		return err
	}
	if err := f.replace(root); err != nil {
		return err
	}
	f.log.Warn("new metadata, made by sluice check --repair, are in place", "old", filepath.Join(f.Path, root.Replaced))
	return nil
}
