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
	partName = "RESERVE-%02d"
	// mostParts is how many parts a reserve has, and leastPart the size of the smallest. Each part
	// is a file, so that a disk that lacks inodes gets one too.
	maxParts, minPart = 16, 64 << 10
	// tidyPause is how long tidying up waits on a full disk before it fails, and is tried again by
	// Pebble at once.
	compactionPause = time.Second
)

// reserve is room on the disk that is taken by files of zeros, until the disk is full: then one
// after the other makes way for what must be written. What it gives up is not there until fill, and
// then for nobody but who ends something.
type reserve struct {
	disk      vfs.FS
	dir       string
	log       *slog.Logger
	partSize  int64 // bytes
	partCount int   // parts

	diskFull atomic.Bool // the disk was full since the last fill that succeeded
	closed   chan struct{}

	mu    sync.Mutex
	parts []string // paths
}

// openReserve finds what an earlier start has left.
func openReserve(disk vfs.FS, dir string, bytes int64, log *slog.Logger) *reserve {
	r := &reserve{disk: disk, dir: dir, log: log, closed: make(chan struct{})}
	r.partSize = max((bytes+maxParts-1)/maxParts, minPart)
	r.partCount = int((bytes + r.partSize - 1) / r.partSize)
	for i := range maxParts {
		path := r.path(i)
		info, err := disk.Stat(path)
		// Of another size it was not made to its end, or for another reserve; and a copy of a
		// folder may have holes where there were zeros.
		if err == nil && (bytes == 0 || info.Size() == r.partSize && allocated(info) >= r.partSize) {
			r.parts = append(r.parts, path)
		}
	}
	return r
}

func (r *reserve) path(i int) string { return r.disk.PathJoin(r.dir, fmt.Sprintf(partName, i)) }

// allocated is how many bytes of the disk a file has taken, as far as that is known.
func allocated(info vfs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}

// give makes room by one part. It is false where none is left.
func (r *reserve) releasePart() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.diskFull.CompareAndSwap(false, true) {
		r.log.Error("the disk is full: the metadata uses its reserve, and nothing new is taken until there is free space", "parts", len(r.parts))
	}
	for len(r.parts) > 0 {
		last := r.parts[len(r.parts)-1]
		r.parts = r.parts[:len(r.parts)-1]
		if r.disk.Remove(last) == nil {
			return true
		}
	}
	return false
}

// fill makes what is missing, where the disk has room for that and as much again four times.
// Otherwise the error is ErrDiskFull, or says why it can't.
func (r *reserve) refill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := int64(max(r.partCount-len(r.parts), 0)) * r.partSize
	use, err := r.disk.GetDiskUsage(r.dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported): // then it shows when it is tried
	case err != nil:
		return fmt.Errorf("asking for the free space of %s: %w", r.dir, err)
	case r.diskFull.Load() && int64(use.AvailBytes) < missing+4*int64(r.partCount)*r.partSize, int64(use.AvailBytes) < missing:
		return ErrDiskFull
	}
	have := map[string]bool{}
	for _, path := range r.parts {
		have[path] = true
	}
	for i := 0; len(r.parts) < r.partCount && i < maxParts; i++ {
		path := r.path(i)
		if have[path] {
			continue
		}
		if err := r.makePart(path); err != nil {
			return err
		}
		r.parts = append(r.parts, path)
	}
	if r.diskFull.CompareAndSwap(true, false) {
		r.log.Info("the disk has free space again, and the metadata its reserve")
	}
	return nil
}

// make makes one part. It need not survive a crash: the next start looks.
func (r *reserve) makePart(path string) error {
	f, err := r.disk.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		if err = durable.Allocate(f.Fd(), r.partSize); errors.Is(err, errors.ErrUnsupported) {
			err = writeZeros(f, r.partSize)
		}
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, r.disk.Remove(path))
		}
	}
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// zeros takes room by writing, and syncs, since some file systems find only then that there is
// none.
func writeZeros(f vfs.File, n int64) error {
	for b := make([]byte, minPart); n > 0; n -= int64(len(b)) {
		if _, err := f.Write(b[:min(n, minPart)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// noRoom reports whether a disk, or a quota on it, is full.
func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// CheckSpace gives ErrDiskFull while the disk is full, so that nothing new is begun: finish, abort
// and delete then have what the reserve gives up. The first call that finds room for it makes the
// reserve whole again. It costs nothing where nothing has happened.
func (db *DB) CheckSpace() error {
	r := db.reserve
	if !r.diskFull.Load() {
		return nil
	}
	err := r.refill()
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
	if use, err := db.reserve.disk.GetDiskUsage(db.dir); err == nil && use.AvailBytes < minPart {
		db.reserve.releasePart()
	}
}
