package download

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"sluice/internal/durable"
	"sluice/session"
	"sluice/session/journal"
)

// InTheWayError: a file that is not Get's own has a name that Get needs. It is left as it is.
type InTheWayError struct{ Path string }

// Error says what the user can do.
func (e *InTheWayError) Error() string {
	return e.Path + " is in the way: it was not left by an earlier get; move it, or give another name with -o"
}

// The mark behind the bytes of a part: 16 bytes that no other file ends with, and the SHA-256 of
// the content.
const (
	partMark = "\x00sluice part 1\x00\n"
	markSize = int64(len(partMark) + sha256.Size)
)

// writeMark gives the part its length, with the mark behind the content, whatever the file had.
func (j *job) writeMark(f *os.File) error {
	if err := f.Truncate(j.size + markSize); err != nil {
		return err
	}
	_, err := f.WriteAt(append([]byte(partMark), j.digest[:]...), j.size)
	return err
}

// marked reports whether a file ends with the mark of a part, of any content.
func marked(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() < markSize {
		return false, err
	}
	var b [len(partMark)]byte
	_, err = f.ReadAt(b[:], info.Size()-markSize)
	return string(b[:]) == partMark, err
}

// openPart opens the part, or makes it, and locks it until it is closed. This is the lock of Dest:
// ErrBusy, InTheWayError.
func (j *job) openPart(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := durable.OpenLocked(j.req.partPath())
		if errors.Is(err, os.ErrNotExist) {
			f, err = durable.CreateLocked(j.req.partPath(), j.mode(), j.writeMark)
			j.fresh = err == nil
		}
		switch {
		case errors.Is(err, os.ErrExist):
			continue // another Get was faster
		case errors.Is(err, durable.ErrLocked):
			return ErrBusy
		case errors.Is(err, durable.ErrForeign):
			return &InTheWayError{j.req.partPath()}
		case err != nil:
			return err
		}
		j.part = f
		if isOwn, err := j.isOwnPart(); err != nil || !isOwn {
			return errors.Join(err, &InTheWayError{j.req.partPath()}, f.Close())
		}
		return nil
	}
}

// isOwnPart reports whether the part is known to be one: by its mark, or by its bytes.
func (j *job) isOwnPart() (bool, error) {
	if j.fresh {
		return true, nil
	}
	if is, err := marked(j.part); is || err != nil {
		return is, err
	}
	if is, err := journal.Is(j.req.journalPath()); err != nil || !is {
		if j.size == 0 {
			return false, err
		}
		// A small part loses its mark when it is whole.
		same, err2 := hasContent(context.Background(), j.req.partPath(), j.size, j.digest)
		return same, errors.Join(err, err2)
	}
	former, err := journal.Open(j.req.journalPath())
	if errors.Is(err, journal.ErrDamaged) {
		return false, nil
	}
	if errors.Is(err, journal.ErrLocked) {
		return false, ErrBusy
	}
	if err != nil {
		return false, err
	}
	defer former.Close()
	return holdsEntry(former, j.part)
}

// errFound ends a search.
var errFound = errors.New("found")

// holdsEntry reports whether the file has the bytes of an entry of the journal.
func holdsEntry(former *journal.Journal, part io.ReaderAt) (bool, error) {
	ctx := context.Background()
	engine, err := session.New(ctx, former, session.Config{})
	if err != nil {
		return false, err
	}
	for _, state := range []session.State{session.Open, session.Sealed, session.Finished} {
		q := session.Query{State: state, Limit: 100}
		err := session.Page(ctx, former, q, func(s session.Session) (bool, error) {
			entries, err := engine.Entries(ctx, s.ID, session.All(), 0)
			for _, e := range entries {
				if holds(part, e) {
					return false, errFound
				}
			}
			return true, err
		})
		if errors.Is(err, errFound) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("looking for what has arrived: %w", err)
		}
	}
	return false, nil
}

// holds compares the file's bytes with the CRC-32C of an entry.
func holds(part io.ReaderAt, e session.Entry) bool {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(part, e.Off, e.Len()), make([]byte, 256<<10))
	return err == nil && n == e.Len() && string(e.Note) == string(binary.BigEndian.AppendUint32(nil, h.Sum32()))
}

// removeFresh removes a part that this Get has made and does not need.
func (j *job) removeFresh() error {
	if !j.fresh {
		return nil
	}
	return j.removePart()
}

func (j *job) closePart() error { return j.part.Close() }

// Suffixes are what Get appends to the name of its Dest.
func Suffixes() []string { return []string{partSuffix, journalSuffix} }

// IsOwn reports whether a file is one that Get keeps beside its Dest.
func IsOwn(path string) (bool, error) {
	switch {
	case strings.HasSuffix(path, journalSuffix):
		return journal.Is(path)
	case strings.HasSuffix(path, partSuffix):
		f, err := durable.OpenRegular(path)
		if f == nil {
			return false, err
		}
		defer f.Close()
		return marked(f)
	}
	return false, nil
}

// mode is the mode of the file that is replaced: a secret file is secret from the beginning.
func (j *job) mode() os.FileMode {
	if info, err := os.Lstat(j.req.Dest); err == nil && info.Mode().IsRegular() {
		return info.Mode().Perm()
	}
	return 0o666
}
