// Package blobtest has the conformance suite that every content store passes, and a store in memory
// for tests. It has no test of a concrete store.
package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Mem is a content store in memory that can be told to fail.
type Mem struct {
	mu      sync.Mutex
	places  map[string]*memPlace
	reads   int
	persist func([]catalog.Extent) error
	write   func(place string, off int64) error
}

var _ blob.Store = (*Mem)(nil)

type memPlace struct {
	id session.SessionID
	b  []byte
}

// NewMem makes an empty store.
func NewMem() *Mem { return &Mem{places: map[string]*memPlace{}} }

// FailPersist makes every Persist return f's result; nil ends that.
func (s *Mem) FailPersist(f func([]catalog.Extent) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.persist = f
}

// FailWrite makes writes fail with f's error; nil ends that.
func (s *Mem) FailWrite(f func(place string, off int64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write = f
}

// Reads gives how often Read was called.
func (s *Mem) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Corrupt flips a bit.
func (s *Mem) Corrupt(place string, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[place].b[off] ^= 1
}

// Writer implements blob.Store.
func (s *Mem) Writer(_ context.Context, id session.SessionID, gen uint64, _ int64) (blob.Writer, error) {
	return &memWriter{s, id, fmt.Sprintf("%016x-%x", uint64(id), gen)}, nil
}

type memWriter struct {
	s    *Mem
	id   session.SessionID
	name string
}

// WriteAt implements blob.Writer.
func (w *memWriter) WriteAt(p []byte, off int64) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.write != nil {
		if err := w.s.write(w.name, off); err != nil {
			return 0, err
		}
	}
	place := w.s.places[w.name]
	if place == nil {
		place = &memPlace{id: w.id}
		w.s.places[w.name] = place
	}
	if need := off + int64(len(p)); need > int64(len(place.b)) {
		place.b = append(place.b, make([]byte, need-int64(len(place.b)))...)
	}
	return copy(place.b[off:], p), nil
}

// ReadSoon implements blob.Writer.
func (w *memWriter) ReadSoon(bool) {}

// Commit implements blob.Writer.
func (w *memWriter) Commit(_ context.Context, off, n int64, crc uint32) (catalog.Extent, error) {
	return catalog.Extent{Place: w.name, Off: off, Len: n, CRC32C: crc}, nil
}

// Undo implements blob.Writer.
func (w *memWriter) Undo(ranges []session.Range) (string, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	place := w.s.places[w.name]
	if place == nil {
		return "", nil
	}
	for _, r := range ranges {
		place.clear(r)
	}
	return w.name, nil
}

// clear zeroes the bytes of r.
func (p *memPlace) clear(r session.Range) {
	if end := min(r.End, int64(len(p.b))); r.Off < end {
		clear(p.b[r.Off:end])
	}
}

// Close implements blob.Writer.
func (w *memWriter) Close() error { return nil }

// Trim implements blob.Store.
func (s *Mem) Trim(_ context.Context, name string, keep []catalog.Extent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.places[name]
	if place == nil {
		return nil
	}
	var kept []session.Range
	for _, e := range keep {
		if e.Place == name {
			kept = session.Add(kept, session.Range{Off: e.Off, End: e.Off + e.Len})
		}
	}
	for _, r := range session.Gaps(kept, session.All(), 0) {
		place.clear(r)
	}
	return nil
}

// Persist implements blob.Store.
func (s *Mem) Persist(_ context.Context, extents []catalog.Extent) error {
	s.mu.Lock()
	persist := s.persist
	s.mu.Unlock()
	if persist == nil {
		return nil
	}
	return persist(extents)
}

// bytesOf gives the checked bytes of an extent. s.mu is held.
func (s *Mem) bytesOf(e catalog.Extent) ([]byte, error) {
	place := s.places[e.Place]
	if place == nil {
		return nil, fmt.Errorf("%s: %w", e.Place, blob.ErrMissing)
	}
	if e.Off+e.Len > int64(len(place.b)) {
		return nil, fmt.Errorf("%s: %w", e.Place, blob.ErrCorrupt)
	}
	b := place.b[e.Off : e.Off+e.Len]
	if crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) != e.CRC32C {
		return nil, fmt.Errorf("%s at %d: %w", e.Place, e.Off, blob.ErrCorrupt)
	}
	return b, nil
}

// Read implements blob.Store.
func (s *Mem) Read(_ context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	var all []byte
	at := int64(0)
	for _, e := range extents {
		if at < off+n && at+e.Len > off {
			b, err := s.bytesOf(e)
			if err != nil {
				return nil, err
			}
			all = append(all, b[max(off-at, 0):min(off+n-at, e.Len)]...)
		}
		at += e.Len
	}
	if int64(len(all)) != n {
		return nil, fmt.Errorf("the extents have %d of the %d bytes: %w", len(all), n, blob.ErrCorrupt)
	}
	return io.NopCloser(bytes.NewReader(all)), nil
}

// Check implements blob.Store.
func (s *Mem) Check(_ context.Context, e catalog.Extent, policy blob.CheckPolicy) error {
	if policy != blob.CheckAll {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.bytesOf(e)
	return err
}

// Delete implements blob.Store.
func (s *Mem) Delete(_ context.Context, place string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.places, place)
	return nil
}

// Places implements blob.Store.
func (s *Mem) Places(_ context.Context, after string, n int) ([]blob.PlaceInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []blob.PlaceInfo
	for name, p := range s.places {
		if name > after {
			out = append(out, blob.PlaceInfo{Name: name, Session: p.id, Bytes: int64(len(p.b))})
		}
	}
	slices.SortFunc(out, func(a, b blob.PlaceInfo) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return out[:min(len(out), n)], nil
}

// Free implements blob.Store.
func (s *Mem) Free(context.Context) (int64, error) { return 1 << 50, nil }
