//go:build unix && !linux

package durable

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// WriteBack is a hint that this system has no call for.
func (osFile) WriteBack(int64, int64) {}

// SyncDisk: this system has no call for one file system.
func (osFile) SyncDisk() error { return unix.Sync() }

// PastCache: this system has no way past the cache that needs no other alignment.
func (f osFile) PastCache(int64, int64) (read func(p []byte, off int64) (int, error), done func() error) {
	return f.ReadAt, func() error { return nil }
}

// Punch: this system has no call that all file systems understand alike.
func (f osFile) Punch(int64, int64) error { return errors.ErrUnsupported }

// NextData takes everything for data.
func (f osFile) NextData(off int64) (int64, error) {
	info, err := f.Stat()
	if err == nil && off >= info.Size() {
		err = io.EOF
	}
	return off, err
}

// Direct: this system has no writes past the cache that all file systems understand alike.
func (f osFile) Direct() (DirectFile, error) { return nil, errors.ErrUnsupported }

// Allocate: this system has no call that all file systems understand alike.
func Allocate(uintptr, int64) error { return errors.ErrUnsupported }
