package sender

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// watchedReader notes how far it was read.
type watchedReader struct {
	io.ReaderAt
	to atomic.Int64
}

func (w *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	w.to.Store(max(w.to.Load(), off+int64(len(p))))
	return w.ReaderAt.ReadAt(p, off)
}

// The sums go no further than the chunks that were begun, and end with the last one.
func TestTheSumsStayWithWhatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bytes.Repeat([]byte("0123456789"), 100_000)
		size, chunk := int64(len(b)), int64(150_000)
		from := &watchedReader{ReaderAt: bytes.NewReader(b)}
		s := startSums(t.Context(), from, size, chunk)
		defer s.stop()
		// A chunk that is sent again changes nothing.
		for _, to := range []int64{0, chunk, chunk, 4 * chunk, 3 * chunk} {
			s.upTo(to)
			synctest.Wait()
			if got := from.to.Load(); got > 4*chunk || got < to {
				t.Errorf("allowed to go to %d it went to %d", to, got)
			}
		}
		if got := from.to.Load(); got != 4*chunk {
			t.Errorf("it went to %d", got)
		}
		s.upTo(5 * chunk)
		s.upTo(size + chunk)
		sum, crcs, err := s.wait(t.Context())
		if err != nil || sum != sha256.Sum256(b) || len(crcs) != 7 {
			t.Errorf("%d sums, %v", len(crcs), err)
		}
	})
}

func TestTheSumsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := startSums(ctx, bytes.NewReader(make([]byte, 100)), 100, 10)
		cancel()
		if _, _, err := s.wait(t.Context()); err == nil {
			t.Error("sums of what was never allowed")
		}
		s.stop()
	})
}
