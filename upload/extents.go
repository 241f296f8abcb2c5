package upload

import (
	"fmt"

	"sluice/catalog"
	"sluice/session"
)

// extentsOf gives the extents of entries that follow each other without a gap and cover the offset
// `from`. A gap is an error: bytes were dropped since the entries were known to be there.
func extentsOf(entries []session.Entry, from int64) ([]catalog.Extent, error) {
	extents := make([]catalog.Extent, len(entries))
	for i, e := range entries {
		if e.Off > from || i > 0 && e.Off != from {
			return nil, fmt.Errorf("bytes from %d are not recorded", from)
		}
		from = e.End
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return nil, fmt.Errorf("bytes from %d: %w", e.Off, err)
		}
		extents[i] = n.extent(e.Range)
	}
	return extents, nil
}

// mostExtents is how many extents a content may have before neighbours are joined into longer
// extents than usual.
const mostExtents = 1024

// coalesce joins extents that lie side by side at one place, up to 8 MiB each. If too many extents
// are left, it joins them further. A joined extent is checked as one.
func coalesce(extents []catalog.Extent) []catalog.Extent {
	for most := int64(8 << 20); ; most *= 2 {
		var out []catalog.Extent
		for _, e := range extents {
			n := len(out) - 1
			if n >= 0 && out[n].Place == e.Place && out[n].Off+out[n].Len == e.Off && out[n].Len+e.Len <= most {
				out[n].CRC32C = combineCRC(out[n].CRC32C, e.CRC32C, e.Len)
				out[n].Len += e.Len
			} else {
				out = append(out, e)
			}
		}
		if len(out) <= mostExtents || most > 1<<50 {
			return out
		}
		extents = out
	}
}
