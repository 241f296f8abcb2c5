package realdisk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/rpc"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Fault says how a disk fails, until the next fault.
type Fault struct {
	Writes, Flushes bool   // what fails with EIO
	Skip            int64  // so many succeed before
	Most            int64  // so many fail, and then the disk is well; 0: for ever
	From, To        int64  // of the writes: only those that touch these bytes
	Holding         []byte // of the writes: only those with these bytes in them
	Lies            bool   // flushes are answered, and nothing is flushed
}

// Take is a power loss.
type Take struct {
	Disk, Image string
	Seed        uint64
	// Keep and Tear are shares of the writes since the last flush, in percent: of those that are on
	// the disk, and of those of which some sectors are.
	Keep, Tear int
	// After and Cached say when: so many writes and flushes from now, when so many writes are not
	// flushed; or a moment later if no more come.
	After  int64
	Cached int
}

// Taken says what a power loss met: unflushed writes, and those of them that are on the disk, whole
// or torn.
type Taken struct{ Cached, Kept, Torn int }

// Counts are of one disk.
type Counts struct{ Writes, Flushes, Failed int64 }

// Disks is the service of the process that serves the disks. Each disk is a file in one folder.
type Disks struct {
	root  *fs.Inode
	mu    sync.Mutex
	disks map[string]*disk
	still map[string]*image
}

// Make has the arguments of Disks.Make.
type Make struct {
	Name string
	Size int64
}

// Make makes an empty disk.
func (s *Disks) Make(m Make, _ *struct{}) error { return s.add(m.Name, newDisk(m.Size)) }

func (s *Disks) add(name string, d *disk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disks[name] != nil {
		return errors.New("there is a disk of that name: " + name)
	}
	s.disks[name] = d
	s.root.AddChild(
		name, s.root.NewPersistentInode(context.Background(), &file{disk: d}, fs.StableAttr{Mode: fuse.S_IFREG}), false,
	)
	return nil
}

func (s *Disks) disk(name string) (*disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.disks[name]; d != nil {
		return d, nil
	}
	return nil, errors.New("there is no disk " + name)
}

// Remove forgets a disk. No process may have it open.
func (s *Disks) Remove(name string, _ *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, name)
	s.root.RmChild(name)
	_ = s.root.NotifyEntry(name) // the kernel may never have looked it up
	return nil
}

// Named is a fault of a disk.
type Named struct {
	Disk  string
	Fault Fault
}

// Fail makes a disk fail, or well again.
func (s *Disks) Fail(n Named, _ *struct{}) error {
	d, err := s.disk(n.Disk)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = n.Fault
	if n.Fault.To == 0 {
		d.fault.To = math.MaxInt64
	}
	return nil
}

// Count gives a disk's figures.
func (s *Disks) Count(name string, out *Counts) error {
	d, err := s.disk(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	*out = d.counts
	return nil
}

// maxWrite is how many bytes one request of the kernel may carry.
const maxWrite = 1 << 20

// patience is how long an image waits for the writes that are to come before it.
const patience = time.Second

// Take makes another disk of what a power loss leaves of one. The first disk stands still until
// GoOn.
func (s *Disks) Take(t Take, of *Taken) error {
	d, err := s.disk(t.Disk)
	if err != nil {
		return err
	}
	i := &image{take: t, made: make(chan taken, 1), on: make(chan struct{})}
	d.mu.Lock()
	if d.armed != nil {
		d.mu.Unlock()
		return errors.New("an image is waited for already")
	}
	d.armed = i
	d.mu.Unlock()
	s.mu.Lock()
	s.still[t.Disk] = i
	s.mu.Unlock()
	late := time.AfterFunc(patience, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.armed == i {
			d.shoot()
		}
	})
	defer late.Stop()
	got := <-i.made
	*of = got.of
	return s.add(t.Image, got.disk)
}

// GoOn lets a disk go on after an image was taken.
func (s *Disks) GoOn(name string, _ *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.still[name]
	if i == nil {
		return errors.New("no image was taken")
	}
	delete(s.still, name)
	close(i.on)
	d := s.disks[name]
	d.mu.Lock()
	defer d.mu.Unlock()
	if i.alone {
		return errors.New("the disk has gone on before it was told to")
	}
	return nil
}

// file is a disk in the folder.
type file struct {
	fs.Inode
	disk *disk
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = fuse.S_IFREG|0o600, uint64(f.disk.size), page
	return 0
}

// Open keeps the kernel from caching: each write of the loop device is a write of the disk.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	p = p[:max(0, min(int64(len(p)), f.disk.size-off))]
	f.disk.readAt(p, off)
	return fuse.ReadResultData(p), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(p)) > f.disk.size {
		return 0, syscall.ENOSPC
	}
	return uint32(len(p)), f.disk.writeAt(p, off)
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return f.disk.flush() }

// serve is the process that serves disks, by a descriptor of a mounted folder. It ends when the
// other end of its standard input is closed, also by the death of the tests. Then the file systems
// above lose their disks, and no longer wait for them.
func serve(dir string) error {
	root := &fs.Inode{}
	forever := time.Hour
	_, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &forever, AttrTimeout: &forever,
		MountOptions: fuse.MountOptions{MaxWrite: maxWrite, DisableXAttrs: true, DisableSplice: true},
	})
	if err != nil {
		return fmt.Errorf("serving a folder of disks: %w", err)
	}
	in, err := net.FileConn(os.Stdin)
	if err != nil {
		return err
	}
	calls := rpc.NewServer()
	if err := calls.Register(&Disks{root: root, disks: map[string]*disk{}, still: map[string]*image{}}); err != nil {
		return err
	}
	calls.ServeConn(in)
	return nil
}
