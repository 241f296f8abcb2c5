// Package crashfs is a disk in memory, for tests, that loses power and fails as real ones do. It is
// a durable.FS, and through [Disk.VFS] Pebble's file system: content and metadata can lie on one
// disk, with one count of its steps.
//
// It owns the promises of a page cache over a disk, and what they leave open:
//
//	           write                write back, Sync           Sync
//	program ─────────▶ page cache ─────────────────▶ drive ─────────▶ platter
//
//	what                                  after Kill   after Crash(keep)
//	written, not synced                   there        each 512 bytes for itself, with keep %
//	a file's size since its Sync          new          old, new or between (zeros or garbage)
//	names made, renamed, removed since    there        each step for itself, with keep %
//	    the Sync of their folder
//	synced                                there        there
//
// A Sync that fails, and a write-back that fails between two Syncs, leaves the pages in the cache
// as if they were clean: reads still show them, the disk does not have them, and the next Sync
// returns nil. A file that is opened later gets no error for it. A read past the cache writes the
// dirty pages back, and then sees the drive. A failed Sync of a folder leaves its entries as they
// were, volatile: a journal is tried again, or the file system ends.
//
// It is harsher than any one file system. Only a Sync orders anything, and the Sync of a new file
// does not cover its name. Below [Disk.Journal] names are forgotten from the end only, as journals
// do. Pebble counts on that: it makes its new marker before it removes the old one, and syncs once.
// The package does not own which programs are right: that is for the tests that run on it.
package crashfs

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Op is a kind of step.
type Op string

// The steps. OpOpen and OpRead change nothing.
const (
	OpOpen      Op = "open"
	OpRead      Op = "read"
	OpCreate    Op = "create"
	OpWrite     Op = "write"
	OpTruncate  Op = "truncate"
	OpWriteBack Op = "write back"
	OpSync      Op = "sync"
	OpSyncDir   Op = "sync folder"
	OpRename    Op = "rename"
	OpRemove    Op = "remove"
	OpMkdir     Op = "mkdir"
	OpLink      Op = "link"
	OpPunch     Op = "punch"
)

// Step is something that is about to be done to the disk.
type Step struct {
	N    int // 1, 2, …; a read has the number of the step before it
	Op   Op
	Path string // of a rename: the new name
	Len  int    // bytes

	disk *Disk
}

func (s Step) String() string { return fmt.Sprintf("step %d, %s %s (%d)", s.N, s.Op, s.Path, s.Len) }

// Changes reports whether the step changes the disk or what is durable.
func (s Step) Changes() bool { return s.Op != OpOpen && s.Op != OpRead }

// Image is the disk as it is before the step. Only the hook may call it.
func (s Step) Image() *Image { return s.disk.image() }

// LoseWriteBack is Disk.LoseWriteBack. Only the hook may call it.
func (s Step) LoseWriteBack(prefix string) int { return s.disk.loseWriteBack(prefix) }

// Fault is how a step fails.
type Fault struct {
	// Err is what the caller gets, within a *fs.PathError.
	Err syscall.Errno
	// After: the step fails although it was done.
	After bool
	// Short is how many bytes of a write are done although it fails.
	Short int
}

// Hook sees every step before it is done, one at a time, and lets it pass (nil) or fail. It must
// use the disk only through the Step.
type Hook func(Step) *Fault

// Disk is a disk with one file system. It is safe for concurrent use.
type Disk struct {
	mu       sync.Mutex
	hook     Hook
	steps    int
	boot     int
	inodes   uint64
	capacity int64 // in bytes
	failures int   // write-backs that have failed
	root     *inode
	pending  []*change // of names, in order; those that are in no sync yet
	journal  string    // the folder below which names are forgotten in that order
}

// unlimited is the capacity of a disk without SetRoom.
const unlimited = 1 << 40

// New makes an empty disk.
func New() *Disk {
	d := &Disk{boot: 1, capacity: unlimited}
	d.root = d.newInode(true)
	return d
}

// SetHook sets, or with nil removes, the hook.
func (d *Disk) SetHook(h Hook) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = h
}

// SetRoom sets how many bytes the disk holds in all. Writes beyond it fail with ENOSPC.
func (d *Disk) SetRoom(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// Journal lets a power loss forget the changes of names below a folder from the end only.
func (d *Disk) Journal(folder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal = clean(folder)
}

// Steps is the number of steps so far.
func (d *Disk) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// LoseWriteBack lets the write-back of all dirty pages below a folder fail, as it may at any time.
// The pages look clean, and the disk does not have them. A file that is open gets the error at its
// next Sync, once. LoseWriteBack gives the number of files that have lost something.
func (d *Disk) LoseWriteBack(prefix string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loseWriteBack(prefix)
}

func (d *Disk) loseWriteBack(prefix string) (n int) {
	d.root.walk("/", func(path string, ino *inode) {
		if strings.HasPrefix(path, prefix) && len(ino.dirty) > 0 {
			d.lose(ino)
			n++
		}
	})
	return n
}

// step asks the hook. d.mu is held.
func (d *Disk) step(op Op, path string, n int) *Fault {
	if op != OpRead {
		d.steps++
	}
	if d.hook == nil {
		return nil
	}
	return d.hook(Step{d.steps, op, path, n, d})
}

// do runs a step that is done whole or not at all.
func (d *Disk) do(op Op, path string, run func() error) error {
	fault := d.step(op, path, 0)
	if fault != nil && !fault.After {
		return failed(op, path, fault.Err)
	}
	if err := run(); err != nil {
		return err
	}
	if fault != nil {
		return failed(op, path, fault.Err)
	}
	return nil
}

func failed(op Op, path string, err syscall.Errno) error {
	return &fs.PathError{Op: string(op), Path: path, Err: err}
}

// clean gives the canonical form of a path.
func clean(path string) string { return filepath.Join("/", path) }

// find gives the folder of a path, the last part of the path, and the inode with that name.
func (d *Disk) find(op Op, path string) (dir *inode, name string, ino *inode, err error) {
	path = clean(path)
	if path == "/" {
		return d.root, "", d.root, nil
	}
	parts := strings.Split(path[1:], "/")
	dir = d.root
	for _, part := range parts[:len(parts)-1] {
		next := dir.names[part]
		if next == nil {
			return nil, "", nil, failed(op, path, syscall.ENOENT)
		}
		if !next.dir {
			return nil, "", nil, failed(op, path, syscall.ENOTDIR)
		}
		dir = next
	}
	name = parts[len(parts)-1]
	return dir, name, dir.names[name], nil
}

// used is the number of bytes of all files that have a name.
func (d *Disk) used() (n int64) {
	seen := map[*inode]bool{}
	d.root.walk("/", func(_ string, ino *inode) {
		if !seen[ino] {
			seen[ino] = true
			n += ino.allocated()
		}
	})
	return n
}
