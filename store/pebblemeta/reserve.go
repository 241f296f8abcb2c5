package pebblemeta

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/durable"
)

// ErrDiskFull: the disk is full, or was and has hardly any room yet. What the reserve gave is left
// to ends: finish, abort and delete.
var ErrDiskFull = errors.New("the metadata's disk is full")

const (
	// reserveFile is the name of a part of the reserve, with its number.
	reserveFile = "RESERVE-%02d"
	// mostParts is how many parts a reserve has, and leastPart the size of the smallest. Each part
	// is a file, so that a disk that lacks inodes gets one too.
	mostParts, leastPart = 16, 64 << 10
	// tidyPause is how long tidying up waits on a full disk before it fails, and is tried again by
	// Pebble at once.
	tidyPause = time.Second
)

// reserve is room on the disk that is taken by files of zeros, until the disk is full: then one
// after the other makes way for what must be written. What it gives up is not there until fill, and
// then for nobody but who ends something.
type reserve struct {
	disk vfs.FS
	dir  string
	log  *slog.Logger
	part int64 // bytes
	want int   // parts

	full   atomic.Bool // the disk was full since the last fill that succeeded
	closed chan struct{}

	mu   sync.Mutex
	held []string // paths
}

// openReserve finds what an earlier start has left.
func openReserve(disk vfs.FS, dir string, bytes int64, log *slog.Logger) *reserve {
	r := &reserve{disk: disk, dir: dir, log: log, closed: make(chan struct{})}
	r.part = max((bytes+mostParts-1)/mostParts, leastPart)
	r.want = int((bytes + r.part - 1) / r.part)
	for i := range mostParts {
		path := r.path(i)
		info, err := disk.Stat(path)
		// Of another size it was not made to its end, or for another reserve; and a copy of a
		// folder may have holes where there were zeros.
		if err == nil && (bytes == 0 || info.Size() == r.part && allocated(info) >= r.part) {
			r.held = append(r.held, path)
		}
	}
	return r
}

func (r *reserve) path(i int) string { return r.disk.PathJoin(r.dir, fmt.Sprintf(reserveFile, i)) }

// allocated is how many bytes of the disk a file has taken, as far as that is known.
func allocated(info vfs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}

// give makes room by one part. It is false where none is left.
func (r *reserve) give() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full.CompareAndSwap(false, true) {
		r.log.Error("the disk is full: the metadata uses its reserve, and nothing new is taken until there is room", "parts", len(r.held))
	}
	for len(r.held) > 0 {
		last := r.held[len(r.held)-1]
		r.held = r.held[:len(r.held)-1]
		if r.disk.Remove(last) == nil {
			return true
		}
	}
	return false
}

// fill makes what is missing, where the disk has room for that and as much again four times.
// Otherwise the error is ErrDiskFull, or says why it can't.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := int64(max(r.want-len(r.held), 0)) * r.part
	use, err := r.disk.GetDiskUsage(r.dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported): // then it shows when it is tried
	case err != nil:
		return fmt.Errorf("asking for the free space of %s: %w", r.dir, err)
	case r.full.Load() && int64(use.AvailBytes) < missing+4*int64(r.want)*r.part, int64(use.AvailBytes) < missing:
		return ErrDiskFull
	}
	held := map[string]bool{}
	for _, path := range r.held {
		held[path] = true
	}
	for i := 0; len(r.held) < r.want && i < mostParts; i++ {
		path := r.path(i)
		if held[path] {
			continue
		}
		if err := r.make(path); err != nil {
			return err
		}
		r.held = append(r.held, path)
	}
	if r.full.CompareAndSwap(true, false) {
		r.log.Info("the disk has room again, and the metadata its reserve")
	}
	return nil
}

// make makes one part. It need not survive a crash: the next start looks.
func (r *reserve) make(path string) error {
	f, err := r.disk.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		if err = durable.Allocate(f.Fd(), r.part); errors.Is(err, errors.ErrUnsupported) {
			err = zeros(f, r.part)
		}
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, r.disk.Remove(path))
		}
	}
	if noRoom(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// zeros takes room by writing, and syncs, since some file systems find only then that there is
// none.
func zeros(f vfs.File, n int64) error {
	for b := make([]byte, leastPart); n > 0; n -= int64(len(b)) {
		if _, err := f.Write(b[:min(n, leastPart)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// noRoom reports whether a disk, or a quota on it, is full.
func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// CheckSpace gives ErrDiskFull while the disk is full, so that nothing new is begun: finish, abort
// and delete then have what the reserve gives up. The first call that finds room for it makes the
// reserve whole again. It costs nothing where nothing has happened.
func (db *DB) CheckSpace() error {
	r := db.reserve
	if !r.full.Load() {
		return nil
	}
	err := r.fill()
	if err != nil && !errors.Is(err, ErrDiskFull) {
		// A disk that fails shows where it matters; for a reserve alone nobody is refused.
		r.log.Warn("making the metadata's reserve", "err", err)
		return nil
	}
	return err
}

// ShareReserve gives a part of the reserve to others on the same disk, where that is full: the
// content's folder can't be opened or closed without a block.
func (db *DB) ShareReserve() {
	if use, err := db.reserve.disk.GetDiskUsage(db.dir); err == nil && use.AvailBytes < leastPart {
		db.reserve.give()
	}
}
