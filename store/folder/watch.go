package folder

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"sluice/internal/durable"
)

// lookEvery is how often Watch looks.
const lookEvery = 2 * time.Second

// Away says why nothing may be taken, deleted or marked as damaged now: when it was last looked, the folder or a half was not where it was opened. It costs nothing.
func (f *Folder) Away() error {
	if p := f.away.Load(); p != nil {
		return *p
	}
	return nil
}

// Look looks now.
func (f *Folder) Look() error {
	f.looks.Lock()
	defer f.looks.Unlock()
	err, was := f.inPlace(), f.Away()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return was // it could not be looked
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

// inPlace compares what has the names with what was opened, and its ids.
func (f *Folder) inPlace() error {
	for _, h := range f.held {
		if err := h.InPlace(); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		on   durable.FS
		path string
		part string
	}{{f.FS, f.markPath(), whole}, {f.Meta.FS, f.Meta.markPath(), f.Meta.part}, {f.Content.FS, f.Content.markPath(), f.Content.part}} {
		m, ok, err := read(p.on, p.path)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("%s is gone", p.path)
		case m.Folder != f.id || m.Part != p.part:
			return fmt.Errorf("%s is another folder's", p.path)
		}
	}
	return nil
}
