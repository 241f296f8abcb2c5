package sender

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

func newCRC() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// digester rolls SHA-256 over a content, and CRC-32C over each of its chunks.
type digester struct {
	sha   hash.Hash
	crc   hash.Hash32
	chunk int64
	left  int64 // of the running chunk
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
			d.cut()
		}
	}
	return n, nil
}

func (d *digester) cut() {
	d.crcs = append(d.crcs, fmt.Sprintf("%08x", d.crc.Sum32()))
	d.crc.Reset()
	d.left = d.chunk
}

// sum ends the content.
func (d *digester) sum() (sum [32]byte, crcs []string) {
	if d.left < d.chunk {
		d.cut()
	}
	copy(sum[:], d.sha.Sum(nil))
	return sum, d.crcs
}

// sums are computed beside the sending, in one pass from the beginning to the end.
type sums struct {
	done   chan struct{}
	cancel context.CancelFunc
	sum    [32]byte
	crcs   []string
	err    error
}

func startSums(ctx context.Context, from io.ReaderAt, size, chunk int64) *sums {
	ctx, cancel := context.WithCancel(ctx)
	s := &sums{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.done)
		d, buf := newDigester(chunk), make([]byte, 1<<20)
		for at := int64(0); at < size; {
			if s.err = ctx.Err(); s.err != nil {
				return
			}
			n, err := from.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
			d.Write(buf[:n])
			if at += int64(n); n == 0 || err != nil && err != io.EOF {
				s.err = fmt.Errorf("reading at %d: %w", at, err)
				if err == io.EOF {
					s.err = ErrChanged // it got shorter
				}
				return
			}
		}
		s.sum, s.crcs = d.sum()
	}()
	return s
}

func (s *sums) wait(ctx context.Context) ([32]byte, []string, error) {
	select {
	case <-s.done:
		return s.sum, s.crcs, s.err
	case <-ctx.Done():
		return s.sum, nil, context.Cause(ctx)
	}
}

// stop ends the pass, and returns when it has.
func (s *sums) stop() {
	s.cancel()
	<-s.done
}
