package direct

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"sluice/internal/durable"
	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

const block, size = 4096, 4 * 4096

// disk is a file system whose files record what is written to them, and how.
type disk struct {
	durable.OS
	able bool

	mu     sync.Mutex
	writes []write
	hold   chan struct{} // a direct write waits for it, if it is set
	fail   error         // of direct writes
}

type write struct {
	past bool
	off  int64
	n    int
}

type file struct {
	durable.File
	d *disk
}

func (d *disk) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := d.OS.OpenFile(path, flag, perm)
	return &file{f, d}, err
}

func (d *disk) note(past bool, off int64, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes = append(d.writes, write{past, off, n})
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.d.note(false, off, len(p))
	return f.File.WriteAt(p, off)
}

func (f *file) Direct() (durable.DirectFile, error) {
	if !f.d.able {
		return nil, errors.ErrUnsupported
	}
	return &past{f}, nil
}

// past stands for direct I/O, also if the folder of temporary files has none.
type past struct{ *file }

func (p *past) WriteAt(q []byte, off int64) (int, error) {
	if p.d.hold != nil {
		<-p.d.hold
	}
	p.d.note(true, off, len(q))
	if p.d.fail != nil {
		return 0, p.d.fail
	}
	return p.File.WriteAt(q, off)
}

func (p *past) Close() error { return nil }

// put writes content from off on as the engine does, with at most `piece` bytes for each WriteAt.
func put(t *testing.T, w *Writer, content []byte, off int64, piece int) {
	t.Helper()
	s := w.Pool.NewStream()
	for at := 0; at < len(content); {
		mem := s.Acquire(off+int64(at), int64(len(content)-at))
		n := min(len(mem), len(content)-at)
		if mem == nil {
			n = min(100, len(content)-at)
			mem = make([]byte, n)
		}
		copy(mem, content[at:at+n])
		for b := mem[:n]; len(b) > 0; b = b[min(piece, len(b)):] {
			q := b[:min(piece, len(b))]
			if m, _, err := w.WriteAt(q, off+int64(at)); err != nil || m != len(q) {
				t.Fatalf("writing %d bytes at %d: %d, %v", len(q), off+int64(at), m, err)
			}
			at += len(q)
		}
		s.Release()
	}
	if err := w.Wait(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, d *disk, p *Pool) (w *Writer, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "f")
	f, err := d.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w = &Writer{Pool: p}
	w.Use(f)
	t.Cleanup(func() { w.Close(); f.Close() })
	return w, path
}

func random(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// For any offset, length and split the file has the bytes, no bytes beside them change, and only
// whole blocks go past the cache.
func TestTheBytesArriveWhole(t *testing.T) {
	for _, able := range []bool{true, false} {
		p := NewPool(Config{Block: block, Buffer: size, Buffers: 2})
		for _, off := range []int64{0, 1, block - 1, block, block + 1, 3*block + 77, size} {
			for _, n := range []int{0, 1, 99, block - 1, block, block + 1, size - 1, size, size + 1, 3*size + 555} {
				for _, piece := range []int{1 << 20, block, 5000} {
					d := &disk{able: able}
					w, path := open(t, d, p)
					around := random(int(off) + n + 3*block)
					if err := os.WriteFile(path, around, 0o600); err != nil {
						t.Fatal(err)
					}
					content := random(n + 1)[1:]
					put(t, w, content, off, piece)
					copy(around[off:], content)
					if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, around) {
						t.Fatalf("%d bytes from %d in pieces of %d: the file differs, %v", n, off, piece, err)
					}
					past := 0
					for _, k := range d.writes {
						if k.past {
							past += k.n
							if k.off%block != 0 || k.n%block != 0 {
								t.Fatalf("%d bytes at %d went past the cache", k.n, k.off)
							}
						}
					}
					if want := able && n >= size+1 && piece >= 2*block; want != (past > 0) && (want || !able) {
						t.Errorf("%d bytes from %d in pieces of %d: %d went past the cache", n, off, piece, past)
					}
				}
			}
		}
	}
}

// The test runs on a real file system, if that of the temporary files has direct I/O.
func TestTheSystemsOwnDirectIO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := durable.OS{}.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	past, err := f.Direct()
	if err != nil {
		t.Skip("no direct I/O here:", err)
	}
	if _, err := past.WriteAt(make([]byte, 100), 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("100 bytes: %v", err)
	}
	if err := past.Close(); err != nil {
		t.Fatal(err)
	}
	p := NewPool(Config{Buffer: 1 << 20})
	w := Writer{Pool: p}
	w.Use(f)
	content := random(5<<20 + 12345)
	put(t, &w, content, 7777, 1<<20)
	if w.past == nil || p.noDirectIO.Load() {
		t.Error("nothing went past the cache")
	}
	w.Close()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[7777:], content) {
		t.Errorf("the file differs, %v", err)
	}
}

// The caller goes on while a buffer is written, but never gets that buffer. A waiter is woken at
// the end of the write.
func TestABufferIsNotGivenWhileItIsWritten(t *testing.T) { synctest.Test(t, bufferWhileWritten) }

func bufferWhileWritten(t *testing.T) {
	d := &disk{able: true, hold: make(chan struct{})}
	p := NewPool(Config{Block: block, Buffer: size, Buffers: 2})
	w, _ := open(t, d, p)
	release := sync.OnceFunc(func() { close(d.hold) })
	t.Cleanup(release)
	s := p.NewStream()
	s.Wait() // nothing is under way
	first := s.Acquire(0, 10*size)
	if _, _, err := w.WriteAt(first, 0); err != nil {
		t.Fatal(err)
	}
	s.Release()
	second := s.Acquire(size, 10*size)
	if second == nil || &second[0] == &first[0] {
		t.Fatal("what is being written is given")
	}
	if third := s.Acquire(2*size, 10*size); third != nil {
		t.Error("given twice at a time")
	}
	s.Release()
	waited := make(chan struct{})
	go func() { s.Wait(); close(waited) }()
	synctest.Wait()
	if p.get() == nil || p.get() != nil {
		t.Error("more is made than is allowed, or a buffer is lost")
	}
	select {
	case <-waited:
		t.Error("the write is waited for, and runs")
	default:
	}
	release()
	<-waited
	if err := w.Wait(); err != nil {
		t.Fatal(err)
	}
	if p.get() == nil {
		t.Error("the buffer does not come back when it is written")
	}
}

// The next step reports an error of a background write, and the error stays.
func TestALateErrorIsTold(t *testing.T) {
	d := &disk{able: true, fail: errors.New("the disk is ill")}
	p := NewPool(Config{Block: block, Buffer: size, Buffers: 4})
	w, _ := open(t, d, p)
	s := p.NewStream()
	if _, _, err := w.WriteAt(s.Acquire(0, 10*size), 0); err != nil {
		t.Fatal(err)
	}
	s.Release()
	for range 2 {
		if _, _, err := w.WriteAt(s.Acquire(size, 10*size), size); !errors.Is(err, d.fail) {
			t.Errorf("the next write: %v", err)
		}
		s.Release()
		if err := w.Wait(); !errors.Is(err, d.fail) {
			t.Errorf("waiting: %v", err)
		}
	}
}

// If the file system can't write past the cache, bytes go through it, and no more memory is given.
func TestWithoutDirectIOTheCacheIsUsed(t *testing.T) {
	d := &disk{able: true, fail: errors.ErrUnsupported}
	p := NewPool(Config{Block: block, Buffer: size, Buffers: 4})
	w, path := open(t, d, p)
	content := random(2 * size)
	put(t, w, content, 0, size)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file differs, %v", err)
	}
	if p.NewStream().Acquire(0, size) != nil {
		t.Error("given although it is of no use")
	}
	if NewPool(Config{Off: true}).get() == nil {
		t.Error("the pool itself does not know of Off")
	}
	if NewPool(Config{Off: true}).NewStream().Acquire(0, 100*size) != nil {
		t.Error("given although it is off")
	}
}

// Bytes that will be read soon go through the cache, from the same memory, and are written when
// WriteAt returns.
func TestWhatIsSoonReadGoesThroughTheCache(t *testing.T) {
	d := &disk{able: true}
	w, path := open(t, d, NewPool(Config{Block: block, Buffer: size, Buffers: 2}))
	w.Cached = true
	content := random(3*size + 5)
	put(t, w, content, 0, size)
	for _, k := range d.writes {
		if k.past {
			t.Fatalf("%d bytes at %d went past the cache", k.n, k.off)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file differs, %v", err)
	}
}
