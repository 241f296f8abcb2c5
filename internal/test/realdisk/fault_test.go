package realdisk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/internal/test/load"
)

// each runs a test on each file system.
func each(t *testing.T, f func(t *testing.T, s *shelf)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, newShelf(t, k)) })
	}
}

// marked gives n bytes with a mark in each sector, so that a disk can fail to write these alone.
func marked(mark string, n int) []byte {
	return bytes.Repeat([]byte(mark+strings.Repeat(".", sector-len(mark))), n/sector+1)[:n]
}

// Why a failed fsync must never be tried again: the second fsync finds nothing to do, the cache
// shows the bytes, and the disk lacks them.
func TestAFailedSyncShowsBytesThatTheDiskLacks(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		m := s.mount(s.format())
		path := filepath.Join(m.dir, "file")
		before, after := marked("before", 3*page), marked("after", 3*page)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		write := func(b []byte) {
			t.Helper()
			if _, err := f.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
		}
		read := func(path string, flag int) string {
			t.Helper()
			f, err := os.OpenFile(path, os.O_RDONLY|flag, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := aligned(3 * page)
			if _, err := io.ReadFull(f, b); err != nil {
				t.Fatal(err)
			}
			return string(bytes.TrimRight(b[:sector], "."))
		}
		write(before)
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		s.fail(m.disk, Fault{Writes: true, Holding: []byte("after.")})
		write(after)
		if err := f.Sync(); !errors.Is(err, unix.EIO) {
			t.Fatalf("the first sync: %v", err)
		}
		if s.counts(m.disk).Failed == 0 {
			t.Fatal("the disk has failed no write")
		}
		s.fail(m.disk, Fault{})
		again := f.Sync()
		cached, direct := read(path, 0), read(path, unix.O_DIRECT)
		f.Close()
		m = m.again()
		lasting := read(filepath.Join(m.dir, "file"), 0)
		t.Logf(
			"the second sync: %v; the cache says %q, the disk %q; mounted anew, the file says %q", again, cached,
			direct, lasting,
		)
		// Kernels differ in the result of the second sync, and in what they show meanwhile. The
		// bytes are gone in all of them.
		if lasting != "before" {
			t.Errorf("the file says %q: the failed write was not lost, so this test shows nothing", lasting)
		}
	})
}

// aligned gives memory into which O_DIRECT can read.
func aligned(n int) []byte {
	b := make([]byte, n+page)
	skip := page - int(uintptr(unsafe.Pointer(&b[0]))%page)
	return b[skip : skip+n]
}

// one is an upload of one chunk.
type one struct {
	id   string
	body []byte
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// begin begins an upload of one chunk. It gives the length if the content is to be packed: else the
// server does not know it.
func begin(t *testing.T, c *api.Client, body []byte, packed bool) one {
	t.Helper()
	n := int64(len(body))
	meta := api.Meta{Name: "one"}
	if packed {
		meta.Bytes = &n
	}
	s, err := c.Begin(t.Context(), api.BeginRequest{CapsuleID: "default", Meta: meta, ChunkSize: n})
	if err != nil {
		t.Fatal(err)
	}
	return one{s.SessionID, body}
}

func (o one) put(c *api.Client) error {
	return c.PutChunk(context.Background(), o.id, 0, bytes.NewReader(o.body), int64(len(o.body)), api.PutOptions{})
}

func (o one) finish(c *api.Client) (api.Memory, error) {
	return c.Finish(context.Background(), api.FinishRequest{
		SessionID: o.id, SHA256: sum(o.body), TotalLen: int64(len(o.body)),
	})
}

func (o one) stored(t *testing.T, c *api.Client, id string) {
	t.Helper()
	body, _, err := c.Content(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); err != nil || !bytes.Equal(b, o.body) {
		t.Errorf("%d bytes of %d are stored, or they are wrong ones: %v", len(b), len(o.body), err)
	}
}

// Content that the disk could not write is reported missing, harms that upload alone, and is sent
// again when the disk is well. Stored content survives a power loss.
func TestAFailedWriteOfContentHarmsItsUploadAlone(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		for _, how := range []struct {
			durability string
			packed     bool
		}{{"process", false}, {"power", false}, {"process", true}} {
			durability := how.durability
			r := newSeries(s, durability, 1)
			m := s.mount(s.format())
			srv, err := load.Start(r.exe, m.data(), "", "--durability="+durability)
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Kill()
			c := srv.Client
			bad, good := begin(t, c, marked("bad", 50_000), how.packed), begin(t, c, marked("good", 50_000), how.packed)
			s.fail(m.disk, Fault{Writes: true, Holding: []byte("bad.")})
			puts := bad.put(c)
			if _, err := bad.finish(c); durability == "power" && puts == nil || err == nil {
				t.Fatalf("%s: bytes that the disk lacks were taken: put %v, finish %v", durability, puts, err)
			}
			if durability == "process" && !how.packed && puts != nil { // packed content goes past the cache
				t.Errorf("a put that need not be on the disk: %v", puts)
			}
			if s.counts(m.disk).Failed == 0 {
				t.Fatal("the disk has failed no write")
			}
			missing := 1
			if puts != nil && !how.packed {
				missing = 0 // of an unknown length, and no byte has come
			}
			st, err := c.Status(t.Context(), bad.id, true)
			if err != nil || st.State != "open" || len(st.Missing) != missing || len(st.CRC32C) != 0 {
				t.Errorf("%s: the upload in question is %s and lacks %v, %v", durability, st.State, st.Missing, err)
			}
			if err := good.put(c); err != nil {
				t.Errorf("%s: another upload: %v", durability, err)
			}
			goodMemory, err := good.finish(c)
			if err != nil {
				t.Fatalf("%s: another upload: %v", durability, err)
			}
			s.fail(m.disk, Fault{})
			if err := bad.put(c); err != nil {
				t.Fatalf("%s: the disk is well again: %v", durability, err)
			}
			badMemory, err := bad.finish(c)
			if err != nil {
				t.Fatalf("%s: the disk is well again: %v", durability, err)
			}
			after := Take{Disk: m.disk, Image: s.name()}
			if _, _, err := s.take(after, load.New()); err != nil {
				t.Fatal(err)
			}
			srv.Kill()
			m.remove()
			s.reboot()
			m = s.mount(after.Image)
			if srv, err = load.Start(r.exe, m.data(), ""); err != nil {
				t.Fatal(err)
			}
			defer srv.Kill()
			good.stored(t, srv.Client, goodMemory.MemoryID)
			bad.stored(t, srv.Client, badMemory.MemoryID)
			srv.Kill()
			m.remove()
		}
	})
}

// A disk that fails every write from some moment on ends the server, which says why. When the disk
// is well, all acknowledged content is there.
func TestADiskThatFailsEndsTheServerAndLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		for i, durability := range []string{"process", "power"} {
			r := newSeries(s, durability, rand.Uint64())
			m := s.mount(s.format())
			srv, err := load.Start(r.exe, m.data(), "", "--durability="+durability)
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Kill()
			end := r.clients(m, srv)
			time.Sleep(100 * time.Millisecond)
			s.fail(m.disk, Fault{Writes: i == 0, Flushes: i == 1, Skip: r.rand.Int64N(100)})
			select {
			case <-srv.Done():
			case <-time.After(time.Minute):
				t.Fatal("the server lives without a disk")
			}
			_ = end() // the server may refuse now
			if !strings.Contains(srv.Output(), "the disk of the metadata failed") {
				t.Errorf("it ended without a word: %s", srv.Output())
			}
			s.fail(m.disk, Fault{})
			m = m.again()
			want := load.Everything
			if durability == "process" {
				want = load.ButDoubted // the bytes in the file system's cache are gone with it
			}
			if err := r.look(m, r.facts, want); err != nil {
				t.Errorf("%s, seed %d: %v", durability, r.seed, err)
			}
			m.remove()
		}
	})
}

// A few writes fail under load, of content or of metadata. Whether the server lives on or not, its
// answers hold.
func TestADiskThatFailsForAWhileLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		r := newSeries(s, "power", rand.Uint64())
		m := s.mount(s.format())
		died := 0
		for round := range *rounds {
			srv, err := load.Start(r.exe, m.data(), "", "--durability=power")
			if err != nil {
				t.Fatal(err)
			}
			end := r.clients(m, srv)
			time.Sleep(time.Duration(20+r.rand.IntN(100)) * time.Millisecond)
			failed := s.counts(m.disk).Failed
			s.fail(m.disk, Fault{
				Writes: true, Flushes: r.rand.IntN(4) == 0, Skip: r.rand.Int64N(10), Most: 1 + r.rand.Int64N(5),
			})
			for range 200 {
				if time.Sleep(10 * time.Millisecond); s.counts(m.disk).Failed > failed {
					break
				}
			}
			_ = end()
			s.fail(m.disk, Fault{})
			if !srv.Alive() {
				died++
				if !strings.Contains(srv.Output(), "the disk of the metadata failed") {
					t.Errorf("it ended without a word: %s", srv.Output())
				}
			}
			srv.Kill()
			m = m.again()
			if err := r.look(m, r.facts, r.want); err != nil {
				t.Fatalf("round %d, seed %d: %v", round, r.seed, err)
			}
		}
		if s.counts(m.disk).Failed == 0 {
			t.Error("the disk has never failed")
		}
		t.Logf("seed %d: %d rounds, %d acknowledgements, the disk failed %d times, and the server ended %d times",
			r.seed, *rounds, r.facts.Answers(), s.counts(m.disk).Failed, died)
	})
}

// This proves the other tests: a disk that answers flushes and carries out none takes acknowledged
// bytes, and the test sees that.
func TestADiskThatLiesIsFoundOut(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		r := newSeries(s, "power", rand.Uint64())
		m := s.mount(s.format())
		srv, err := load.Start(r.exe, m.data(), "", "--durability=power")
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Kill()
		s.fail(m.disk, Fault{Lies: true})
		end := r.clients(m, srv)
		for r.facts.Answers() < 10 {
			time.Sleep(10 * time.Millisecond)
		}
		take := Take{Disk: m.disk, Image: s.name()}
		facts, of, err := s.take(take, r.facts)
		if err = errors.Join(err, end()); err != nil {
			t.Fatal(err)
		}
		srv.Kill()
		m.remove()
		s.reboot()
		m = s.mount(take.Image)
		if err := r.look(m, facts, r.want, knows); err == nil {
			t.Errorf("%d writes were lost with %d acknowledgements, and nobody has seen it", of.Cached, facts.Answers())
		} else {
			t.Logf("%d writes were lost: %.120v", of.Cached, err)
		}
	})
}

// A file system without free space ends no server and loses nothing, even by a power loss just
// then.
func TestAFullFileSystemLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *shelf) {
		r := newSeries(s, "process", rand.Uint64())
		m := s.mount(s.format())
		srv, err := load.Start(r.exe, m.data(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Kill()
		end := r.clients(m, srv)
		time.Sleep(50 * time.Millisecond)
		ballast := filepath.Join(m.dir, "ballast")
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		off := int64(0)
		for n := int64(16 << 20); n >= page; n /= 2 {
			for unix.Fallocate(int(f.Fd()), 0, off, n) == nil {
				off += n
			}
		}
		f.Close()
		time.Sleep(100 * time.Millisecond)
		full := Take{Disk: m.disk, Image: s.name(), Keep: 50, After: 10, Seed: r.rand.Uint64()}
		facts, _, err := s.take(full, r.facts)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if err := end(); err != nil {
			t.Error(err)
		}
		if !srv.Alive() {
			t.Errorf("the server ended by itself: %s", srv.Output())
		}
		srv.Kill()
		if err := r.look(m, r.facts, load.Everything); err != nil {
			t.Errorf("seed %d: %v", r.seed, err)
		}
		m.remove()
		s.reboot()
		m = s.mount(full.Image)
		_ = os.Remove(filepath.Join(m.dir, "ballast"))
		if err := r.look(m, facts, r.want, knows); err != nil {
			t.Errorf("after the power loss, seed %d: %v", r.seed, err)
		}
	})
}
