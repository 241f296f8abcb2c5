package pebblemeta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes the first chunk of a log that is not whole for its torn end, and drops what follows,
// unless a later block of 32 KiB says otherwise: one byte that has rotted takes up to 32 KiB of
// commits with it, in silence, and of the MANIFEST everything behind it. So the logs are looked
// through before Pebble opens them:
//
//   - Close writes the file CLEAN, with the checksum of each log; Open compares, and removes it;
//   - after a stop that was not clean, no whole chunk may follow a broken one that had been synced
//     before.
//
// What then can't be told from a torn write is the last synced group of a log that nobody has
// closed.

// cleanFile holds, after a clean stop, a line for each log: its length, its CRC-32C and its name;
// and at the end the CRC-32C of these lines.
const cleanFile = "CLEAN"

// errRotten: a log is damaged. Nothing was touched.
var errRotten = errors.New("it is damaged where it was safe already; restore a backup, or ask for help before anything is removed")

// checkLogs refuses a database whose logs have rotted. marked: it has a CLEAN, which must not
// outlive the next change.
func checkLogs(disk vfs.FS, dir string) (marked bool, err error) {
	clean, err := readAll(disk, disk.PathJoin(dir, cleanFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, checkTails(disk, dir)
	case err != nil:
		return false, err
	}
	lines, err := describeLogs(disk, dir)
	if err != nil {
		return true, err
	}
	if ours, sound := unsummed(clean); !sound {
		err = checkTails(disk, dir)
	} else if i := firstOf(ours, lines); i != "" {
		err = fmt.Errorf("%s: %w", i, errRotten)
	}
	return true, err
}

// unmarkClean removes CLEAN.
func unmarkClean(disk vfs.FS, dir string) error {
	return errors.Join(disk.Remove(disk.PathJoin(dir, cleanFile)), syncDir(disk, dir))
}

// firstOf names the first log that was otherwise, or is gone, of those that were described.
func firstOf(was, is string) string {
	for line := range strings.Lines(was) {
		if !strings.Contains(is, line) {
			return strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])
		}
	}
	return ""
}

// summed adds the checksum, unsummed takes it away.
func summed(lines string) []byte {
	return fmt.Appendf([]byte(lines), "%08x\n", crc32.Checksum([]byte(lines), castagnoli))
}

func unsummed(b []byte) (lines string, sound bool) {
	if len(b) < 9 {
		return "", false
	}
	lines = string(b[:len(b)-9])
	return lines, bytes.Equal(summed(lines), b)
}

// logFiles lists the logs: the current MANIFEST, and those of commits.
func logFiles(disk vfs.FS, dir string) (names []string, err error) {
	desc, err := pebble.Peek(dir, disk)
	if err != nil || !desc.Exists {
		return nil, err
	}
	all, err := disk.List(dir)
	for _, name := range all {
		if strings.HasSuffix(name, ".log") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return append(names, disk.PathBase(desc.ManifestFilename)), err
}

func describeLogs(disk vfs.FS, dir string) (string, error) {
	names, err := logFiles(disk, dir)
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for _, name := range names {
		data, err := readAll(disk, disk.PathJoin(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&lines, "%d %08x %s\n", len(data), crc32.Checksum(data, castagnoli), name)
	}
	return lines.String(), nil
}

// markClean writes CLEAN. The database is closed, and the folder still locked.
func markClean(disk vfs.FS, dir string) error {
	lines, err := describeLogs(disk, dir)
	if err != nil || lines == "" {
		return err
	}
	path := disk.PathJoin(dir, cleanFile)
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// Without its whole content it counts for nothing, so it need not be renamed into place.
	_, err = f.Write(summed(lines))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(disk, dir))
}

// checkTails looks for broken chunks that are no torn ends.
func checkTails(disk vfs.FS, dir string) error {
	names, err := logFiles(disk, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		number := uint64(0)
		if digits, isLog := strings.CutSuffix(name, ".log"); isLog {
			if number, err = strconv.ParseUint(digits, 10, 32); err != nil {
				continue
			}
		}
		data, err := readAll(disk, disk.PathJoin(dir, name))
		if err == nil {
			err = checkChunks(data, uint32(number))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func readAll(disk vfs.FS, path string) ([]byte, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// The format of Pebble's logs (its package record): blocks of 32 KiB, each with chunks
//
//	crc u32 | length u16 | type u8 | [log number u32 | [synced u64]] | payload
//
// whose types are, each for a whole record and for its first, middle and last chunk: 1–4 without
// the brackets (the MANIFEST), 5–8 with a log number, 9–12 with both. A log ends at the end of the
// file, in zeros, or in a chunk with the next log's number.
const logBlock = 32 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type chunk struct {
	kind    byte
	log     uint32
	synced  uint64 // so much of the log had been synced before this was written
	payload []byte
	end     int // in the block
}

// begins reports whether the chunk is the first of its record.
func (c chunk) begins() bool { return c.kind%4 == 1 || c.kind%4 == 2 }

// readChunk reads the chunk that begins at this byte of a block.
func readChunk(block []byte, at int) (c chunk, ok bool) {
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

// noteSynced sets to synced what the chunks in p, which is written at this offset of a log, say of
// how much was.
func noteSynced(p []byte, off int64, synced uint64) {
	for len(p) > 0 {
		block := p[:min(int64(len(p)), logBlock-off%logBlock)]
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

// checkChunks looks through the log of this number (0: a MANIFEST).
func checkChunks(data []byte, log uint32) error {
	for base := 0; base < len(data); base += logBlock {
		block := data[base:min(base+logBlock, len(data))]
		for at := 0; at < len(block); {
			c, ok := readChunk(block, at)
			if ok && log != 0 && c.log == log+1 {
				return nil // the end
			}
			if ok && (log == 0 || c.log == log) {
				at = c.end
				continue
			}
			if len(block) == logBlock && len(block)-at < 19 && len(bytes.Trim(block[at:], "\x00")) == 0 {
				break // no chunk fits here
			}
			return checkTorn(data, base+at, log)
		}
	}
	return nil
}

// checkTorn makes sure that a log ends where its first broken chunk is: nothing behind it was
// written after that had been synced. A MANIFEST is synced with each record: so another record that
// begins there is proof, but a later chunk of the same record is not, as a power loss may keep any
// of its blocks.
func checkTorn(data []byte, broken int, log uint32) error {
	for base := broken / logBlock * logBlock; base < len(data); base += logBlock {
		block := data[base:min(base+logBlock, len(data))]
		for at := max(broken+1-base, 0); at < len(block); at++ {
			c, ok := readChunk(block, at)
			if ok && c.log == log && (c.synced > uint64(broken) || log == 0 && c.begins() && len(c.payload) > 0) {
				return fmt.Errorf("byte %d or one behind it: %w", broken, errRotten)
			}
		}
	}
	return nil
}
