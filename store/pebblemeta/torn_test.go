package pebblemeta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pebblelog "github.com/cockroachdb/pebble/v2/record"

	"sluice/catalog"
	"sluice/internal/test/crashfs"
)

// logFormat is one of the formats of Pebble's logs.
type logFormat struct {
	name string
	kind byte // of a whole record
	log  uint32
	head int
}

var logFormats = []logFormat{{"MANIFEST", 1, 0, 7}, {"recyclable", 5, 7, 11}, {"synced", 9, 7, 19}}

// add appends a record to a log of which so much had been synced.
func (f logFormat) add(log []byte, payload []byte, synced int) []byte {
	for first := true; ; first = false {
		left := logBlock - len(log)%logBlock
		if left < f.head {
			log, left = append(log, make([]byte, left)...), logBlock
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

// grown makes a log of about size bytes, each record of which was synced, and a tail that was not:
// of a MANIFEST one record, of the others some.
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

// lose gives the log after a power loss that kept these of the tail's blocks; in place of the
// others is what was there before.
func (l tornLog) lose(block, end int, before []byte, keep func(i int) bool) []byte {
	out := append(bytes.Clone(l.bytes[:l.synced]), before[l.synced:end]...)
	for i := l.synced / block; i*block < end; i++ {
		if keep(i - l.synced/block) {
			copy(out[max(i*block, l.synced):], l.bytes[max(i*block, l.synced):min((i+1)*block, end)])
		}
	}
	return out
}

// Whatever a power loss keeps of the blocks of a log's unsynced tail is a torn end: for us, and for
// Pebble.
func TestWhatAPowerLossLeavesOfALogIsNoRot(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range logFormats {
		crossed := 0
		for round := range 12 {
			l := f.grown(rng, 3*logBlock-rng.IntN(2500))
			if l.synced/logBlock != (len(l.bytes)-1)/logBlock {
				crossed++
			}
			// What was there before: nothing yet, an older log whose file is used again, or
			// anything.
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
					left := l.lose(block, end, befores[rng.IntN(len(befores))], func(i int) bool { return mask>>(i%64)&1 != 0 })
					if err := checkChunks(left, f.log); err != nil {
						t.Fatalf("%s, round %d: %d of %d bytes were synced, blocks of %d, %b were kept: %v", f.name, round, l.synced, len(l.bytes), block, mask, err)
					}
					if try%16 != 0 {
						continue // Pebble looks for turned bits in what is torn, and that takes long
					}
					if got, err := pebbleReads(left, f.log); err != nil || got < len(l.whole) {
						t.Fatalf("%s, round %d: Pebble reads %d of %d records: %v", f.name, round, got, len(l.whole), err)
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
	r := pebblelog.NewReader(bytes.NewReader(log), 0)
	if number != 0 {
		r = pebblelog.NewReader(bytes.NewReader(log), 7) // the type of a number has no name outside of Pebble
	}
	for ; ; n++ {
		one, err := r.Next()
		if err == nil {
			_, err = io.ReadAll(one)
		}
		if err == io.EOF || pebblelog.IsInvalidRecord(err) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// † A byte that is turned over where the log had been synced, and in more than its last record, is
// no torn end.
func TestRotBeforeTheEndOfALogIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, f := range logFormats {
		if f.name == "recyclable" {
			continue // it says nothing of syncs; older Pebbles wrote it
		}
		for range 40 {
			l := f.grown(rng, 2*logBlock+rng.IntN(logBlock))
			for range 40 {
				// With some of the tail, all of it, or none.
				end := []int{l.synced, len(l.bytes), l.synced + rng.IntN(len(l.bytes)-l.synced)}[rng.IntN(3)]
				at := rng.IntN(l.whole[len(l.whole)-2])
				bad := bytes.Clone(l.bytes[:end])
				if bad[at] ^= 1 << rng.IntN(8); l.padding(at) {
					continue
				}
				if err := checkChunks(bad, f.log); !errors.Is(err, errRotten) {
					t.Fatalf("%s: byte %d of %d, %d of them synced: %v", f.name, at, end, l.synced, err)
				}
			}
		}
	}
}

// padding reports whether a byte is in the zeros at the end of a block, where no chunk fits: none
// is missed there.
func (l tornLog) padding(at int) bool {
	i, _ := slices.BinarySearch(l.whole, at+1)
	next := l.synced
	if i < len(l.whole) {
		next = l.whole[i]
	}
	return len(bytes.Trim(l.bytes[at:min(next, at/logBlock*logBlock+logBlock)], "\x00")) == 0
}

// A MANIFEST that grows past 32 KiB and again, with a power loss at any step meanwhile: the folder
// opens, and has all that was answered.
func TestAPowerLossWhileTheManifestGrows(t *testing.T) {
	disk := crashfs.New()
	disk.Journal("/meta")
	db, err := Open("/meta", Options{Hook: noHook, FS: disk.VFS()})
	if err != nil {
		t.Fatal(err)
	}
	long := string(bytes.Repeat([]byte("k"), 700)) // the MANIFEST names each table's first and last key
	var n atomic.Int64                             // commits begun
	commit := func() {
		t.Helper()
		n := n.Add(1)
		if err := putRow(db, fmt.Sprintf("%04d%s", n, long), n); err != nil {
			t.Fatal(err)
		}
		if err := db.peb.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		desc, err := pebble.Peek("/meta", disk.VFS())
		if err != nil {
			t.Fatal(err)
		}
		info, err := disk.VFS().Stat(desc.ManifestFilename)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	type moment struct {
		image     *crashfs.Image
		committed int64
		crosses   bool // the MANIFEST is being written across a block
	}
	var mu sync.Mutex // guards moments: compactions write beside the commits
	var moments []moment
	watch := func(s crashfs.Step) *crashfs.Fault {
		if s.Changes() {
			mu.Lock()
			defer mu.Unlock()
			moments = append(moments, moment{s.Image(), n.Load() - 1, false})
		}
		return nil
	}
	crossed := 0
	for crossed < 3 && n.Load() < 300 {
		at := size()
		if at%logBlock < logBlock-4000 {
			commit()
			continue
		}
		mu.Lock()
		from := len(moments)
		mu.Unlock()
		disk.SetHook(watch)
		commit()
		disk.SetHook(nil)
		if size()/logBlock == at/logBlock {
			continue
		}
		crossed++
		mu.Lock()
		for i := range moments[from:] {
			moments[from+i].crosses = true
		}
		mu.Unlock()
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	images := 0
	for _, m := range moments {
		tries := 2
		if m.crosses {
			tries = 8
		}
		for try := range tries {
			images++
			left := m.image.Crash(rng, []int{50, 20, 80}[try%3])
			got, err := Open("/meta", Options{Hook: noHook, FS: left.VFS()})
			if err != nil {
				t.Fatalf("after %d commits: %v", m.committed, err)
			}
			for i := int64(1); i <= m.committed; i++ {
				if err := placed(got, fmt.Sprintf("%04d%s", i, long)); err != nil {
					t.Errorf("commit %d of %d: %v", i, m.committed, err)
				}
			}
			if err := got.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d commits, the MANIFEST crossed a block %d times, %d images", n.Load(), crossed, images)
	if crossed < 3 {
		t.Errorf("the MANIFEST crossed a block %d times", crossed)
	}
}

func placed(db *DB, name string) error {
	return db.Catalog().View(context.Background(), func(r catalog.Reader) error {
		_, err := catalog.Places.Get(r, catalog.Name(name))
		return err
	})
}
