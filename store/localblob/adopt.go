package localblob

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/catalog"
	"sluice/internal/durable"
)

// Adopt opens a place by the name that it had in another folder, and makes it if it is not there,
// so that a restore can write to it what a backup holds. The caller syncs and closes it. A folder
// that has adopted places is closed by [Store.CloseAdopted], and serves nothing before.
func (s *Store) Adopt(name string) (durable.File, error) {
	p, ok := parse(name)
	if !ok {
		return nil, fmt.Errorf("place %.80q is not one of this store", name)
	}
	f, err := s.fs.OpenFile(s.path(p), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	if p.in > 0 {
		packed, err := s.adoptItem(p, f)
		if err != nil {
			return nil, errors.Join(classify(err), f.Close())
		}
		f = packed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Incarnation = max(s.Incarnation, p.incarnation)
	return f, nil
}

// CloseAdopted closes a folder that has adopted places, all of which are synced and closed. The
// next Open counts none of its content as verified. It begins an incarnation that no name has and
// that the original folder will not reach: both folders may live on side by side, and never give
// one name to different bytes.
func (s *Store) CloseAdopted() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for i := range s.folders {
		errs = append(errs, durable.SyncDir(s.fs, s.folder(i)))
	}
	var jump [8]byte
	_, err := io.ReadFull(s.opts.Rand, jump[:])
	if err = errors.Join(append(errs, err)...); err == nil {
		s.state = state{Incarnation: s.Incarnation + 1<<32 + binary.BigEndian.Uint64(jump[:])>>16}
		err = s.writeState()
	}
	return errors.Join(err, s.lock.Close())
}

// adoptItem makes the pack of a place if it is not there, and the item's header.
func (s *Store) adoptItem(p place, f durable.File) (durable.File, error) {
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	key, sound, err := readKey(f)
	if err != nil {
		return nil, err
	}
	if !sound {
		if has, err := hasData(f); err != nil || has {
			return nil, errors.Join(fmt.Errorf("pack %s is damaged", p.file()), err)
		}
		if key, err = newKey(s.opts.Rand); err != nil {
			return nil, err
		}
		if _, err := f.WriteAt(key.head(), 0); err != nil {
			return nil, err
		}
	}
	b := make([]byte, itemHeader)
	key.header(b, p)
	if _, err := f.WriteAt(b, p.off); err != nil {
		return nil, err
	}
	return adopted{f, p}, nil
}

// adopted is an item as a file of its own, for the writer of its content.
type adopted struct {
	durable.File
	p place
}

// WriteAt implements durable.File.
func (a adopted) WriteAt(b []byte, off int64) (int, error) {
	if !a.p.has(catalog.Extent{Off: off, Len: int64(len(b))}) {
		return 0, fmt.Errorf("place %s has no bytes %d to %d", a.p, off, off+int64(len(b)))
	}
	return a.File.WriteAt(b, a.p.base()+off)
}
