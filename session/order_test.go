package session_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"sluice/session"
)

// slowStore is a Store whose Record waits.
type slowStore struct {
	*session.Mem
	gate chan struct{}
}

func (g slowStore) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	<-g.gate
	return g.Mem.Record(ctx, id, gen, c)
}

func TestNothingIsAnsweredBeforeItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := slowStore{session.NewMem(), make(chan struct{})}
		v, err := session.New(t.Context(), store, session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s := begin(t, v, 4, 8)
		answered := make(chan error, 2)
		go func() {
			answered <- v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), newMemSink(t, 8))
		}()
		go func() {
			_, err := v.PutAt(
				t.Context(), s.ID, 4, session.Unknown, bytes.NewReader([]byte("4567")), newMemSink(t, 8), false,
			)
			answered <- err
		}()
		synctest.Wait()
		if n := len(answered); n > 0 {
			t.Errorf("%d puts are answered, and nothing is recorded", n)
		}
		close(store.gate)
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if got, err := v.Status(t.Context(), s.ID); err != nil || got.Bytes() != 8 {
			t.Errorf("%v, %v", got.Received, err)
		}
	})
}

// failingSink is a sink that can't make anything safe.
type failingSink struct{ *memSink }

var errUnsafe = errors.New("the disk is gone")

func (failingSink) Commit(context.Context, session.Range) ([]byte, error) { return nil, errUnsafe }

func TestWhatTheSinkRefusesIsNotRecorded(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 8)
	p := failingSink{newMemSink(t, 8)}
	if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), p); !errors.Is(err, errUnsafe) {
		t.Errorf("a chunk: %v", err)
	}
	if n, err := v.PutAt(
		t.Context(), s.ID, 4, session.Unknown, bytes.NewReader([]byte("45")), p, false,
	); n != 0 || !errors.Is(err, errUnsafe) {
		t.Errorf("a range: %d, %v", n, err)
	}
	if got, err := v.Status(t.Context(), s.ID); err != nil || len(got.Received) > 0 {
		t.Errorf("%v, %v", got.Received, err)
	}
}

// slowCommit is a sink whose Commit waits.
type slowCommit struct {
	strictSink
	open chan struct{}
}

func (h slowCommit) Commit(ctx context.Context, r session.Range) ([]byte, error) {
	<-h.open
	return h.strictSink.Commit(ctx, r)
}

// † I4: A put that waited for another one on the same bytes compares them with the bytes that the
// other one recorded meanwhile.
func TestAPutSeesWhatTheOneBeforeItRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 4, 4)
		p := strictSink{newMemSink(t, 4)}
		first := slowCommit{p, make(chan struct{})}
		answered := make(chan error, 3)
		go func() { answered <- v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), first) }()
		synctest.Wait()
		go func() { answered <- v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), p) }()
		synctest.Wait()
		close(first.open)
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
	})
}

// A finish may not seal a session if a byte was replaced since the caller verified it.
func TestASealIsOfWhatWasVerified(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 4)
	put := func(b string) {
		if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte(b)), newMemSink(t, 4)); err != nil {
			t.Fatal(err)
		}
	}
	put("0123")
	verified, err := v.Status(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Drop(t.Context(), s.ID, session.All(), nil); err != nil {
		t.Fatal(err)
	}
	put("abcd")
	committed := 0
	commit := func(context.Context, []session.Session) (bool, error) { committed++; return false, nil }
	want := session.Verified{ID: s.ID, Gen: verified.Gen, Bytes: session.Unknown}
	if err := v.Finish(t.Context(), commit, want); !errors.Is(err, session.ErrGenMoved) || committed != 0 {
		t.Errorf("%v, %d commits", err, committed)
	}
	if verified, err = v.Status(t.Context(), s.ID); err != nil || verified.State != session.Open {
		t.Fatalf("%v, %v", verified.State, err)
	}
	want.Gen = verified.Gen
	if err := v.Finish(t.Context(), commit, want); err != nil || committed != 1 {
		t.Errorf("%v, %d commits", err, committed)
	}
}
