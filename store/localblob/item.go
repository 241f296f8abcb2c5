package localblob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"sluice/blob"
	"sluice/internal/durable"
	"sluice/session"
)

const (
	// itemHeader is how long an item's header is, in bytes.
	itemHeader = 64
	packMagic  = "sluice pack, format 1\n"
	itemMagic  = "sluiceit"
)

// packKey is the random key of one pack. It is never given out, so that no content can look like
// the header of an item.
type packKey [16]byte

func newKey(random io.Reader) (k packKey, err error) {
	_, err = io.ReadFull(random, k[:])
	return k, err
}

// head gives the first block of a pack.
func (k packKey) head() []byte {
	b := make([]byte, block)
	n := copy(b, packMagic)
	n += copy(b[n:], k[:])
	sum := sha256.Sum256(b[:n])
	copy(b[n:], sum[:])
	return b
}

// readKey reads the key from the first block of a pack. ok is false if there is no intact one.
func readKey(f io.ReaderAt) (k packKey, ok bool, err error) {
	b := make([]byte, block)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return k, false, err
	}
	copy(k[:], b[len(packMagic):])
	return k, bytes.Equal(b, k.head()), nil
}

// header writes the header of p into b.
func (k packKey) header(b []byte, p place) {
	n := copy(b[:itemHeader], itemMagic)
	binary.BigEndian.PutUint64(b[n:], uint64(p.id))
	binary.BigEndian.PutUint64(b[n+8:], uint64(p.off))
	binary.BigEndian.PutUint64(b[n+16:], uint64(p.len))
	sum := sha256.Sum256(append(k[:], b[:n+24]...))
	copy(b[n+24:itemHeader], sum[:])
}

// read gives the item of the pack `in` whose header is b, at off.
func (k packKey) read(b []byte, in place, off int64) (p place, ok bool) {
	n := len(itemMagic)
	p = in
	p.id = session.SessionID(binary.BigEndian.Uint64(b[n:]))
	p.off, p.len = int64(binary.BigEndian.Uint64(b[n+8:])), int64(binary.BigEndian.Uint64(b[n+16:]))
	var want [itemHeader]byte
	k.header(want[:], p)
	return p, p.off == off && bytes.Equal(b, want[:])
}

// walk visits the items from offset off, in order. If torn is not nil, it is called for the blocks
// between them that hold something else. Either function ends the walk by false.
func (k packKey) walk(f durable.File, in place, off int64, item func(p place) bool, torn func(off int64) bool) error {
	var b [itemHeader]byte
	for {
		at, err := f.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		off = max(off, at/block*block)
		clear(b[:])
		if _, err := f.ReadAt(b[:], off); err != nil && err != io.EOF {
			if !errors.Is(err, syscall.EIO) {
				return err
			}
			clear(b[:])
		}
		if p, ok := k.read(b[:], in, off); ok {
			if !item(p) {
				return nil
			}
			off += p.size()
			continue
		}
		if torn != nil && !torn(off) {
			return nil
		}
		off += block
	}
}

// hasData reports whether a pack has anything behind its first block.
func hasData(f durable.File) (bool, error) {
	_, err := f.NextData(block)
	if err == io.EOF {
		return false, nil
	}
	return err == nil, err
}

// items lists the places in packs that come after a name, until there are n.
func (s *Store) items(ctx context.Context, after string, n int, out []blob.PlaceInfo) ([]blob.PlaceInfo, error) {
	last, _ := parsePacked(after)
	names, err := s.list(packFolder)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, ok := parsePack(name)
		if !ok || last.in > 0 && name < last.file() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		from := int64(block)
		if last.in > 0 && p == last.pack() {
			from = last.off + last.size()
		}
		if out, err = s.itemsOf(p, from, n, out); err != nil || len(out) == n {
			return out, err
		}
	}
	return out, nil
}

func (s *Store) itemsOf(in place, from int64, n int, out []blob.PlaceInfo) ([]blob.PlaceInfo, error) {
	f, err := s.acquire(in, false)
	if errors.Is(err, blob.ErrMissing) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.release()
	first := len(out)
	s.packs.mu.Lock()
	l := &listing{f: f, n: n, out: out, noPunch: s.packs.noPunch}
	s.packs.mu.Unlock()
	torn := l.torn
	if in.incarnation == s.Incarnation {
		torn = nil // the blocks may belong to an append under way
	}
	if err := f.pack.key.walk(f.f, in, from, l.item, torn); err != nil {
		return l.out, err
	}
	l.flush()
	if len(l.out) > first || from > block || torn == nil {
		return l.out, nil
	}
	if has, err := hasData(f.f); has || err != nil {
		return l.out, err
	}
	l.rest = place{incarnation: in.incarnation, in: in.in, off: block}
	l.flush() // an empty pack is one free stretch: deleting that removes the pack
	return l.out, nil
}

// listing collects the items of a pack, and the stretches between them that hold something else.
type listing struct {
	f   *file
	n   int // how many at most
	out []blob.PlaceInfo
	// noPunch: the file system can't punch, so that a deletion leaves zeros.
	noPunch bool
	rest    place // unrecognised blocks so far; in is 0 if there are none
}

// mostRest is the largest stretch of unrecognised blocks that is listed as one, in bytes.
const mostRest = 1 << 20

func (l *listing) item(p place) bool {
	if l.flush(); len(l.out) == l.n {
		return false
	}
	l.f.mu.Lock()
	_, deleted := l.f.pack.deleted[p.off]
	l.f.mu.Unlock()
	if !deleted {
		l.out = append(l.out, blob.PlaceInfo{
			Name: p.String(), Session: p.id, Incarnation: p.incarnation, Bytes: p.size(),
			Earlier: p.incarnation != l.f.s.Incarnation,
		})
	}
	return len(l.out) < l.n
}

// torn takes a block that belongs to no item that can be recognised.
func (l *listing) torn(off int64) bool {
	if l.noPunch {
		var b [block]byte
		if _, err := l.f.f.ReadAt(b[:], off); (err == nil || err == io.EOF) && b == [block]byte{} {
			return true
		}
	}
	if l.rest.in > 0 && (off != l.rest.off+l.rest.size() || l.rest.size() == mostRest) {
		l.flush()
	}
	if l.rest.in == 0 {
		l.rest = l.f.p
		l.rest.off, l.rest.len = off, block-itemHeader
	} else {
		l.rest.len += block
	}
	return len(l.out) < l.n
}

// flush lists the stretch that was collected.
func (l *listing) flush() {
	if l.rest.in == 0 || len(l.out) == l.n {
		return
	}
	rest := l.rest
	l.rest = place{}
	holds := func(name string) bool {
		p, ok := parse(name)
		return ok && p.in > 0 && p.pack() == rest.pack() && p.off < rest.off+rest.size() && p.off+p.size() > rest.off
	}
	l.out = append(l.out, blob.PlaceInfo{
		Name: rest.String(), Incarnation: rest.incarnation, Bytes: rest.size(), Earlier: true, Holds: holds,
	})
}
