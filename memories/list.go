package memories

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"sluice/access"
	"sluice/catalog"
)

// ListRequest selects memories of one capsule, newest first.
type ListRequest struct {
	Capsule    string // "" is "default"
	PathPrefix string // whole parts: "a" selects "a" and "a/b", not "ab"; any Unicode form, as for Name
	Name       string
	SHA256     *catalog.SHA256
	Trash      bool
	Limit      int // 1 to 1000
	Cursor     string
}

// ErrCursor: the cursor is not from this list.
var ErrCursor = errors.New("malformed cursor")

// maxRowsRead bounds how many rows one List reads, so that a filter that nothing passes costs no
// more than a page.
const maxRowsRead = 10_000

// pageBytes is about how many bytes a page has at most. It bounds the response whatever the rows
// hold.
const pageBytes = 256 << 10

// sizeOf is about how many bytes a memory takes on the wire.
func sizeOf(m catalog.Memory) int {
	n := 512 + len(m.Name) + len(m.Path) + len(m.MIME) + len(m.Description)
	for _, tag := range m.Tags {
		n += len(tag) + 3
	}
	return n
}

// List gives a page, and the cursor of the next page while there may be more. A page under filters
// may be short and still have a next one. A memory that is added or deleted between two pages
// neither repeats nor hides others, because a memory's position in the order never changes. A
// memory whose row is damaged is left out; its store reports it.
func (s *Service) List(
	ctx context.Context, c access.Caller, req ListRequest,
) (page []catalog.Memory, next string, err error) {
	if req.Capsule == "" {
		req.Capsule = "default"
	}
	if req.Limit < 1 || req.Limit > 1000 {
		return nil, "", &catalog.FieldError{Field: "limit", Problem: "must be 1 to 1000"}
	}
	before := uint64(math.MaxUint64)
	if req.Cursor != "" {
		if before, err = parseCursor(req.Cursor); err != nil {
			return nil, "", err
		}
	}
	req.PathPrefix, req.Name = catalog.Comparable(strings.TrimSuffix(req.PathPrefix, "/")), catalog.Comparable(req.Name)
	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		page, next = nil, ""
		if _, err := access.Allow(r, c, access.Read, req.Capsule, s.cfg.Clock.Now()); err != nil {
			return err
		}
		rows, last, size := 0, uint64(0), 0
		for id, err := range req.rows(r, before) {
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if len(page) == req.Limit || rows == maxRowsRead || size >= pageBytes {
				next = cursorOf(last)
				return nil
			}
			m, err := catalog.Memories.Get(r, catalog.MemoryKey(id))
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return fmt.Errorf("memory %s of the list: %v", id, err)
			}
			rows, last = rows+1, m.Seq
			if req.selects(m) {
				page, size = append(page, m), size+sizeOf(m)
			}
		}
		return nil
	})
	return page, next, err
}

// rows gives the ids whose sequence number is below `before`, newest first, from the index that
// fits best.
func (req ListRequest) rows(r catalog.Reader, before uint64) func(func(catalog.MemoryID, error) bool) {
	if req.SHA256 != nil && !req.Trash {
		return catalog.Digests.Back(r,
			catalog.DigestKey{Capsule: req.Capsule, SHA256: *req.SHA256},
			catalog.DigestKey{Capsule: req.Capsule, SHA256: *req.SHA256, Seq: before})
	}
	return catalog.Order.Back(r,
		catalog.OrderKey{Capsule: req.Capsule, Trash: req.Trash},
		catalog.OrderKey{Capsule: req.Capsule, Trash: req.Trash, Seq: before})
}

// selects expects PathPrefix and Name in the form of catalog.Comparable.
func (req ListRequest) selects(m catalog.Memory) bool {
	path, prefix := catalog.Comparable(m.Path), req.PathPrefix
	return (prefix == "" || path == prefix || strings.HasPrefix(path, prefix+"/")) &&
		(req.Name == "" || catalog.Comparable(m.Name) == req.Name) &&
		(req.SHA256 == nil || m.SHA256 == *req.SHA256)
}

// A cursor is the sequence number of the last memory that was read, and a check sum against typing
// errors.
func cursorOf(seq uint64) string {
	b := binary.BigEndian.AppendUint64([]byte{1}, seq)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

func parseCursor(s string) (uint64, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 13 || b[0] != 1 || crc32.ChecksumIEEE(b[:9]) != binary.BigEndian.Uint32(b[9:]) {
		return 0, ErrCursor
	}
	seq := binary.BigEndian.Uint64(b[1:])
	if cursorOf(seq) != s { // base64 ignores the ends of lines
		return 0, ErrCursor
	}
	return seq, nil
}
