package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"sluice/internal/durable"
)

// A rows file is a line, and blocks:
//
//	"sluice rows, format 1\n"
//	block   length of the payload, CRC-32C of it (both big-endian u32), payload
//	payload rows, each: length of the key, key, length of the row, row (lengths are uvarints)
//
// The last block is empty. Keys are in order.
const rowsLine = "sluice rows, format 1\n"

const (
	// blockSize is the length at which a block is ended.
	blockSize = 256 << 10
	// maxBlock bounds the length that a reader accepts: a block has at most one row more than
	// blockSize.
	maxBlock = 64 << 20
)

// file describes a file of the backup.
type file struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rowsWriter writes a rows file.
type rowsWriter struct {
	f     durable.File
	at    int64
	block []byte
	sum   hash.Hash
}

func createRows(on durable.FS, path string) (*rowsWriter, error) {
	f, err := on.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w := &rowsWriter{f: f, sum: sha256.New()}
	return w, w.write([]byte(rowsLine))
}

func (w *rowsWriter) write(p []byte) error {
	n, err := w.f.WriteAt(p, w.at)
	w.at += int64(n)
	w.sum.Write(p)
	return err
}

func (w *rowsWriter) add(key, row []byte) error {
	w.block = append(binary.AppendUvarint(w.block, uint64(len(key))), key...)
	w.block = append(binary.AppendUvarint(w.block, uint64(len(row))), row...)
	if len(w.block) < blockSize {
		return nil
	}
	return w.flush()
}

func (w *rowsWriter) flush() error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(w.block)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(w.block, castagnoli))
	err := w.write(head)
	if err == nil {
		err = w.write(w.block)
	}
	w.block = w.block[:0]
	return err
}

// close ends the file and brings it to the disk.
func (w *rowsWriter) close(name string) (file, error) {
	var err error
	if len(w.block) > 0 {
		err = w.flush()
	}
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		err = w.f.Sync()
	}
	return file{name, w.at, hex.EncodeToString(w.sum.Sum(nil))}, errors.Join(err, w.f.Close())
}

// rowsReader reads a rows file, and verifies everything on the way.
type rowsReader struct {
	f     durable.File
	path  string
	want  file
	r     *bufio.Reader
	sum   hash.Hash
	read  int64
	block []byte
	rest  []byte // of block
}

func openRows(on durable.FS, path string, want file) (*rowsReader, error) {
	f, err := on.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r := &rowsReader{f: f, path: path, want: want, sum: sha256.New()}
	r.r = bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), blockSize)
	line := make([]byte, len(rowsLine))
	if err := r.fill(line); err != nil || string(line) != rowsLine {
		return nil, errors.Join(r.damaged("its first line is %.40q", line), err, f.Close())
	}
	return r, nil
}

func (r *rowsReader) close() { _ = r.f.Close() }

func (r *rowsReader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrDamaged, r.path, fmt.Sprintf(format, args...))
}

// fill reads and hashes.
func (r *rowsReader) fill(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.read += int64(n)
	r.sum.Write(p[:n])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.damaged("it ends early, after %d of %d bytes", r.read, r.want.Bytes)
	}
	return err
}

// next gives the next row, which is valid until the call after. io.EOF: all rows were given, and
// the whole file is what was written.
func (r *rowsReader) next() (key, row []byte, err error) {
	if len(r.rest) == 0 {
		if err := r.load(); err != nil {
			return nil, nil, err
		}
	}
	if key, err = r.field(); err == nil {
		row, err = r.field()
	}
	return key, row, err
}

func (r *rowsReader) field() ([]byte, error) {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(len(r.rest)-size) {
		return nil, r.damaged("the block before byte %d is malformed", r.read)
	}
	p := r.rest[size : size+int(n)]
	r.rest = r.rest[size+int(n):]
	return p, nil
}

// load reads the next block.
func (r *rowsReader) load() error {
	var head [8]byte
	at := r.read
	if err := r.fill(head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 {
		return r.end()
	}
	if n > maxBlock {
		return r.damaged("the block at byte %d can't have %d bytes", at, n)
	}
	if cap(r.block) < int(n) {
		r.block = make([]byte, n)
	}
	r.block = r.block[:n]
	if err := r.fill(r.block); err != nil {
		return err
	}
	if crc32.Checksum(r.block, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return r.damaged("the block at byte %d does not match its checksum", at)
	}
	r.rest = r.block
	return nil
}

// end verifies the whole file.
func (r *rowsReader) end() error {
	if _, err := r.r.ReadByte(); err != io.EOF {
		return r.damaged("it goes on past its end")
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want.SHA256 || r.read != r.want.Bytes {
		return r.damaged("it has %d bytes with SHA-256 %s, and should have %d with %s",
			r.read, got, r.want.Bytes, r.want.SHA256)
	}
	return io.EOF
}

// previousRows are the rows of the previous backup, read alongside the new ones.
type previousRows struct {
	r        *rowsReader // nil: there is none, or it is at its end
	key, row []byte
	err      error
}

// at gives the row that the key had. Keys must be asked for in order.
func (p *previousRows) at(key []byte) (row []byte, ok bool) {
	for p.r != nil && (p.key == nil || bytes.Compare(p.key, key) < 0) {
		if p.key, p.row, p.err = p.r.next(); p.err != nil {
			if p.err == io.EOF {
				p.err = nil
			}
			p.close()
		}
	}
	if p.r != nil && bytes.Equal(p.key, key) {
		return p.row, true
	}
	return nil, false
}

func (p *previousRows) close() {
	if p.r != nil {
		p.r.close()
		p.r = nil
	}
}
