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

// ErrDiskFull: the disk is full, or was, and has hardly any free space yet. The space that the
// reserve has released is left to calls that end something: finish, abort and delete.
var ErrDiskFull = errors.New("the metadata's disk is full")

const (
	// partName is the name of a part of the reserve, with its number.
	partName = "RESERVE-%02d"
	// maxParts is how many parts a reserve has, and minPart the size of the smallest part in bytes.
	// Each part is a file, so that a disk that lacks inodes gets one too.
	maxParts, minPart = 16, 64 << 10
	// compactionPause is how long a compaction waits on a full disk before it fails. Pebble tries
	// it again at once.
	compactionPause = time.Second
)

// reserve is disk space that files of zeros occupy until the disk is full. Then they are removed
// one by one, for what must be written. Released space does not come back until refill. Until then
// only calls that end something may use it.
type reserve struct {
	disk      vfs.FS
	dir       string
	log       *slog.Logger
	partSize  int64 // bytes
	partCount int   // parts

	diskFull atomic.Bool // the disk was full since the last refill that succeeded
	closed   chan struct{}

	mu    sync.Mutex
	parts []string // paths
}

// openReserve finds the parts of an earlier start.
func openReserve(disk vfs.FS, dir string, bytes int64, log *slog.Logger) *reserve {
	r := &reserve{disk: disk, dir: dir, log: log, closed: make(chan struct{})}
	r.partSize = max((bytes+maxParts-1)/maxParts, minPart)
	r.partCount = int((bytes + r.partSize - 1) / r.partSize)
	for i := range maxParts {
		path := r.path(i)
		info, err := disk.Stat(path)
		// A part of another size was not made to its end, or was made for another reserve. A copy
		// of a folder may have sparse files instead of zeros.
		if err == nil && (bytes == 0 || info.Size() == r.partSize && allocated(info) >= r.partSize) {
			r.parts = append(r.parts, path)
		}
	}
	return r
}

func (r *reserve) path(i int) string { return r.disk.PathJoin(r.dir, fmt.Sprintf(partName, i)) }

// allocated is how many bytes of the disk a file occupies, as far as that is known.
func allocated(info vfs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}

// releasePart frees the space of one part. It returns false if none is left.
func (r *reserve) releasePart() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.diskFull.CompareAndSwap(false, true) {
		r.log.Error("the disk is full: the metadata uses its reserve, "+
			"and nothing new is taken until there is free space",
			"parts", len(r.parts))
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

// refill makes the missing parts. After a full disk it does so only if four more reserves would
// still fit. Otherwise the error is ErrDiskFull, or says why a part can't be made.
func (r *reserve) refill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := int64(max(r.partCount-len(r.parts), 0)) * r.partSize
	use, err := r.disk.GetDiskUsage(r.dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported): // then making the parts gives the error
	case err != nil:
		return fmt.Errorf("asking for the free space of %s: %w", r.dir, err)
	case r.diskFull.Load() && int64(use.AvailBytes) < missing+4*int64(r.partCount)*r.partSize,
		int64(use.AvailBytes) < missing:
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

// makePart makes one part. It need not survive a crash, since the next start looks for parts.
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

// writeZeros occupies space by writing. It syncs, since some file systems notice only then that
// there is no space.
func writeZeros(f vfs.File, n int64) error {
	for b := make([]byte, minPart); n > 0; n -= int64(len(b)) {
		if _, err := f.Write(b[:min(n, minPart)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// noSpace reports whether a disk, or a quota on it, is full.
func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// CheckSpace returns ErrDiskFull while the disk is full, so that nothing new is begun. Finish,
// abort and delete then have the space that the reserve releases. The first call that finds enough
// free space refills the reserve. The call costs nothing if the disk was never full.
func (db *DB) CheckSpace() error {
	r := db.reserve
	if !r.diskFull.Load() {
		return nil
	}
	err := r.refill()
	if err != nil && !errors.Is(err, ErrDiskFull) {
		// Other calls report a failing disk. Nothing is refused for the reserve alone.
		r.log.Warn("making the metadata's reserve", "err", err)
		return nil
	}
	return err
}

// ShareReserve releases a part of the reserve for others on the same disk, if that is full. The
// content's folder can't be opened or closed without a free block.
func (db *DB) ShareReserve() {
	if use, err := db.reserve.disk.GetDiskUsage(db.dir); err == nil && use.AvailBytes < minPart {
		db.reserve.releasePart()
	}
}
