package localblob

import (
	"errors"
	"fmt"
	"sync"

	"sluice/blob"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/session"
)

// packs is the pack that items are appended to, and the batches on the way there. Items come to the
// disk in batches: while one is written, the next is filled.
//
//	append ─┬─▶ batch ── written by the first of its members, when the one before is done ─▶ pack
//	append ─┤
//	append ─╯
type packs struct {
	pool *direct.Pool

	mu      sync.Mutex
	next    *batch // takes items; nil: none
	last    *batch // the batch that was closed last; nil: none
	current *file  // acquired; nil: none yet
	end     int64  // end of what was given out in current
	made    int64  // the number of the newest pack
	noPunch bool   // the file system can't give back parts of a file
}

// batch is items on their way to the disk, one behind the other.
type batch struct {
	f           *file // acquired, and counted in its pack's writing
	off         int64
	m           *direct.BlockBuffer
	n, most     int64 // bytes; guarded by packs.mu until closed
	items       int
	closed, got chan struct{} // closed when it takes nothing more, and when err is known
	err         error
}

// pack is what a file has if it is a pack; guarded by the file's mu.
type pack struct {
	key     packKey
	past    durable.DirectFile // for appends; nil: through the cache
	current bool
	writing int             // appends under way
	readers map[int64]int   // of the item that begins at this offset
	deleted map[int64]place // deleted items that are not punched yet
}

const (
	// packFolder is the number of the packs' folder.
	packFolder = 256
)

// errNoPack: the content gets a file of its own.
var errNoPack = errors.New("not to be packed")

// mostPacked is the largest content that an item can have, in bytes.
const mostPacked = 1<<20 - itemHeader

func (ps *packs) init(cfg direct.Config) {
	// One buffer is written while the other is filled.
	ps.pool = direct.NewPool(direct.Config{Off: cfg.Off, Buffers: 2, Buffer: 1 << 20})
}

// append writes an item behind all others. It acquires the file, and the caller releases it.
// errNoPack: the content is to get a file of its own instead.
func (s *Store) append(id session.SessionID, content []byte) (p place, f *file, err error) {
	p = place{id: id, incarnation: s.Incarnation, len: int64(len(content))}
	b, first, err := s.joinBatch(&p, content)
	if err != nil {
		return p, nil, err
	}
	if first {
		s.writeBatch(b)
	}
	<-b.got
	if b.err == nil {
		return p, b.f, nil
	}
	b.f.release()
	if b.items > 1 {
		return p, nil, errNoPack // a failure that one item has caused must not harm the others
	}
	return p, nil, b.err
}

// joinBatch puts an item into the batch that takes items, and acquires its file for the caller.
// first: the caller has to write the batch.
func (s *Store) joinBatch(p *place, content []byte) (b *batch, first bool, err error) {
	ps, n := &s.packs, p.size()
	ps.mu.Lock()
	for ps.next != nil && ps.next.n+n > ps.next.most {
		closed := ps.next.closed
		ps.mu.Unlock()
		<-closed
		ps.mu.Lock()
	}
	defer ps.mu.Unlock()
	if first = ps.next == nil; first {
		if ps.next, err = s.newBatch(n); err != nil {
			ps.next = nil
			return nil, false, err
		}
	}
	b = ps.next
	if _, err = s.acquire(b.f.p, false); err != nil {
		if first { // nobody else has joined
			ps.next = nil
			s.endBatch(b)
		}
		return nil, false, err
	}
	p.in, p.off = b.f.p.in, b.off+b.n
	item := b.m.Bytes[b.n : b.n+n]
	b.f.pack.key.header(item, *p)
	clear(item[itemHeader+copy(item[itemHeader:], content):])
	b.n += n
	b.items++
	ps.end += n
	return b, first, nil
}

// newBatch begins a batch whose first item is n bytes long. ps.mu is held.
func (s *Store) newBatch(n int64) (*batch, error) {
	ps := &s.packs
	f := ps.current
	if f == nil || f.checkWritable() != nil || ps.end > block && ps.end+n > s.opts.PackSize {
		s.retire()
		// It is rare, and made under the lock: all callers that come meanwhile need it too.
		var err error
		if f, err = s.newPack(); err != nil {
			if !errors.Is(err, errNoPack) && !errors.Is(err, blob.ErrNoSpace) {
				s.opts.Log.Warn("making a pack failed; small contents get files of their own", "err", err)
			}
			return nil, errNoPack
		}
		ps.current, ps.end = f, block
	}
	m := ps.pool.BlockBuffer(1 << 20)
	if m == nil {
		return nil, errNoPack
	}
	if _, err := s.acquire(f.p, false); err != nil {
		m.Free()
		return nil, err
	}
	f.mu.Lock()
	f.pack.writing++
	f.mu.Unlock()
	return &batch{
		f: f, off: ps.end, m: m, most: max(min(int64(len(m.Bytes)), s.opts.PackSize-ps.end), n),
		closed: make(chan struct{}), got: make(chan struct{}),
	}, nil
}

// writeBatch waits for the batch before, closes this one, writes it, and tells its members.
func (s *Store) writeBatch(b *batch) {
	ps := &s.packs
	ps.mu.Lock()
	before := ps.last
	ps.mu.Unlock()
	if before != nil {
		<-before.got
	}
	ps.mu.Lock()
	ps.next, ps.last = nil, b
	ps.mu.Unlock()
	close(b.closed)
	b.m.Bytes = b.m.Bytes[:b.n]
	err := errUnfinished
	defer func() { // also after a panic: the members wait for the end
		if err != nil {
			err = classify(fmt.Errorf("appending to pack %s: %w", b.f.p.file(), err))
			s.discardBatch(b)
		}
		s.endBatch(b)
		b.err = err
		close(b.got)
	}()
	err = b.m.Write(b.f.f, b.f.pack.past, b.off)
}

// endBatch releases what a batch used.
func (s *Store) endBatch(b *batch) {
	b.m.Free()
	b.f.mu.Lock()
	b.f.pack.writing--
	b.f.mu.Unlock()
	s.closeIfDone(b.f)
	b.f.release() // its members have acquired it too
}

// newPack makes an empty pack, whose key and name are on the disk.
func (s *Store) newPack() (*file, error) {
	if s.packs.noPunch {
		return nil, errNoPack
	}
	s.packs.made++
	f, err := s.acquire(place{incarnation: s.Incarnation, in: s.packs.made}, true)
	if err != nil {
		return nil, err
	}
	if _, err = f.f.WriteAt(f.pack.key.head(), 0); err == nil {
		err = f.persist()
	}
	if err == nil {
		err = f.f.Punch(block, block)
		if s.packs.noPunch = errors.Is(err, errors.ErrUnsupported); s.packs.noPunch {
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
	s.closeIfDone(f)
	f.release()
	return nil, classify(err)
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
	s.closeIfDone(f)
	f.release()
}

// discardBatch deals with a batch that was not written whole. Nothing more goes into its pack: a
// disk that has failed there may fail again.
func (s *Store) discardBatch(b *batch) {
	s.packs.mu.Lock()
	if s.packs.current == b.f {
		s.retire()
	}
	s.packs.mu.Unlock()
	if err := b.f.f.Punch(b.off, b.n); err != nil {
		s.opts.Log.Warn("what a failed write has left stays until a sweep finds it", "pack", b.f.p.file(), "err", err)
	}
}

// closeIfDone acts when the last append has ended in a pack that gets no more items. It closes what
// only appends need, and removes the pack if nothing is in it.
func (s *Store) closeIfDone(f *file) {
	f.mu.Lock()
	done := !f.pack.current && f.pack.writing == 0
	past := f.pack.past
	if done {
		f.pack.past = nil
	}
	f.mu.Unlock()
	if !done {
		return
	}
	if past != nil {
		_ = past.Close() // nothing is left to be written
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
