package pebblemeta

import (
	"errors"
	"path"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/pebblelog"
)

// syncCounts counts the commits under way, in two kinds: those that must be on the disk before they
// are answered, and those that need only survive the death of the process. For the second kind it
// is enough that the log was written.
//
// Pebble has no commit of the second kind: without a sync a commit stays in the process for a
// while. So both kinds ask for a sync, and the log's file skips a sync that only unsynced commits
// wait for. The log is written in order. So the next real sync covers everything before it. A log
// is synced before it is closed. So nothing in the next log can be on the disk without it.
//
// Pebble notes in the log how much of it has been synced. With these notes an unclean start tells
// corruption from a torn end (logcheck.go). They must not count the syncs that were skipped. Pebble
// also learns of a sync later than the commits that wait for it, so that the next commit may not
// note it yet. The log's file writes the true numbers.
type syncCounts struct {
	// synced are the commits that wait for a real sync. Each counts from before it is applied until
	// its sync has returned. So every sync that may cover it finds it here.
	synced   atomic.Int64
	unsynced atomic.Int64
}

// begin counts a commit until end is called.
func (c *syncCounts) begin(unsynced bool) (end func()) {
	n := &c.synced
	if unsynced {
		n = &c.unsynced
	}
	n.Add(1)
	return func() { n.Add(-1) }
}

// logFS is Pebble's file system. Its logs are [logFile].
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

// logFile is one log. Pebble writes, syncs and closes it in one goroutine at a time.
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
