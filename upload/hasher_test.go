package upload_test

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// gatedReads is a content store whose Reads report their place and wait until they may go on.
type gatedReads struct {
	*blobtest.Mem
	reads chan string
	goOn  chan struct{}
	long  atomic.Bool // a Read was longer than a slice
}

func (g *gatedReads) Read(ctx context.Context, es []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	if n > 16<<20 {
		g.long.Store(true)
	}
	g.reads <- es[0].Place
	select {
	case <-g.goOn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.Mem.Read(ctx, es, off, n)
}

// Two large sessions that are being hashed delay a small one that is finished by one slice each,
// and not until their ends.
func TestASmallFinishDoesNotWaitForLargeHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		blobs := &gatedReads{Mem: w.blobs, reads: make(chan string, 10), goOn: make(chan struct{})}
		l := limits()
		l.ChunkSize, l.ChunkSizeMax = 16<<20, 16<<20
		w.rewire(blobs, l)
		behind := func(size int64, n int) session.SessionID {
			up, err := w.Begin(t.Context(), w.me, upload.BeginRequest{
				Capsule: "default", Meta: catalog.Meta{Name: "a"}, Bytes: size * int64(n), Chunks: -1, ChunkSize: size,
			})
			w.check(err)
			for i := range n { // the first chunk comes last, so that the rest must be read back
				w.check(w.put(up.ID, int64((i+1)%n), make([]byte, size)))
			}
			time.Sleep(time.Second)
			return up.ID
		}
		behind(16<<20, 3)
		behind(16<<20, 3)
		small := behind(chunk, 2)
		finished := make(chan error, 1)
		go func() { finished <- second(w.finish(small, make([]byte, 2*chunk))) }()
		time.Sleep(time.Second)
		if len(blobs.reads) != 2 {
			t.Fatalf("%d are reading", len(blobs.reads))
		}
		one, two := <-blobs.reads, <-blobs.reads
		blobs.goOn <- struct{}{}
		if place := <-blobs.reads; place == one || place == two {
			t.Errorf("the next slice is of %s, which had its slice", place)
		}
		blobs.goOn <- struct{}{} // one of the two that read
		blobs.goOn <- struct{}{}
		w.check(<-finished)
		if blobs.long.Load() {
			t.Error("more than 16 MiB were hashed in one slice")
		}
	})
}

// A store that panics behind a put fails the request that needs the hash, and not the process.
func TestAPanicBehindThePutsIsAnError(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 1, b[chunk:]))
	w.rewire(panicking{w.blobs}, limits())
	w.check(w.put(up.ID, 0, b[:chunk]))
	if _, err := w.finish(up.ID, b); err == nil {
		t.Error("it was finished")
	}
	w.restart()
	w.finishes(up.ID, b)
}

type panicking struct{ *blobtest.Mem }

func (panicking) Read(context.Context, []catalog.Extent, int64, int64) (io.ReadCloser, error) {
	panic("the store is broken")
}
