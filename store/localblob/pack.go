package localblob

import (
	"errors"
	"fmt"
	"sync"

	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/session"
	"sluice/upload"
)

// packs is the pack that items are appended to.
type packs struct {
	pool *direct.Pool
	// slots are taken by who has memory of the pool.
	slots chan struct{}

	mu      sync.Mutex
	current *file // held; nil: none yet
	end     int64 // of what was given out in it
	made    int64 // the number of the last one
	unable  bool  // the file system can't give back parts of a file
}

// pack is what a file has that is a pack; under its mu.
type pack struct {
	key     packKey
	past    durable.DirectFile // for who appends; nil: through the cache
	current bool
	writing int             // appends under way
	readers map[int64]int   // of the items that begin here
	doomed  map[int64]place // items that are deleted, and still to be punched
}

const (
	// packFolder is the number of the packs' folder.
	packFolder = 256
)

// errNoPack: the content gets a file of its own.
var errNoPack = errors.New("not to be packed")

const (
	// appendsAtOnce is how many items are written at a time; who comes then waits for memory.
	appendsAtOnce = 16
	// mostPacked is how much content an item has at most, in bytes.
	mostPacked = 1<<20 - itemHeader
)

func (ps *packs) init(cfg direct.Config) {
	ps.pool = direct.NewPool(direct.Config{Off: cfg.Off, Buffers: appendsAtOnce, Buffer: 1 << 20})
	ps.slots = make(chan struct{}, appendsAtOnce)
}

// append writes an item behind all others. The file is held; the caller releases it. errNoPack where it is to get a file of its own instead.
func (s *Store) append(id session.SessionID, content []byte) (p place, f *file, err error) {
	p = place{id: id, life: s.Life, len: int64(len(content))}
	s.packs.slots <- struct{}{}
	defer func() { <-s.packs.slots }()
	m := s.packs.pool.Whole(p.size())
	if m == nil {
		return p, nil, errNoPack
	}
	defer m.Free()
	f, p.off, err = s.reserve(p.size())
	if err != nil {
		return p, nil, err
	}
	p.in = f.p.in
	f.pack.key.header(m.Mem, p)
	clear(m.Mem[itemHeader+copy(m.Mem[itemHeader:], content):])
	if err = m.Write(f.f, f.pack.past, p.off); err != nil {
		err = full(fmt.Errorf("appending to pack %s: %w", f.p.file(), err))
		s.spoil(f, p)
	}
	f.mu.Lock()
	f.pack.writing--
	f.mu.Unlock()
	s.leave(f)
	if err != nil {
		f.release()
		return p, nil, err
	}
	return p, f, nil
}

// reserve gives n bytes at the end of the current pack, which is held once more.
func (s *Store) reserve(n int64) (f *file, off int64, err error) {
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	if f = s.packs.current; f == nil || f.usable() != nil || s.packs.end > block && s.packs.end+n > s.opts.PackSize {
		s.retire()
		// Made under the lock, once in a long while: who comes meanwhile needs it too.
		if f, err = s.newPack(); err != nil {
			if !errors.Is(err, errNoPack) && !errors.Is(err, upload.ErrFull) {
				s.opts.Log.Warn("making a pack failed; small contents get files of their own", "err", err)
			}
			return nil, 0, errNoPack
		}
		s.packs.current, s.packs.end = f, block
	}
	if f, err = s.hold(f.p, false); err != nil {
		return nil, 0, err
	}
	f.mu.Lock()
	f.pack.writing++
	f.mu.Unlock()
	off = s.packs.end
	s.packs.end += n
	return f, off, nil
}

// newPack makes an empty pack, of which the key is on the disk, and its name.
func (s *Store) newPack() (*file, error) {
	if s.packs.unable {
		return nil, errNoPack
	}
	s.packs.made++
	f, err := s.hold(place{life: s.Life, in: s.packs.made}, true)
	if err != nil {
		return nil, err
	}
	if _, err = f.f.WriteAt(f.pack.key.head(), 0); err == nil {
		err = f.settle()
	}
	if err == nil {
		err = f.f.Punch(block, block)
		if s.packs.unable = errors.Is(err, errors.ErrUnsupported); s.packs.unable {
			err = errNoPack
		}
	}
	f.mu.Lock()
	f.pack.current = err == nil
	f.mu.Unlock()
	if err == nil {
		f.pack.past = s.packs.pool.Open(f.f)
		return f, nil
	}
	s.leave(f)
	f.release()
	return nil, full(err)
}

// retire ends the current pack. s.packs.mu is held.
func (s *Store) retire() {
	f := s.packs.current
	if f == nil {
		return
	}
	s.packs.current = nil
	f.mu.Lock()
	f.pack.current = false
	f.mu.Unlock()
	s.leave(f)
	f.release()
}

// spoil sees to an item that was not written whole: nothing more goes into its pack, for whose disk fails may fail again.
func (s *Store) spoil(f *file, p place) {
	s.packs.mu.Lock()
	if s.packs.current == f {
		s.retire()
	}
	s.packs.mu.Unlock()
	if err := f.f.Punch(p.off, p.size()); err != nil {
		s.opts.Log.Warn("what a failed write has left stays until the next unclean start", "pack", f.p.file(), "err", err)
	}
}

// leave closes what only an append needs, when the last one has left a pack that gets no more; and removes the pack where nothing is in it.
func (s *Store) leave(f *file) {
	f.mu.Lock()
	over := !f.pack.current && f.pack.writing == 0
	past := f.pack.past
	if over {
		f.pack.past = nil
	}
	f.mu.Unlock()
	if !over {
		return
	}
	if past != nil {
		_ = past.Close() // it was for writing past the cache: nothing is left to be done
	}
	if err := s.removeEmpty(f); err != nil {
		s.opts.Log.Warn("removing an empty pack", "pack", f.p.file(), "err", err)
	}
}

// removeEmpty removes a pack that gets no more items and has none.
func (s *Store) removeEmpty(f *file) error {
	if has, err := hasData(f.f); has || err != nil {
		return err
	}
	return s.unlink(f)
}
