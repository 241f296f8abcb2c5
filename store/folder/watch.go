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

// Away says why nothing may be taken, deleted or marked as damaged now: at the last look the folder
// or a half was not in its place. It costs nothing.
func (f *Folder) Away() error {
	if p := f.away.Load(); p != nil {
		return *p
	}
	return nil
}

// Look checks the folder's place now. A look that fails is repeated once, before everything is
// refused for it: a single failing read says nothing of the folder.
func (f *Folder) Look() error {
	f.looking.Lock()
	defer f.looking.Unlock()
	err, was := f.inPlace(), f.Away()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return was // the look could not be tried
	}
	if err != nil && was == nil && f.inPlace() == nil {
		err = nil
	}
	switch {
	case err != nil && was == nil:
		f.log.Error("the data folder is not in its place: nothing is taken, deleted or marked until it is back",
			"err", err)
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
			_ = f.Look() // Look logs it
		}
	}
}

// lockFile is the file of a lock, as it was when it was opened.
type lockFile struct {
	on       durable.FS
	path, id string
}

// noteLock remembers which file has the name of a lock, if there is one.
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

// checkLocks gives an error if the file of a lock is not the one that was locked. Then another
// process may have begun: a program that does not know the folders' own locks, or any program if
// folders can't be locked.
func (f *Folder) checkLocks() error {
	for _, l := range f.locks {
		switch info, err := l.on.Stat(l.path); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: its lock file %s was removed. Stop this server and start it again", ErrTaken, l.path)
		case err != nil:
			return err
		case info.ID != l.id:
			return fmt.Errorf("%w: its lock file %s was removed, and another one made. Stop both and start one",
				ErrTaken, l.path)
		}
	}
	return nil
}

// Taken gives an error if another server was started on this folder. Then nothing in it may be
// written any more.
func (f *Folder) Taken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkTaken()
}

// checkTaken compares the incarnation in the metadata's mark with the one that was written there.
// f.mu is held.
func (f *Folder) checkTaken() error {
	m, ok, err := readMark(f.Meta.FS, f.Meta.markPath())
	if err != nil || !ok || m.Folder != f.id {
		return nil // no other server has written that
	}
	if m.Incarnation != f.meta.Incarnation || m.Next != f.meta.Next || m.Open != f.meta.Open {
		return fmt.Errorf("%w: another server has been started on this folder, as %s says. Stop both and start one",
			ErrTaken, f.Meta.markPath())
	}
	return nil
}

// inPlace compares the folders that have the names with those that were opened, and the ids.
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
	}{
		{f.FS, f.markPath(), whole},
		{f.Meta.FS, f.Meta.markPath(), f.Meta.part},
		{f.Content.FS, f.Content.markPath(), f.Content.part},
	} {
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

// AddCheck adds a check to each look: a store may have folders of its own below its half. It is
// called before the first look.
func (f *Folder) AddCheck(inPlace func() error) { f.extraCheck = inPlace }
