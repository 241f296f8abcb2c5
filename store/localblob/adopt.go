package localblob

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"sluice/internal/durable"
)

// Adopt opens a place by the name that it had in another folder, and makes it where it is not there, so that a restore can write to it what a backup
// holds. The caller syncs and closes it. A folder that has adopted places is closed by [Store.CloseAdopted], and serves nothing before.
func (s *Store) Adopt(name string) (durable.File, error) {
	p, ok := parse(name)
	if !ok {
		return nil, fmt.Errorf("place %.80q is not one of this store", name)
	}
	f, err := s.fs.OpenFile(s.path(p), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, full(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Life = max(s.Life, p.life)
	return f, nil
}

// CloseAdopted closes a folder that places were adopted into, all of which are synced and closed. The next who opens it trusts nothing
// in it, and lives a life that no name has and that the folder the places come from will not reach: the two may go on side by
// side, and never give one name to different bytes.
func (s *Store) CloseAdopted() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for i := range s.folders {
		errs = append(errs, durable.SyncDir(s.fs, s.folder(i)))
	}
	var jump [8]byte
	_, err := rand.Read(jump[:])
	if err = errors.Join(append(errs, err)...); err == nil {
		s.state = state{Life: s.Life + 1<<32 + binary.BigEndian.Uint64(jump[:])>>16}
		err = s.writeState()
	}
	return errors.Join(err, s.lock.Close())
}
