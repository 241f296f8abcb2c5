package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// minLargeRate is how fast a stream must be, in bytes a second, to get more memory than a small
// buffer.
const minLargeRate = 1 << 20

// fillTimeout is how long a put may take to fill larger memory: at minLargeRate that is a mebibyte.
const fillTimeout = time.Second

// input reads a body into memory that suits its speed: first into a small buffer, and if that is
// full at once into larger memory. The larger memory comes from Config.Buffers, or is one of a
// bounded number of buffers of the Service. So a body that does not begin holds a small buffer
// only.
type input struct {
	v         *Service
	r         io.Reader
	mustFlush func() bool // whether the bytes so far should go to the sink now
	buffer    Buffer
	small     *[]byte
	large     *[]byte   // nil if it has none
	deadline  time.Time // fill returns what has come by then; zero: when buf is full
}

// newInput makes an input that reads r. The caller must free it.
func (v *Service) newInput(r io.Reader, b Buffer, mustFlush func() bool) *input {
	return &input{v: v, r: r, buffer: b, mustFlush: mustFlush, small: v.small.Get().(*[]byte)}
}

// slow reports whether n bytes, which came since a time, came slowly.
func (in *input) slow(n int, since time.Time) bool {
	return in.v.cfg.Clock.Now().Sub(since) > time.Duration(n)*time.Second/minLargeRate
}

// grow returns larger memory for at most n bytes from offset off, or nil.
func (in *input) grow(off, n int64) []byte {
	if b := in.buffer.Acquire(off, n); b != nil {
		return b
	}
	if n <= int64(len(*in.small)) {
		return nil
	}
	if in.v.largeFree.Add(-1) < 0 {
		in.v.largeFree.Add(1)
		return nil
	}
	in.large = in.v.large.Get().(*[]byte)
	return *in.large
}

// shrink gives larger memory back, after its bytes were delivered.
func (in *input) shrink() {
	in.buffer.Release()
	if in.large != nil {
		in.v.large.Put(in.large)
		in.v.largeFree.Add(1)
		in.large = nil
	}
}

func (in *input) free() {
	in.shrink()
	in.v.small.Put(in.small)
}

// noBuffers stands for a nil Config.Buffers.
type noBuffers struct{}

func (noBuffers) New() Buffer                 { return noBuffers{} }
func (noBuffers) Acquire(int64, int64) []byte { return nil }
func (noBuffers) Release()                    {}
func (noBuffers) Wait()                       {}

// Copy reads a body of exactly n bytes, and hands them to the sink in order, from offset 0 on. It
// reads as a put of all bytes does. It calls WriteAt alone, not the sink's methods as a Committer
// and the like, and records nothing.
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
		b, end := in.next(t.pos, t.bytesLeft())
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
		} else if t.v.touched(t.s)-t.s.Seen >= t.v.cfg.TTL.Milliseconds()/8 {
			if err := t.touch(ctx); err != nil {
				return fmt.Errorf("%w: %w", errFatal, err)
			}
		}
	}
}

// flushDue reports whether bytes have waited for their record as long as they may.
func (t *stream) flushDue() bool { return t.v.cfg.Clock.Now().Sub(t.flushed) >= t.v.cfg.Flush }

// next reads the next bytes, at off: limit at most. If they fill the small buffer at once, it
// copies them into a larger one and goes on there.
func (in *input) next(off, limit int64) (b []byte, end error) {
	began := in.v.cfg.Clock.Now()
	have, end := in.fill(clip(*in.small, limit))
	if end != nil || len(have) < len(*in.small) || int64(len(have)) == limit || in.slow(len(have), began) {
		return have, end
	}
	if b = clip(in.grow(off, limit), limit); len(b) <= len(have) {
		in.shrink()
		return have, nil
	}
	n := copy(b, have)
	// A body that goes on slowly must not keep memory that others could use until this memory is
	// full. It gives the memory back after the first Read past the deadline.
	in.deadline = in.v.cfg.Clock.Now().Add(fillTimeout)
	filled, end := in.fill(b[n:])
	in.deadline = time.Time{}
	return b[:n+len(filled)], end
}

// bytesLeft is how many bytes may go into one buffer. If entries are recorded as they come, it ends
// at the edge of a chunk.
func (t *stream) bytesLeft() int64 {
	left := t.r.End - t.pos
	if !t.mode.whole {
		left = min(left, t.s.ChunkSize-t.pos%t.s.ChunkSize)
	}
	return left
}

func clip(b []byte, n int64) []byte { return b[:min(int64(len(b)), n)] }

// fill reads until buf is full, the body ends, or the bytes so far should go to the sink.
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
		if in.mustFlush() || !in.deadline.IsZero() && in.v.cfg.Clock.Now().After(in.deadline) {
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
