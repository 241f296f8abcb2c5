package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"sluice/session"
)

// gatedCommit is a memSink whose next Commit waits.
type gatedCommit struct {
	*memSink
	in, out chan struct{}
}

func (g *gatedCommit) Commit(ctx context.Context, r session.Range) ([]byte, error) {
	if g.in != nil {
		in := g.in
		g.in = nil
		close(in)
		<-g.out
	}
	return g.memSink.Commit(ctx, r)
}

// A Drop that meets a streaming put in one of its records waits for that record, and not for the
// put's next Read, which may never return.
func TestADropDoesNotWaitForASlowRead(t *testing.T) {
	meets(t, func(v *session.Service, id session.SessionID) error {
		_, _, err := v.Drop(context.Background(), id, session.Range{Off: 8, End: 12}, nil)
		return err
	})
}

// The same holds for a newer put on the bytes behind.
func TestATakeoverDoesNotWaitForASlowRead(t *testing.T) {
	meets(t, func(v *session.Service, id session.SessionID) error {
		_, err := v.PutAt(
			context.Background(), id, 8, session.Unknown, bytes.NewReader([]byte("89ab")), newMemSink(t, 12), false,
		)
		return err
	})
}

func meets(t *testing.T, other func(*session.Service, session.SessionID) error) {
	for _, wakeable := range []bool{false, true} {
		t.Run(fmt.Sprint("wakeable ", wakeable), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := start(t, session.Config{})
				s := begin(t, v, 4, 12)
				body := newSlowBody()
				var from io.Reader = unwakeable{body}
				if wakeable {
					from = body
				}
				sink := &gatedCommit{newMemSink(t, 12), make(chan struct{}), make(chan struct{})}
				in, out := sink.in, sink.out
				ended, did := make(chan error, 1), make(chan error, 1)
				go func() {
					_, err := v.PutAt(context.Background(), s.ID, 0, session.Unknown, from, sink, false)
					ended <- err
				}()
				body.ch <- []byte("0123")
				<-in // the first chunk is being committed
				go func() { did <- other(v, s.ID) }()
				synctest.Wait()
				close(out) // the commit ends; the body then stands still
				select {
				case err := <-did:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(time.Minute):
					t.Error("it waits for the slow Read of the put that it has stopped")
				}
				body.once.Do(func() { close(body.late) })
				<-ended
			})
		})
	}
}

// Two puts of announced lengths that share no byte run side by side.
func TestDisjointRangesDoNotTakeEachOtherOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 16)
		p := newMemSink(t, 16)
		first := newSlowBody()
		ended := make(chan error, 1)
		go func() {
			_, err := v.PutAt(context.Background(), s.ID, 0, 8, first, p, false)
			ended <- err
		}()
		first.ch <- []byte("01")
		if _, err := v.PutAt(
			t.Context(), s.ID, 8, session.Unknown, bytes.NewReader([]byte("89abcdef")), p, false,
		); err != nil {
			t.Errorf("the second: %v", err)
		}
		first.ch <- []byte("234567")
		close(first.ch)
		if err := <-ended; err != nil {
			t.Errorf("the first: %v", err)
		}
		if got, err := v.Status(t.Context(), s.ID); err != nil || got.Bytes() != got.BytesExpected {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := v.PutAt(
			t.Context(), s.ID, 0, 3, bytes.NewReader([]byte("0123")), p, false,
		); !errors.Is(err, session.ErrLong) {
			t.Errorf("more than was announced: %v", err)
		}
	})
}
