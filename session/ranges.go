package session

import "slices"

// Range is the bytes b with Off ≤ b < End.
type Range struct{ Off, End int64 }

// Len is the number of bytes.
func (r Range) Len() int64 { return r.End - r.Off }

// Empty reports whether there is no byte in r.
func (r Range) Empty() bool { return r.End <= r.Off }

// Overlaps reports whether r and o share a byte.
func (r Range) Overlaps(o Range) bool { return r.Off < o.End && o.Off < r.End }

// Contains reports whether every byte of o is in r.
func (r Range) Contains(o Range) bool { return r.Off <= o.Off && o.End <= r.End }

// Intersect gives the bytes that are in both; it may be Empty.
func (r Range) Intersect(o Range) Range {
	return Range{max(r.Off, o.Off), min(r.End, o.End)}
}

// Total is the number of bytes in coalesced ranges.
func Total(rs []Range) (n int64) {
	for _, r := range rs {
		n += r.Len()
	}
	return n
}

// find gives the index of the first range of rs that ends after off.
func find(rs []Range, off int64) int {
	i, _ := slices.BinarySearchFunc(rs, off, func(r Range, off int64) int {
		if r.End <= off {
			return -1
		}
		return 1
	})
	return i
}

// Covers reports whether every byte of r is in rs (sorted, coalesced).
func Covers(rs []Range, r Range) bool {
	if r.Empty() {
		return true
	}
	i := find(rs, r.Off)
	return i < len(rs) && rs[i].Contains(r)
}

// Touches reports whether any byte of r is in rs (sorted, coalesced).
func Touches(rs []Range, r Range) bool {
	if r.Empty() {
		return false
	}
	i := find(rs, r.Off)
	return i < len(rs) && rs[i].Overlaps(r)
}

// Add gives rs (sorted, coalesced) with r in it. rs itself is not changed.
func Add(rs []Range, r Range) []Range {
	if r.Empty() {
		return rs
	}
	// i is the first range that touches or follows r, j the first one strictly behind it.
	i, _ := slices.BinarySearchFunc(rs, r.Off, func(x Range, off int64) int {
		if x.End < off {
			return -1
		}
		return 1
	})
	j := i
	for j < len(rs) && rs[j].Off <= r.End {
		r.Off, r.End = min(r.Off, rs[j].Off), max(r.End, rs[j].End)
		j++
	}
	out := make([]Range, 0, len(rs)+1)
	out = append(out, rs[:i]...)
	out = append(out, r)
	return append(out, rs[j:]...)
}

// Sub gives rs (sorted, coalesced) without the bytes of r. rs itself is not changed.
func Sub(rs []Range, r Range) []Range {
	if !Touches(rs, r) {
		return rs
	}
	out := make([]Range, 0, len(rs)+1)
	for _, x := range rs {
		if !x.Overlaps(r) {
			out = append(out, x)
			continue
		}
		if x.Off < r.Off {
			out = append(out, Range{x.Off, r.Off})
		}
		if r.End < x.End {
			out = append(out, Range{r.End, x.End})
		}
	}
	return out
}

// Gaps lists the parts of within that are not in rs (sorted, coalesced), at most max of them (0:
// all).
func Gaps(rs []Range, within Range, max int) []Range {
	var out []Range
	at := within.Off
	for i := find(rs, within.Off); at < within.End; i++ {
		end := within.End
		if i < len(rs) {
			end = min(end, rs[i].Off)
		}
		if at < end {
			if max > 0 && len(out) == max {
				return out
			}
			out = append(out, Range{at, end})
		}
		if i >= len(rs) {
			break
		}
		at = rs[i].End
	}
	return out
}
