// Package pebblelog reads the logs that Pebble writes: its write-ahead logs and its MANIFEST. It
// tells whether a log is corrupt in a part that had been synced, or merely ends in a torn write. It
// also corrects what a write-ahead log says of its own syncs. It owns the format of blocks and
// chunks. It does not own the content of records, the names of files, the moments of syncs, or what
// becomes of a corrupt log: store/pebblemeta does. It does no I/O.
//
// A log (Pebble's package record) consists of blocks of 32 KiB, each with chunks:
//
//	crc u32 | length u16 | type u8 | [log number u32 | [synced u64]] | payload
//
// There are three groups of types: 1–4 without the brackets (the MANIFEST), 5–8 with a log number,
// and 9–12 with both. Each group has a type for a whole record, and one each for its first, middle
// and last chunk. The first log of a new database has 5–8, since Pebble begins it before it knows
// the format. A log ends at the end of the file, in zeros, or in the head of a chunk with the next
// log's number and no checksum. That head counts as an invalid chunk here.
//
// Breaks when: a later Pebble has another format of logs, or means something else by it. The
// package was read from Pebble v2.1.7 (record/record.go, record/log_writer.go, the replay in
// open.go), and relies on this:
//
//   - The chunks are as above, and a type keeps its meaning. A chunk of a new type is taken for the
//     end of a log. Then only Pebble's own checks find corruption, and a log says of syncs what
//     Pebble writes. If a type got other fields, NoteSynced would overwrite eight bytes of each
//     chunk.
//   - Pebble writes whole chunks, each once, and in the order of the log. If it wrote one in parts,
//     that chunk would count skipped syncs, as Pebble does. After a power loss a sound log could be
//     refused.
//   - Pebble takes the first invalid chunk for the end of a log, unless a later block says that
//     more had been synced. If it refused more than that, a folder would not open after a power
//     loss.
//   - Pebble syncs each record of the MANIFEST before it begins the next. Otherwise a torn MANIFEST
//     would be refused.
//
// TestReadFromThisPebble fails with another version, and says what to read again. docs/adr/0025
// weighs the ways without this package.
package pebblelog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// blockSize is the length of a block in bytes.
const blockSize = 32 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type logChunk struct {
	kind    byte
	log     uint32
	synced  uint64 // bytes of the log that had been synced before this chunk was written
	payload []byte
	end     int // in the block
}

// startsRecord reports whether the chunk is the first of its record.
func (c logChunk) startsRecord() bool { return c.kind%4 == 1 || c.kind%4 == 2 }

// readChunk reads the chunk that begins at this byte of a block. ok means that the chunk is whole.
func readChunk(block []byte, at int) (c logChunk, ok bool) {
	if at+7 > len(block) {
		return c, false
	}
	head := 7
	switch c.kind = block[at+6]; {
	case c.kind == 0 || c.kind > 12:
		return c, false
	case c.kind > 8:
		head = 19
	case c.kind > 4:
		head = 11
	}
	c.end = at + head + int(binary.LittleEndian.Uint16(block[at+4:]))
	if c.end > len(block) {
		return c, false
	}
	if head > 7 {
		c.log = binary.LittleEndian.Uint32(block[at+7:])
	}
	if head > 11 {
		c.synced = binary.LittleEndian.Uint64(block[at+11:])
	}
	c.payload = block[at+head : c.end]
	return c, chunkSum(block[at+6:c.end]) == binary.LittleEndian.Uint32(block[at:])
}

func chunkSum(b []byte) uint32 {
	sum := crc32.Checksum(b, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// NoteSynced corrects how many bytes of a log its chunks say were synced before them: it sets that
// number to synced in all chunks of p. p is about to be written at offset off of the log, and holds
// whole chunks.
func NoteSynced(p []byte, off int64, synced uint64) {
	for len(p) > 0 {
		block := p[:min(int64(len(p)), blockSize-off%blockSize)]
		off, p = off+int64(len(block)), p[len(block):]
		for at := 0; at < len(block); {
			c, ok := readChunk(block, at)
			if !ok {
				break
			}
			if c.kind > 8 && c.synced != synced {
				binary.LittleEndian.PutUint64(block[at+11:], synced)
				binary.LittleEndian.PutUint32(block[at:], chunkSum(block[at+6:c.end]))
			}
			at = c.end
		}
	}
}

// Corrupt looks through the log of this number (0: a MANIFEST). corrupt means that the byte at, or
// one behind it, is not as it was when it was synced.
func Corrupt(data []byte, log uint32) (at int, corrupt bool) {
	for base := 0; base < len(data); base += blockSize {
		block := data[base:min(base+blockSize, len(data))]
		for at := 0; at < len(block); {
			c, ok := readChunk(block, at)
			if ok && (log == 0 || c.log == log) {
				at = c.end
				continue
			}
			if len(block) == blockSize && len(block)-at < 19 && len(bytes.Trim(block[at:], "\x00")) == 0 {
				break // no chunk fits here
			}
			return base + at, !torn(data, base+at, log)
		}
	}
	return 0, false
}

// torn reports whether a log ends at its first invalid chunk: nothing behind it was written after
// that chunk had been synced. Each record of a MANIFEST is synced. So the beginning of another
// record is proof of the contrary. A later chunk of the same record is none, since a power loss may
// keep any of its blocks.
func torn(data []byte, invalid int, log uint32) bool {
	for base := invalid / blockSize * blockSize; base < len(data); base += blockSize {
		block := data[base:min(base+blockSize, len(data))]
		for at := max(invalid+1-base, 0); at < len(block); at++ {
			c, ok := readChunk(block, at)
			if ok && c.log == log &&
				(c.synced > uint64(invalid) || log == 0 && c.startsRecord() && len(c.payload) > 0) {
				return false
			}
		}
	}
	return true
}
