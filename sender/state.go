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

// state is what the system says of a file. While it stays the same, nothing has been written to the
// file.
type state struct {
	size, inode       int64
	modified, changed int64 // in nanoseconds; the second one, ctime, can't be set
}

// stateOf returns the state of an open file, and whether it is a regular one.
func stateOf(f *os.File) (st state, regular bool, err error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return st, false, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return state{
		size: s.Size, inode: int64(s.Ino), modified: s.Mtim.Nano(), changed: s.Ctim.Nano(),
	}, s.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// open opens a regular file. It never blocks, as opening a pipe would.
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

// sizeIsExact reports whether the file ends at its size. Files in /proc have a size of 0, and those
// in /sys a size of one page, whatever their content is.
func (st *state) sizeIsExact(f *os.File) (bool, error) {
	for range maxReads {
		var last [2]byte
		off := max(st.size-1, 0)
		n, err := f.ReadAt(last[:], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		if int64(n) == st.size-off {
			return true, nil
		}
		now, _, err := stateOf(f)
		if err != nil {
			return false, err
		}
		if now.size == st.size {
			return false, nil
		}
		*st = now // the file grows
	}
	return false, ErrChanged
}

// maxReads is how often a file that changes during a read is read anew.
const maxReads = 4

// compareState reports whether the file has changed. It is ErrChanged if the file's length has
// changed, or another file has its name.
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

// checkLength is ErrChanged if the file can't be finished as it was begun.
func (t *transfer) checkLength() error {
	_, _, err := t.compareState()
	return err
}

// readAll returns a small file's content as of one moment.
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

// digest hashes the whole file as of one moment.
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

// timestampStep is how long after a change the file's times certainly show a further one: clocks of
// file systems advance in steps of up to two seconds.
const timestampStep = 3 * time.Second

// mayHaveChanged reports whether the file may have changed since the beginning of an upload without
// a trace in its times.
func (st state) mayHaveChanged(began time.Time) bool {
	return time.Unix(0, max(st.changed, st.modified)).Add(timestampStep).After(began)
}
