package localblob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Trim implements blob.Store. An item of a pack is there as a whole or not at all.
func (s *Store) Trim(ctx context.Context, name string, keep []catalog.Extent) error {
	p, ok := parse(name)
	if !ok {
		return fmt.Errorf("place %.80q is not one of this store", name)
	}
	if p.in > 0 {
		return nil
	}
	f, err := s.acquire(p, false)
	if errors.Is(err, blob.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.release()
	keep = slices.Clone(keep)
	slices.SortFunc(keep, func(a, b catalog.Extent) int { return cmp.Compare(a.Off, b.Off) })
	at := int64(0)
	for _, e := range append(keep, catalog.Extent{Place: name, Off: math.MaxInt64}) {
		if e.Place != name {
			continue
		}
		if err := errors.Join(ctx.Err(), f.trim(session.Range{Off: at, End: e.Off})); err != nil {
			return err
		}
		at = max(at, e.Off+e.Len)
	}
	return nil
}

// trimStep is how much of a file is given back in one step, in bytes.
const trimStep = 64 << 20

// trim gives back the whole blocks of r. If the file system can't, they stay until the file is
// deleted.
func (f *file) trim(r session.Range) error {
	page := int64(max(block, os.Getpagesize())) // one write may share that much with another
	end := r.End / page * page
	for at := (r.Off + page - 1) / page * page; at < end; {
		next, err := f.f.NextData(at)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if at = max(at, next/page*page); at >= end {
			return nil
		}
		n := min(end-at, trimStep)
		if err := f.f.Punch(at, n); errors.Is(err, errors.ErrUnsupported) {
			return nil
		} else if err != nil {
			return fmt.Errorf("giving back bytes %d to %d of place %s: %w", at, at+n-1, f.p, err)
		}
		at += n
	}
	return nil
}
