package localblob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
	"sluice/upload"
)

// Read implements upload.Blobs; what it gives is an upload.Sender. An extent that is read whole is compared with its CRC before its last piece is handed out; of one that is
// read in part nothing can be said.
func (s *Store) Read(_ context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	r := &reader{s: s, files: map[string]held{}, table: crc32.MakeTable(crc32.Castagnoli)}
	want := session.Range{Off: off, End: off + n}
	at, total := int64(0), int64(0)
	for _, e := range extents {
		part := session.Range{Off: at, End: at + e.Len}.Intersect(want)
		if !part.Empty() {
			if err := r.open(s, e); err != nil {
				return nil, errors.Join(err, r.Close())
			}
			r.parts = append(r.parts, piece{e, part.Off - at, part.End - at, part.Len() == e.Len})
			total += part.Len()
		}
		at += e.Len
	}
	if total != n {
		return nil, errors.Join(fmt.Errorf("the extents have %d of %d bytes: %w", total, n, upload.ErrRotten), r.Close())
	}
	return r, nil
}

// piece is what is still to be read of one extent: from byte `from` of it up to `to`.
type piece struct {
	e        catalog.Extent
	from, to int64
	whole    bool // all of the extent is read
}

// reader streams pieces. It holds their places open, so that it can be read to its end although they are deleted meanwhile.
type reader struct {
	s     *Store
	files map[string]held
	parts []piece
	crc   uint32
	table *crc32.Table
}

// held is a place that is being read.
type held struct {
	f *file
	p place
}

// enter opens a place to read from it; exit must follow.
func (s *Store) enter(name string) (h held, err error) {
	p, ok := parse(name)
	if !ok {
		return h, fmt.Errorf("place %.80q is not one of this store: %w", name, upload.ErrNoPlace)
	}
	f, err := s.hold(p, false)
	if err != nil {
		return h, err
	}
	if err := f.enter(p); err != nil {
		f.release()
		return h, err
	}
	return held{f, p}, nil
}

func (h held) exit() {
	h.f.exit(h.p)
	h.f.release()
}

func (r *reader) open(s *Store, e catalog.Extent) error {
	if h, ok := r.files[e.Place]; ok {
		return h.ends(e)
	}
	h, err := s.enter(e.Place)
	if err != nil {
		return err
	}
	r.files[e.Place] = h
	return h.ends(e)
}

// ends refuses an extent that goes past the place's end, where that is known.
func (h held) ends(e catalog.Extent) error {
	if !h.p.has(e) {
		return fmt.Errorf("place %s ends early: %w", e.Place, upload.ErrRotten)
	}
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	part := &r.parts[0]
	p = p[:min(int64(len(p)), part.to-part.from)]
	in := r.files[part.e.Place]
	n, err := in.f.f.ReadAt(p, in.p.of(part.e).Off+part.from)
	if n < len(p) {
		if err == io.EOF {
			err = fmt.Errorf("place %s ends early: %w", part.e.Place, upload.ErrRotten)
		}
		return 0, unreadable(err)
	}
	if part.from == 0 {
		r.crc = 0
	}
	r.crc = crc32.Update(r.crc, r.table, p)
	if part.from += int64(n); part.from < part.to {
		return n, nil
	}
	if part.whole && r.crc != part.e.CRC32C {
		return 0, fmt.Errorf("place %s, bytes %d to %d: %w", part.e.Place, part.e.Off, part.e.Off+part.e.Len, upload.ErrRotten)
	}
	r.parts = r.parts[1:]
	return n, nil
}

var _ upload.Sender = (*reader)(nil)

// Send implements upload.Sender.
func (r *reader) Send(to upload.FileTaker) (sent int64, err error) {
	for len(r.parts) > 0 {
		n, err := r.sendFile(to)
		if sent += n; err != nil {
			return sent, err
		}
		if n == 0 { // not to be had as a file
			n, err = io.CopyN(to, r, r.parts[0].to-r.parts[0].from)
			if sent += n; err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// sendFile sends what lies at one stretch of one place, as a file of its own: the system reads from where that file stands. It sends nothing where
// reads are to be verified, or where the place can't be opened again.
func (r *reader) sendFile(to upload.FileTaker) (int64, error) {
	if r.s.opts.VerifyReads || r.parts[0].from > 0 && r.parts[0].whole {
		return 0, nil
	}
	first := r.parts[0]
	in := r.files[first.e.Place]
	from, end, n := first.e.Off+first.from, first.e.Off+first.to, 1
	for ; n < len(r.parts) && r.parts[n].e.Place == first.e.Place && r.parts[n].e.Off+r.parts[n].from == end; n++ {
		end = r.parts[n].e.Off + r.parts[n].to
	}
	opened, err := in.f.borrow()
	if err != nil {
		return 0, nil
	}
	defer in.f.giveBack(opened)
	f, ok := opened.(interface {
		io.ReadSeeker
		syscall.Conn
	})
	if !ok {
		return 0, nil
	}
	if _, err := f.Seek(in.p.base()+from, io.SeekStart); err != nil {
		return 0, unreadable(err)
	}
	sent, err := to.TakeFile(f, end-from)
	if err == nil && sent < end-from {
		err = fmt.Errorf("place %s ends early: %w", first.e.Place, upload.ErrRotten)
	}
	r.parts = r.parts[n:]
	return sent, unreadable(err)
}

// borrow opens a file once more, for one who moves where it stands; of a pack, which many send from, some stay open.
func (f *file) borrow() (durable.File, error) {
	f.mu.Lock()
	if n := len(f.spare); n > 0 {
		last := f.spare[n-1]
		f.spare = f.spare[:n-1]
		f.mu.Unlock()
		f.s.spare.Add(-1)
		return last, nil
	}
	f.mu.Unlock()
	return f.s.openFile(f.path(), os.O_RDONLY)
}

func (f *file) giveBack(opened durable.File) {
	if f.pack != nil && f.s.spare.Add(1) <= int64(f.s.opts.Senders) {
		f.mu.Lock()
		f.spare = append(f.spare, opened)
		f.mu.Unlock()
		return
	}
	if f.pack != nil {
		f.s.spare.Add(-1)
	}
	_ = opened.Close() // it was read from
}

// Close implements io.Closer.
func (r *reader) Close() error {
	for _, h := range r.files {
		h.exit()
	}
	r.files, r.parts = nil, nil
	return nil
}
