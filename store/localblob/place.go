package localblob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/session"
	"sluice/upload"
)

// place is what a place's name says.
type place struct {
	id               session.SessionID
	gen, life, spare uint64
}

func (p place) String() string {
	s := fmt.Sprintf("%016x-%x-%x", uint64(p.id), p.gen, p.life)
	if p.spare > 0 {
		s += fmt.Sprintf("-%x", p.spare)
	}
	return s
}

// parse reads a name strictly, so that no name that comes from elsewhere ever becomes a path.
func parse(name string) (p place, ok bool) {
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
	p = place{session.SessionID(n[0]), n[1], n[2], n[3]}
	return p, p.String() == name
}

// folder is where the names that begin with these two digits are.
func (s *Store) folder(i int) string {
	return filepath.Join(s.dir, "places", fmt.Sprintf("%02x", i))
}

// folderOf gives the number of the folder that a place is in.
func (p place) folderOf() int { return int(uint64(p.id) >> 56) }

func (s *Store) path(p place) string { return filepath.Join(s.folder(p.folderOf()), p.String()) }

// Delete implements upload.Blobs.
func (s *Store) Delete(_ context.Context, name string) error {
	p, ok := parse(name)
	if !ok {
		return fmt.Errorf("place %.80q is not one of this store", name)
	}
	f, err := s.hold(p, false) // keeps the unlinking short: the blocks go with the last who has it open
	if errors.Is(err, upload.ErrNoPlace) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.release()
	// Unlinked before it is forgotten, so that nobody opens in between what is about to go.
	if err := s.fs.Remove(s.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	f.gone.Store(true)
	s.forget(f)
	s.mu.Unlock()
	return s.syncFolder(p)
}

// Places implements upload.Blobs. Files whose names are no places are left alone.
func (s *Store) Places(ctx context.Context, after string, n int) (out []upload.PlaceInfo, err error) {
	first := 0
	if p, ok := parse(after); ok {
		first = p.folderOf()
	}
	for i := first; i < len(s.folders); i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := s.fs.List(s.folder(i))
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
			if out = append(out, upload.PlaceInfo{Name: name, Session: p.id, Bytes: info.Bytes}); len(out) == n {
				return out, nil
			}
		}
	}
	return out, nil
}

// Free implements upload.Blobs: what is left of the disk beside the reserve.
func (s *Store) Free(context.Context) (int64, error) {
	free, err := s.fs.Free(s.dir)
	return max(free-s.opts.Reserve, 0), err
}
