package localblob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// Writer implements upload.Blobs.
func (s *Store) Writer(_ context.Context, id session.SessionID, gen uint64) (upload.Writer, error) {
	return &writer{s: s, p: place{id: id, gen: gen, life: s.Life}}, nil
}

// writer writes through the page cache.
type writer struct {
	s *Store
	p place
	f *file // nil until the first byte

	from, to int64 // written, and not on its way to the disk yet
}

const (
	// behind is how many bytes are written before the kernel is asked to begin with bringing them to the disk, so that the sync at
	// the end has little left to do.
	behind = 16 << 20
	// askSpace is how many bytes all writers together write between two looks at the free space.
	askSpace = 8 << 20
)

// WriteAt implements upload.Writer.
func (w *writer) WriteAt(p []byte, off int64) (int, error) {
	if w.f == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	if before := w.s.written.Add(int64(len(p))) - int64(len(p)); before/askSpace != (before+int64(len(p)))/askSpace || before == 0 {
		if free, err := w.s.Free(context.Background()); err == nil && free == 0 {
			return 0, fmt.Errorf("the disk is down to its reserve: %w", upload.ErrFull)
		}
	}
	n, err := w.f.f.WriteAt(p, off)
	if err != nil {
		return n, full(err)
	}
	if w.to != off {
		w.flow()
		w.from = off
	}
	if w.to = off + int64(n); w.to-w.from >= behind {
		w.flow()
	}
	return n, nil
}

// open makes the place, or a spare one where it is poisoned.
func (w *writer) open() error {
	w.s.mu.Lock()
	w.p.spare = w.s.spares[w.p.String()]
	w.s.mu.Unlock()
	f, err := w.s.hold(w.p, true)
	w.f = f
	return err
}

// flow lets the kernel begin to write what it has; it does not wait.
func (w *writer) flow() {
	if w.to > w.from {
		writeBack(w.f.f, w.from, w.to-w.from)
	}
	w.from = w.to
}

// Commit implements upload.Writer.
func (w *writer) Commit(_ context.Context, off, n int64, crc uint32) (catalog.Extent, error) {
	if w.f == nil {
		return catalog.Extent{}, errors.New("nothing was written")
	}
	e := catalog.Extent{Place: w.p.String(), Off: off, Len: n, CRC32C: crc}
	w.f.committed(session.Range{Off: off, End: off + n})
	if w.s.opts.Durability == Power {
		return e, w.f.settle()
	}
	return e, nil
}

// Close implements upload.Writer.
func (w *writer) Close() error {
	if w.f != nil {
		if w.to-w.from >= 1<<20 {
			w.flow()
		}
		w.f.release()
		w.f = nil
	}
	return nil
}

// full marks the errors that mean that there is no room.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", upload.ErrFull, err)
	}
	return err
}

// settleAtOnce is how many places one Settle syncs at a time.
const settleAtOnce = 16

// Settle implements upload.Blobs.
func (s *Store) Settle(_ context.Context, extents []catalog.Extent) error {
	of := map[string][]catalog.Extent{}
	for _, e := range extents {
		of[e.Place] = append(of[e.Place], e)
	}
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, settleAtOnce)
		mu    sync.Mutex
		lost  []catalog.Extent
		errs  []error
	)
	for name, es := range of {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			gone, err := s.settlePlace(name, es)
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, gone...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if len(lost) > 0 {
		return &upload.LostError{Lost: lost, Err: err}
	}
	return err
}

// settlePlace syncs one place, and says which of its extents are gone.
func (s *Store) settlePlace(name string, es []catalog.Extent) (lost []catalog.Extent, err error) {
	p, ok := parse(name)
	if !ok {
		return es, fmt.Errorf("place %.80q is not one of this store", name)
	}
	f, err := s.hold(p, false)
	if errors.Is(err, upload.ErrNoPlace) {
		return es, err
	}
	if err != nil {
		return nil, err
	}
	defer f.release()
	if err = f.settle(); err == nil {
		return nil, nil
	}
	for _, e := range es {
		if f.hasLost(session.Range{Off: e.Off, End: e.Off + e.Len}) {
			lost = append(lost, e)
		}
	}
	if len(lost) == 0 {
		return nil, nil // what these are is older than the failure
	}
	return lost, err
}
