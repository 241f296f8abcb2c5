package pebblelog

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"

	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// The package was read from one version of Pebble.
func TestReadFromThisPebble(t *testing.T) {
	const from = "v2.1.7"
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	is := regexp.MustCompile(`(?m)^\s*github\.com/cockroachdb/pebble/v2 (\S+)`).FindSubmatch(text)
	if is == nil || string(is[1]) != from {
		t.Errorf(`go.mod has Pebble %s, and package pebblelog was read from %s. Compare the two:
  - record/record.go: the package comment, the types of chunks and their heads, nextChunk and
    readAheadForCorruption (is there another format, what is taken for the end of a log?)
  - record/log_writer.go: emitFragment, emitFragmentSyncOffsets, emitEOFTrailer, flushPending (are
    whole chunks written, each once? what is syncedOffset?)
  - open.go: replayWAL; version_set.go: load, logAndApply (which ends are refused, is each record of
    the MANIFEST synced?)
  - format_major_version.go: is there a format of which store/pebblemeta should know?
Run the tests of store/pebblemeta, keeper and internal/test/crashtest, correct what differs, and then
set this constant.`, is, from)
	}
}

// The package reads what Pebble writes: each of its formats, with records that end anywhere in a
// block.
func TestPebbleWritesWhatIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var records [][]byte
	for range 300 {
		r := make([]byte, 1+rng.IntN([]int{20, 900, 70_000}[rng.IntN(3)]))
		for i := range r {
			r[i] = byte(rng.Uint32())
		}
		records = append(records, r)
	}
	for _, f := range logFormats {
		var log bytes.Buffer
		var w interface {
			WriteRecord(p []byte) (int64, error)
			Close() error
		} = record.NewWriter(&log)
		if f.log != 0 {
			w = record.NewLogWriter(&log, 7,
				record.LogWriterConfig{WriteWALSyncOffsets: func() bool { return f.head == 19 }})
		}
		for _, r := range records {
			if _, err := w.WriteRecord(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		data := log.Bytes()
		if at, yes := Corrupt(data, f.log); yes {
			t.Errorf("%s: corrupt at %d", f.name, at)
		}
		if f.head == 19 {
			NoteSynced(data, 0, 12345)
		}
		var got []byte
		for base := 0; base < len(data); base += blockSize {
			block := data[base:min(base+blockSize, len(data))]
			for at := 0; at < len(block); {
				c, ok := readChunk(block, at)
				if !ok || c.log != f.log {
					break
				}
				if c.kind < f.kind || c.kind > f.kind+3 || f.head == 19 && c.synced != 12345 {
					t.Fatalf("%s: a chunk of type %d that says %d", f.name, c.kind, c.synced)
				}
				got, at = append(got, c.payload...), c.end
			}
		}
		if !bytes.Equal(got, slices.Concat(records...)) {
			t.Errorf("%s: %d bytes of records are read as %d", f.name, len(slices.Concat(records...)), len(got))
		}
		if n, err := pebbleReads(data, f.log); n != len(records) || err != nil {
			t.Errorf("%s: Pebble reads %d of %d records: %v", f.name, n, len(records), err)
		}
	}
}

// logFormat is one of the formats of Pebble's logs.
type logFormat struct {
	name string
	kind byte // of a whole record
	log  uint32
	head int
}

var logFormats = []logFormat{{"MANIFEST", 1, 0, 7}, {"recyclable", 5, 7, 11}, {"synced", 9, 7, 19}}

// add appends a record to a log, the first synced bytes of which had been synced.
func (f logFormat) add(log []byte, payload []byte, synced int) []byte {
	for first := true; ; first = false {
		left := blockSize - len(log)%blockSize
		if left < f.head {
			log, left = append(log, make([]byte, left)...), blockSize
		}
		part := payload[:min(len(payload), left-f.head)]
		payload = payload[len(part):]
		kind := f.kind
		switch last := len(payload) == 0; {
		case first && last:
		case first:
			kind++
		case last:
			kind += 3
		default:
			kind += 2
		}
		c := append(make([]byte, 4, f.head+len(part)), byte(len(part)), byte(len(part)>>8), kind)
		if f.head > 7 {
			c = binary.LittleEndian.AppendUint32(c, f.log)
		}
		if f.head > 11 {
			c = binary.LittleEndian.AppendUint64(c, uint64(synced))
		}
		c = append(c, part...)
		binary.LittleEndian.PutUint32(c, chunkSum(c[6:]))
		if log = append(log, c...); len(payload) == 0 {
			return log
		}
	}
}

// tornLog is a log whose tail was never synced.
type tornLog struct {
	bytes  []byte
	synced int
	whole  []int // where the records of the synced part begin
}

// grown makes a log of about size bytes, each record of which was synced, and an unsynced tail: one
// record of a MANIFEST, several of another log.
func (f logFormat) grown(rng *rand.Rand, size int) (l tornLog) {
	payload := func(most int) []byte {
		b := make([]byte, 1+rng.IntN(most))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for len(l.bytes) < size {
		l.whole = append(l.whole, len(l.bytes))
		l.bytes = f.add(l.bytes, payload(900), len(l.bytes))
	}
	l.synced = len(l.bytes)
	tail := 1
	if f.log != 0 {
		tail += rng.IntN(5)
	}
	for range tail {
		l.bytes = f.add(l.bytes, payload([]int{300, 3000, 40_000}[rng.IntN(3)]), l.synced)
	}
	return l
}

// lose gives the log after a power loss that kept these blocks of the tail. In place of the others
// it has what was on the disk before.
func (l tornLog) lose(block, end int, before []byte, keep func(i int) bool) []byte {
	out := append(bytes.Clone(l.bytes[:l.synced]), before[l.synced:end]...)
	for i := l.synced / block; i*block < end; i++ {
		if keep(i - l.synced/block) {
			copy(out[max(i*block, l.synced):], l.bytes[max(i*block, l.synced):min((i+1)*block, end)])
		}
	}
	return out
}

// I24: A power loss may keep any of the blocks of a log's unsynced tail. The package and Pebble
// take the rest for a torn end.
func TestATornLogIsNotCorrupt(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range logFormats {
		crossed := 0
		for round := range 12 {
			l := f.grown(rng, 3*blockSize-rng.IntN(2500))
			if l.synced/blockSize != (len(l.bytes)-1)/blockSize {
				crossed++
			}
			// On the disk was nothing yet, an older log whose file is used again, or anything.
			old := logFormat{f.name, f.kind, max(f.log, 1) - 1, f.head}.grown(rng, len(l.bytes)).bytes
			garbage := make([]byte, len(l.bytes))
			for i := range garbage {
				garbage[i] = byte(rng.Uint32())
			}
			befores := [][]byte{make([]byte, len(l.bytes)), garbage}
			if f.log != 0 {
				befores = append(befores, old)
			}
			for _, block := range []int{512, 4096} {
				n := (len(l.bytes)-1)/block - l.synced/block + 1
				for try := range min(1<<n, 24) {
					mask, end := rng.Uint64(), len(l.bytes)
					if n <= 6 {
						mask = uint64(try)
					}
					if rng.IntN(3) == 0 {
						end = l.synced + rng.IntN(len(l.bytes)-l.synced)
					}
					left := l.lose(block, end, befores[rng.IntN(len(befores))],
						func(i int) bool { return mask>>(i%64)&1 != 0 })
					if at, yes := Corrupt(left, f.log); yes {
						t.Fatalf("%s, round %d: %d of %d bytes were synced, blocks of %d, %b were kept: corrupt at %d",
							f.name, round, l.synced, len(l.bytes), block, mask, at)
					}
					if try%16 != 0 {
						continue // Pebble searches a torn part for flipped bits, and that takes long
					}
					if got, err := pebbleReads(left, f.log); err != nil || got < len(l.whole) {
						t.Fatalf("%s, round %d: Pebble reads %d of %d records: %v",
							f.name, round, got, len(l.whole), err)
					}
				}
			}
		}
		if crossed == 0 {
			t.Errorf("%s: no tail crossed a block of the log", f.name)
		}
	}
}

func pebbleReads(log []byte, number uint32) (n int, err error) {
	r := record.NewReader(bytes.NewReader(log), 0)
	if number != 0 {
		r = record.NewReader(bytes.NewReader(log), 7) // the type of a number has no name outside of Pebble
	}
	for ; ; n++ {
		one, err := r.Next()
		if err == nil {
			_, err = io.ReadAll(one)
		}
		if err == io.EOF || record.IsInvalidRecord(err) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// † I24: A flipped byte in the synced part of a log is no torn end, unless it is in the last
// record.
func TestCorruptionBeforeTheEndOfALogIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, f := range logFormats {
		if f.name == "recyclable" {
			continue // this format says nothing of syncs; older versions of Pebble wrote it
		}
		for range 40 {
			l := f.grown(rng, 2*blockSize+rng.IntN(blockSize))
			for range 40 {
				// The log has some of the tail, all of it, or none.
				end := []int{l.synced, len(l.bytes), l.synced + rng.IntN(len(l.bytes)-l.synced)}[rng.IntN(3)]
				at := rng.IntN(l.whole[len(l.whole)-2])
				bad := bytes.Clone(l.bytes[:end])
				if bad[at] ^= 1 << rng.IntN(8); l.padding(at) {
					continue
				}
				if found, yes := Corrupt(bad, f.log); !yes || found > at {
					t.Fatalf("%s: byte %d of %d, %d of them synced: %v at %d", f.name, at, end, l.synced, yes, found)
				}
			}
		}
	}
}

// padding reports whether a byte is in the zeros at the end of a block, where no chunk fits. No
// corruption can be found there.
func (l tornLog) padding(at int) bool {
	i, _ := slices.BinarySearch(l.whole, at+1)
	next := l.synced
	if i < len(l.whole) {
		next = l.whole[i]
	}
	return len(bytes.Trim(l.bytes[at:min(next, at/blockSize*blockSize+blockSize)], "\x00")) == 0
}
