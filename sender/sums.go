package sender

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"
)

func newCRC() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// digester computes the SHA-256 of a content, and the CRC-32C of each of its chunks.
type digester struct {
	sha   hash.Hash
	crc   hash.Hash32
	chunk int64
	left  int64 // bytes left of the current chunk
	crcs  []string
}

func newDigester(chunk int64) *digester {
	return &digester{sha: sha256.New(), crc: newCRC(), chunk: chunk, left: chunk}
}

func (d *digester) Write(p []byte) (int, error) {
	n := len(p)
	d.sha.Write(p)
	for len(p) > 0 {
		k := min(int64(len(p)), d.left)
		d.crc.Write(p[:k])
		p = p[k:]
		if d.left -= k; d.left == 0 {
			d.endChunk()
		}
	}
	return n, nil
}

func (d *digester) endChunk() {
	d.crcs = append(d.crcs, fmt.Sprintf("%08x", d.crc.Sum32()))
	d.crc.Reset()
	d.left = d.chunk
}

// sum ends the content, and returns the sums.
func (d *digester) sum() (sum [32]byte, crcs []string) {
	if d.left < d.chunk {
		d.endChunk()
	}
	copy(sum[:], d.sha.Sum(nil))
	return sum, d.crcs
}

// sums are computed during the sending, in one pass over the file. The pass stays close to the
// bytes that are being sent. So a large file is read from its disk once: the later reader of the
// two finds it in the page cache.
type sums struct {
	limit  chan int64 // how far the pass may go, in bytes; empty if it knows
	done   chan struct{}
	cancel context.CancelFunc
	sum    [32]byte
	crcs   []string
	err    error
}

func startSums(ctx context.Context, src io.ReaderAt, size, chunk int64) *sums {
	ctx, cancel := context.WithCancel(ctx)
	s := &sums{limit: make(chan int64, 1), done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.done)
		d := newDigester(chunk)
		for at := int64(0); at < size; {
			select {
			case to := <-s.limit:
				if s.err = d.read(ctx, src, at, min(to, size)); s.err != nil {
					return
				}
				at = max(at, min(to, size))
			case <-ctx.Done():
				s.err = ctx.Err()
				return
			}
		}
		s.sum, s.crcs = d.sum()
	}()
	return s
}

// read hashes the bytes from at to to.
func (d *digester) read(ctx context.Context, src io.ReaderAt, at, to int64) error {
	buf := sumBuffers.Get().(*[sumBuffer]byte)
	defer sumBuffers.Put(buf)
	for at < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
		d.Write(buf[:n])
		if at += int64(n); n == 0 || err != nil && err != io.EOF {
			if err == io.EOF {
				return ErrChanged // the file was truncated
			}
			return fmt.Errorf("reading at %d: %w", at, err)
		}
	}
	return nil
}

// sumBuffer is a size in bytes. A buffer of it stays in the processor's cache between its read and
// its hashing.
const sumBuffer = 256 << 10

var sumBuffers = sync.Pool{New: func() any { return new([sumBuffer]byte) }}

// upTo lets the pass go on to an offset. It never waits.
func (s *sums) upTo(to int64) {
	for {
		select {
		case s.limit <- to:
			return
		case before := <-s.limit:
			to = max(to, before)
		}
	}
}

func (s *sums) wait(ctx context.Context) ([32]byte, []string, error) {
	select {
	case <-s.done:
		return s.sum, s.crcs, s.err
	case <-ctx.Done():
		return s.sum, nil, context.Cause(ctx)
	}
}

// stop ends the pass, and returns when it has ended.
func (s *sums) stop() {
	s.cancel()
	<-s.done
}
