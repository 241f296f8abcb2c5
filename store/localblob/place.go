package localblob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// place is what a place's name says.
type place struct {
	id                            session.SessionID
	gen, incarnation, replacement uint64
	// For a place in a pack: the pack's number, the offset of its item, and the bytes of its
	// content. If in is zero, the place is in no pack. If in is set and off is zero, this
	// stands for the pack itself, which is no place.
	in, off, len int64
}

func (p place) String() string {
	b := make([]byte, 0, 64)
	if p.in > 0 {
		b = appendHex(append(p.appendFile(b), '-'), uint64(p.off), 8)
		b = appendHex(append(b, '-'), uint64(p.len), 6)
		return string(appendHex(append(b, '-'), uint64(p.id), 16))
	}
	return string(p.appendFile(b))
}

// file is the name of the file that the place is in.
func (p place) file() string { return string(p.appendFile(make([]byte, 0, 64))) }

func (p place) appendFile(b []byte) []byte {
	if p.in > 0 {
		b = appendHex(append(b, 'p'), p.incarnation, 16)
		return appendHex(append(b, '-'), uint64(p.in), 8)
	}
	b = appendHex(b, uint64(p.id), 16)
	b = appendHex(append(b, '-'), p.gen, 1)
	b = appendHex(append(b, '-'), p.incarnation, 1)
	if p.replacement > 0 {
		b = appendHex(append(b, '-'), p.replacement, 1)
	}
	return b
}

// appendHex appends n in at least so many digits.
func appendHex(b []byte, n uint64, digits int) []byte {
	for d := digits - 1; d > 0 && n>>(4*d) == 0; d-- {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, n, 16)
}

// home gives the place that has a file of its own: the place itself, or its pack.
func (p place) home() place {
	if p.in > 0 {
		return p.pack()
	}
	return p
}

// pack is the place's pack.
func (p place) pack() place { return place{incarnation: p.incarnation, in: p.in} }

// base is the offset in its file at which the place begins.
func (p place) base() int64 {
	if p.in > 0 {
		return p.off + itemHeader
	}
	return 0
}

// size is how long the place's item is in its pack.
func (p place) size() int64 { return (itemHeader + p.len + block - 1) / block * block }

// of gives the range in the place's file that an extent has.
func (p place) of(e catalog.Extent) session.Range {
	return session.Range{Off: p.base() + e.Off, End: p.base() + e.Off + e.Len}
}

// has reports whether the extent can lie in this place.
func (p place) has(e catalog.Extent) bool { return p.in == 0 || e.Off >= 0 && e.Off+e.Len <= p.len }

// parsePacked is parse for a place in a pack.
func parsePacked(name string) (p place, ok bool) {
	n, ok := numbers(name, 16, 8, 8, 6, 16)
	if !ok {
		return p, false
	}
	p = place{id: session.SessionID(n[4]), incarnation: n[0], in: int64(n[1]), off: int64(n[2]), len: int64(n[3])}
	return p, p.in > 0 && p.off > 0 && p.String() == name
}

// numbers reads a p and hexadecimal numbers of the given lengths, separated by dashes.
func numbers(name string, digits ...int) (n [5]uint64, ok bool) {
	at := 0
	for i, d := range digits {
		if at+1+d > len(name) {
			return n, false
		}
		v, err := strconv.ParseUint(name[at+1:at+1+d], 16, 64)
		if err != nil {
			return n, false
		}
		n[i] = v
		at += 1 + d
	}
	return n, at == len(name)
}

// parsePack reads the name of a pack.
func parsePack(name string) (p place, ok bool) {
	n, ok := numbers(name, 16, 8)
	if !ok {
		return p, false
	}
	p = place{incarnation: n[0], in: int64(n[1])}
	return p, p.in > 0 && p.file() == name
}

// parse reads a name strictly: no name that comes from elsewhere may become another path.
func parse(name string) (p place, ok bool) {
	if strings.HasPrefix(name, "p") {
		return parsePacked(name)
	}
	parts := strings.Split(name, "-")
	if len(parts) != 3 && len(parts) != 4 {
		return p, false
	}
	var n [4]uint64
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 16, 64)
		if err != nil {
			return p, false
		}
		n[i] = v
	}
	p = place{id: session.SessionID(n[0]), gen: n[1], incarnation: n[2], replacement: n[3]}
	return p, p.String() == name
}

// folder gives the path of a folder: the names that begin with these two digits, or the packs.
func (s *Store) folder(i int) string {
	if i == packFolder {
		return filepath.Join(s.dir, "packs")
	}
	return filepath.Join(s.dir, "places", fmt.Sprintf("%02x", i))
}

// folderOf gives the number of the folder that a place is in.
func (p place) folderOf() int {
	if p.in > 0 {
		return packFolder
	}
	return int(uint64(p.id) >> 56)
}

func (s *Store) path(p place) string { return filepath.Join(s.folder(p.folderOf()), p.file()) }

// Where gives the file below a store's folder that a place is in, and the offset at which the place
// begins in it. It gives the name itself if that is not a name of this kind of store.
func Where(name string) (file string, off int64) {
	p, ok := parse(name)
	if !ok {
		return name, 0
	}
	return (&Store{}).path(p), p.base()
}

// IncarnationOf gives the incarnation of the store in which a place was made; 0 if the name is not
// one of this kind of store.
func IncarnationOf(name string) uint64 {
	p, _ := parse(name)
	return p.incarnation
}

// Delete implements blob.Store.
func (s *Store) Delete(_ context.Context, name string) error {
	p, ok := parse(name)
	if !ok {
		return fmt.Errorf("place %.80q is not one of this store", name)
	}
	if p.in > 0 {
		return s.deleteItem(p)
	}
	f, err := s.acquire(p, false) // this keeps the unlinking short: the blocks go with the last open file
	if errors.Is(err, blob.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.release()
	// The file is unlinked before it is forgotten, so that nobody opens it in between.
	if err := s.fs.Remove(s.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	f.deleted.Store(true)
	s.forget(f)
	s.mu.Unlock()
	return s.syncFolder(p)
}

// Places implements blob.Store. It skips files whose names are not places.
func (s *Store) Places(ctx context.Context, after string, n int) (out []blob.PlaceInfo, err error) {
	first := 0
	if p, ok := parse(after); ok {
		first = p.folderOf()
	}
	for i := first; i < packFolder; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := s.list(i)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			p, ok := parse(name)
			if !ok || name <= after || p.folderOf() != i {
				continue
			}
			info, err := s.fs.Stat(s.path(p))
			if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Regular {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, blob.PlaceInfo{
				Name: name, Session: p.id, Incarnation: p.incarnation, Bytes: info.Bytes,
				Earlier: p.incarnation != s.Incarnation,
			})
			if len(out) == n {
				return out, nil
			}
		}
	}
	return s.items(ctx, after, n, out)
}

// list gives the names in a folder. A folder that is open for reading only may have been made by a
// program that had no packs.
func (s *Store) list(i int) ([]string, error) {
	names, err := s.fs.List(s.folder(i))
	if s.opts.ReadOnly && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// Free implements blob.Store: the free space of the disk without the reserve.
func (s *Store) Free(context.Context) (int64, error) {
	free, err := s.fs.Free(s.dir)
	return max(free-s.opts.Reserve, 0), err
}
