// Package direct writes a file past the page cache while the caller fills the next buffer: the fast
// path of content.
//
// New pages of the cache are the largest cost of a write, larger than SHA-256. So bytes that come
// fast are read into memory of this package, and go from there to the disk. The owner of a buffer
// hashes it while it is written:
//
//	caller   Acquire ▶ fill 1 ▶ WriteAt ▶ hash 1 ▶ Release ▶ Acquire ▶ fill 2 ▶ WriteAt ▶ hash 2 …
//	                              ╲                                        ╲
//	disk                           ╰─── write 1 ────────────────────────▶   ╰─── write 2 ──── …
//
//	a buffer  │ head │ whole blocks …                   │ tail │
//	            cache   O_DIRECT, in the background        cache
//
// Only whole blocks go past the cache. A part of a block at either end is written through the
// cache, and never padded: the rest of that block belongs to somebody else, who may be writing it
// at the same moment. A block is a page at least, so that no page is written both ways.
//
// The package owns the memory, its bounds, and the order of writes of one Writer. It does not own
// when a file is synced, nor what is safe: a write that has returned, direct or not, survives only
// the death of the process. The buffer that finds out that the file system has no direct I/O is
// written through the cache, and no more memory is given.
package direct

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"sluice/internal/durable"
)

// Config bounds a Pool. The zero value of a field takes the default that is named.
type Config struct {
	// Off gives no memory: everything goes through the cache.
	Off bool
	// Block is the unit of writes past the cache, in bytes: a power of two (a page, at least
	// durable.Block).
	Block int
	// Buffer is the size of one buffer in bytes: a multiple of Block (1 MiB).
	Buffer int
	// Buffers is the largest number of buffers (24): a fast stream has two.
	Buffers int
}

// Pool is the memory of any number of Streams. It is safe for concurrent use.
type Pool struct {
	cfg Config
	// noDirectIO: the file system has no direct I/O, and large buffers would do no better than
	// small ones.
	noDirectIO atomic.Bool

	mu   sync.Mutex
	all  []*buffer
	free []*buffer
}

// buffer is memory that begins at a multiple of a block.
type buffer struct {
	mem []byte
	// refs counts those that may still read it: its holder, and the write under way.
	refs  atomic.Int32
	owner *Stream // the Stream that has acquired it last
}

// NewPool makes an empty pool. It takes memory when that is first wanted, and keeps it.
func NewPool(cfg Config) *Pool {
	if cfg.Block == 0 {
		cfg.Block = max(durable.Block, os.Getpagesize())
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 1 << 20
	}
	if cfg.Buffers == 0 {
		cfg.Buffers = 24
	}
	return &Pool{cfg: cfg}
}

// get gives a buffer with one reference, or nil.
func (p *Pool) get() *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	var b *buffer
	switch {
	case n > 0:
		b = p.free[n-1]
		p.free = p.free[:n-1]
	case len(p.all) < p.cfg.Buffers:
		mem, err := mapPages(p.cfg.Buffer)
		if err != nil {
			return nil
		}
		b = newBuffer(mem)
		p.all = append(p.all, b)
	default:
		return nil
	}
	b.refs.Store(1)
	return b
}

// unref ends one use.
func (p *Pool) unref(b *buffer) {
	if b.refs.Add(-1) == 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, b)
	}
}

// bufferOf gives the buffer that q is a part of, or nil.
func (p *Pool) bufferOf(q []byte) *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.all {
		if b.has(q) {
			return b
		}
	}
	return nil
}

// has reports whether q is a part of the buffer.
func (b *buffer) has(q []byte) bool {
	// A slice of it keeps the capacity up to the buffer's end.
	at := len(b.mem) - cap(q)
	return len(q) > 0 && at >= 0 && &b.mem[at] == &q[0]
}

// Stream is the memory that one stream of bytes is read into, one buffer at a time. One goroutine
// calls Acquire and Release, any goroutine Wait.
type Stream struct {
	pool *Pool
	b    *buffer // nil: none is acquired

	mu   sync.Mutex
	busy chan struct{} // closed when the write that is under way is done; nil: none was
}

// NewStream gives the memory of a stream.
func (p *Pool) NewStream() *Stream { return &Stream{pool: p} }

// Acquire gives memory for the bytes from off on, of which n may come. It gives nil if that is not
// worth it, or if all buffers are in use. The memory is so long that the next begins at a whole
// block. The caller must have released the memory before.
func (s *Stream) Acquire(off, n int64) []byte {
	p := s.pool
	if p.cfg.Off || p.noDirectIO.Load() || n < int64(p.cfg.Buffer)/4 || s.b != nil {
		return nil
	}
	b := p.get()
	if b == nil {
		s.Wait() // the memory of the write under way will do, if there is one
		b = p.get()
	}
	if b == nil {
		return nil
	}
	b.owner, s.b = s, b
	return b.mem[off%int64(p.cfg.Block):]
}

// Release says that the caller no longer touches the acquired memory. A write that is under way may
// go on reading it.
func (s *Stream) Release() {
	if s.b != nil {
		s.pool.unref(s.b)
		s.b = nil
	}
}

// Wait returns when no write of the stream's memory is under way. The Writer reports its error.
func (s *Stream) Wait() {
	s.mu.Lock()
	busy := s.busy
	s.mu.Unlock()
	if busy == nil {
		return
	}
	<-busy
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == busy {
		s.busy = nil
	}
}

// Writer writes one stream of bytes to a file, past the cache if they lie in memory of its Pool.
// WriteAt and Wait are called by one goroutine at a time.
type Writer struct {
	Pool *Pool
	// Cached writes everything through the cache: it will be read soon.
	Cached bool

	file durable.File
	past durable.DirectFile // nil until it is needed, or if there is none
	from *Stream            // of whose memory the last write in the background was; nil: none was
	err  error              // of writes in the background
}

// Use makes w write to f, which stays the caller's.
func (w *Writer) Use(f durable.File) { w.file = f }

// WriteAt writes q through the cache; or past it, except the parts of blocks at both ends. Whole
// blocks may still be on their way when it returns. Their error is that of a later WriteAt, or of
// Wait, and q must not change before that. Only a part of an acquired buffer goes past the cache.
func (w *Writer) WriteAt(q []byte, off int64) (n int, past bool, err error) {
	if err := w.Wait(); err != nil {
		return 0, false, err
	}
	end := off + int64(len(q))
	from, to := off, off
	var b *buffer
	if !w.Cached {
		b = w.Pool.bufferOf(q)
	}
	if b != nil {
		block := int64(w.Pool.cfg.Block)
		from, to = (off+block-1)/block*block, end/block*block
	}
	if from >= to || !w.open() {
		n, err = w.file.WriteAt(q, off)
		return n, false, err
	}
	if from > off {
		if n, err := w.file.WriteAt(q[:from-off], off); err != nil {
			return n, true, err
		}
	}
	if to < end {
		if _, err := w.file.WriteAt(q[to-off:], to); err != nil {
			return int(from - off), true, err
		}
	}
	w.start(b, q[from-off:to-off], from)
	return len(q), true, nil
}

// open opens the file for direct I/O, if the file system has it.
func (w *Writer) open() bool {
	if w.past != nil {
		return true
	}
	past, err := w.file.Direct()
	if err != nil {
		w.Pool.noDirectIO.Store(errors.Is(err, errors.ErrUnsupported))
		return false
	}
	w.past = past
	return true
}

// start writes whole blocks of a buffer while the caller goes on.
func (w *Writer) start(b *buffer, q []byte, off int64) {
	pool, busy := w.Pool, make(chan struct{})
	b.refs.Add(1)
	w.from = b.owner
	w.from.mu.Lock()
	w.from.busy = busy
	w.from.mu.Unlock()
	go func() {
		defer close(busy)
		defer pool.unref(b)
		n, err := w.past.WriteAt(q, off)
		if errors.Is(err, errors.ErrUnsupported) {
			pool.noDirectIO.Store(true)
			n, err = w.file.WriteAt(q, off)
		}
		if err == nil && n < len(q) {
			err = io.ErrShortWrite
		}
		w.err = err // it is read after Stream.Wait
	}()
}

// await returns when nothing is being written.
func (w *Writer) await() {
	if w.from != nil {
		w.from.Wait()
	}
}

// Wait returns when no write is under way, with the error of the writes so far. The error stays.
func (w *Writer) Wait() error {
	w.await()
	return w.err
}

// Close waits for the write under way, and closes what it has opened itself. Wait gives the error
// of a write that was not reported yet.
func (w *Writer) Close() {
	w.await()
	if w.past != nil {
		_ = w.past.Close()
		w.past = nil
	}
}
