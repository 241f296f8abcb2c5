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

// input reads a body into memory that suits how fast it comes: first a small buffer, and if that is
// filled at once larger memory. Config.Buffers has that, or it is one of a bounded number of the
// Service's own. So a body that does not come holds no more than the small one.
type input struct {
	v      *Service
	r      io.Reader
	due    func() bool // whether what is there should be handed on
	buffer Buffer
	small  *[]byte
	large  *[]byte   // nil: none
	until  time.Time // what has come by then is handed on; zero: when there is enough
}

// newInput reads r; free must follow.
func (v *Service) newInput(r io.Reader, b Buffer, due func() bool) *input {
	return &input{v: v, r: r, buffer: b, due: due, small: v.small.Get().(*[]byte)}
}

// slow reports whether n bytes that came since then came slowly.
func (in *input) slow(n int, since time.Time) bool {
	return in.v.cfg.Clock.Now().Sub(since) > time.Duration(n)*time.Second/slowRate
}

// grow gives larger memory for the bytes from off on, of which at most n come, or nil.
func (in *input) grow(off, n int64) []byte {
	if b := in.buffer.Acquire(off, n); b != nil {
		return b
	}
	if n <= int64(len(*in.small)) {
		return nil
	}
	if in.v.spare.Add(-1) < 0 {
		in.v.spare.Add(1)
		return nil
	}
	in.large = in.v.large.Get().(*[]byte)
	return *in.large
}

// shrink gives back larger memory, after its bytes were delivered.
func (in *input) shrink() {
	in.buffer.Release()
	if in.large != nil {
		in.v.large.Put(in.large)
		in.v.spare.Add(1)
		in.large = nil
	}
}

func (in *input) free() {
	in.shrink()
	in.v.small.Put(in.small)
}

// noBuffers are Config.Buffers where there are none.
type noBuffers struct{}

func (noBuffers) New() Buffer                 { return noBuffers{} }
func (noBuffers) Acquire(int64, int64) []byte { return nil }
func (noBuffers) Release()                    {}
func (noBuffers) Wait()                       {}

// Copy reads a body of exactly n bytes, and hands them to the sink in order, from offset 0 on. They
// are read as those of a put in one piece. The sink's other sides, Committer and the like, are not
// called, and nothing is recorded.
//
// Errors: ErrShort and ErrLong for a body of another length; the body's and the sink's own.
func (v *Service) Copy(sink ByteSink, body io.Reader, n int64) error {
	buffer := v.cfg.Buffers.New()
	defer buffer.Wait()
	in := v.newInput(body, buffer, func() bool { return false })
	defer in.free()
	for at := int64(0); at < n; {
		b, end := in.next(at, n-at)
		if err := writeAll(sink, b, at); err != nil {
			return err
		}
		in.shrink()
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
	in := t.v.newInput(r, t.buffer, func() bool { return !t.mode.whole && t.flushDue() })
	defer in.free()
	for {
		b, end := in.next(t.pos, t.room())
		if err := t.deliver(b); err != nil {
			return err
		}
		in.shrink()
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return end
		}
		if t.pos == t.r.End {
			return nothingMore(r)
		}
		if !t.mode.whole && (t.pos%t.s.ChunkSize == 0 || t.flushDue()) {
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

// flushDue reports whether what arrived has waited for its record as long as it may.
func (t *stream) flushDue() bool { return t.v.cfg.Clock.Now().Sub(t.flushed) >= t.v.cfg.Flush }

// next reads the next bytes, at off, of which at most room are asked for. What fills the small
// buffer at once goes on in a larger one, into which its bytes are taken along.
func (in *input) next(off, room int64) (b []byte, end error) {
	began := in.v.cfg.Clock.Now()
	have, end := in.fill(cut(*in.small, room))
	if end != nil || len(have) < len(*in.small) || int64(len(have)) == room || in.slow(len(have), began) {
		return have, end
	}
	if b = cut(in.grow(off, room), room); len(b) <= len(have) {
		in.shrink()
		return have, nil
	}
	n := copy(b, have)
	// A body that goes on slowly, or stands still, must not keep what others could use until this
	// memory is full.
	in.until = in.v.cfg.Clock.Now().Add(holdFor)
	filled, end := in.fill(b[n:])
	in.until = time.Time{}
	return b[:n+len(filled)], end
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
