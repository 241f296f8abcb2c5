package folder

import (
	"fmt"
	"path/filepath"
	"slices"

	"sluice/internal/durable"
)

// ContentState is the content's own record before it is opened.
type ContentState struct {
	Incarnation uint64 // the last one; 0: it has not been opened yet
	Clean       bool   // it was closed cleanly since
}

// Suits refuses content that is older than the metadata, before either is opened. It changes
// nothing.
func (f *Folder) Suits(last ContentState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.suits(last)
}

// suits is Suits. f.mu is held.
func (f *Folder) suits(last ContentState) error {
	if f.rejoin || last.Incarnation >= f.meta.Incarnation {
		return nil
	}
	if last.Incarnation == 0 {
		return f.Content.refuse("has no file state, and its metadata know of %d lives of it",
			f.Content.remedy(), f.meta.Incarnation)
	}
	return f.Content.refuse("is an older copy than its metadata: its last life was %d, and that of the metadata %d",
		f.Content.remedy(), last.Incarnation, f.meta.Incarnation)
}

// Begin notes that the content is about to be opened. It gives the incarnation after which the new
// one is to come. The stores were inspected before, and have formats that this program knows. A
// folder without ids gets them. Content that is older than the metadata is refused. Begun is to
// follow.
func (f *Folder) Begin(last ContentState) (after uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.suits(last); err != nil {
		return 0, err
	}
	m := f.meta
	known := max(m.Incarnation, m.Next)
	after = max(last.Incarnation, m.Incarnation, max(m.Next, 1)-1)
	switch {
	case known == 0: // nothing was noted yet
	case f.rejoin:
		m.Unknown = nil
	case last.Incarnation > known || last.Incarnation == known && last.Clean && (m.Open || m.Next > 0):
		from := known
		if m.Next == 0 && !m.Open { // these metadata have all of that incarnation
			from++
		}
		m.Unknown = append(slices.Clone(m.Unknown), [2]uint64{from, last.Incarnation})
		f.log.Warn("the metadata is an older copy: what was stored since is in the content alone, and is left there",
			"from_life", from, "to_life", last.Incarnation)
	}
	if f.readOnly {
		return after, nil
	}
	// The state that was read may not be on the disk: the incarnation that wrote it may have died
	// before it synced. The metadata are about to go by it.
	if err := durable.SyncDir(f.Content.FS, f.Content.Path); err != nil {
		return 0, err
	}
	m.Folder, m.Part, m.Incarnation, m.Next, m.Open = f.id, f.Meta.part, last.Incarnation, after+1, false
	if f.joining {
		err = f.join(m)
	} else {
		err = f.writeMetaMark(m)
	}
	if err != nil {
		return 0, err
	}
	f.rejoin = false
	return after, nil
}

// join gives the halves their ids.
func (f *Folder) join(m mark) error {
	if err := f.writeMark(joining); err != nil {
		return err
	}
	if err := writeMark(f.Content.FS, f.Content.markPath(), mark{Folder: f.id, Part: f.Content.part}); err != nil {
		return err
	}
	if err := f.writeMetaMark(m); err != nil {
		return err
	}
	if err := f.writeMark(""); err != nil {
		return err
	}
	f.joining, f.rejoin = false, false
	return nil
}

// Begun notes that the content is open: the incarnation that Begin noted has begun.
func (f *Folder) Begun() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.meta
	m.Incarnation, m.Next, m.Open = m.Next, 0, true
	for _, h := range []*Half{&f.Meta, &f.Content} {
		if err := f.noteLock(h.FS, filepath.Join(h.Path, h.lock)); err != nil {
			return err
		}
	}
	return f.writeMetaMark(m)
}

// writeMetaMark writes the mark of the metadata.
func (f *Folder) writeMetaMark(m mark) error {
	if f.readOnly {
		return nil
	}
	if err := writeMark(f.Meta.FS, f.Meta.markPath(), m); err != nil {
		return fmt.Errorf("noting the content's life: %w", err)
	}
	f.meta = m
	return nil
}

// End notes that the metadata knows of all that was made in this incarnation. It is called before
// the content is closed.
func (f *Folder) End() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.meta
	if !m.Open {
		return nil
	}
	if err := f.checkTaken(); err != nil {
		return err
	}
	m.Open = false
	return f.writeMetaMark(m)
}

// Restored gives the halves of a restored folder their ids. The content's newest incarnation is the
// given one.
func (f *Folder) Restored(incarnation uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.meta
	m.Incarnation = incarnation
	return f.writeMetaMark(m)
}

// KnownIncarnation reports whether the metadata knows what an incarnation of the content has made.
func (f *Folder) KnownIncarnation(incarnation uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !slices.ContainsFunc(f.meta.Unknown, func(u [2]uint64) bool {
		return u[0] <= incarnation && incarnation <= u[1]
	})
}
