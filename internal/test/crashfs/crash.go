package crashfs

import (
	"math/rand/v2"
	"strings"
)

// Image is a disk as it was at one moment. It never changes, and is safe for concurrent use.
type Image struct{ disk *Disk }

// Image gives the disk as it is now.
func (d *Disk) Image() *Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.image()
}

func (d *Disk) image() *Image { return &Image{d.copy()} }

// Kill gives the disk after the death of the process: all written bytes are there, nothing is
// locked, and no hook is set.
func (im *Image) Kill() *Disk { return im.disk.copy() }

// Kill is Image().Kill().
func (d *Disk) Kill() *Disk { return d.Image().Kill() }

// Crash is Image().Crash(rng, keep).
func (d *Disk) Crash(rng *rand.Rand, keep int) *Disk { return d.Image().Crash(rng, keep) }

// Crash gives the disk after a power loss. Each sector, size and change of a name that is in no
// Sync is kept with a probability of keep per cent.
func (im *Image) Crash(rng *rand.Rand, keep int) *Disk {
	d := im.disk.copy()
	d.boot++
	kept := func() bool { return rng.IntN(100) < keep }
	ordered := d.ordered()
	for _, c := range d.pending {
		switch folder, keep := c.to, kept(); {
		case ordered[folder] == lost:
		case keep:
			c.apply()
		case ordered[folder] == sound:
			ordered[folder] = lost
		}
	}
	d.pending = nil
	done := map[*inode]bool{}
	var restore func(ino *inode)
	restore = func(ino *inode) {
		if done[ino] {
			return
		}
		done[ino] = true
		if !ino.dir {
			ino.crash(rng, keep)
			return
		}
		ino.names = map[string]*inode{}
		for name, child := range ino.platterNames {
			ino.names[name] = child
		}
		// The order is the same in each run.
		for _, name := range sorted(ino.names) {
			restore(ino.names[name])
		}
	}
	restore(d.root)
	return d
}

// The state of a folder whose changes are kept in order: once one of them is lost, all later ones
// are.
const (
	sound = 1
	lost  = 2
)

// ordered gives the folders below that of Journal.
func (d *Disk) ordered() map[*inode]int {
	out := map[*inode]int{}
	d.root.walk("/", func(path string, ino *inode) {
		if d.journal != "" && ino.dir && (path == d.journal || strings.HasPrefix(path, d.journal+"/")) {
			out[ino] = sound
		}
	})
	return out
}

// crash leaves the bytes of a file that the platter had, and some of those on their way there.
func (ino *inode) crash(rng *rand.Rand, keep int) {
	kept := func() bool { return rng.IntN(100) < keep }
	if len(ino.dirty) == 0 && ino.size == ino.platterSize && same(ino.drive, ino.platter) {
		ino.cache = append([]*sector(nil), ino.platter...)
		return
	}
	size := ino.platterSize
	if ino.size != size && kept() {
		size = ino.size
	} else if ino.size > size && keep > 0 && rng.IntN(4) == 0 {
		size += rng.Int64N(ino.size - size)
	}
	garbage := rng.IntN(2) == 0
	left := make([]*sector, sectors(size))
	for i := range left {
		var s *sector
		if i < len(ino.platter) {
			s = ino.platter[i]
		}
		switch newer := ino.newer(i); {
		case newer != nil && newer != s && kept():
			s = newer
		case garbage && int64(i+1)*sectorSize > ino.platterSize:
			// Bytes that the platter never had.
			g := new(sector)
			from := max(ino.platterSize-int64(i)*sectorSize, 0)
			if s != nil {
				*g = *s
			}
			for j := from; j < sectorSize; j++ {
				g[j] = byte(rng.Uint32())
			}
			s = g
		}
		left[i] = s
	}
	ino.size, ino.platterSize, ino.dirty = size, size, nil
	ino.cache, ino.drive, ino.platter = left, append([]*sector(nil), left...), append([]*sector(nil), left...)
}

// newer gives the sector on its way to the platter.
func (ino *inode) newer(i int) *sector {
	if ino.dirty[i] {
		return ino.cache[i]
	}
	if i < len(ino.drive) {
		return ino.drive[i]
	}
	return nil
}

func same(a, b []*sector) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// copy gives a disk that shares nothing mutable with this one. Files without a name are left out.
// d.mu is held, or d is an image's.
func (d *Disk) copy() *Disk {
	out := &Disk{
		steps: d.steps, boot: d.boot, inodes: d.inodes, capacity: d.capacity, failures: d.failures, journal: d.journal,
	}
	of := map[*inode]*inode{}
	var clone func(ino *inode) *inode
	clone = func(ino *inode) *inode {
		if ino == nil {
			return nil
		}
		if c := of[ino]; c != nil {
			return c
		}
		c := &inode{num: ino.num, dir: ino.dir, size: ino.size, platterSize: ino.platterSize, failures: ino.failures}
		of[ino] = c
		if ino.dir {
			c.names = make(map[string]*inode, len(ino.names))
			c.platterNames = make(map[string]*inode, len(ino.platterNames))
			for name, child := range ino.names {
				c.names[name] = clone(child)
			}
			for name, child := range ino.platterNames {
				c.platterNames[name] = clone(child)
			}
			return c
		}
		c.cache, c.drive = append([]*sector(nil), ino.cache...), append([]*sector(nil), ino.drive...)
		c.platter = append([]*sector(nil), ino.platter...)
		if len(ino.dirty) > 0 {
			c.dirty = make(map[int]bool, len(ino.dirty))
			for i := range ino.dirty {
				c.dirty[i] = true
			}
		}
		return c
	}
	out.root = clone(d.root)
	for _, c := range d.pending {
		out.pending = append(out.pending, &change{c.op, clone(c.from), clone(c.to), c.fromName, c.name, clone(c.ino)})
	}
	return out
}
