package backup

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"unsafe"

	"sluice/catalog"
	"sluice/internal/durable"
)

// validPlace keeps names that come from rows from becoming other paths.
var validPlace = regexp.MustCompile(`^[0-9A-Za-z]{2}[0-9A-Za-z_-]{0,198}$`)

// placePath is the path of a place's bytes in a backup folder.
func placePath(dir, place string) (string, error) {
	if !validPlace.MatchString(place) {
		return "", fmt.Errorf("the name of place %.80q is impossible", place)
	}
	return filepath.Join(dir, contentDir, place[:2], place), nil
}

// openPlaces are the places of a backup folder that one goroutine has open.
type openPlaces struct {
	on    durable.FS
	dir   string
	write bool
	files map[string]durable.File
	// unverified are the extents that were written since the last persist.
	unverified []catalog.Extent
	// buf and old hold whole blocks, and begin at the edge of a block.
	buf, old []byte
}

const copyAtOnce = 256 << 10

func newOpenPlaces(on durable.FS, dir string, write bool) *openPlaces {
	return &openPlaces{
		on: on, dir: dir, write: write, files: map[string]durable.File{}, buf: aligned(copyAtOnce),
		old: aligned(copyAtOnce + 2*durable.Block),
	}
}

// open opens a place; create makes it if it is not there. Without create its error is then
// fs.ErrNotExist.
func (o *openPlaces) open(place string, create bool) (durable.File, error) {
	if f := o.files[place]; f != nil {
		return f, nil
	}
	path, err := placePath(o.dir, place)
	if err != nil {
		return nil, err
	}
	flag := os.O_RDONLY
	if o.write {
		flag = os.O_RDWR
	}
	f, err := o.on.OpenFile(path, flag, 0o600)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := o.on.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = o.on.OpenFile(path, flag|os.O_CREATE, 0o600)
	}
	if err == nil {
		o.files[place] = f
	}
	return f, err
}

// extentCopy copies one extent into the backup. It does not write bytes again that were copied as
// part of another extent, or by a backup that did not end.
type extentCopy struct {
	places  *openPlaces
	f       durable.File
	read    func(p []byte, off int64) (int, error) // past the cache; nil when there is nothing more
	done    func() error
	written int64
}

func (o *openPlaces) begin(e catalog.Extent) (*extentCopy, error) {
	f, err := o.open(e.Place, true)
	if err != nil {
		return nil, err
	}
	read, done := f.PastCache(e.Off, e.Len)
	return &extentCopy{o, f, read, done, 0}, nil
}

func (c *extentCopy) close() { _ = c.done() }

// write writes the bytes that the disk does not hold yet.
func (c *extentCopy) write(p []byte, off int64) error {
	have := c.commonPrefix(p, off)
	if have == len(p) {
		return nil
	}
	n, err := c.f.WriteAt(p[have:], off+int64(have))
	c.written += int64(n)
	return err
}

// commonPrefix is how many bytes of p, from the first, the disk holds.
func (c *extentCopy) commonPrefix(p []byte, off int64) int {
	if c.read == nil {
		return 0
	}
	first, end := off&^(durable.Block-1), off+int64(len(p))
	n, _ := c.read(c.places.old[:(end-first+durable.Block-1)&^(durable.Block-1)], first)
	if first+int64(n) < end {
		c.read = nil
	}
	old := c.places.old[min(off-first, int64(n)):n]
	if len(old) > len(p) {
		old = old[:len(p)]
	}
	if bytes.Equal(old, p[:len(old)]) {
		return len(old)
	}
	i := 0
	for old[i] == p[i] {
		i++
	}
	return i
}

// present reports whether the copy of an extent has at least its length. That is enough for an
// extent that a finished backup names.
func (o *openPlaces) present(e catalog.Extent) (bool, error) {
	if e.Len == 0 {
		return true, nil
	}
	f, err := o.open(e.Place, false)
	if err == nil {
		_, err = f.ReadAt(o.buf[:1], e.Off+e.Len-1)
	}
	if errors.Is(err, fs.ErrNotExist) || err == io.EOF {
		return false, nil
	}
	return err == nil, err
}

// matches reports whether the disk holds the copy of an extent with the right checksum.
func (o *openPlaces) matches(e catalog.Extent) (bool, error) {
	f, err := o.open(e.Place, false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	crc, err := o.reread(f, e.Off, e.Len)
	if errors.Is(err, io.EOF) || unreadable(err) {
		return false, nil
	}
	return err == nil && crc == e.CRC32C, err
}

// persist brings the written bytes to the disk, and reads them back from there.
func (o *openPlaces) persist() error {
	for place, f := range o.files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("syncing the copy of place %s: %w", place, err)
		}
	}
	for _, e := range o.unverified {
		if ok, err := o.matches(e); err != nil || !ok {
			unkept := fmt.Errorf("the disk of the backup did not keep what was written to it: place %s, bytes %d to %d",
				e.Place, e.Off, e.Off+e.Len)
			return errors.Join(unkept, err)
		}
	}
	o.unverified = o.unverified[:0]
	return nil
}

// close closes all places.
func (o *openPlaces) close() (err error) {
	for place, f := range o.files {
		err = errors.Join(err, f.Close())
		delete(o.files, place)
	}
	return err
}

// reread gives the CRC-32C of n bytes from off as the disk holds them, past the cache; io.EOF if
// the file ends before.
func (o *openPlaces) reread(f durable.File, off, n int64) (crc uint32, err error) {
	read, done := f.PastCache(off, n)
	defer func() { err = errors.Join(err, done()) }()
	end := off + n
	for at := off &^ (durable.Block - 1); at < end; {
		want := min((end-at+durable.Block-1)&^(durable.Block-1), copyAtOnce)
		got, err := read(o.buf[:want], at)
		if got == 0 && err != nil {
			return 0, err
		}
		if got%durable.Block != 0 && at+int64(got) < end {
			return 0, io.EOF
		}
		crc = crc32.Update(crc, castagnoli, o.buf[max(off-at, 0):min(int64(got), end-at)])
		at += int64(got)
	}
	return crc, nil
}

// aligned gives n bytes that begin at the edge of a block.
func aligned(n int) []byte {
	b := make([]byte, n+durable.Block)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (durable.Block - 1)
	return b[skip : skip+uintptr(n)]
}

// unreadable reports whether the disk can't read the bytes.
func unreadable(err error) bool { return errors.Is(err, syscall.EIO) }

// classify marks the errors that mean that there is no free space.
func classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
