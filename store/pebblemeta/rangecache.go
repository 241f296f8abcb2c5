package pebblemeta

import (
	"bytes"
	"slices"
	"sync/atomic"

	"sluice/session"
)

// readLately has the received ranges that were decoded last, where they are many. To decode 4,000
// of them takes 50 µs, and a put needs them several times.
//
// They are found by the very bytes that they are decoded from. So there is nothing that could be
// out of date.
type rangeCache [4]atomic.Pointer[decodedRanges]

// decodedRanges never changes.
type decodedRanges struct {
	raw    []byte
	ranges []session.Range
}

// fewRanges is the length in bytes up to which ranges are decoded anew each time.
const minCachedRanges = 1 << 10

// of is readRanges for a session.
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
