package pebblemeta

import (
	"errors"
	"path"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// light tells commits that must be on the disk from those that need only survive the death of the process, for which it is enough that the log was written.
//
// Pebble has no such commit: one without a sync stays in the process for a while. So both ask for a sync, and the log's file leaves out those that only light ones
// wait for. As the log is written in order, the next real sync takes along all that came before it; and a log that is closed is synced first, so
// that nothing in the next one can be on the disk without it.
//
// Pebble notes in the log how much of it had been synced, from which an unclean start tells rot from a torn end (rot.go). Of the syncs that were left out it
// must not say so; and it learns of a sync only after those who waited for it, so that the next commit may not say it yet. The file puts there what is true.
type light struct {
	// heavy are the commits that wait for a real sync. Each counts from before it is applied until its sync has returned, so that whichever sync covers it finds it here.
	heavy atomic.Int64
	light atomic.Int64
}

// begin counts a commit until end.
func (l *light) begin(light bool) (end func()) {
	n := &l.heavy
	if light {
		n = &l.light
	}
	n.Add(1)
	return func() { n.Add(-1) }
}

// lightLogs is Pebble's file system, whose logs are [lightLog].
type lightLogs struct {
	vfs.FS
	db *DB
}

// Create implements vfs.FS.
func (s lightLogs) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	return s.wrap(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (s lightLogs) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, category)
	return s.wrap(name, f, err)
}

func (s lightLogs) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || path.Ext(name) != ".log" {
		return f, err
	}
	return &lightLog{File: f, of: &s.db.light}, nil
}

// lightLog is one log. Pebble writes, syncs and closes it in one goroutine after the other.
type lightLog struct {
	vfs.File
	of              *light
	written, synced int64 // bytes
	buf             []byte
}

// Write implements vfs.File. Pebble writes whole chunks.
func (f *lightLog) Write(p []byte) (int, error) {
	f.buf = append(f.buf[:0], p...)
	noteSynced(f.buf, f.written, uint64(f.synced))
	n, err := f.File.Write(f.buf)
	f.written += int64(n)
	return n, err
}

// Sync implements vfs.File.
func (f *lightLog) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *lightLog) SyncData() error { return f.sync(f.File.SyncData) }

func (f *lightLog) sync(do func() error) error {
	if f.of.light.Load() > 0 && f.of.heavy.Load() == 0 {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	f.synced = f.written
	return nil
}

// Close implements vfs.File.
func (f *lightLog) Close() error {
	var err error
	if f.synced < f.written {
		err = f.File.SyncData()
	}
	return errors.Join(err, f.File.Close())
}
