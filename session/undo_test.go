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

// undoing is a sink that notes what it is to give back.
type undoing struct {
	undone [][]session.Range
}

func (u *undoing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (u *undoing) Commit(context.Context, session.Range) ([]byte, error) { return nil, nil }
func (u *undoing) Recorded(session.Session)                              {}

func (u *undoing) Undo(rest []session.Range) { u.undone = append(u.undone, rest) }

var errBroken = errors.New("broken")

// A put that leaves something unrecorded has its sink give back just that; one that recorded all
// does not, nor one whose bytes another has taken over.
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
		is := func(what string, u *undoing, want ...session.Range) {
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
		broken := func(n int) io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, n)), failing{}) }
		whole := &undoing{}
		if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader(make([]byte, 10)), whole); err != nil {
			t.Fatal(err)
		}
		is("a good put", whole)
		cut := &undoing{}
		if err := v.PutChunk(t.Context(), s.ID, 1, broken(7), cut); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		is("a cut chunk", cut, session.Range{Off: 10, End: 20})
		over := &undoing{}
		if _, err := v.PutAt(t.Context(), s.ID, 5, session.Unknown, broken(10), over, true); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		is("a cut put over what is recorded", over, session.Range{Off: 10, End: 40})

		slow := newSlow()
		stale, done := &undoing{}, make(chan error)
		go func() { done <- v.PutChunk(t.Context(), s.ID, 2, deaf{slow}, stale) }()
		slow.ch <- make([]byte, 5)
		synctest.Wait()
		next := newSlow() // which has recorded nothing yet when the stale one ends
		fresh, taken := &undoing{}, make(chan error)
		go func() { taken <- v.PutChunk(t.Context(), s.ID, 2, next, fresh) }()
		next.ch <- make([]byte, 5)
		synctest.Wait()
		close(slow.ch)
		if err := <-done; !errors.Is(err, session.ErrSuperseded) {
			t.Errorf("the stale put: %v", err)
		}
		is("a put that was taken over", stale)
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

func (failing) Read([]byte) (int, error) { return 0, errBroken }
