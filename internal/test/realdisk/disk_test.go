// Package realdisk runs the real program on a real file system, ext4 and xfs, on a disk that loses
// power, fails and lies: a file that a process of these tests serves by FUSE, below a loop device.
// It is tests only, for root on Linux. Elsewhere they say what is missing and are skipped.
//
// It owns the disk: which of the writes since the last flush a power loss leaves, and which writes
// and flushes fail. It also mounts and unmounts file systems on it. It does not own the clients and
// their facts (package load), nor the same on a simulated disk at every step (package crashtest).
package realdisk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// page is a part of the disk's bytes. A page is never changed, only replaced, so that an image
// shares the pages of its disk. A missing page is all zeros.
const page = 4096

// sector is what a power loss writes whole or not at all.
const sector = 512

// pages are the bytes of a disk, by page number.
type pages map[int64]*[page]byte

func (p pages) write(data []byte, off int64) {
	for len(data) > 0 {
		at := off % page
		n := min(int64(len(data)), page-at)
		var b [page]byte
		if old := p[off/page]; old != nil && n < page {
			b = *old
		}
		copy(b[at:], data[:n])
		if b == ([page]byte{}) {
			delete(p, off/page)
		} else {
			p[off/page] = &b
		}
		data, off = data[n:], off+n
	}
}

func (p pages) read(data []byte, off int64) {
	for len(data) > 0 {
		at := off % page
		n := min(int64(len(data)), page-at)
		if b := p[off/page]; b != nil {
			copy(data[:n], b[at:])
		} else {
			clear(data[:n])
		}
		data, off = data[n:], off+n
	}
}

// write is one that was acknowledged, and not flushed yet.
type write struct {
	off  int64
	data []byte
}

// disk has a cache that a power loss empties in part. It fails as its fault says.
type disk struct {
	size int64

	mu     sync.Mutex
	now    pages   // with the cache: reads see it
	kept   pages   // as the last flush has left it
	cache  []write // since then, in order
	counts Counts
	fault  Fault
	armed  *image
}

// taken is an image, and the state of the disk that it shows.
type taken struct {
	disk *disk
	of   Taken
}

// image is an image that is to be made later.
type image struct {
	take  Take
	made  chan taken
	on    chan struct{} // closed when the disk may go on
	alone bool          // it has gone on without a GoOn
}

func newDisk(size int64) *disk { return &disk{size: size, now: pages{}, kept: pages{}} }

// step comes before each write and flush, under the lock. There the power may fail.
func (d *disk) step() {
	if d.armed == nil {
		return
	}
	if d.armed.take.After--; d.armed.take.After < 0 && len(d.cache) >= d.armed.take.Cached {
		d.shoot()
	}
}

// shoot makes the image, and stands still until the test has noted the facts of the clients.
// Meanwhile the clients can learn nothing new.
func (d *disk) shoot() {
	i := d.armed
	i.made <- d.image(i.take)
	select {
	case <-i.on:
	case <-time.After(10 * time.Second): // or the tests are dead
		i.alone = true
	}
	d.armed = nil
}

// fails reports whether a write or flush fails by the fault.
func (d *disk) fails() bool {
	if d.fault.Skip > 0 {
		d.fault.Skip--
		return false
	}
	d.counts.Failed++
	if d.fault.Most > 0 {
		if d.fault.Most--; d.fault.Most == 0 {
			d.fault = Fault{}
		}
	}
	return true
}

func (d *disk) readAt(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.read(p, off)
}

func (d *disk) writeAt(p []byte, off int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step()
	d.counts.Writes++
	if d.fault.Writes && off < d.fault.To && off+int64(len(p)) > d.fault.From && bytes.Contains(p, d.fault.Holding) &&
		d.fails() {
		return syscall.EIO
	}
	w := write{off, bytes.Clone(p)}
	d.now.write(w.data, off)
	d.cache = append(d.cache, w)
	return 0
}

func (d *disk) flush() syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step()
	d.counts.Flushes++
	if d.fault.Flushes && d.fails() {
		return syscall.EIO
	}
	if d.fault.Lies {
		return 0
	}
	for _, w := range d.cache {
		for n := w.off / page; n*page < w.off+int64(len(w.data)); n++ {
			if b := d.now[n]; b != nil {
				d.kept[n] = b
			} else {
				delete(d.kept, n)
			}
		}
	}
	d.cache = nil
	return 0
}

// image is the disk as after a power loss: all flushed writes, and of each later write all,
// nothing, or some of its sectors.
func (d *disk) image(t Take) taken {
	r := rand.New(rand.NewPCG(t.Seed, 3))
	out := newDisk(d.size)
	out.kept = maps.Clone(d.kept)
	of := Taken{Cached: len(d.cache)}
	for _, w := range d.cache {
		switch whole := r.IntN(100) < t.Keep; {
		case r.IntN(100) < t.Tear:
			of.Torn++
			for at := 0; at < len(w.data); at += sector {
				if r.IntN(2) == 0 {
					out.kept.write(w.data[at:min(len(w.data), at+sector)], w.off+int64(at))
				}
			}
		case whole:
			of.Kept++
			out.kept.write(w.data, w.off)
		}
	}
	out.now = maps.Clone(out.kept)
	return taken{out, of}
}
