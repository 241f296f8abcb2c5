package session

import (
	"context"
	"fmt"
	"io"
	"time"
)

// slowRate is how fast a stream must be, in bytes a second, to be given more memory than a small buffer.
const slowRate = 1 << 20

// slow reports whether n bytes that came since then came slowly.
func (t *stream) slow(n int, since time.Time) bool {
	return t.v.cfg.Clock.Now().Sub(since) > time.Duration(n)*time.Second/slowRate
}

// buffers are what a put reads into: its small buffer, and while it comes fast a larger one, which the sink lends or which is one of
// a bounded number that the Service has.
type buffers struct {
	t      *stream
	lender Lender // nil where the sink is none
	small  *[]byte
	large  *[]byte // nil: none
	lent   []byte  // nil: none
}

func (t *stream) newBuffers() *buffers {
	m := &buffers{t: t, small: t.v.small.Get().(*[]byte)}
	m.lender, _ = t.sink.(Lender)
	return m
}

// grow gives larger memory for the bytes from off on, of which at most n come, or nil.
func (m *buffers) grow(off, n int64) []byte {
	if m.lent = m.lend(off, n); m.lent != nil {
		return m.lent
	}
	v := m.t.v
	if m.large == nil && n > int64(len(*m.small)) {
		if v.spare.Add(-1) < 0 {
			v.spare.Add(1)
			return nil
		}
		m.large = v.large.Get().(*[]byte)
	}
	if m.large == nil {
		return nil
	}
	return *m.large
}

func (m *buffers) lend(off, n int64) []byte {
	if m.lender == nil || m.t.enter(false) != nil {
		return nil
	}
	defer m.t.door.Unlock()
	return m.lender.Lend(off, n)
}

// used gives back what was lent, after its bytes were delivered.
func (m *buffers) used() {
	if m.lent == nil {
		return
	}
	m.lent = nil
	m.t.door.Lock()
	defer m.t.door.Unlock()
	m.lender.Done()
}

// shrink goes back to the small buffer.
func (m *buffers) shrink() {
	if m.large != nil {
		m.t.v.large.Put(m.large)
		m.t.v.spare.Add(1)
		m.large = nil
	}
}

func (m *buffers) free() {
	m.used()
	m.shrink()
	m.t.v.small.Put(m.small)
}

// copy reads the body to its end and hands it to the sink. The error is nil only after a clean end.
func (t *stream) copy(ctx context.Context, r io.Reader) error {
	m := t.newBuffers()
	defer m.free()
	for fast := false; ; {
		b, end := t.next(r, m, &fast)
		if err := t.deliver(b); err != nil {
			return err
		}
		m.used()
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return end
		}
		if t.pos == t.r.End {
			return nothingMore(r)
		}
		if !t.mode.whole && (t.pos%t.s.ChunkSize == 0 || time.Since(t.flushed) >= t.v.cfg.Flush) {
			if err := t.record(ctx, false); err != nil {
				return fmt.Errorf("%w: %w", errFatal, err)
			}
		} else if t.v.Running()-t.s.Seen >= t.v.cfg.TTL.Milliseconds()/8 {
			if err := t.touch(ctx); err != nil {
				return fmt.Errorf("%w: %w", errFatal, err)
			}
		}
	}
}

// next reads the next bytes into the memory that suits how fast they come. A put begins with the small buffer; what fills that at once goes on in a
// larger one, into which its bytes are taken along.
func (t *stream) next(r io.Reader, m *buffers, fast *bool) (b []byte, end error) {
	began, room := t.v.cfg.Clock.Now(), t.room()
	var have []byte
	if !*fast {
		m.shrink()
		have, end = t.fill(r, cut(*m.small, room))
		if end != nil || len(have) < len(*m.small) || int64(len(have)) == room || t.slow(len(have), began) {
			return have, end
		}
	}
	if b = cut(m.grow(t.pos, room), room); len(b) <= len(have) {
		m.used()
		if *fast = false; have == nil {
			return t.fill(r, cut(*m.small, room))
		}
		return have, nil
	}
	n := copy(b, have)
	filled, end := t.fill(r, b[n:])
	n += len(filled)
	*fast = n == len(b) && !t.slow(n, began)
	return b[:n], end
}

// room is how many bytes may go into one buffer: never those of two chunks where pieces are recorded as they come.
func (t *stream) room() int64 {
	left := t.r.End - t.pos
	if !t.mode.whole {
		left = min(left, t.s.ChunkSize-t.pos%t.s.ChunkSize)
	}
	return left
}

func cut(b []byte, n int64) []byte { return b[:min(int64(len(b)), n)] }

// fill reads until buf is full, or the body ends, or what is there should be recorded.
func (t *stream) fill(r io.Reader, buf []byte) (got []byte, err error) {
	n := 0
	for empty := 0; n < len(buf) && err == nil; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
		if m == 0 && err == nil {
			if empty++; empty == 100 {
				return buf[:n], io.ErrNoProgress
			}
			continue
		}
		empty = 0
		if !t.mode.whole && time.Since(t.flushed) >= t.v.cfg.Flush {
			break
		}
	}
	return buf[:n], err
}

// nothingMore checks that the body ends here.
func nothingMore(r io.Reader) error {
	var one [1]byte
	for range 100 {
		n, err := r.Read(one[:])
		if n > 0 {
			return ErrLong
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}
