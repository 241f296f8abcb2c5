package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"sluice/internal/durable"
)

// ErrNotEmpty: there is something where a data folder is to be made.
var ErrNotEmpty = errors.New("is not empty")

const (
	// workSuffix is added to the name of a folder that is being made.
	workSuffix = ".restoring"
	// workName is the folder's name in there.
	workName = "unfinished"
)

// Build makes the folder path, which must be empty or not there, all or nothing. fill fills another
// folder beside it, which gets the name after it is on the disk. The rest of an earlier Build
// beside it is removed. fill syncs what it makes, except the entries of dir itself.
func Build(on durable.FS, path string, fill func(dir string) error) (err error) {
	path = filepath.Clean(path)
	parent, work := filepath.Dir(path), path+workSuffix
	if err := requireEmpty(on, path); err != nil {
		return err
	}
	if err := durable.Mkdir(on, work, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(on, work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close(), durable.RemoveAll(on, work)) }()
	dir := filepath.Join(work, workName)
	if err := durable.RemoveAll(on, dir); err != nil {
		return err
	}
	if err := on.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	if err := durable.SyncDir(on, dir); err != nil {
		return err
	}
	if err := on.Rename(dir, path); err != nil {
		return fmt.Errorf("%s was made meanwhile, or can't be: %w", path, err)
	}
	return errors.Join(durable.SyncDir(on, work), durable.SyncDir(on, parent))
}

// requireEmpty makes sure that nothing is at path. It removes an empty folder.
func requireEmpty(on durable.FS, path string) error {
	info, err := on.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Dir {
		return fmt.Errorf("%s is not a folder", path)
	}
	if names, err := on.List(path); err != nil || len(names) > 0 {
		notEmpty := fmt.Errorf("%s %w: a backup is restored into a folder that is empty, or not there",
			path, ErrNotEmpty)
		return errors.Join(notEmpty, err)
	}
	if err := on.Remove(path); err != nil {
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("%s is a mount point, and can't be made in one step: restore into a folder in it", path)
		}
		return err
	}
	return durable.SyncDir(on, filepath.Dir(path))
}
