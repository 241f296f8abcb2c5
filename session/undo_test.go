package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"sluice/session"
)

// undoSink is a sink that notes the ranges it has to give back.
type undoSink struct {
	undone [][]session.Range
}

func (u *undoSink) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (u *undoSink) Commit(context.Context, session.Range) ([]byte, error) { return nil, nil }
func (u *undoSink) Recorded(session.Session)                              {}

func (u *undoSink) Undo(rest []session.Range) { u.undone = append(u.undone, rest) }

var errBody = errors.New("broken")

// A put that leaves bytes unrecorded has its sink give back just those. A put that recorded all
// bytes does not, nor does a put whose bytes another one has taken over.
func TestWhatIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := session.New(t.Context(), session.NewMem(), session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := v.Begin(t.Context(), session.Spec{ChunkSize: 10, BytesExpected: 40})
		if err != nil {
			t.Fatal(err)
		}
		is := func(what string, u *undoSink, want ...session.Range) {
			t.Helper()
			if want == nil {
				if len(u.undone) > 0 {
					t.Errorf("%s: undone are %v", what, u.undone)
				}
				return
			}
			if len(u.undone) != 1 || !slices.Equal(u.undone[0], want) {
				t.Errorf("%s: undone are %v, not %v", what, u.undone, want)
			}
		}
		breaking := func(n int) io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, n)), failing{}) }
		whole := &undoSink{}
		if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader(make([]byte, 10)), whole); err != nil {
			t.Fatal(err)
		}
		is("a good put", whole)
		cut := &undoSink{}
		if err := v.PutChunk(t.Context(), s.ID, 1, breaking(7), cut); !errors.Is(err, errBody) {
			t.Fatal(err)
		}
		is("a cut chunk", cut, session.Range{Off: 10, End: 20})
		overlapping := &undoSink{}
		if _, err := v.PutAt(
			t.Context(), s.ID, 5, session.Unknown, breaking(10), overlapping, true,
		); !errors.Is(err, errBody) {
			t.Fatal(err)
		}
		is("a cut put over what is recorded", overlapping, session.Range{Off: 10, End: 40})

		slow := newSlowBody()
		superseded, done := &undoSink{}, make(chan error)
		go func() { done <- v.PutChunk(t.Context(), s.ID, 2, unwakeable{slow}, superseded) }()
		slow.ch <- make([]byte, 5)
		synctest.Wait()
		next := newSlowBody() // it has recorded nothing yet when the older one ends
		fresh, taken := &undoSink{}, make(chan error)
		go func() { taken <- v.PutChunk(t.Context(), s.ID, 2, next, fresh) }()
		next.ch <- make([]byte, 5)
		synctest.Wait()
		close(slow.ch)
		if err := <-done; !errors.Is(err, session.ErrSuperseded) {
			t.Errorf("the stale put: %v", err)
		}
		is("a put that was taken over", superseded)
		next.ch <- make([]byte, 5)
		close(next.ch)
		if err := <-taken; err != nil {
			t.Errorf("the put that took over: %v", err)
		}
		is("the one that took over", fresh)
	})
}

// failing is a body that breaks.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBody }
