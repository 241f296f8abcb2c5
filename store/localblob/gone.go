package localblob

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"sluice/blob"
	"sluice/internal/durable"
)

// checkFolder gives an error, a blob.ErrUnavailable, if the content folder itself, or the folder of
// these places, is gone or can't be read from the disk. Then a missing or unreadable place says
// nothing about that place: all places are so.
func (s *Store) checkFolder(folder int) error {
	err := s.checkFormatFile()
	if err == nil {
		err = s.InPlace()
	}
	if err == nil {
		var info durable.Info
		if info, err = s.fs.Stat(s.folder(folder)); err == nil && !info.Dir {
			err = syscall.ENOTDIR
		}
	}
	if err != nil {
		return fmt.Errorf("%w: the content folder is gone, or can't be read: %w", blob.ErrUnavailable, err)
	}
	return nil
}

// checkFormatFile reads, past the cache, the file that each content folder has.
func (s *Store) checkFormatFile() (err error) {
	f, err := s.fs.OpenFile(filepath.Join(s.dir, "format"), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	read, done := f.PastCache(0, block)
	defer func() { err = errors.Join(err, done()) }()
	b := *aligned(block)
	n, err := read(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if want := fmt.Sprintf(formatLine, format); string(b[:n]) != want {
		return fmt.Errorf("its file format is %.40q", b[:n])
	}
	return nil
}

// unreadable marks the error of a sector that can't be read as blob.ErrCorrupt: its bytes are as
// lost as changed ones. If nothing in the folder can be read, the error says that instead.
func (s *Store) unreadable(p place, err error) error {
	if !errors.Is(err, syscall.EIO) {
		return err
	}
	if gone := s.checkFolder(p.folderOf()); gone != nil {
		return gone
	}
	return fmt.Errorf("%w: %w", blob.ErrCorrupt, err)
}
