package pebblemeta

import (
	"bytes"
	"slices"
	"sync/atomic"

	"sluice/session"
)

// rangeCache has the received ranges that were decoded last, if there are many. To decode 4,000 of
// them takes 50 µs, and a put needs them several times.
//
// They are found by the very bytes that they are decoded from. So nothing in it can be out of date.
type rangeCache [4]atomic.Pointer[decodedRanges]

// decodedRanges never changes.
type decodedRanges struct {
	raw    []byte
	ranges []session.Range
}

// minCachedRanges is the length in bytes up to which ranges are decoded anew each time.
const minCachedRanges = 1 << 10

// decoder is readRanges for a session, with this cache.
func (c *rangeCache) decoder(id session.SessionID) func([]byte) ([]session.Range, error) {
	slot := &c[uint64(id)%uint64(len(c))]
	return func(b []byte) ([]session.Range, error) {
		if len(b) <= minCachedRanges {
			return readRanges(b)
		}
		if d := slot.Load(); d != nil && bytes.Equal(d.raw, b) {
			return slices.Clone(d.ranges), nil
		}
		ranges, err := readRanges(b)
		if err == nil {
			slot.Store(&decodedRanges{bytes.Clone(b), slices.Clone(ranges)})
		}
		return ranges, err
	}
}
