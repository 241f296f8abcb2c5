package localblob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// Persist implements blob.Store.
func (s *Store) Persist(_ context.Context, extents []catalog.Extent) error {
	of := map[string][]catalog.Extent{}
	var names []string
	for _, e := range extents {
		if of[e.Place] == nil {
			names = append(names, e.Place)
		}
		of[e.Place] = append(of[e.Place], e)
	}
	var (
		mu   sync.Mutex
		lost []catalog.Extent
		errs []error
	)
	each(names, func(name string) {
		gone, err := s.persistPlace(name, of[name])
		mu.Lock()
		defer mu.Unlock()
		lost, errs = append(lost, gone...), append(errs, err)
	})
	err := errors.Join(errs...)
	if len(lost) > 0 {
		return &blob.PersistError{Lost: lost, Err: err}
	}
	return err
}

// persistPlace syncs one place, and says which of its extents are gone.
func (s *Store) persistPlace(name string, es []catalog.Extent) (lost []catalog.Extent, err error) {
	p, ok := parse(name)
	if !ok {
		return es, fmt.Errorf("place %.80q is not one of this store", name)
	}
	f, err := s.acquire(p, false)
	if errors.Is(err, blob.ErrMissing) {
		return es, err
	}
	if err != nil {
		return nil, err
	}
	defer f.release()
	if err = f.persist(); err == nil || f.failure() == nil {
		return nil, err
	}
	for _, e := range es {
		if f.hasLost(p.of(e)) {
			lost = append(lost, e)
		}
	}
	if len(lost) == 0 {
		return nil, nil // these extents are older than the failure
	}
	return lost, err
}

// syncsAtOnce is how many places one Persist, or Close, syncs at a time.
const syncsAtOnce = 16

// each calls do for every item, up to syncsAtOnce at a time, and returns when all are done.
func each[T any](items []T, do func(T)) {
	if len(items) == 1 {
		do(items[0])
		return
	}
	var wg sync.WaitGroup
	var panicked atomic.Pointer[any]
	slots := make(chan struct{}, syncsAtOnce)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panicked.Store(&p)
				}
				<-slots
			}()
			do(item)
		})
	}
	wg.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p) // the caller gets the panic: it must not end the process
	}
}

// committed notes that r must get to the disk. A place whose sync has failed takes nothing more:
// that sync may have swallowed the failure of these very bytes.
func (f *file) committed(r session.Range) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.dirty = session.Add(f.dirty, r)
	}
	return f.failed
}

// clean reports whether everything that was committed is on the disk.
func (f *file) clean() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dirty) == 0 && len(f.syncing) == 0 && !f.old && !f.unlisted && f.failed == nil
}

// persist brings committed bytes to the disk, unless they are there. Callers at the same time share
// one sync. After a failure there is never another sync.
func (f *file) persist() error {
	if f.clean() {
		return nil
	}
	return f.syncs.do(f.syncOnce)
}

// flushAfter is the number of bytes after which a place is synced in the background, and flushEvery
// the number after which it is synced again. A disk writes its cache at the next flush, at its own
// speed: the more there is, the longer a finish waits.
const flushAfter, flushEvery = 8 << 20, 2 << 20

// wrote counts n bytes that were written, and syncs the place now and then in the background. If
// such a sync fails, it is as with any other: bytes that were not on the disk are lost, and a
// Commit says so. The caller has acquired the file.
func (f *file) wrote(n int64) {
	f.mu.Lock()
	f.sinceFlush += n
	start := f.sinceFlush >= flushAfter && !f.flushing && f.failed == nil
	if start {
		f.sinceFlush, f.flushing = flushAfter-flushEvery, true
	}
	f.mu.Unlock()
	if !start {
		return
	}
	s := f.s
	s.mu.Lock()
	f.refs++
	s.mu.Unlock()
	s.background.Go(func() {
		defer f.release()
		_ = f.syncs.do(f.syncOnce) // the file remembers a failure
		f.mu.Lock()
		defer f.mu.Unlock()
		f.flushing = false
	})
}

func (f *file) syncOnce() error {
	f.mu.Lock()
	if f.failed != nil {
		defer f.mu.Unlock()
		return f.failed
	}
	f.syncing, f.dirty = f.dirty, nil
	unlisted := f.unlisted
	f.mu.Unlock()
	err := errUnfinished
	defer func() {
		if err == errUnfinished { // it panicked: what is on the disk is unknown
			f.markFailed(err)
		}
	}()
	err = f.f.Sync()
	var later error
	if err == nil && unlisted {
		if err = f.s.syncFolder(f.p); notTried(err) {
			err, later = nil, fmt.Errorf("syncing the folder of place %s: %w", f.p, classify(err))
		}
	}
	if err != nil {
		f.markFailed(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	f.syncing, f.old = nil, false
	if later == nil {
		f.unlisted = false
	}
	return later
}

// notTried reports whether a sync failed for want of a descriptor. Then nothing was tried, nothing
// is lost, and it may be done later.
func notTried(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// markFailed notes a failed sync: bytes that are not on the disk by now are lost, and later writers
// of the same session use a replacement.
func (f *file) markFailed(err error) {
	f.s.assignReplacement(f.p) // first, so that a caller that finds the failure finds the replacement too
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return
	}
	f.failed = fmt.Errorf("syncing place %s: %w", f.p.file(), classify(err))
	f.lost = f.dirty
	for _, r := range f.syncing {
		f.lost = session.Add(f.lost, r)
	}
	if f.old {
		f.lost = []session.Range{session.All()}
	}
}

// hasLost reports whether a failed sync took bytes of r.
func (f *file) hasLost(r session.Range) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return session.Touches(f.lost, r)
}

// assignReplacement makes later writers of the same session write to another place.
func (s *Store) assignReplacement(p place) {
	s.syncFailed.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.incarnation == s.Incarnation && p.in == 0 { // nothing is appended to a failed pack
		base := place{id: p.id, gen: p.gen, incarnation: p.incarnation}
		s.replacements[base] = max(s.replacements[base], p.replacement+1)
	}
}

// syncFolder brings to the disk a place's entry, or its removal. If it fails, every place whose
// entry it was to bring there has failed.
func (s *Store) syncFolder(p place) error {
	i := p.folderOf()
	return s.folders[i].do(func() error {
		err := durable.SyncDir(s.fs, s.folder(i))
		if err == nil || notTried(err) {
			return err
		}
		s.mu.Lock()
		var there []*file
		for _, f := range s.files {
			if f.p.folderOf() == i {
				there = append(there, f)
			}
		}
		s.mu.Unlock()
		there = slices.DeleteFunc(there, func(f *file) bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return !f.unlisted
		})
		for _, f := range there {
			f.markFailed(err)
		}
		return err
	})
}
