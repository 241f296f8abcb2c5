package memories

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
)

// errUnreadable: the catalog names content that is missing or corrupt. The server is at fault, and
// not the request.
var errUnreadable = fmt.Errorf("%w: it is lost", ErrDamaged)

// Body gives the n bytes from off on; both lie within the memory. If the stored bytes are corrupt,
// reading fails, and no wrong byte is given as good.
//
// Between the look-up and the read, the content may have moved to another copy (a re-upload of the
// same bytes) and the former copy may have been deleted. Then Body looks it up once more.
func (f *File) Body(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off+n > f.Memory.Bytes {
		return nil, fmt.Errorf("bytes %d to %d of %d", off, off+n, f.Memory.Bytes)
	}
	r, err := f.read(ctx, off, n)
	if err == nil {
		return r, nil
	}
	content, e := f.lookUp(ctx)
	if e != nil {
		return nil, e
	}
	f.content = content
	return f.read(ctx, off, n)
}

func (f *File) read(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	switch {
	case n == 0:
		return io.NopCloser(bytes.NewReader(nil)), nil
	case f.content.Inline == nil:
		return f.store.Read(ctx, f.content.Extents, off, n)
	case int64(len(f.content.Inline)) != f.content.Bytes ||
		crc32.Checksum(f.content.Inline, crc32.MakeTable(crc32.Castagnoli)) != f.content.CRC32C:
		return nil, fmt.Errorf(
			"inline content of memory %s does not match its checksum: %w", f.Memory.ID, errUnreadable,
		)
	}
	return io.NopCloser(bytes.NewReader(f.content.Inline[off : off+n])), nil
}
