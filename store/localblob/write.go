package localblob

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/session"
)

// Writer implements blob.Store.
func (s *Store) Writer(_ context.Context, id session.SessionID, gen uint64, size int64) (blob.Writer, error) {
	w := &writer{s: s, p: place{id: id, gen: gen, incarnation: s.Incarnation}, past: direct.Writer{Pool: s.pool}}
	if size > 0 && size <= s.opts.Packed {
		w.packLen = size
	}
	return w, nil
}

// writer writes one put's bytes. Bytes in memory of the store's Buffers are written past the cache,
// the others through it. Small content that arrives at once goes into a pack.
type writer struct {
	s    *Store
	p    place
	f    *file // nil until the first byte
	past direct.Writer
	// packLen is the length of content that may be packed; 0: it may not.
	packLen int64
	start   int64 // offset in the session at which the packed content begins

	from, to int64         // written through the cache, and no write-back has begun
	wrote    session.Range // the range that all bytes so far lie in
}

const (
	// writeBackAfter is how many bytes are written before the kernel is asked to bring them to the
	// disk, so that the sync at the end has little left to do.
	writeBackAfter = 16 << 20
	// checkSpaceEvery is how many bytes all writers together write between two looks at the free
	// space.
	checkSpaceEvery = 8 << 20
)

// WriteAt implements blob.Writer.
func (w *writer) WriteAt(p []byte, off int64) (int, error) {
	if w.wrote.Empty() {
		w.wrote.Off = off
	}
	w.wrote.Off, w.wrote.End = min(w.wrote.Off, off), max(w.wrote.End, off+int64(len(p)))
	if w.f == nil && int64(len(p)) == w.packLen {
		n, err := w.pack(p, off)
		if !errors.Is(err, errNoPack) {
			return n, err
		}
	}
	if w.f == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	if w.p.in > 0 {
		return 0, fmt.Errorf("place %s is full", w.p)
	}
	if err := w.f.checkWritable(); err != nil {
		return 0, err
	}
	if err := w.s.checkSpace(int64(len(p))); err != nil {
		return 0, err
	}
	n, past, err := w.past.WriteAt(p, off)
	if err != nil {
		return n, classify(err)
	}
	if w.f.wrote(int64(n)); past {
		return n, nil
	}
	if w.to != off {
		w.startWriteBack()
		w.from = off
	}
	if w.to = off + int64(n); w.to-w.from >= writeBackAfter {
		w.startWriteBack()
	}
	return n, nil
}

// pack appends all of the content to a pack.
func (w *writer) pack(p []byte, off int64) (int, error) {
	if err := w.s.checkSpace(int64(len(p))); err != nil {
		return 0, err
	}
	at, f, err := w.s.append(w.p.id, p)
	if err != nil {
		return 0, err
	}
	w.p, w.f, w.start = at, f, off
	return len(p), nil
}

// open makes the place, or its replacement if its sync has failed.
func (w *writer) open() error {
	for base := w.p; ; {
		w.s.mu.Lock()
		w.p.replacement = w.s.replacements[base]
		w.s.mu.Unlock()
		f, err := w.s.acquire(w.p, true)
		if err != nil {
			return err
		}
		if f.checkWritable() == nil {
			w.f = f
			w.past.Use(f.f)
			return nil
		}
		f.release() // failed since, or deleted: then the next one is another
	}
}

// checkSpace refuses n bytes that the disk has no free space for. It asks the disk only now and
// then, but at every write while there is too little.
func (s *Store) checkSpace(n int64) error {
	if s.spaceLeft.Add(-n) >= 0 {
		return nil
	}
	free, err := s.fs.Free(s.dir)
	if err != nil {
		return err
	}
	if free -= s.opts.Reserve; free < n {
		s.spaceLeft.Store(0)
		return fmt.Errorf("the disk is down to its reserve: %w", blob.ErrNoSpace)
	}
	s.spaceLeft.Store(min(checkSpaceEvery, free) - n)
	return nil
}

// startWriteBack makes the kernel begin to write what it has. It does not wait.
func (w *writer) startWriteBack() {
	if w.to > w.from {
		w.f.f.WriteBack(w.from, w.to-w.from)
	}
	w.from = w.to
}

// Commit implements blob.Writer.
func (w *writer) Commit(_ context.Context, off, n int64, crc uint32) (catalog.Extent, error) {
	if w.f == nil {
		return catalog.Extent{}, errors.New("nothing was written")
	}
	if err := w.past.Wait(); err != nil {
		return catalog.Extent{}, classify(err)
	}
	e := catalog.Extent{Place: w.p.String(), Off: off - w.start, Len: n, CRC32C: crc}
	if err := w.f.committed(w.p.of(e)); err != nil {
		return catalog.Extent{}, err
	}
	if w.s.opts.Durability == durable.Power {
		return e, w.f.persist()
	}
	return e, nil
}

// ReadSoon implements blob.Writer.
func (w *writer) ReadSoon(soon bool) { w.past.Cached = soon }

// Buffers gives the memory from which content is written past the cache.
func (s *Store) Buffers() session.Buffers { return buffers{s.pool} }

// buffers is a pool for the engine.
type buffers struct{ pool *direct.Pool }

// New implements session.Buffers.
func (b buffers) New() session.Buffer { return b.pool.NewStream() }

// Undo implements blob.Writer. A block that is shared with somebody else's bytes stays.
func (w *writer) Undo(ranges []session.Range) (place string, err error) {
	if w.f == nil {
		return "", nil
	}
	_ = w.past.Wait() // its failure is known
	place = w.p.String()
	if w.p.in > 0 {
		if session.Covers(ranges, w.wrote) {
			return "", w.s.deleteItem(w.p)
		}
		return place, nil
	}
	for _, r := range ranges {
		if err := w.f.trim(r.Intersect(w.wrote)); err != nil {
			return place, err
		}
	}
	return place, nil
}

// Close implements blob.Writer.
func (w *writer) Close() error {
	w.past.Close()
	if w.f != nil {
		if w.to-w.from >= 1<<20 {
			w.startWriteBack()
		}
		w.f.release()
		w.f = nil
	}
	return nil
}

// classify marks the errors that mean that there is no free space, or no descriptor for the moment.
func classify(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
	case notTried(err):
		return fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
	}
	return err
}
