package pebblemeta

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Unsynced is a file system whose files and folders are not synced, so that a database can be made
// and mended in it by many commits in little time. Until SyncAll, after the database was closed,
// nothing in it survives a power loss.
func Unsynced(on vfs.FS) vfs.FS { return unsynced{on} }

type unsynced struct{ vfs.FS }

func (u unsynced) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

// Create implements vfs.FS.
func (u unsynced) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return u.wrap(u.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (u unsynced) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return u.wrap(u.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (u unsynced) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return u.wrap(u.FS.ReuseForWrite(old, name, c))
}

// OpenDir implements vfs.FS.
func (u unsynced) OpenDir(name string) (vfs.File, error) { return u.wrap(u.FS.OpenDir(name)) }

type unsyncedFile struct{ vfs.File }

// Sync implements vfs.File.
func (unsyncedFile) Sync() error { return nil }

// SyncData implements vfs.File.
func (unsyncedFile) SyncData() error { return nil }

// SyncTo implements vfs.File.
func (unsyncedFile) SyncTo(int64) (bool, error) { return false, nil }

// SyncAll brings a folder and all files in it to the disk.
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
