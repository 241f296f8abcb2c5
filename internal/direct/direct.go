// Package direct writes a file past the page cache, while the caller already fills the next buffer:
// the fast path of content.
//
// New pages of the cache are what writing costs most, more than SHA-256. So bytes that come fast
// are read into memory of this package, and go from there to the disk; each buffer is hashed by its
// owner while it is written:
//
//	caller   Lend ▶ fill 1 ▶ WriteAt ▶ hash 1 ▶ Done ▶ Lend ▶ fill 2 ▶ WriteAt ▶ hash 2 ▶ Done …
//	                            ╲                                         ╲
//	disk                         ╰─── write 1 ─────────────────────────▶   ╰─── write 2 ──── …
//
//	a buffer  │ head │ whole blocks …                   │ tail │
//	            cache   O_DIRECT, in the background        cache
//
// Only whole blocks go past the cache. What is left of one at either end is written through it,
// never padded: the rest of such a block belongs to somebody else, who may be writing it at the
// same moment. A block is a page at least, so that no page is written both ways.
//
// It owns the memory, its bounds, and the order of writes of one Writer. It does not own when a
// file is synced, nor what is safe: a write that has returned, direct or not, survives the death of
// the process alone. Where the file system has no direct I/O the same memory is written through the
// cache.
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
	// Off lends nothing: everything goes through the cache.
	Off bool
	// Block is what is written past the cache, in bytes: a power of two (a page, at least
	// durable.Block).
	Block int
	// Buffer is the size of one buffer in bytes: a multiple of Block (1 MiB).
	Buffer int
	// Buffers is how many there are at most: a fast stream has two (24).
	Buffers int
}

// Pool is the memory of any number of Writers. It is safe for concurrent use.
type Pool struct {
	cfg Config
	// unable: the file system has no direct I/O, and lending would only make large buffers of what
	// small ones do as well.
	unable atomic.Bool

	mu   sync.Mutex
	made int
	free []*buffer
}

// buffer is one piece of memory that begins at a multiple of a block.
type buffer struct {
	mem []byte
	// users are who may still read it: the caller until Done, and the write under way.
	users atomic.Int32
}

// NewPool makes an empty pool; memory is had when it is first wanted, and kept.
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

// get gives a buffer with one user, or nil.
func (p *Pool) get() *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	var b *buffer
	switch {
	case n > 0:
		b = p.free[n-1]
		p.free = p.free[:n-1]
	case p.made < p.cfg.Buffers:
		mem, err := memory(p.cfg.Buffer)
		if err != nil {
			return nil
		}
		p.made++
		b = newBuffer(mem)
	default:
		return nil
	}
	b.users.Store(1)
	return b
}

// drop ends one use.
func (p *Pool) drop(b *buffer) {
	if b.users.Add(-1) == 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, b)
	}
}

// has reports whether q is a part of the buffer.
func (b *buffer) has(q []byte) bool {
	// A part of it that was not cut off at its capacity ends where it does.
	at := len(b.mem) - cap(q)
	return len(q) > 0 && at >= 0 && &b.mem[at] == &q[0]
}

// Writer writes one stream of bytes to a file. Lend, WriteAt, Done and Wait are called by one
// goroutine at a time.
type Writer struct {
	pool *Pool
	file durable.File
	past durable.DirectFile // nil until it is needed, and where there is none
	lent *buffer            // the caller's
	busy chan struct{}      // closed when the write that is under way is done; nil: none is
	err  error              // of writes that were done behind the caller's back
}

// Use makes w write to f, which stays the caller's. The zero Writer lends memory before it has a
// file.
func (w *Writer) Use(f durable.File) { w.file = f }

// Lend gives memory for the bytes from off on, of which n may come, or nil: where that is not worth
// it, or too many have some. It is as long as it takes for the next to begin at a whole block. What
// was lent before must be Done.
func (w *Writer) Lend(p *Pool, off, n int64) []byte {
	if p.cfg.Off || p.unable.Load() || n < int64(p.cfg.Buffer)/4 || w.lent != nil {
		return nil
	}
	b := p.get()
	if b == nil && w.busy != nil {
		w.await() // its memory is as good
		b = p.get()
	}
	if b == nil {
		return nil
	}
	w.pool, w.lent = p, b
	return b.mem[off%int64(p.cfg.Block):]
}

// Done says that the caller does not touch what was lent any more.
func (w *Writer) Done() {
	if w.lent != nil {
		w.pool.drop(w.lent)
		w.lent = nil
	}
}

// WriteAt writes q: through the cache, or past it but for what is left of whole blocks. Then these
// may still be on their way when it returns, and their error is that of a later WriteAt, or of
// Wait; before that q must not change. Only what is of the memory that is lent goes past.
func (w *Writer) WriteAt(q []byte, off int64) (n int, past bool, err error) {
	if err := w.Wait(); err != nil {
		return 0, false, err
	}
	end := off + int64(len(q))
	from, to := off, off
	if w.lent != nil && w.lent.has(q) {
		block := int64(w.pool.cfg.Block)
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
	w.start(q[from-off:to-off], from)
	return len(q), true, nil
}

// open opens the file for direct I/O, if that is to be had.
func (w *Writer) open() bool {
	if w.past != nil {
		return true
	}
	past, err := w.file.Direct()
	if err != nil {
		w.pool.unable.Store(errors.Is(err, errors.ErrUnsupported))
		return false
	}
	w.past = past
	return true
}

// start writes whole blocks while the caller goes on.
func (w *Writer) start(q []byte, off int64) {
	pool, b, busy := w.pool, w.lent, make(chan struct{})
	b.users.Add(1)
	w.busy = busy
	go func() {
		defer close(busy)
		defer pool.drop(b)
		n, err := w.past.WriteAt(q, off)
		if errors.Is(err, errors.ErrUnsupported) {
			pool.unable.Store(true)
			n, err = w.file.WriteAt(q, off)
		}
		if err == nil && n < len(q) {
			err = io.ErrShortWrite
		}
		w.err = err // read when busy is closed
	}()
}

// await returns when nothing is being written.
func (w *Writer) await() {
	if w.busy != nil {
		<-w.busy
		w.busy = nil
	}
}

// Wait returns when nothing is being written, with the error of what was. The error stays.
func (w *Writer) Wait() error {
	w.await()
	return w.err
}

// Close waits, and gives up the memory and what Use's file was opened for anew. Only an error of a
// write that nobody has been told of yet matters, and Wait tells it.
func (w *Writer) Close() {
	w.await()
	w.Done()
	if w.past != nil {
		_ = w.past.Close()
		w.past = nil
	}
}
