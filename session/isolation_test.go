package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/session"
)

// strictSink is a memSink that fails the test if a recorded byte is written again.
type strictSink struct{ *memSink }

func (g strictSink) WriteAt(b []byte, off int64) (int, error) {
	g.mu.Lock()
	if session.Touches(g.written, session.Range{Off: off, End: off + int64(len(b))}) {
		g.t.Errorf("recorded bytes at %d are written again", off)
	}
	g.mu.Unlock()
	return g.memSink.WriteAt(b, off)
}

// slowBody is a body whose bytes come when the test sends them, and that can be woken.
type slowBody struct {
	ch   chan []byte
	rest []byte
	late chan struct{}
	once sync.Once
}

func newSlowBody() *slowBody { return &slowBody{ch: make(chan []byte), late: make(chan struct{})} }

func (s *slowBody) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		select {
		case b, ok := <-s.ch:
			if !ok {
				return 0, io.EOF
			}
			s.rest = b
		case <-s.late:
			return 0, os.ErrDeadlineExceeded
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// unwakeable is a slow body that can't be woken.
type unwakeable struct{ io.Reader }

func (s *slowBody) SetReadDeadline(time.Time) error {
	s.once.Do(func() { close(s.late) })
	return nil
}

// † I1: A retry that dies half-way, an overlap, and other bytes never reach a recorded byte.
func TestARecordedByteIsNeverWrittenAgain(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 8, 16)
	p := strictSink{newMemSink(t, 16)}
	put := func(idx int64, r io.Reader) error { return v.PutChunk(t.Context(), s.ID, idx, r, p) }
	if err := put(0, bytes.NewReader([]byte("01234567"))); err != nil {
		t.Fatal(err)
	}
	if err := put(0, cutReader("0123")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a retry that dies: %v", err)
	}
	if err := put(0, bytes.NewReader([]byte("0123456X"))); !errors.Is(err, session.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	if n, err := v.PutAt(
		t.Context(), s.ID, 4, session.Unknown, bytes.NewReader([]byte("456789ab")), p, false,
	); n != 8 || err != nil {
		t.Errorf("an overlap: %d, %v", n, err)
	}
	if n, err := v.PutAt(
		t.Context(), s.ID, 4, session.Unknown, bytes.NewReader([]byte("X56789abcdef")), p, false,
	); n != 0 || !errors.Is(err, session.ErrConflict) {
		t.Errorf("an overlap with other bytes: %d, %v", n, err)
	}
	if err := put(1, bytes.NewReader([]byte("89abcdef"))); err != nil {
		t.Errorf("the rest: %v", err)
	}
	if string(p.b) != "0123456789abcdef" {
		t.Errorf("%q", p.b)
	}
}

// † I1: A duplicate that is still streaming while finish commits changes nothing of the published
// bytes.
func TestADuplicateDuringFinishWritesNothing(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 8, 8)
	p := strictSink{newMemSink(t, 8)}
	if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), p); err != nil {
		t.Fatal(err)
	}
	dup := newSlowBody()
	done := make(chan error)
	go func() { done <- v.PutChunk(t.Context(), s.ID, 0, dup, p) }()
	dup.ch <- []byte("0123")
	var published []byte
	err := v.Finish(t.Context(), func(context.Context, []session.Session) (bool, error) {
		published = bytes.Clone(p.b)
		return false, nil
	}, session.Verified{ID: s.ID, Bytes: session.Unknown})
	if err != nil {
		t.Fatal(err)
	}
	dup.ch <- []byte("4567")
	close(dup.ch)
	if err := <-done; !errors.Is(err, session.ErrFinished) && err != nil {
		t.Errorf("the duplicate: %v", err)
	}
	if !bytes.Equal(published, p.b) {
		t.Errorf("published %q, now %q", published, p.b)
	}
}

// A newer put takes over: at once from a put whose reader can be woken, else without waiting for
// the Read of the older put.
func TestANewerPutTakesOver(t *testing.T) {
	for name, body := range map[string]func(*slowBody) io.Reader{
		"wakeable": func(s *slowBody) io.Reader { return s },
		"deaf":     func(s *slowBody) io.Reader { return unwakeable{s} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := start(t, session.Config{})
				s := begin(t, v, 8, 8)
				p := strictSink{newMemSink(t, 8)}
				old := newSlowBody()
				done := make(chan error, 1)
				go func() { done <- v.PutChunk(t.Context(), s.ID, 0, body(old), p) }()
				old.ch <- []byte("####")
				synctest.Wait()
				if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), p); err != nil {
					t.Fatal(err)
				}
				if name == "deaf" {
					old.ch <- []byte("####") // bytes that still come reach nothing
					close(old.ch)
				}
				if err := <-done; !errors.Is(err, session.ErrSuperseded) {
					t.Errorf("the old one: %v", err)
				}
				if string(p.b) != "01234567" {
					t.Errorf("%q", p.b)
				}
			})
		})
	}
}

// The third takeover within ten seconds waits, so that two eager clients do not starve each other.
func TestEagerClientsDoNotStarveEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 8)
		p := strictSink{newMemSink(t, 8)}
		var bodies []*slowBody
		results := make(chan error, 4)
		for range 4 {
			b := newSlowBody()
			bodies = append(bodies, b)
			go func() { results <- v.PutChunk(t.Context(), s.ID, 0, b, p) }()
			synctest.Wait()
		}
		for range 2 {
			if err := <-results; !errors.Is(err, session.ErrSuperseded) {
				t.Errorf("an early one: %v", err)
			}
		}
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("the third was taken over too")
		}
		bodies[2].ch <- []byte("01234567")
		close(bodies[2].ch)
		if err := <-results; err != nil {
			t.Errorf("the third: %v", err)
		}
		bodies[3].ch <- []byte("01234567")
		close(bodies[3].ch)
		if err := <-results; err != nil {
			t.Errorf("the fourth, which compares: %v", err)
		}
	})
}

// Work on one session never waits on another.
func TestSessionsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		a, b := begin(t, v, 8, 8), begin(t, v, 8, 8)
		stuck := newSlowBody()
		done := make(chan error, 1)
		go func() { done <- v.PutChunk(t.Context(), a.ID, 0, stuck, strictSink{newMemSink(t, 8)}) }()
		synctest.Wait()
		if err := v.PutChunk(
			t.Context(), b.ID, 0, bytes.NewReader([]byte("01234567")), strictSink{newMemSink(t, 8)},
		); err != nil {
			t.Fatal(err)
		}
		if err := v.Finish(t.Context(), nil, session.Verified{ID: b.ID, Bytes: session.Unknown}); err != nil {
			t.Fatal(err)
		}
		if err := v.Abort(t.Context(), a.ID, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil {
			t.Error("a put into an aborted session was answered")
		}
	})
}

func TestOneEndWins(t *testing.T) {
	for range 50 {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 8)
		if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), newMemSink(t, 8)); err != nil {
			t.Fatal(err)
		}
		ran := make(chan session.State, 20)
		part := func(st session.State) session.End {
			return func(context.Context, []session.Session) (bool, error) { ran <- st; return false, nil }
		}
		var wg sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			wg.Go(func() {
				if i%2 == 0 {
					errs[i] = v.Finish(
						t.Context(), part(session.Finished), session.Verified{ID: s.ID, Bytes: session.Unknown},
					)
				} else {
					errs[i] = v.Abort(t.Context(), s.ID, part(session.Aborted))
				}
			})
		}
		wg.Wait()
		if len(ran) != 1 {
			t.Fatalf("%d ends ran", len(ran))
		}
		winner := <-ran
		got, err := v.Status(t.Context(), s.ID)
		if err != nil || got.State != winner {
			t.Fatalf("%v after %v won, %v", got.State, winner, err)
		}
		for i, err := range errs {
			switch {
			case winner == session.Finished && i%2 == 1 && !errors.Is(err, session.ErrFinished),
				winner == session.Aborted && i%2 == 0 && !errors.Is(err, session.ErrAborted),
				winner == session.Aborted && i%2 == 1 && err != nil,
				winner == session.Finished && i%2 == 0 && err != nil && !errors.Is(err, session.ErrFinished):
				t.Errorf("call %d after %v won: %v", i, winner, err)
			}
		}
	}
}

// A slow put keeps its session alive.
func TestARunningPutKeepsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{TTL: 10 * time.Minute})
		s := begin(t, v, 8, 8)
		body := newSlowBody()
		done := make(chan error, 1)
		go func() { done <- v.PutChunk(t.Context(), s.ID, 0, body, newMemSink(t, 8)) }()
		for range 30 {
			time.Sleep(time.Minute)
			if n, err := v.TickTTL(t.Context(), time.Now(), nil); n != 0 || err != nil {
				t.Fatalf("%d expired, %v", n, err)
			}
		}
		body.ch <- []byte("01234567")
		close(body.ch)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for range 11 {
			time.Sleep(time.Minute)
			if _, err := v.TickTTL(t.Context(), time.Now(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := v.Status(t.Context(), s.ID); err != nil || got.State != session.Expired {
			t.Errorf("%v, %v", got.State, err)
		}
	})
}

func TestWaitSeesTheNextChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 16)
		got := make(chan session.Session, 1)
		go func() {
			after, err := v.Wait(t.Context(), s.ID, s.Rev)
			if err != nil {
				t.Error(err)
			}
			got <- after
		}()
		synctest.Wait()
		if err := v.PutChunk(t.Context(), s.ID, 1, bytes.NewReader([]byte("01234567")), newMemSink(t, 16)); err != nil {
			t.Fatal(err)
		}
		if after := <-got; after.Bytes() != 8 {
			t.Errorf("%+v", after)
		}
	})
}
