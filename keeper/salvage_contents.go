package keeper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"syscall"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// RawPlaces is the content as a Salvage searches it.
type RawPlaces interface {
	// Places is blob.Store's Places.
	Places(ctx context.Context, after string, n int) ([]blob.PlaceInfo, error)
	// Raw gives the bytes of a place, compared with nothing, until done is called. n is how many
	// there are; -1 if that is not known.
	Raw(place string) (r io.ReaderAt, n int64, done func(), err error)
}

// lostContent is a content whose row is lost, as its memory has it.
type lostContent struct {
	key   catalog.ContentKey
	bytes int64
	by    uint64
	in    string // the name of its memory, for people
}

// recoverContents finds the bytes of contents whose rows are lost. A place that nothing names
// any more has them if their SHA-256 is the right one, so recovered bytes are what was stored.
func (s *Salvage) recoverContents(ctx context.Context, content RawPlaces) error {
	s.changed = nil
	var all []lostContent
	named := map[string]bool{}
	if err := s.store.View(ctx, func(rows catalog.Reader) (err error) {
		clear(named)
		all, err = s.lostContents(rows, named)
		return err
	}); err != nil || len(all) == 0 {
		return err
	}
	for after := ""; len(all) > 0; {
		page, err := content.Places(ctx, after, 1000)
		if err != nil || len(page) == 0 {
			return errors.Join(err, s.apply(ctx))
		}
		for _, p := range page {
			if after = p.Name; named[p.Name] || p.Holds != nil {
				continue
			}
			if all, err = s.compare(ctx, content, p, all); err != nil {
				return err
			}
		}
	}
	return s.apply(ctx)
}

// lostContents lists the contents that memories name and that have no row. It notes the places that
// are in use, or garbage for good.
func (s *Salvage) lostContents(rows catalog.Reader, named map[string]bool) (all []lostContent, err error) {
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return nil, err
		}
		key := catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}
		_, there, err := catalog.Contents.Find(rows, key)
		if err != nil {
			return nil, err
		}
		if !there && m.Bytes > 0 {
			all = append(all, lostContent{key, m.Bytes, m.By, nameOf(m)})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	for row, err := range rows.Scan(catalog.ContentTable, nil, nil, false) {
		if err != nil {
			return nil, err
		}
		if c, ok := row.(catalog.Content); ok {
			for _, name := range c.Places() {
				named[name] = true
			}
		}
	}
	for p, err := range catalog.Places.After(rows, "") {
		if err != nil {
			return nil, err
		}
		named[p.Name] = named[p.Name] || p.Refs == 0
	}
	return all, nil
}

// compare checks whether a place has one of the contents, and gives the contents that are still
// missing.
func (s *Salvage) compare(
	ctx context.Context, content RawPlaces, p blob.PlaceInfo, all []lostContent,
) ([]lostContent, error) {
	reader, has, done, err := content.Raw(p.Name)
	if isDamage(err) || errors.Is(err, syscall.EIO) {
		return all, ctx.Err()
	}
	if err != nil { // the place may have one, and can't be read now
		return all, fmt.Errorf("place %s: %w", p.Name, err)
	}
	defer done()
	tried := map[int64]bool{}
	for _, w := range all {
		if w.by != 0 && session.SessionID(w.by) != p.Session || has >= 0 && w.bytes != has || tried[w.bytes] ||
			!hasBytes(reader, w.bytes) {
			continue
		}
		tried[w.bytes] = true
		extents, sum, err := digest(ctx, reader, p.Name, w.bytes)
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		i := slices.IndexFunc(all, func(o lostContent) bool {
			return err == nil && o.key.SHA256 == sum && o.bytes == w.bytes
		})
		if i < 0 {
			continue
		}
		is := all[i]
		s.Found(Finding{
			Kind: KindLost, Capsule: is.key.Capsule,
			Text: fmt.Sprintf("%s: the record of its content; its bytes were found in place %s", is.in, p.Name),
		})
		s.change(func(tx catalog.Tx) error {
			return catalog.Contents.Put(tx, is.key,
				catalog.Content{Capsule: is.key.Capsule, SHA256: sum, Bytes: is.bytes, Extents: extents})
		})
		return slices.DeleteFunc(all, func(o lostContent) bool { return o.key == is.key }), nil
	}
	return all, nil
}

// hasBytes reports whether there are at least n bytes.
func hasBytes(reader io.ReaderAt, n int64) bool {
	var b [1]byte
	_, err := reader.ReadAt(b[:], n-1)
	return err == nil
}

// regainedExtent is the length of the extents of a recovered content, in bytes.
const regainedExtent = 16 << 20

// digest reads the first n bytes of a place.
func digest(
	ctx context.Context, reader io.ReaderAt, place string, n int64,
) (extents []catalog.Extent, sum catalog.SHA256, err error) {
	hash, table := sha256.New(), crc32.MakeTable(crc32.Castagnoli)
	b := make([]byte, min(n, 1<<20))
	for at := int64(0); at < n && ctx.Err() == nil; {
		p := b[:min(int64(len(b)), n-at)]
		if _, err := reader.ReadAt(p, at); err != nil {
			return nil, sum, err
		}
		hash.Write(p)
		if len(extents) == 0 || extents[len(extents)-1].Len == regainedExtent {
			extents = append(extents, catalog.Extent{Place: place, Off: at})
		}
		e := &extents[len(extents)-1]
		e.CRC32C = crc32.Update(e.CRC32C, table, p)
		e.Len += int64(len(p))
		at += int64(len(p))
	}
	return extents, catalog.SHA256(hash.Sum(nil)), ctx.Err()
}
