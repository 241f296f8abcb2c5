package localblob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"sluice/blob"
)

// startRead begins a use of an item: it is not punched before endRead. blob.ErrMissing: it was
// punched already.
func (f *file) startRead(p place) error {
	if p.in == 0 {
		return nil
	}
	f.mu.Lock()
	_, deleted := f.pack.deleted[p.off]
	if !deleted {
		f.pack.readers[p.off]++
	}
	f.mu.Unlock()
	if deleted {
		return fmt.Errorf("place %s: %w", p, blob.ErrMissing)
	}
	// A corrupt or unreadable header does no harm here: the place's name says everything.
	var b [itemHeader]byte
	if _, err := f.f.ReadAt(b[:], p.off); (err == nil || err == io.EOF) && b == [itemHeader]byte{} {
		f.endRead(p)
		return fmt.Errorf("place %s: %w", p, blob.ErrMissing)
	}
	return nil
}

// endRead ends a use. The last use of a deleted item punches it.
func (f *file) endRead(p place) {
	if p.in == 0 {
		return
	}
	f.mu.Lock()
	f.pack.readers[p.off]--
	left := f.pack.readers[p.off]
	if left == 0 {
		delete(f.pack.readers, p.off)
	}
	gone, deleted := f.pack.deleted[p.off]
	f.mu.Unlock()
	if left == 0 && deleted {
		if err := f.s.punch(f, gone); err != nil {
			f.s.opts.Log.Warn("deleting a place that was being read; the search for orphans will do it",
				"place", gone.String(), "err", err)
		}
	}
}

// deleteItem is Delete for a place in a pack. No new reader begins from here on. If there is a
// reader already, its end punches the item.
func (s *Store) deleteItem(p place) error {
	f, err := s.acquire(p.pack(), false)
	if errors.Is(err, blob.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.release()
	f.mu.Lock()
	_, already := f.pack.deleted[p.off]
	f.pack.deleted[p.off] = p
	read := f.pack.readers[p.off] > 0
	f.mu.Unlock()
	if already || read {
		return nil
	}
	return s.punch(f, p)
}

// punch gives back an item's blocks, and the pack with its last item. It does not sync: an item
// that power loss brings back is an orphan.
func (s *Store) punch(f *file, p place) error {
	err := s.punchable(f, p)
	if err == nil {
		err = f.f.Punch(p.off, p.size())
		// the folder was copied from another file system: the blocks are given back with the last
		// item
		if errors.Is(err, errors.ErrUnsupported) {
			_, err = f.f.WriteAt(make([]byte, p.size()), p.off)
		}
	}
	f.mu.Lock()
	delete(f.pack.deleted, p.off)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("deleting place %s: %w", p, err)
	}
	s.closeIfDone(f)
	return nil
}

// punchable refuses a name that is not of this pack, before it takes the bytes of others.
func (s *Store) punchable(f *file, p place) error {
	var other error
	err := f.pack.key.walk(f.f, f.p, p.off, func(is place) bool {
		if is != p && is.off < p.off+p.size() {
			other = fmt.Errorf("another place is there: %s", is)
		}
		return false
	}, func(off int64) bool { return off+block < p.off+p.size() })
	return errors.Join(err, other)
}

// unlink removes a pack that has nothing in it.
func (s *Store) unlink(f *file) error {
	s.mu.Lock()
	if f.deleted.Load() {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	if err := s.fs.Remove(f.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	f.deleted.Store(true)
	s.forget(f)
	s.mu.Unlock()
	return s.syncFolder(f.p)
}
