package main

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"
)

// Bars draw themselves while other goroutines set how far transfers are. Neither waits for the
// other for ever.
func TestBarsDoNotHoldUpWhatTheyShow(t *testing.T) {
	p := &progress{
		e: &env{stdout: io.Discard, stderr: io.Discard}, files: map[string]*meter{},
		bars: mpb.New(mpb.WithOutput(io.Discard), mpb.WithAutoRefresh(), mpb.WithRefreshRate(time.Millisecond)),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			for range 4 {
				wg.Go(func() {
					for i := range int64(3000) {
						p.set(name, i, 3000)
					}
				})
			}
		}
		wg.Wait()
		p.end("a")
		p.close()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("they stand still")
	}
}
