package localblob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/blob"
	"sluice/internal/durable"
	"sluice/session"
)

// file is an open place. A file whose bytes are not all synced stays open: the kernel reports a
// failed write-back only to those who have the file open.
type file struct {
	s       *Store
	p       place
	refs    int         // under Store.mu
	deleted atomic.Bool // deleted: the last release closes it

	opening sync.Mutex
	f       durable.File // nil until it is opened, and never changed after that
	syncs   groupSync

	mu       sync.Mutex
	dirty    []session.Range // committed, and in no sync yet
	syncing  []session.Range // in the sync that is running
	old      bool            // of an earlier incarnation, and not synced in this one: anything may be dirty
	unlisted bool            // the folder's entry may not be on the disk
	pack     *pack           // nil: the file is no pack
	failed   error           // a sync has failed
	lost     []session.Range // what the failed sync took

	sinceFlush int64 // bytes written since the last flush, see flushAfter
	flushing   bool  // a sync runs in the background
}

// acquire opens a place, or gives the file that is open already. The caller must release it. If the
// place is to be written and is not there, acquire makes it.
func (s *Store) acquire(p place, write bool) (*file, error) {
	p = p.home()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fs.ErrClosed
	}
	f := s.files[p]
	if f == nil {
		var err error
		if f, err = newFile(s, p); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		s.files[p] = f
	} else if f.refs == 0 {
		s.idle = slices.DeleteFunc(s.idle, func(o *file) bool { return o == f })
	}
	f.refs++
	s.mu.Unlock()
	if err := f.open(write); err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

func newFile(s *Store, p place) (*file, error) {
	f := &file{s: s, p: p}
	if p.in > 0 {
		key, err := newKey(s.opts.Rand)
		if err != nil {
			return nil, err
		}
		f.pack = &pack{key: key, readers: map[int64]int{}, deleted: map[int64]place{}}
	}
	return f, nil
}

// open opens the file if it is not open yet. Only callers that want the same place wait for it.
func (f *file) open(write bool) error {
	f.opening.Lock()
	defer f.opening.Unlock()
	if f.f != nil {
		return nil
	}
	// A file that this incarnation has written and closed was synced before. A new entry counts as
	// unlisted before it is there, so that no sync of the folder misses it.
	old := f.p.incarnation != f.s.Incarnation
	f.mu.Lock()
	f.old, f.unlisted = old, old || write
	f.mu.Unlock()
	mode := os.O_RDWR // also for a reader: a writer may join it
	if write {
		mode |= os.O_CREATE
	}
	opened, err := f.s.openFile(f.s.path(f.p), mode)
	if errors.Is(err, fs.ErrNotExist) {
		if gone := f.s.checkFolder(f.p.folderOf()); gone != nil {
			return gone
		}
		return fmt.Errorf("place %s: %w", f.p, blob.ErrMissing)
	}
	if err != nil {
		return classify(err)
	}
	if f.pack != nil && !write {
		// Without its key a pack's items can still be read by their names, but they can't be
		// found.
		if key, sound, err := readKey(opened); err == nil && sound {
			f.pack.key = key
		} else {
			f.s.opts.Log.Error("a pack's first block is damaged: its places can't be listed",
				"pack", f.p.file(), "err", err)
		}
	}
	f.f = opened
	return nil
}

// release ends one use. The file stays open for the next one. If too many files stay open, those
// that were unused longest are synced and closed in the background. The caller closes one itself
// only if the background work lags far behind.
func (f *file) release() {
	s := f.s
	s.mu.Lock()
	f.refs--
	switch {
	case f.refs > 0 || s.closed && !f.deleted.Load(): // another user, or Close, closes it
		s.mu.Unlock()
		return
	case f.deleted.Load() || !f.isOpen():
		s.forget(f)
		s.mu.Unlock()
		_ = f.close() // nobody misses what was deleted
		return
	case f.failure() != nil: // the store must not forget what the file has lost
		s.mu.Unlock()
		return
	}
	s.idle = append(s.idle, f)
	if len(s.idle) > s.opts.Files && !s.closingIdle {
		s.closingIdle = true
		s.background.Go(s.closeIdle)
	}
	late := len(s.idle) > 2*s.opts.Files
	s.mu.Unlock()
	if late {
		s.closeOldest(s.opts.Files)
	}
}

// closeIdle closes files until few enough stay open.
func (s *Store) closeIdle() {
	for {
		s.closeOldest(s.opts.Files)
		s.mu.Lock()
		if s.closingIdle = len(s.idle) > s.opts.Files && !s.closed; !s.closingIdle {
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// closeOldest syncs and closes the file that was unused longest, if more than keep files are idle.
func (s *Store) closeOldest(keep int) {
	s.mu.Lock()
	if len(s.idle) <= keep || s.closed {
		s.mu.Unlock()
		return
	}
	f := s.idle[0]
	s.idle = slices.Delete(s.idle, 0, 1)
	f.refs++ // while it is synced
	s.mu.Unlock()
	_ = f.persist() // a file that has lost something stays open, and says so
	s.mu.Lock()
	f.refs--
	switch {
	case f.refs > 0 || !f.deleted.Load() && (s.closed || f.failure() != nil):
		s.mu.Unlock()
		return
	case !f.deleted.Load() && !f.clean(): // written again meanwhile, or the sync could not be tried
		s.idle = append(s.idle, f)
		s.mu.Unlock()
		return
	}
	s.forget(f)
	s.mu.Unlock()
	if err := f.close(); err != nil {
		s.opts.Log.Warn("closing a place", "place", f.p.String(), "err", err)
	}
}

// openFile opens a file. If the system has no descriptor left, it tries again after it has closed
// idle files.
func (s *Store) openFile(path string, mode int) (durable.File, error) {
	f, err := s.fs.OpenFile(path, mode, 0o600)
	for tries := 0; notTried(err) && tries < 3 && s.evictIdle(); tries++ {
		f, err = s.fs.OpenFile(path, mode, 0o600)
	}
	return f, err
}

// evictAtOnce is how many idle files are closed if the system has no descriptor left.
const evictAtOnce = 8

// evictIdle closes files that are open only for their next user, and reports whether there was one.
func (s *Store) evictIdle() bool {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	s.reserveDescriptor(false)      // closing a file syncs its folder too, which has to be opened
	defer s.reserveDescriptor(true) // Close releases it
	s.mu.Lock()
	idle := len(s.idle)
	s.mu.Unlock()
	for i := range min(idle, evictAtOnce) {
		s.closeOldest(max(idle-i-1, 0))
	}
	return idle > 0
}

// reserveDescriptor keeps a descriptor for the time when there is none left, or gives it back.
// s.evicting is held.
func (s *Store) reserveDescriptor(keep bool) {
	if s.reserved != nil {
		_ = s.reserved.Close()
		s.reserved = nil
	}
	if keep {
		s.reserved, _ = s.fs.OpenFile(filepath.Join(s.dir, "format"), os.O_RDONLY, 0)
	}
}

// forget makes the next user open the place anew. s.mu is held.
func (s *Store) forget(f *file) {
	if s.files[f.p] == f {
		delete(s.files, f.p)
	}
}

func (f *file) path() string { return f.s.path(f.p) }

func (f *file) isOpen() bool {
	f.opening.Lock()
	defer f.opening.Unlock()
	return f.f != nil
}

func (f *file) close() error {
	if !f.isOpen() {
		return nil
	}
	return f.f.Close()
}

// checkWritable gives the reason why nothing more may be written to the place.
func (f *file) checkWritable() error {
	if f.deleted.Load() {
		return fmt.Errorf("place %s: %w", f.p, blob.ErrMissing)
	}
	return f.failure()
}

// failure gives the error of the sync that has failed.
func (f *file) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}
