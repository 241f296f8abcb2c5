package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
)

// hole is a range of keys, lo ≤ key < hi, whose rows can't be known: a block of a table that may
// have some of them is corrupt. Rows that other tables have of the range do not count either, since
// the block may have newer ones.
type hole struct {
	lo, hi []byte
	// prevEnd is the last key that the block before the corrupt one can have; nil: there
	// is none.
	prevEnd []byte
	what    string
}

// holeError says that the rows of a hole can't be read.
type holeError struct{ hole }

func (e *holeError) Error() string {
	return fmt.Sprintf("the rows from %s up to %s can't be read: %s", describe(e.lo), describe(e.hi), e.what)
}

func (e *holeError) Unwrap() error { return catalog.ErrHole }

// each visits the rows with lo ≤ key < hi (nil: no bound) in order, or backwards with desc, until
// visit returns false. If a block is corrupt it calls onHole, and goes on behind the hole unless
// onHole returns false. visit must keep neither key nor row.
func (db *DB) each(
	r pebble.Reader, lo, hi []byte, desc bool,
	visit func(key, row []byte) bool, onHole func(error) bool,
) error {
	w := &walk{db: db, r: r, visit: visit, onHole: onHole, desc: desc}
	known := -1 // the first run assumes no holes, since few databases have any
	var holes []hole
	for {
		err := w.run(holes, lo, hi)
		if w.done || err == nil || !pebble.IsCorruptionError(err) {
			return err
		}
		all := db.corruption.holes(db.disk)
		if len(all) <= known {
			return markCorrupt(err)
		}
		known, holes = len(all), all
		if w.last != nil && desc {
			hi = w.last
		} else if w.last != nil {
			lo = append(w.last, 0)
		}
		w.last = nil
	}
}

// walk is one call of each.
type walk struct {
	db     *DB
	r      pebble.Reader
	visit  func(key, row []byte) bool
	onHole func(error) bool
	desc   bool
	last   []byte // visited
	done   bool   // visit or onHole has returned false
}

// run visits the rows between the holes.
func (w *walk) run(holes []hole, lo, hi []byte) error {
	holes = slices.DeleteFunc(slices.Clone(holes), func(h hole) bool {
		return bytes.Compare(h.hi, lo) <= 0 || hi != nil && bytes.Compare(h.lo, hi) >= 0
	})
	if w.desc {
		for i := len(holes) - 1; i >= 0 && !w.done; i-- {
			h := holes[i]
			if err := w.between(h.hi, nil, hi, &h); err != nil || w.done {
				return err
			}
			w.done = !w.onHole(&holeError{h})
			w.last, hi = h.lo, h.lo
			if h.prevEnd != nil && bytes.Compare(h.prevEnd, lo) >= 0 && !w.done {
				w.visitOne(h.prevEnd)
				hi = h.prevEnd
			}
		}
		return w.between(lo, nil, hi, nil)
	}
	for _, h := range holes {
		if err := w.between(lo, h.prevEnd, h.lo, &h); err != nil || w.done {
			return err
		}
		w.done = w.done || !w.onHole(&holeError{h})
		w.last, lo = justBefore(h.hi), h.hi
		if w.done {
			return nil
		}
	}
	return w.between(lo, nil, hi, nil)
}

// justBefore gives a key such that no row is between it and k. k must be a key with a zero
// appended, or an exclusive end.
func justBefore(k []byte) []byte { return bytes.TrimSuffix(slices.Clone(k), []byte{0}) }

// between visits the rows from lo up to hi. next is the hole that follows, if there is one. An
// iterator fails when it enters the corrupt block, before it gives the rows of other tables up to
// the hole. Those are read backwards from the hole.
func (w *walk) between(lo, prevEnd, hi []byte, next *hole) error {
	if hi != nil && bytes.Compare(lo, hi) >= 0 || w.done {
		return nil
	}
	last, err := w.iterate(lo, hi, w.desc, w.visitRow)
	if err == nil || next == nil || w.done || !pebble.IsCorruptionError(err) {
		return err
	}
	type row struct{ key, value []byte }
	var rest []row
	collect := func(key, value []byte) bool {
		rest = append(rest, row{bytes.Clone(key), bytes.Clone(value)})
		return true
	}
	if w.desc {
		if last != nil {
			hi = last
		}
	} else {
		if last != nil {
			lo = append(last, 0)
		}
		if prevEnd != nil && bytes.Compare(prevEnd, lo) >= 0 {
			if value, err := get(w.r, prevEnd); err == nil && value != nil {
				rest = append(rest, row{prevEnd, value})
			}
			hi = prevEnd
		}
	}
	if hi == nil || bytes.Compare(lo, hi) < 0 {
		if _, err := w.iterate(lo, hi, !w.desc, collect); err != nil { // these rows can't be read either
			next.what += fmt.Sprintf("; and from %s up to %s: %v", describe(lo), describe(hi), err)
			next.lo = minKey(next.lo, lo)
		}
	}
	for i := len(rest) - 1; i >= 0 && !w.done; i-- {
		w.visitRow(rest[i].key, rest[i].value)
	}
	return nil
}

// visitOne visits one row, if it is there and can be read.
func (w *walk) visitOne(key []byte) {
	if row, err := get(w.r, key); err == nil && row != nil {
		w.visitRow(key, row)
	}
}

func (w *walk) visitRow(key, row []byte) bool {
	w.last = append(w.last[:0:0], key...)
	w.done = !w.visit(key, row)
	return !w.done
}

// iterate visits the rows that Pebble's own iterator finds. last is the key that was visited last.
func (w *walk) iterate(lo, hi []byte, desc bool, visit func(key, row []byte) bool) (last []byte, err error) {
	it, err := w.r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return nil, err
	}
	start, step := it.First, it.Next
	if desc {
		start, step = it.Last, it.Prev
	}
	for ok := start(); ok; ok = step() {
		row, failed := it.ValueAndErr()
		if failed != nil {
			return last, errors.Join(failed, it.Close())
		}
		last = append(last[:0], it.Key()...)
		if !visit(it.Key(), row) {
			break
		}
	}
	// Close gives Error's error again.
	return last, it.Close()
}

// transient reports whether an error of reading says nothing about the bytes that are read: another
// try may succeed.
func transient(err error) bool {
	for _, no := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EACCES, syscall.EPERM, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// holesInFile finds the holes that a table makes. Its keys are from lo to hi, both included. An
// error is fs.ErrNotExist or a transient one. Then the holes are not known.
func holesInFile(disk vfs.FS, path string, lo, hi []byte) ([]hole, error) {
	whole := func(err error) ([]hole, error) {
		if transient(err) {
			return nil, err
		}
		return wholeTable(path, lo, hi, err), nil
	}
	f, err := disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return whole(err)
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return whole(errors.Join(err, f.Close()))
	}
	ctx := context.Background()
	r, err := sstable.NewReader(ctx, readable, tableOptions())
	if err != nil {
		return whole(errors.Join(err, readable.Close()))
	}
	defer r.Close()
	l, err := r.Layout()
	if err != nil {
		return whole(err)
	}
	for _, h := range append(slices.Clone(l.ValueBlock), l.RangeDel, l.RangeKey, l.ValueIndex) {
		if err := checkBlock(ctx, r, readable, h); err != nil {
			return whole(err)
		}
	}
	ends, err := separators(ctx, r, l.Index)
	if err != nil || len(ends) != len(l.Data) {
		return whole(errors.Join(err, catalog.ErrDamaged))
	}
	var out []hole
	for i, h := range l.Data {
		err := checkBlock(ctx, r, readable, h.Handle)
		if err == nil {
			continue
		}
		if transient(err) {
			return nil, err
		}
		last := h.Offset + h.Length + block.TrailerLen - 1
		bad := hole{
			lo: lo, hi: append(slices.Clone(ends[i]), 0),
			what: fmt.Sprintf("%s, bytes %d to %d: %v", path, h.Offset, last, err),
		}
		if i > 0 {
			bad.prevEnd, bad.lo = ends[i-1], append(slices.Clone(ends[i-1]), 0)
		}
		if i == len(l.Data)-1 {
			bad.hi = append(slices.Clone(hi), 0)
		}
		out = append(out, bad)
	}
	return out, nil
}

// wholeTable gives one hole for all keys of a table.
func wholeTable(path string, lo, hi []byte, err error) []hole {
	return []hole{{lo: lo, hi: append(slices.Clone(hi), 0), what: fmt.Sprintf("table %s is damaged: %v", path, err)}}
}

// tableOptions are the options for reading a table by itself.
func tableOptions() sstable.ReaderOptions {
	o := &pebble.Options{FormatMajorVersion: pebbleFormat}
	o.EnsureDefaults()
	return o.MakeReaderOptions()
}

func checkBlock(ctx context.Context, r *sstable.Reader, f objstorage.Readable, h block.Handle) error {
	if h.Length == 0 {
		return nil
	}
	b := make([]byte, h.Length+block.TrailerLen)
	if err := f.ReadAt(ctx, b, int64(h.Offset)); err != nil {
		return err
	}
	return block.ValidateChecksum(r.BlockReader().ChecksumType(), b, h)
}

// separators gives a key for each data block: no row of the block is behind it, and no row of a
// later block before it.
func separators(ctx context.Context, r *sstable.Reader, index []block.Handle) (ends [][]byte, err error) {
	for _, h := range index {
		b, err := r.BlockReader().Read(ctx, block.NoReadEnv, nil, h,
			blockkind.SSTableIndex, colblk.InitIndexBlockMetadata)
		if err != nil {
			return nil, err
		}
		var it colblk.IndexIter
		if err := it.InitHandle(r.Comparer, b, block.NoTransforms); err != nil {
			return nil, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			ends = append(ends, bytes.Clone(it.Separator()))
		}
		if err := it.Close(); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// mergeHoles sorts holes, and makes one of those that overlap or touch.
func mergeHoles(holes []hole) (out []hole) {
	slices.SortFunc(holes, func(a, b hole) int { return bytes.Compare(a.lo, b.lo) })
	for _, h := range holes {
		if n := len(out); n > 0 && bytes.Compare(h.lo, out[n-1].hi) <= 0 {
			if bytes.Compare(h.hi, out[n-1].hi) > 0 {
				out[n-1].hi = h.hi
			}
			out[n-1].what += "; " + h.what
			continue
		}
		out = append(out, h)
	}
	return out
}

func minKey(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}
