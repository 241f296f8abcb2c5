package localblob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Read implements blob.Store. Each byte was compared since it came from the disk, in the buffer
// that is handed out. An earlier comparison proves nothing, since the page cache reads again what
// it has evicted meanwhile.
//
//	a whole extent ── read, and compared at its end, before its last part is given
//	                    ─▶ its marks are remembered
//	a part of one  ── first compared as a whole, unless its marks are remembered;
//	                  then block by block, each before it is given
//
// So the first read of a part of an extent costs the whole extent. Any other read costs the blocks
// that it touches, as long as the marks are remembered.
func (s *Store) Read(_ context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	r := &reader{s: s, files: map[string]readRef{}}
	want := session.Range{Off: off, End: off + n}
	at, total := int64(0), int64(0)
	for _, e := range extents {
		part := session.Range{Off: at, End: at + e.Len}.Intersect(want)
		if !part.Empty() {
			if err := r.open(s, e); err != nil {
				return nil, errors.Join(err, r.Close())
			}
			r.parts = append(r.parts, span{e: e, from: part.Off - at, to: part.End - at})
			total += part.Len()
		}
		at += e.Len
	}
	if total != n {
		return nil, errors.Join(fmt.Errorf("the extents have %d of %d bytes: %w", total, n, blob.ErrCorrupt), r.Close())
	}
	return r, nil
}

// span is what is still to be read of one extent: from byte `from` of it up to `to`.
type span struct {
	e        catalog.Extent
	from, to int64
	sum      *summing // if the extent is being read whole for the first time
	marks    []uint32 // if the extent was compared already
}

// reader streams spans. It keeps their places open, so that it can be read to its end even if they
// are deleted meanwhile.
type reader struct {
	s     *Store
	files map[string]readRef
	parts []span
}

// readRef is a place that is being read.
type readRef struct {
	f *file
	p place
}

// startRead opens a place for reading; endRead must follow.
func (s *Store) startRead(name string) (h readRef, err error) {
	p, ok := parse(name)
	if !ok {
		return h, fmt.Errorf("place %.80q is not one of this store: %w", name, blob.ErrMissing)
	}
	f, err := s.acquire(p, false)
	if err != nil {
		return h, err
	}
	if err := f.startRead(p); err != nil {
		f.release()
		return h, err
	}
	return readRef{f, p}, nil
}

func (r readRef) endRead() {
	r.f.endRead(r.p)
	r.f.release()
}

func (r *reader) open(s *Store, e catalog.Extent) error {
	if h, ok := r.files[e.Place]; ok {
		return h.ends(e)
	}
	h, err := s.startRead(e.Place)
	if err != nil {
		return err
	}
	r.files[e.Place] = h
	return h.ends(e)
}

// ends refuses an extent that goes past the place's end, if that is known.
func (r readRef) ends(e catalog.Extent) error {
	if !r.p.has(e) {
		return fmt.Errorf("place %s ends early: %w", e.Place, blob.ErrCorrupt)
	}
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	if len(r.parts) == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	part := &r.parts[0]
	if part.marks == nil && part.sum == nil {
		if err := r.begin(part); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), part.to-part.from)]
	if part.sum != nil {
		n, err = len(p), r.stream(part, p)
	} else {
		n, err = r.readBlocks(part, p)
	}
	if err != nil {
		return 0, err
	}
	if part.from += int64(n); part.from == part.to {
		r.parts = r.parts[1:]
	}
	return n, nil
}

// begin finds out how a span is compared.
func (r *reader) begin(part *span) error {
	if part.marks = r.s.compared.of(part.e); part.marks != nil {
		return nil
	}
	if part.to-part.from == part.e.Len {
		part.sum = &summing{}
		return nil
	}
	e := part.e
	key := fmt.Sprintf("%s %d %d %d", e.Place, e.Off, e.Len, e.CRC32C)
	marks, err, _ := r.s.comparing.Do(key, func() (any, error) { return r.compareWhole(e) })
	if err == nil {
		part.marks = marks.([]uint32)
	}
	return err
}

// compareWhole reads an extent from its first byte to its last, and gives its marks.
func (r *reader) compareWhole(e catalog.Extent) ([]uint32, error) {
	if marks := r.s.compared.of(e); marks != nil { // another reader has just compared it
		return marks, nil
	}
	sum := &summing{}
	buf := r.s.block()
	defer r.s.blockBufs.Put(buf)
	for at := int64(0); at < e.Len; {
		b := (*buf)[:min(markEvery, e.Len-at)]
		if err := r.readAt(e, b, at); err != nil {
			return nil, err
		}
		sum.add(b)
		at += int64(len(b))
	}
	return r.verify(e, sum)
}

// stream reads the next bytes of an extent that is compared at its end.
func (r *reader) stream(part *span, p []byte) error {
	if err := r.readAt(part.e, p, part.from); err != nil {
		return err
	}
	part.sum.add(p)
	if part.from+int64(len(p)) < part.to {
		return nil
	}
	_, err := r.verify(part.e, part.sum)
	return err
}

// verify gives the marks of an extent that was read to its end, if the bytes are what was stored.
func (r *reader) verify(e catalog.Extent, sum *summing) ([]uint32, error) {
	if sum.crc != e.CRC32C {
		return nil, corrupt(e)
	}
	r.s.compared.add(e, sum.marks)
	return sum.marks, nil
}

// readBlocks reads the next bytes of an extent whose marks are known: some whole blocks, or a part
// of one.
func (r *reader) readBlocks(part *span, p []byte) (int, error) {
	first := part.from / markEvery * markEvery
	if whole := int64(len(p)) / markEvery * markEvery; part.from == first && whole > 0 {
		return int(whole), r.readMarked(part, p[:whole], first)
	}
	buf := r.s.block() // it is given back before the reader waits for a client
	defer r.s.blockBufs.Put(buf)
	b := (*buf)[:min(markEvery, part.e.Len-first)]
	if err := r.readMarked(part, b, first); err != nil {
		return 0, err
	}
	return copy(p, b[part.from-first:]), nil
}

// readMarked reads blocks, the first of which begins at off, and compares each with its marks.
func (r *reader) readMarked(part *span, p []byte, off int64) error {
	if err := r.readAt(part.e, p, off); err != nil {
		return err
	}
	for i := off / markEvery; len(p) > 0; i++ {
		b := p[:min(markEvery, len(p))]
		if crc32.Update(mark(part.marks, i-1), castagnoli, b) != mark(part.marks, i) {
			return corrupt(part.e)
		}
		p = p[len(b):]
	}
	return nil
}

func corrupt(e catalog.Extent) error {
	return fmt.Errorf("place %s, bytes %d to %d: %w", e.Place, e.Off, e.Off+e.Len, blob.ErrCorrupt)
}

// readAt fills p with the bytes of an extent from offset off.
func (r *reader) readAt(e catalog.Extent, p []byte, off int64) error {
	in := r.files[e.Place]
	n, err := in.f.f.ReadAt(p, in.p.of(e).Off+off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = fmt.Errorf("place %s ends early: %w", e.Place, blob.ErrCorrupt)
	}
	return r.s.unreadable(in.p, err)
}

// block gives a buffer of one block.
func (s *Store) block() *[]byte {
	if buf, ok := s.blockBufs.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, markEvery)
	return &buf
}

// Close implements io.Closer.
func (r *reader) Close() error {
	for _, h := range r.files {
		h.endRead()
	}
	r.files, r.parts = nil, nil
	return nil
}
