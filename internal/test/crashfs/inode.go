package crashfs

import "io"

// sectorSize is the unit that a disk writes whole or not at all.
const sectorSize = 512

// sector is never changed once it is in an inode, so that copies of a disk can share it. nil is
// zeros.
type sector [sectorSize]byte

// hole is a punched sector: zeros that take no space.
var hole = new(sector)

// inode is a file or a folder.
type inode struct {
	num uint64
	dir bool

	// A file has bytes in the cache, in the drive and on the platter. Both sizes are in bytes.
	cache, drive, platter []*sector
	size, platterSize     int64
	dirty                 map[int]bool // sectors of the cache that have not been written back
	failures              int          // write-backs that have failed
	locked                *file

	// A folder has entries, and those of them that are on the platter.
	names, platterNames map[string]*inode
}

func (d *Disk) newInode(dir bool) *inode {
	d.inodes++
	ino := &inode{num: d.inodes, dir: dir}
	if dir {
		ino.names, ino.platterNames = map[string]*inode{}, map[string]*inode{}
	}
	return ino
}

// walk visits everything below a folder.
func (ino *inode) walk(path string, visit func(path string, ino *inode)) {
	for name, child := range ino.names {
		at := path + name
		visit(at, child)
		if child.dir {
			child.walk(at+"/", visit)
		}
	}
}

func (ino *inode) allocated() (n int64) {
	for _, s := range ino.cache {
		if s != nil && s != hole {
			n += sectorSize
		}
	}
	return n
}

func sectors(size int64) int { return int((size + sectorSize - 1) / sectorSize) }

// grown gives the sectors with space for n.
func grown(of []*sector, n int) []*sector {
	if n > len(of) {
		of = append(of, make([]*sector, n-len(of))...)
	}
	return of
}

// write puts p into the cache.
func (ino *inode) write(p []byte, off int64) {
	end := off + int64(len(p))
	ino.cache = grown(ino.cache, sectors(end))
	for at := off; at < end; {
		i := int(at / sectorSize)
		s := new(sector)
		if old := ino.cache[i]; old != nil {
			*s = *old
		}
		at += int64(copy(s[at%sectorSize:], p[at-off:]))
		ino.cache[i] = s
		if ino.dirty == nil {
			ino.dirty = map[int]bool{}
		}
		ino.dirty[i] = true
	}
	ino.size = max(ino.size, end)
}

// punch puts holes into the cache. Like bytes they get to the platter with the next sync, or never.
func (ino *inode) punch(from, to int) {
	for i := from; i < min(to, len(ino.cache)); i++ {
		ino.cache[i] = hole
		if ino.dirty == nil {
			ino.dirty = map[int]bool{}
		}
		ino.dirty[i] = true
	}
}

// read copies from the cache, or from the drive.
func (ino *inode) read(from []*sector, p []byte, off int64) (int, error) {
	if off >= ino.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), ino.size-off))
	for at := 0; at < n; {
		i, skip := int((off+int64(at))/sectorSize), int((off+int64(at))%sectorSize)
		part := p[at:min(n, at+sectorSize-skip)]
		if i < len(from) && from[i] != nil {
			copy(part, from[i][skip:])
		} else {
			clear(part)
		}
		at += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// truncate makes the file empty in the cache.
func (ino *inode) truncate() { ino.cache, ino.dirty, ino.size = nil, nil, 0 }

// writeBack brings the dirty sectors from..to to the drive.
func (ino *inode) writeBack(from, to int) {
	for i := range ino.dirty {
		if i >= from && i < to {
			ino.drive = grown(ino.drive, i+1)
			ino.drive[i] = ino.cache[i]
			delete(ino.dirty, i)
		}
	}
}

// sync brings everything to the platter, except sectors that were lost before.
func (ino *inode) sync() {
	n := sectors(ino.size)
	ino.writeBack(0, n)
	ino.drive = ino.drive[:min(n, len(ino.drive))]
	ino.platter = append([]*sector(nil), ino.drive...)
	ino.platterSize = ino.size
}

// lose makes the dirty pages look clean although the drive does not have them.
func (d *Disk) lose(ino *inode) {
	ino.dirty = nil
	ino.failures++
	d.failures++
}

// change is one step on names that is in no sync of its folder yet.
type change struct {
	op       Op
	from, to *inode // folders; from only of a rename
	fromName string
	name     string
	ino      *inode
}

// touches reports whether the sync of a folder makes the change durable.
func (c *change) touches(dir *inode) bool { return c.from == dir || c.to == dir }

// apply does the change on the platter. A name that another inode has there by then is not removed.
func (c *change) apply() {
	switch c.op {
	case OpRemove:
		if c.to.platterNames[c.name] == c.ino {
			delete(c.to.platterNames, c.name)
		}
	case OpRename:
		if c.from.platterNames[c.fromName] == c.ino {
			delete(c.from.platterNames, c.fromName)
		}
		c.to.platterNames[c.name] = c.ino
	default:
		c.to.platterNames[c.name] = c.ino
	}
}

// syncDir makes a folder's entries durable.
func (d *Disk) syncDir(dir *inode) {
	rest := d.pending[:0:0]
	for _, c := range d.pending {
		if c.touches(dir) {
			c.apply()
		} else {
			rest = append(rest, c)
		}
	}
	d.pending = rest
}

// link gives ino a name.
func (d *Disk) link(op Op, dir *inode, name string, ino *inode) {
	dir.names[name] = ino
	d.pending = append(d.pending, &change{op: op, to: dir, name: name, ino: ino})
}
