package localblob

import (
	"hash/crc32"
	"sync"

	"sluice/catalog"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	// markEvery is how many bytes of an extent lie between two marks.
	markEvery = 64 << 10
	// mostMarks bounds the marks of all remembered extents together: 4 MiB of memory, for 64 GiB of
	// content.
	mostMarks = 1 << 20
	// marksOfOne is what an extent counts for beside its marks: its row in the map.
	marksOfOne = 64
)

// summing is the CRC-32C of an extent that is read from its first byte on, as it was at each mark:
// after each markEvery bytes, and at the end. The bytes between two marks can be compared alone:
// the first mark must lead to the second.
type summing struct {
	crc   uint32
	n     int64
	marks []uint32
}

func (s *summing) add(p []byte) {
	for len(p) > 0 {
		b := p[:min(int64(len(p)), markEvery-s.n%markEvery)]
		if s.n%markEvery == 0 {
			s.marks = append(s.marks, 0)
		}
		s.crc = crc32.Update(s.crc, castagnoli, b)
		s.marks[len(s.marks)-1] = s.crc
		s.n += int64(len(b))
		p = p[len(b):]
	}
}

// mark is the sum behind block i; 0 before the first block.
func mark(marks []uint32, i int64) uint32 {
	if i < 0 {
		return 0
	}
	return marks[i]
}

// compared remembers the marks of extents that were read as a whole and found right. A mark never
// becomes wrong: it belongs to the bytes that have the extent's own checksum, whatever becomes of
// its place. Extents of one block are not remembered, so that small contents cost nothing.
type compared struct {
	mu  sync.Mutex
	all map[catalog.Extent][]uint32
	n   int // marks, and marksOfOne for each
}

func (c *compared) of(e catalog.Extent) []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[e]
}

// add remembers an extent, and evicts others for it if there are too many.
func (c *compared) add(e catalog.Extent, marks []uint32) {
	cost := len(marks) + marksOfOne
	if len(marks) < 2 || cost > mostMarks {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[e] != nil {
		return
	}
	for old, m := range c.all {
		if c.n+cost <= mostMarks {
			break
		}
		delete(c.all, old)
		c.n -= len(m) + marksOfOne
	}
	if c.all == nil {
		c.all = map[catalog.Extent][]uint32{}
	}
	c.all[e] = marks
	c.n += cost
}
