package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"sluice/session"
)

// memSink is a sink in memory that refuses a second record of the same bytes.
type memSink struct {
	mu      sync.Mutex
	b       []byte
	written []session.Range
	t       testing.TB
}

func newMemSink(t testing.TB, n int) *memSink { return &memSink{b: make([]byte, n), t: t} }

func (p *memSink) WriteAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return copy(p.b[off:], b), nil
}

func (p *memSink) Commit(_ context.Context, r session.Range) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if session.Touches(p.written, r) {
		p.t.Errorf("bytes %v are recorded twice", r)
	}
	p.written = session.Add(p.written, r)
	return fmt.Appendf(nil, "%p", p), nil // of this sink alone
}

func (p *memSink) Recorded(session.Session) {}
func (p *memSink) Undo([]session.Range)     {}

func (p *memSink) VerifyAt(b []byte, off int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !bytes.Equal(p.b[off:off+int64(len(b))], b) {
		return session.ErrConflict
	}
	return nil
}

func start(t *testing.T, cfg session.Config) *session.Service {
	t.Helper()
	v, err := session.New(t.Context(), session.NewMem(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func begin(t *testing.T, v *session.Service, chunk, total int64) session.Session {
	t.Helper()
	s, created, err := v.Begin(t.Context(), session.Spec{ChunkSize: chunk, BytesExpected: total, Owner: "o"})
	if err != nil || !created {
		t.Fatalf("begin: created %v, %v", created, err)
	}
	return s
}

// cutReader returns a body of b that is cut behind it.
func cutReader(b string) io.Reader {
	return io.MultiReader(bytes.NewReader([]byte(b)), errReader{io.ErrUnexpectedEOF})
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestChunksInAnyOrderMakeTheWhole(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 10)
	p := newMemSink(t, 10)
	for _, c := range []struct {
		idx  int64
		body string
	}{{2, "89"}, {0, "0123"}, {2, "89"}, {1, "4567"}} {
		if err := v.PutChunk(t.Context(), s.ID, c.idx, bytes.NewReader([]byte(c.body)), p); err != nil {
			t.Fatalf("chunk %d: %v", c.idx, err)
		}
	}
	ended := false
	err := v.Finish(t.Context(), func(_ context.Context, sealed []session.Session) (bool, error) {
		ended = len(sealed) == 1 && sealed[0].State == session.Sealed
		return false, nil
	}, session.Verified{ID: s.ID, Bytes: session.Unknown})
	if err != nil || !ended || string(p.b) != "0123456789" {
		t.Fatalf("finish: %v, ended %v, bytes %q", err, ended, p.b)
	}
	if got, _ := v.Status(t.Context(), s.ID); got.State != session.Finished {
		t.Errorf("state is %v", got.State)
	}
}

func TestNothingOfABadChunkIsRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		idx  int64
		body io.Reader
		want error
	}{
		"short":      {0, bytes.NewReader([]byte("012")), session.ErrShort},
		"long":       {0, bytes.NewReader([]byte("01234")), session.ErrLong},
		"cut":        {0, cutReader("012"), io.ErrUnexpectedEOF},
		"cut behind": {0, cutReader("0123"), io.ErrUnexpectedEOF},
		"past":       {3, bytes.NewReader(nil), session.ErrRange},
		"negative":   {-1, bytes.NewReader(nil), session.ErrRange},
		"overflow":   {1 << 62, bytes.NewReader(nil), session.ErrRange},
	} {
		t.Run(name, func(t *testing.T) {
			v := start(t, session.Config{})
			s := begin(t, v, 4, 10)
			err := v.PutChunk(t.Context(), s.ID, c.idx, c.body, newMemSink(t, 10))
			if !errors.Is(err, c.want) {
				t.Errorf("error is %v, not %v", err, c.want)
			}
			if got, _ := v.Status(t.Context(), s.ID); len(got.Received) != 0 {
				t.Errorf("%v is recorded", got.Received)
			}
		})
	}
}

func TestNoPieceCrossesTheEdgeOfAChunk(t *testing.T) {
	for _, whole := range []bool{true, false} {
		v := start(t, session.Config{})
		s := begin(t, v, 4, 10)
		if n, err := v.PutAt(
			t.Context(), s.ID, 1, session.Unknown, bytes.NewReader([]byte("123456789")), newMemSink(t, 10), whole,
		); n != 9 || err != nil {
			t.Fatal(n, err)
		}
		got, err := v.Entries(t.Context(), s.ID, session.All(), 0)
		if err != nil || len(got) != 3 || got[0].End != 4 || got[1].End != 8 || got[2].End != 10 {
			t.Errorf("whole %v: %v, %v", whole, got, err)
		}
	}
}

func TestACutRangeKeepsWhatArrived(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 10)
	p := newMemSink(t, 10)
	n, err := v.PutAt(t.Context(), s.ID, 1, session.Unknown, cutReader("12345"), p, false)
	if n != 5 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("n %d, %v", n, err)
	}
	got, _ := v.Status(t.Context(), s.ID)
	if len(got.Received) != 1 || got.Received[0] != (session.Range{Off: 1, End: 6}) || got.EntryCount != 2 {
		t.Errorf("received %v in %d pieces", got.Received, got.EntryCount)
	}
	if n, err := v.PutAt(
		t.Context(), s.ID, 0, session.Unknown, bytes.NewReader([]byte("01x")), p, false,
	); n != 1 || !errors.Is(err, session.ErrConflict) {
		t.Errorf("other bytes: n %d, %v", n, err)
	}
	if n, err := v.PutAt(
		t.Context(), s.ID, 0, session.Unknown, bytes.NewReader([]byte("0123456789")), p, true,
	); n != 10 || err != nil {
		t.Errorf("the whole: n %d, %v", n, err)
	}
}

func TestAShortLastChunkFixesAnUnknownLength(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, session.Unknown)
	p := newMemSink(t, 16)
	for idx, body := range []string{"0123", "4567", "89"} {
		if err := v.PutChunk(t.Context(), s.ID, int64(idx), bytes.NewReader([]byte(body)), p); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := v.Status(t.Context(), s.ID); got.BytesExpected != 10 || got.Bytes() != 10 {
		t.Errorf("length is %d", got.BytesExpected)
	}
}

func TestDropForgetsAndFences(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 8)
	for idx, body := range []string{"0123", "4567"} {
		if err := v.PutChunk(
			t.Context(), s.ID, int64(idx), bytes.NewReader([]byte(body)), newMemSink(t, 8),
		); err != nil {
			t.Fatal(err)
		}
	}
	after, _, err := v.Drop(t.Context(), s.ID, session.Range{Off: 4, End: 8}, nil)
	if err != nil || after.Gen == s.Gen || !after.Stale(s.Gen, session.Range{Off: 0, End: 8}) ||
		after.Stale(s.Gen, session.Range{Off: 0, End: 4}) {
		t.Fatalf("%v, %+v", err, after)
	}
	err = v.Finish(t.Context(), nil, session.Verified{ID: s.ID, Bytes: 8})
	var inc *session.IncompleteError
	if !errors.As(err, &inc) || len(inc.Missing) != 1 || inc.Missing[0] != (session.Range{Off: 4, End: 8}) {
		t.Errorf("finish: %v", err)
	}
	if err := v.Finish(
		t.Context(), nil, session.Verified{ID: s.ID, Gen: s.Gen, Bytes: 8},
	); !errors.Is(err, session.ErrGenMoved) {
		t.Errorf("finish of another generation: %v", err)
	}
}

func TestAFailedEndOpensAgain(t *testing.T) {
	v := start(t, session.Config{})
	s := begin(t, v, 4, 0)
	boom := errors.New("boom")
	fail := func(context.Context, []session.Session) (bool, error) { return false, boom }
	if err := v.Finish(t.Context(), fail, session.Verified{ID: s.ID}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := v.Finish(t.Context(), nil, session.Verified{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if err := v.Abort(t.Context(), s.ID, nil); !errors.Is(err, session.ErrFinished) {
		t.Errorf("abort of a finished session: %v", err)
	}
}

// A program that is restarted again and again, and that nobody uses, still comes to the end of
// every wait.
func TestTheRunningTimeIsKept(t *testing.T) {
	store := session.NewMem()
	at := func() *session.Service {
		v, err := session.New(t.Context(), store, session.Config{MaxStep: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	now := time.Now().Add(time.Minute)
	tick := func(v *session.Service, by time.Duration) {
		now = now.Add(by)
		if _, err := v.TickTTL(t.Context(), now, nil); err != nil {
			t.Fatal(err)
		}
	}
	for run := range int64(10) {
		v := at()
		if got := v.Running() / time.Minute.Milliseconds(); got != run*3 {
			t.Fatalf("run %d begins at minute %d", run, got)
		}
		for range 3 {
			tick(v, time.Minute)
		}
		tick(v, 59*time.Second) // this much may be forgotten
	}
	other, v := at(), at()
	for range 5 {
		tick(v, time.Minute)
	}
	if tick(other, time.Minute); other.Running() != v.Running() {
		t.Errorf("one Service is at %d, and another of the same Store stays at %d", v.Running(), other.Running())
	}
}

func TestTimeCountsInTicks(t *testing.T) {
	v := start(t, session.Config{TTL: time.Hour, MaxStep: time.Minute})
	s := begin(t, v, 4, 10)
	now := time.Now()
	if n, err := v.TickTTL(t.Context(), now.AddDate(1, 0, 0), nil); n != 0 || err != nil {
		t.Fatalf("a year ahead: %d expired, %v", n, err)
	}
	now = now.AddDate(1, 0, 0)
	for range 59 {
		now = now.Add(time.Minute)
		if n, _ := v.TickTTL(t.Context(), now, nil); n != 0 {
			t.Fatal("expired too early")
		}
	}
	n, err := v.TickTTL(t.Context(), now.Add(time.Minute), nil)
	if n != 1 || err != nil {
		t.Fatalf("%d expired, %v", n, err)
	}
	if err := v.PutChunk(
		t.Context(), s.ID, 0, bytes.NewReader([]byte("0123")), newMemSink(t, 10),
	); !errors.Is(err, session.ErrExpired) {
		t.Errorf("put: %v", err)
	}
}
