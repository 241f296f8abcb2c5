package session_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"sluice/session"
)

// two returns two Services on one Store, with a session of three chunks of 4 bytes.
func two(t *testing.T, match func(own, theirs session.Entry) error) (a, b *session.Service, s session.Session) {
	t.Helper()
	store := session.NewMem()
	for _, v := range []**session.Service{&a, &b} {
		var err error
		if *v, err = session.New(t.Context(), store, session.Config{Match: match}); err != nil {
			t.Fatal(err)
		}
	}
	return a, b, begin(t, a, 4, 12)
}

// match compares two recorded entries by the bytes that both sinks hold.
func match(own, theirs *memSink) func(a, _ session.Entry) error {
	return func(a, _ session.Entry) error {
		if !bytes.Equal(own.b[a.Off:a.End], theirs.b[a.Off:a.End]) {
			return session.ErrConflict
		}
		return nil
	}
}

// † I5: A put whose recorded bytes another Service drops is not answered for them.
func TestADropThroughAnotherServiceFencesAPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, s := two(t, nil)
		body := newSlowBody()
		done := make(chan error, 1)
		go func() {
			_, err := a.PutAt(t.Context(), s.ID, 0, session.Unknown, body, newMemSink(t, 12), false)
			done <- err
		}()
		body.ch <- []byte("0123")
		synctest.Wait()
		if got, _, err := b.Drop(
			t.Context(), s.ID, session.Range{Off: 0, End: 4}, nil,
		); err != nil || len(got.Dropped) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		body.ch <- []byte("4567")
		close(body.ch)
		if err := <-done; !errors.Is(err, session.ErrSuperseded) {
			t.Errorf("the put: %v", err)
		}
		if got, err := b.Status(t.Context(), s.ID); err != nil || got.Bytes() != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// † I6: If two Services bring the same chunk, one is recorded. The other put is answered as a
// repeat, or as a conflict if its bytes differ.
func TestTwoServicesBringTheSameChunk(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		match bool
		want  error
	}{
		"the same bytes":                    {"0123", true, nil},
		"other bytes":                       {"01x3", true, session.ErrConflict},
		"the same bytes, and no comparison": {"0123", false, session.ErrSuperseded},
		"other bytes, and no comparison":    {"01x3", false, session.ErrSuperseded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own, theirs := newMemSink(t, 12), newMemSink(t, 12)
				var by func(own, theirs session.Entry) error
				if c.match {
					by = match(own, theirs)
				}
				a, b, s := two(t, by)
				body := newSlowBody()
				done := make(chan error, 1)
				go func() { done <- a.PutChunk(t.Context(), s.ID, 0, body, own) }()
				body.ch <- []byte(c.body)
				synctest.Wait()
				if err := b.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), theirs); err != nil {
					t.Fatal(err)
				}
				close(body.ch)
				if err := <-done; !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("the second: %v, not %v", err, c.want)
				}
				if got, err := a.Status(t.Context(), s.ID); err != nil || got.Bytes() != 4 || got.EntryCount != 1 {
					t.Errorf("%+v, %v", got, err)
				}
			})
		})
	}
}
