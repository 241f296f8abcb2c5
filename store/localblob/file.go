package localblob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"sluice/session"
	"sluice/upload"
)

// file is an open place. Those that are not on the disk stay open, since the kernel tells a failed write-back only to who
// has the file open.
type file struct {
	s    *Store
	p    place
	refs int  // under Store.mu
	gone bool // deleted: closed with the last who has it open; under Store.mu

	f     *os.File
	syncs group

	mu     sync.Mutex
	dirty  []session.Range // committed, and not synced yet
	old    bool            // of a former life, and not synced in this one: who knows what is dirty
	listed bool            // the folder's entry is on the disk
	failed error           // a sync has failed
	lost   []session.Range // what that took
}

// hold opens a place, or joins those who have it open. The caller must release it. A place that is to be
// written is made where it is not there.
func (s *Store) hold(p place, write bool) (*file, error) {
	name := p.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	f := s.files[name]
	if f == nil {
		mode := os.O_RDWR // also for a reader: a writer may join it
		if write {
			mode |= os.O_CREATE
		}
		opened, err := os.OpenFile(s.path(p), mode, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("place %s: %w", name, upload.ErrNoPlace)
		}
		if err != nil {
			return nil, full(err)
		}
		// What this life has written and closed again was synced before.
		former := p.life != s.Life
		f = &file{s: s, p: p, f: opened, old: former, listed: !write && !former}
		s.files[name] = f
	} else if f.refs == 0 {
		s.idle = slices.DeleteFunc(s.idle, func(o *file) bool { return o == f })
	}
	f.refs++
	return f, nil
}

// release lets go. The file stays open for the next one; where too many do, the one that was unused longest is synced and closed.
func (f *file) release() {
	s := f.s
	s.mu.Lock()
	if f.refs--; f.refs > 0 || f.gone {
		if f.refs == 0 {
			_ = f.close() // nobody misses what was deleted
		}
		s.mu.Unlock()
		return
	}
	s.idle = append(s.idle, f)
	var oldest *file
	if len(s.idle) > maxIdle {
		oldest = s.idle[0]
		s.idle = s.idle[1:]
		oldest.refs++ // while it is synced
	}
	s.mu.Unlock()
	if oldest == nil {
		return
	}
	err := oldest.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest.refs--
	switch {
	case oldest.refs > 0:
	case oldest.gone:
		_ = oldest.close()
	case err != nil:
		s.idle = append(s.idle, oldest) // what it has lost must not be forgotten
	default:
		delete(s.files, oldest.p.String())
		if err := oldest.close(); err != nil {
			s.opts.Log.Warn("closing a place", "place", oldest.p.String(), "err", err)
		}
	}
}

// drop forgets a file that is being deleted. s.mu is held.
func (s *Store) drop(f *file) {
	f.gone = true
	delete(s.files, f.p.String())
	s.idle = slices.DeleteFunc(s.idle, func(o *file) bool { return o == f })
	if f.refs == 0 {
		_ = f.close()
	}
}

func (f *file) close() error { return f.f.Close() }

// committed notes that r must get to the disk.
func (f *file) committed(r session.Range) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = session.Add(f.dirty, r)
}

// settle brings to the disk what was committed, unless it is there. Who asks at the same time shares one sync. After a failure there is never another one.
func (f *file) settle() error {
	f.mu.Lock()
	clean, failed := len(f.dirty) == 0 && !f.old && f.listed, f.failed
	f.mu.Unlock()
	if clean || failed != nil {
		return failed
	}
	return f.syncs.do(f.syncOnce)
}

func (f *file) syncOnce() error {
	f.mu.Lock()
	if f.failed != nil {
		defer f.mu.Unlock()
		return f.failed
	}
	dirty, listed := f.dirty, f.listed
	f.mu.Unlock()
	err := f.s.sync(f.f)
	if err == nil && !listed {
		err = f.s.syncFolder(f.p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed = fmt.Errorf("syncing place %s: %w", f.p, full(err))
		f.lost = f.dirty
		if f.old {
			f.lost = []session.Range{session.All()}
		}
		f.s.poison(f.p)
		return f.failed
	}
	f.listed, f.old = true, false
	for _, r := range dirty {
		f.dirty = session.Sub(f.dirty, r)
	}
	return nil
}

// hasLost reports whether a failed sync took bytes of r.
func (f *file) hasLost(r session.Range) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return session.Touches(f.lost, r)
}

// poison lets later writers of the same session go elsewhere.
func (s *Store) poison(p place) {
	s.poisoned.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.life == s.Life {
		base := place{p.id, p.gen, p.life, 0}.String()
		s.spares[base] = max(s.spares[base], p.spare+1)
	}
}

// syncFolder brings a place's entry, or that it is gone, to the disk.
func (s *Store) syncFolder(p place) error {
	i := p.folderOf()
	return s.folders[i].do(func() error {
		d, err := os.Open(s.folder(i))
		if err != nil {
			return err
		}
		return errors.Join(s.sync(d), d.Close())
	})
}

// group lets callers share runs of a sync: one who asks while a run is on waits for the next, which begins after it has asked.
type group struct {
	mu          sync.Mutex
	turn        sync.Cond
	running     bool
	asked, done uint64
	err         error // of the run that did done
}

func (g *group) do(run func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.turn.L == nil {
		g.turn.L = &g.mu
	}
	g.asked++
	mine := g.asked
	for g.done < mine {
		if g.running {
			g.turn.Wait()
			continue
		}
		g.running = true
		covers := g.asked
		g.mu.Unlock()
		err := run()
		g.mu.Lock()
		g.running, g.done, g.err = false, covers, err
		g.turn.Broadcast()
	}
	return g.err
}
