package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// slowRate is how fast a stream must be, in bytes a second, to be given more memory than a small
// buffer.
const slowRate = 1 << 20

// holdFor is how long a put may take to fill larger memory: at slowRate a mebibyte comes in that
// time.
const holdFor = time.Second

// input reads a body into memory that suits how fast it comes: a small buffer, and while it comes
// fast a larger one, which the sink lends or which is one of a bounded number that the Service has.
type input struct {
	v     *Service
	r     io.Reader
	due   func() bool               // whether what is there should be handed on
	lend  func(off, n int64) []byte // nil: nothing is lent
	done  func()
	fast  bool
	small *[]byte
	large *[]byte   // nil: none
	lent  []byte    // nil: none
	until time.Time // what has come by then is handed on; zero: when there is enough
}

// newInput reads r; free must follow.
func (v *Service) newInput(r io.Reader, due func() bool) *input {
	return &input{v: v, r: r, due: due, small: v.small.Get().(*[]byte)}
}

// slow reports whether n bytes that came since then came slowly.
func (in *input) slow(n int, since time.Time) bool {
	return in.v.cfg.Clock.Now().Sub(since) > time.Duration(n)*time.Second/slowRate
}

// grow gives larger memory for the bytes from off on, of which at most n come, or nil.
func (in *input) grow(off, n int64) []byte {
	if in.lend != nil {
		if in.lent = in.lend(off, n); in.lent != nil {
			return in.lent
		}
	}
	if in.large == nil && n > int64(len(*in.small)) {
		if in.v.spare.Add(-1) < 0 {
			in.v.spare.Add(1)
			return nil
		}
		in.large = in.v.large.Get().(*[]byte)
	}
	if in.large == nil {
		return nil
	}
	return *in.large
}

// used gives back what was lent, after its bytes were delivered.
func (in *input) used() {
	if in.lent != nil {
		in.lent = nil
		in.done()
	}
}

// shrink goes back to the small buffer.
func (in *input) shrink() {
	if in.large != nil {
		in.v.large.Put(in.large)
		in.v.spare.Add(1)
		in.large = nil
	}
}

func (in *input) free() {
	in.used()
	in.shrink()
	in.v.small.Put(in.small)
}

// lend and unlend are an input's for a put: its sink is only called under sinkMu.
func (t *stream) lend(off, n int64) []byte {
	if t.lockSink(false) != nil {
		return nil
	}
	defer t.sinkMu.Unlock()
	return t.sink.(Lender).Lend(off, n)
}

func (t *stream) unlend() {
	t.sinkMu.Lock()
	defer t.sinkMu.Unlock()
	t.sink.(Lender).Done()
}

// Copy reads a body of exactly n bytes, and hands them to the sink in order, from offset 0 on. They
// are read as those of a put in one piece: into little memory while they come slowly, and what the
// sink lends where it is a Lender. Its other sides, Committer and the like, are not called, and
// nothing is recorded.
//
// Errors: ErrShort and ErrLong for a body of another length; the body's and the sink's own.
func (v *Service) Copy(sink ByteSink, body io.Reader, n int64) error {
	in := v.newInput(body, func() bool { return false })
	defer in.free()
	if l, ok := sink.(Lender); ok {
		in.lend, in.done = l.Lend, l.Done
	}
	for at := int64(0); at < n; {
		b, end := in.next(at, n-at)
		if err := writeAll(sink, b, at); err != nil {
			return err
		}
		in.used()
		if at += int64(len(b)); at == n {
			break
		}
		if end == io.EOF || errors.Is(end, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %d bytes of %d", ErrShort, at, n)
		}
		if end != nil {
			return end
		}
	}
	return nothingMore(body)
}

// copy reads the body to its end and hands it to the sink. The error is nil only after a clean end.
func (t *stream) copy(ctx context.Context, r io.Reader) error {
	in := t.v.newInput(r, func() bool { return !t.mode.whole && time.Since(t.flushed) >= t.v.cfg.Flush })
	defer in.free()
	if _, ok := t.sink.(Lender); ok {
		in.lend, in.done = t.lend, t.unlend
	}
	for {
		b, end := in.next(t.pos, t.room())
		if err := t.deliver(b); err != nil {
			return err
		}
		in.used()
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

// next reads the next bytes, at off, of which at most room are asked for, into the memory that
// suits how fast they come. A body begins with the small buffer; what fills that at once goes on in
// a larger one, into which its bytes are taken along.
func (in *input) next(off, room int64) (b []byte, end error) {
	began := in.v.cfg.Clock.Now()
	var have []byte
	if !in.fast {
		in.shrink()
		have, end = in.fill(cut(*in.small, room))
		if end != nil || len(have) < len(*in.small) || int64(len(have)) == room || in.slow(len(have), began) {
			return have, end
		}
	}
	if b = cut(in.grow(off, room), room); len(b) <= len(have) {
		in.used()
		if in.fast = false; have == nil {
			return in.fill(cut(*in.small, room))
		}
		return have, nil
	}
	n := copy(b, have)
	// A body that goes on slowly, or stands still, must not keep what others could use until this
	// memory is full.
	in.until = in.v.cfg.Clock.Now().Add(holdFor)
	filled, end := in.fill(b[n:])
	in.until = time.Time{}
	n += len(filled)
	in.fast = n == len(b) && !in.slow(n, began)
	return b[:n], end
}

// room is how many bytes may go into one buffer: never those of two chunks where pieces are
// recorded as they come.
func (t *stream) room() int64 {
	left := t.r.End - t.pos
	if !t.mode.whole {
		left = min(left, t.s.ChunkSize-t.pos%t.s.ChunkSize)
	}
	return left
}

func cut(b []byte, n int64) []byte { return b[:min(int64(len(b)), n)] }

// fill reads until buf is full, or the body ends, or what is there should be handed on.
func (in *input) fill(buf []byte) (got []byte, err error) {
	n := 0
	for empty := 0; n < len(buf) && err == nil; {
		var m int
		m, err = in.r.Read(buf[n:])
		n += m
		if m == 0 && err == nil {
			if empty++; empty == 100 {
				return buf[:n], io.ErrNoProgress
			}
			continue
		}
		empty = 0
		if in.due() || !in.until.IsZero() && in.v.cfg.Clock.Now().After(in.until) {
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
