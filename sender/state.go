package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// state is what the system says of a file: while none of it changes, nothing has been written to
// it.
type state struct {
	size, inode       int64
	modified, changed int64 // in nanoseconds; the second one, ctime, can't be set
}

// stateOf looks at an open file, and says whether it is a regular one.
func stateOf(f *os.File) (st state, regular bool, err error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return st, false, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return state{
		size: s.Size, inode: int64(s.Ino), modified: s.Mtim.Nano(), changed: s.Ctim.Nano(),
	}, s.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// open opens a regular file. It waits for nothing: a pipe in its place would be waited for.
func open(path string) (*os.File, state, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, state{}, err
	}
	st, regular, err := stateOf(f)
	if err == nil && !regular {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// honest reports whether the file ends where its size says. In /proc files have a size of 0, and in
// /sys one of a page, whatever is in them.
func (st *state) sizeIsExact(f *os.File) (bool, error) {
	for range maxReads {
		var last [2]byte
		from := max(st.size-1, 0)
		n, err := f.ReadAt(last[:], from)
		if err != nil && err != io.EOF {
			return false, err
		}
		if int64(n) == st.size-from {
			return true, nil
		}
		now, _, err := stateOf(f)
		if err != nil {
			return false, err
		}
		if now.size == st.size {
			return false, nil
		}
		*st = now // it grows
	}
	return false, ErrChanged
}

// mostReads is how often a file is read anew that changes while it is read.
const maxReads = 4

// look says whether the file is another than it was. It is ErrChanged where its length is, or where
// another file has its name.
func (t *transfer) compareState() (now state, touched bool, err error) {
	if now, _, err = stateOf(t.disk); err != nil {
		return now, false, err
	}
	named, err := os.Stat(t.f.Disk)
	if err != nil {
		return now, false, err
	}
	own, err := t.disk.Stat()
	if err != nil {
		return now, false, err
	}
	if now.size != t.state.size || !os.SameFile(named, own) {
		return now, true, ErrChanged
	}
	return now, now != t.state, nil
}

// resized is ErrChanged where the file can't be finished as it was begun.
func (t *transfer) checkLength() error {
	_, _, err := t.compareState()
	return err
}

// read gives a small file's content, of one moment.
func (t *transfer) readAll() ([]byte, error) {
	for range maxReads {
		b := make([]byte, t.state.size)
		n, err := t.disk.ReadAt(b, 0)
		if err != nil && err != io.EOF {
			return nil, err
		}
		now, touched, err := t.compareState()
		if err != nil {
			return nil, err
		}
		if !touched && n == len(b) {
			return b, nil
		}
		t.state = now
	}
	return nil, ErrChanged
}

// digest hashes the whole file, as it is at one moment.
func (t *transfer) digest(ctx context.Context, chunk int64) (sum [32]byte, crcs []string, err error) {
	for range maxReads {
		d := newDigester(chunk)
		if err := d.read(ctx, t.disk, 0, t.state.size); err != nil {
			return sum, nil, err
		}
		now, touched, err := t.compareState()
		if err != nil {
			return sum, nil, err
		}
		if !touched {
			sum, crcs = d.sum()
			return sum, crcs, nil
		}
		t.state = now
	}
	return sum, nil, ErrChanged
}

// settled is how long after its last change a file's times tell of a further one for certain:
// clocks of file systems go in steps, of up to two seconds.
const timestampStep = 3 * time.Second

// fresh reports whether the file may have been changed since an upload began at a time, though its
// times do not tell.
func (st state) mayHaveChanged(began time.Time) bool {
	return time.Unix(0, max(st.changed, st.modified)).Add(timestampStep).After(began)
}
