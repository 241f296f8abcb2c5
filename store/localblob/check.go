package localblob

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"unsafe"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// Check implements blob.Store.
func (s *Store) Check(ctx context.Context, e catalog.Extent, policy blob.CheckPolicy) error {
	p, ok := parse(e.Place)
	if !ok {
		return fmt.Errorf("place %.80q is not one of this store: %w", e.Place, blob.ErrMissing)
	}
	if policy == blob.CheckBeforeReboot && p.incarnation >= s.SinceReboot ||
		policy == blob.CheckBeforeCrash && p.incarnation >= s.SinceCrash {
		return nil
	}
	h, err := s.startRead(e.Place)
	if err != nil {
		return err
	}
	defer h.endRead()
	if err := h.ends(e); err != nil {
		return err
	}
	f, r := h.f, p.of(e)
	// Only bytes on the disk count. Bytes that a sync has failed to bring there are lost, whatever
	// a read may still find.
	if err := f.persist(); err != nil && f.hasLost(r) {
		return fmt.Errorf("%w: %w", blob.ErrCorrupt, err)
	}
	crc, err := s.reread(ctx, f, r)
	if err == io.EOF || err == nil && crc != e.CRC32C {
		err = blob.ErrCorrupt
	}
	err = s.unreadable(p, err)
	if err != nil {
		return fmt.Errorf("place %s, bytes %d to %d: %w", e.Place, e.Off, e.Off+e.Len, err)
	}
	return nil
}

const (
	block = durable.Block
	// checkAtOnce is how many bytes a check reads at a time.
	checkAtOnce = 256 << 10
)

// reread gives the CRC-32C of a part of a file as the disk holds it; io.EOF if the file ends
// before.
func (s *Store) reread(ctx context.Context, f *file, r session.Range) (crc uint32, err error) {
	buf, ok := s.checkBufs.Get().(*[]byte)
	if !ok {
		buf = aligned(checkAtOnce)
	}
	defer s.checkBufs.Put(buf)
	read, done := f.f.PastCache(r.Off, r.Len())
	defer done()
	end := r.End
	for at := r.Off &^ (block - 1); at < end; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		want := min((end-at+block-1)&^(block-1), checkAtOnce)
		n, err := read((*buf)[:want], at)
		if n == 0 && err != nil {
			return 0, err
		}
		if n%block != 0 && at+int64(n) < end {
			return 0, io.EOF
		}
		crc = crc32.Update(crc, castagnoli, (*buf)[max(r.Off-at, 0):min(int64(n), end-at)])
		at += int64(n)
	}
	return crc, nil
}

// aligned gives n bytes that begin at the edge of a block.
func aligned(n int) *[]byte {
	b := make([]byte, n+block)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (block - 1)
	b = b[skip : skip+uintptr(n)]
	return &b
}
