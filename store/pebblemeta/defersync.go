package pebblemeta

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// DeferSync is a file system that does not sync its files and folders. In it a database can be made
// and repaired by many commits in little time. Nothing in it survives a power loss until SyncAll,
// which follows the close of the database.
func DeferSync(on vfs.FS) vfs.FS { return deferSyncFS{on} }

type deferSyncFS struct{ vfs.FS }

func (d deferSyncFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return deferSyncFile{f}, nil
}

// Create implements vfs.FS.
func (d deferSyncFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap(d.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (d deferSyncFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return d.wrap(d.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (d deferSyncFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap(d.FS.ReuseForWrite(old, name, c))
}

// OpenDir implements vfs.FS.
func (d deferSyncFS) OpenDir(name string) (vfs.File, error) { return d.wrap(d.FS.OpenDir(name)) }

type deferSyncFile struct{ vfs.File }

// Sync implements vfs.File.
func (deferSyncFile) Sync() error { return nil }

// SyncData implements vfs.File.
func (deferSyncFile) SyncData() error { return nil }

// SyncTo implements vfs.File.
func (deferSyncFile) SyncTo(int64) (bool, error) { return false, nil }

// SyncAll syncs a folder and all files in it.
func SyncAll(on vfs.FS, dir string) error {
	names, err := on.List(dir)
	for _, name := range names {
		f, opened := on.OpenReadWrite(on.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if opened == nil {
			opened = errors.Join(f.Sync(), f.Close())
		}
		err = errors.Join(err, opened)
	}
	return errors.Join(err, syncDir(on, dir))
}
