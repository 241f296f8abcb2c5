package pebblemeta

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"sluice/internal/durable"
	"sluice/internal/pebblelog"
	"sluice/session"
)

// I21: A record that need only survive the process does not wait for the disk, and survives the
// process. Other commits wait.
func TestAnUnsyncedCommitWaitsForNoSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSlowDisk()
		dead := opened(t, disk, Options{Durability: durable.Process})
		s := create(t, dead, 1, "a")
		disk.stop()
		s, err := record(dead, s, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, dead); len(got.Entries[0]) != 1 {
			t.Errorf("a reader sees %v", got.Entries)
		}
		for name, synced := range map[string]func() error{
			"a drop": func() error {
				_, err := dead.Sessions().Record(t.Context(), s.ID, s.Gen,
					session.Change{Drop: session.Range{Off: 100, End: 200}, Length: session.Unknown})
				return err
			},
			"a row":            func() error { return putRow(dead, "row", 1) },
			"the running time": func() error { _, err := dead.Sessions().KeepTime(t.Context(), 1<<40); return err },
		} {
			done := make(chan error, 1)
			go func() { done <- synced() }()
			synctest.Wait()
			select {
			case err := <-done:
				t.Errorf("%s does not wait for the disk: %v", name, err)
			default:
				disk.one()
				if err := <-done; err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if s, err = dead.Sessions().Load(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
		if _, err = record(dead, s, 2); err != nil {
			t.Fatal(err)
		}
		next := opened(t, &slowDisk{FS: disk.mem, mem: disk.mem}, Options{Durability: durable.Process})
		if got := all(t, next); len(got.Entries) != 1 || len(got.Entries[0]) != 2 {
			t.Errorf("the death of the process left %v", got.Entries)
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		disk.resume()
		_ = dead.Close() // its files were taken over
	})
}

// I21: A power loss keeps any part of what was not synced, also of a log that another one has
// followed. The folder opens. Each synced commit is there with all commits before it, and no
// unsynced commit is there without those before it.
func TestAPowerLossTakesTheNewestUnsyncedCommitsAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	missing := 0
	for round := range 40 {
		disk := vfs.NewCrashableMem()
		db := opened(t, disk, Options{Durability: durable.Process})
		var wg sync.WaitGroup
		const each = 60
		for w := range session.SessionID(3) {
			wg.Go(func() {
				s := create(t, db, w+1, "")
				for i := range int64(each) {
					if _, err := record(db, s, i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if round%2 == 0 { // a new log
			if err := db.peb.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		s := create(t, db, 10, "")
		if round%4 < 2 {
			if err := putRow(db, "row", 1); err != nil {
				t.Fatal(err)
			}
		}
		for i := range int64(each) {
			if _, err := record(db, s, i); err != nil {
				t.Fatal(err)
			}
		}
		left := opened(t,
			disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}),
			Options{Durability: durable.Process})
		got := all(t, left)
		if len(got.Sessions) != 4 || len(got.Rows) != (3-round%4)/2 {
			t.Fatalf("%d sessions and %d rows are left", len(got.Sessions), len(got.Rows))
		}
		for i, s := range got.Sessions {
			offs := make([]int64, len(got.Entries[i]))
			for i, e := range got.Entries[i] {
				offs[i] = e.Off
			}
			want := make([]int64, len(offs))
			for i := range want {
				want[i] = int64(i)
			}
			if s.ID != 10 && len(offs) != each || !slices.Equal(offs, want) {
				t.Errorf("of session %s %v is left", s.ID, offs)
			}
			missing += each - len(offs)
		}
		if err := left.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if missing == 0 {
		t.Error("no power loss took anything: the test is blind")
	}
}

// I21: A log is on the disk before the next log has anything, although its last commits were
// unsynced.
func TestALogIsSyncedBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		gate := make(chan struct{}) // the log's content does not get into a table meanwhile
		disk := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if strings.HasSuffix(op.Path, ".sst") {
				<-gate
			}
			return nil
		}))
		db := opened(t, disk, Options{Durability: durable.Process})
		s := create(t, db, 1, "")
		end := db.syncs.begin(true) // a commit that is still under way when the log is closed
		if _, err := record(db, s, 5); err != nil {
			t.Fatal(err)
		}
		if _, err := db.peb.AsyncFlush(); err != nil {
			t.Fatal(err)
		}
		end()
		create(t, db, 2, "")
		left := opened(t, mem.CrashClone(vfs.CrashCloneCfg{}), Options{})
		if got := all(t, left); len(got.Sessions) != 2 || len(got.Entries[0])+len(got.Entries[1]) != 1 {
			t.Errorf("left are %v with %v", got.Sessions, got.Entries)
		}
		if err := left.Close(); err != nil {
			t.Error(err)
		}
		close(gate)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// whatItSays lists, for each chunk of a log, how much of the log it says was synced, as long as no
// block of the log ends in padding.
func whatItSays(data []byte) (said []uint64) {
	for len(data) >= 19 && data[6] >= 9 && data[6] <= 12 {
		said = append(said, binary.LittleEndian.Uint64(data[11:]))
		data = data[19+int(binary.LittleEndian.Uint16(data[4:])):]
	}
	return said
}

// A log never says that more was synced than was. Pebble writes the format that is read here.
func TestALogSaysWhatWasSynced(t *testing.T) {
	disk := vfs.NewCrashableMem()
	db := opened(t, disk, Options{Durability: durable.Process})
	if err := db.peb.Flush(); err != nil { // the first log of a database says nothing
		t.Fatal(err)
	}
	s := create(t, db, 1, "")
	for i := range int64(50) {
		if _, err := record(db, s, i); err != nil {
			t.Fatal(err)
		}
	}
	create(t, db, 2, "")
	if _, err := record(db, s, 99); err != nil {
		t.Fatal(err)
	}
	left := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	names, err := logFiles(left, "data/meta")
	if err != nil {
		t.Fatal(err)
	}
	data, err := readAll(left, "data/meta/"+names[len(names)-2])
	if err != nil {
		t.Fatal(err)
	}
	said := whatItSays(data)
	// The create is the first synced commit. 50 records follow it, then another synced commit.
	if len(said) != 53 || said[1] == 0 || said[51] != said[1] || said[52] <= said[51] {
		t.Errorf("the chunks say %v", said)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// Pebble learns of a sync later than the commits that wait for it. So the next commit may say that
// less was synced than was, or that nothing was. Then corruption of that part would pass for a torn
// end, and take commits with it that were acknowledged long before.
func TestALogSaysAllThatWasSynced(t *testing.T) {
	mem := vfs.NewMem()
	file, err := mem.Create("000001.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	log := &logFile{File: file, counts: new(syncCounts)}
	var want []uint64
	for i := range 5000 { // they fill several blocks
		c := make([]byte, 19+13)
		binary.LittleEndian.PutUint16(c[4:], 13)
		c[6], c[7] = 9, 1
		binary.LittleEndian.PutUint64(c[11:], uint64(i%3)*1000)
		sum := crc32.Checksum(c[6:], castagnoli)
		binary.LittleEndian.PutUint32(c, (sum>>15|sum<<17)+0xa282ead8)
		want = append(want, uint64(log.synced))
		was := bytes.Clone(c)
		if _, err := log.Write(c); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c, was) {
			t.Fatal("what Pebble has is changed")
		}
		if i%2 == 0 {
			if err := log.Sync(); err != nil {
				t.Fatal(err)
			}
			if log.synced != log.written {
				t.Fatalf("%d bytes are synced, and %d written", log.synced, log.written)
			}
		}
	}
	data, err := readAll(mem, "000001.log")
	if err != nil {
		t.Fatal(err)
	}
	if said := whatItSays(data); !slices.Equal(said, want) {
		t.Errorf("%d chunks say otherwise than the %d syncs", len(said), len(want))
	}
	if at, yes := pebblelog.Corrupt(data, 1); yes {
		t.Errorf("corrupt at %d", at)
	}
}

// The speed of an unsynced record, beside that of a synced one.
func BenchmarkRecord(b *testing.B) {
	for name, d := range map[string]durable.Durability{"process": durable.Process, "power": durable.Power} {
		b.Run(name, func(b *testing.B) {
			db, err := Open(b.TempDir(), Options{Hook: noHook, Durability: d})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			now := time.UnixMilli(1e12).UTC()
			s, _, err := db.Sessions().Create(b.Context(), session.Session{
				ID: 1, Spec: session.Spec{ChunkSize: 1 << 40, BytesExpected: 1 << 50}, Began: now, LastSeen: now,
			})
			if err != nil {
				b.Fatal(err)
			}
			for i := int64(0); b.Loop(); i++ {
				var c session.Change
				c.Length = session.Unknown
				c.Add = []session.Entry{{Range: session.Range{Off: i, End: i + 1}}}
				if i > 0 {
					c.Remove = []session.Range{{Off: 0, End: i}}
					c.Add[0].Off = 0
				}
				if _, err := db.Sessions().Record(b.Context(), s.ID, s.Gen, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
