package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"sluice/internal/durable"
)

// lookEvery is how often Watch looks.
const lookEvery = 2 * time.Second

// Away says why nothing may be taken, deleted or marked as damaged now: when it was last looked,
// the folder or a half was not where it was opened. It costs nothing.
func (f *Folder) Away() error {
	if p := f.away.Load(); p != nil {
		return *p
	}
	return nil
}

// Look looks now. A look that fails is repeated at once, before everything is refused for it: one
// failing read says nothing of the folder.
func (f *Folder) Look() error {
	f.looking.Lock()
	defer f.looking.Unlock()
	err, was := f.inPlace(), f.Away()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return was // it could not be looked
	}
	if err != nil && was == nil && f.inPlace() == nil {
		err = nil
	}
	switch {
	case err != nil && was == nil:
		f.log.Error("the data folder is not in its place: nothing is taken, deleted or marked until it is back", "err", err)
	case err == nil && was != nil:
		f.log.Info("the data folder is back in its place")
	}
	if err == nil {
		f.away.Store(nil)
	} else {
		f.away.Store(&err)
	}
	return err
}

// Watch looks now and then, until ctx ends.
func (f *Folder) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = f.Look() // it says so itself
		}
	}
}

// lockFile is a file as it was when it was opened.
type lockFile struct {
	on       durable.FS
	path, id string
}

// noteLock remembers which file a lock is, if there is one.
func (f *Folder) noteLock(on durable.FS, path string) error {
	info, err := on.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.locks = append(f.locks, lockFile{on, path, info.ID})
	}
	return err
}

// checkLocks gives an error where the file of a lock is not the one that was locked: a program that
// knows nothing of the folders' own locks may have begun, and so may any where folders can't be
// locked.
func (f *Folder) checkLocks() error {
	for _, l := range f.locks {
		switch info, err := l.on.Stat(l.path); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: its lock file %s was removed. Stop this server and start it again", ErrTaken, l.path)
		case err != nil:
			return err
		case info.ID != l.id:
			return fmt.Errorf("%w: its lock file %s was removed, and another one made. Stop both and start one", ErrTaken, l.path)
		}
	}
	return nil
}

// Taken gives an error where another server has been started on this folder: then nothing in it may
// be written any more.
func (f *Folder) Taken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkTaken()
}

// checkTaken compares the incarnation that the metadata's mark has with the one that was written
// there. f.mu is held.
func (f *Folder) checkTaken() error {
	m, ok, err := readMark(f.Meta.FS, f.Meta.markPath())
	if err != nil || !ok || m.Folder != f.id {
		return nil // that is nothing that another server has written
	}
	if m.Incarnation != f.meta.Incarnation || m.Next != f.meta.Next || m.Open != f.meta.Open {
		return fmt.Errorf("%w: another server has been started on this folder, as %s says. Stop both and start one", ErrTaken, f.Meta.markPath())
	}
	return nil
}

// inPlace compares what has the names with what was opened, and its ids.
func (f *Folder) inPlace() error {
	for _, h := range f.folders {
		if err := h.InPlace(); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		on   durable.FS
		path string
		part string
	}{{f.FS, f.markPath(), whole}, {f.Meta.FS, f.Meta.markPath(), f.Meta.part}, {f.Content.FS, f.Content.markPath(), f.Content.part}} {
		m, ok, err := readMark(p.on, p.path)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("%s is gone", p.path)
		case m.Folder != f.id || m.Part != p.part:
			return fmt.Errorf("%s is another folder's", p.path)
		}
	}
	if err := f.Taken(); err != nil {
		return err
	}
	if err := f.checkLocks(); err != nil || f.extraCheck == nil {
		return err
	}
	return f.extraCheck()
}

// AlsoLook makes each look ask this too: whether what a store has below its half is in its place.
// It comes before the first look.
func (f *Folder) AlsoLook(inPlace func() error) { f.extraCheck = inPlace }
