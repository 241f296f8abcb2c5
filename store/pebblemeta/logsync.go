package pebblemeta

import (
	"errors"
	"path"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/pebblelog"
)

// syncCounts counts the commits under way: those that must be on the disk before they are answered,
// and those that need only survive the death of the process, for which it is enough that the log
// was written.
//
// Pebble has no commit of the second kind: without a sync it stays in the process for a while. So
// both ask for a sync, and the log's file skips a sync that only unsynced commits wait for. The log
// is written in order. So the next real sync takes along all that came before it. A log that is
// closed is synced first, so that nothing in the next one can be on the disk without it.
//
// Pebble notes in the log how much of it has been synced. From that an unclean start tells
// corruption from a torn end (rot.go). It must not say so of the syncs that were skipped. It also
// learns of a sync only after those who waited for it, so that the next commit may not say it yet.
// The file puts there what is true.
type syncCounts struct {
	// synced are the commits that wait for a real sync. Each counts from before it is applied until
	// its sync has returned, so that whichever sync covers it finds it here.
	synced   atomic.Int64
	unsynced atomic.Int64
}

// begin counts a commit until end.
func (c *syncCounts) begin(unsynced bool) (end func()) {
	n := &c.synced
	if unsynced {
		n = &c.unsynced
	}
	n.Add(1)
	return func() { n.Add(-1) }
}

// logFS is Pebble's file system, whose logs are [logFile].
type logFS struct {
	vfs.FS
	db *DB
}

// Create implements vfs.FS.
func (s logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	return s.wrap(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (s logFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, category)
	return s.wrap(name, f, err)
}

func (s logFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || path.Ext(name) != ".log" {
		return f, err
	}
	return &logFile{File: f, counts: &s.db.syncs}, nil
}

// logFile is one log. Pebble writes, syncs and closes it in one goroutine after the other.
type logFile struct {
	vfs.File
	counts          *syncCounts
	written, synced int64 // bytes
	buf             []byte
}

// Write implements vfs.File. Pebble writes whole chunks.
func (f *logFile) Write(p []byte) (int, error) {
	f.buf = append(f.buf[:0], p...)
	pebblelog.NoteSynced(f.buf, f.written, uint64(f.synced))
	n, err := f.File.Write(f.buf)
	f.written += int64(n)
	return n, err
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *logFile) sync(do func() error) error {
	if f.counts.unsynced.Load() > 0 && f.counts.synced.Load() == 0 {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	f.synced = f.written
	return nil
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	var err error
	if f.synced < f.written {
		err = f.File.SyncData()
	}
	return errors.Join(err, f.File.Close())
}
