package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"sluice/session"
)

// A session with as many entries as it may have takes repeats of recorded bytes, and puts that make
// the entries fewer.
func TestAFullSessionTakesRepeatsAndClosesGaps(t *testing.T) {
	merge := func(a, b session.Entry) ([]byte, bool) { return a.Note, true }
	v := start(t, session.Config{MaxEntries: 2, MaxGaps: 100, Merge: merge})
	s := begin(t, v, 16, 16)
	p := newMemSink(t, 16)
	for _, off := range []int64{0, 8} {
		if _, err := v.PutAt(
			t.Context(), s.ID, off, session.Unknown, cutReader("0123"), p, false,
		); errors.Is(err, session.ErrLimit) {
			t.Fatal(err)
		}
	}
	if n, err := v.PutAt(t.Context(), s.ID, 0, session.Unknown, bytes.NewReader([]byte("01")), p, false); err != nil {
		t.Errorf("a repeat of recorded bytes: %d, %v", n, err)
	}
	if n, err := v.PutAt(t.Context(), s.ID, 4, session.Unknown, bytes.NewReader([]byte("4567")), p, false); err != nil {
		t.Errorf("what closes the gap and leaves one piece: %d, %v", n, err)
	}
}

// A recorded chunk may be repeated in a session with as many gaps as it may have.
func TestAChunkIsRepeatedAmongManyGaps(t *testing.T) {
	v := start(t, session.Config{MaxGaps: 1})
	s := begin(t, v, 4, 20)
	p := newMemSink(t, 20)
	for _, idx := range []int64{0, 2} {
		if err := v.PutChunk(t.Context(), s.ID, idx, bytes.NewReader([]byte("0123")), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.PutChunk(t.Context(), s.ID, 2, bytes.NewReader([]byte("0123")), p); err != nil {
		t.Errorf("the repeat of a recorded chunk: %v", err)
	}
}

// One session whose release fails does not keep the others from expiring.
func TestOneBadSessionDoesNotStopExpiry(t *testing.T) {
	v := start(t, session.Config{TTL: time.Minute, MaxStep: time.Minute})
	now := time.Now()
	tick := func(release session.End) (n int, err error) {
		now = now.Add(time.Minute)
		return v.TickTTL(t.Context(), now, release)
	}
	bad := begin(t, v, 4, 4)
	if _, err := tick(nil); err != nil {
		t.Fatal(err)
	}
	good := begin(t, v, 4, 4)
	for range 5 {
		_, _ = tick(func(_ context.Context, sealed []session.Session) (bool, error) {
			if sealed[0].ID == bad.ID {
				return false, errors.New("its row is damaged")
			}
			return false, nil
		})
	}
	if s, _ := v.Status(t.Context(), good.ID); s.State != session.Expired {
		t.Errorf("another session is still %v after five times its time to live", s.State)
	}
}

// An entry below the smallest is recorded if it may be the end of an unknown length. Otherwise it
// is refused.
func TestASmallPieceMayBeTheEnd(t *testing.T) {
	v := start(t, session.Config{MinEntry: 3})
	s, _, err := v.Begin(t.Context(), session.Spec{ChunkSize: 4, BytesExpected: session.Unknown})
	if err != nil {
		t.Fatal(err)
	}
	p := newMemSink(t, 16)
	put := func(off int64, b string) error {
		_, err := v.PutAt(t.Context(), s.ID, off, session.Unknown, bytes.NewReader([]byte(b)), p, false)
		return err
	}
	if err := put(8, "x"); !errors.Is(err, session.ErrLimit) {
		t.Errorf("behind a gap: %v", err)
	}
	if err := put(0, "01234"); err != nil {
		t.Errorf("the end: %v", err)
	}
	if err := put(12, "xyz"); err != nil {
		t.Fatal(err)
	}
	if err := put(8, "x"); !errors.Is(err, session.ErrLimit) {
		t.Errorf("among others: %v", err)
	}
}

// If the length is unknown, the gap to close is the one before the bytes of the put.
func TestTheGapOfAnUnknownLength(t *testing.T) {
	v := start(t, session.Config{MinEntry: 8})
	s := begin(t, v, 64, session.Unknown)
	p := newMemSink(t, 64)
	put := func(off int64, b string) session.Range {
		t.Helper()
		_, err := v.PutAt(t.Context(), s.ID, off, session.Unknown, bytes.NewReader([]byte(b)), p, false)
		var limit *session.LimitError
		if !errors.As(err, &limit) {
			t.Fatalf("at %d: %v", off, err)
		}
		return limit.Gap
	}
	if gap := put(20, "0123"); gap != (session.Range{Off: 0, End: 20}) {
		t.Errorf("nothing is there, and the gap is %v", gap)
	}
	if _, err := v.PutAt(
		t.Context(), s.ID, 0, session.Unknown, bytes.NewReader([]byte("0123456789")), p, false,
	); err != nil {
		t.Fatal(err)
	}
	if gap := put(20, "0123"); gap != (session.Range{Off: 10, End: 20}) {
		t.Errorf("10 bytes are there, and the gap is %v", gap)
	}
}

// The memory of the ranges that puts keep is bounded over all sessions. A session with few ranges
// is always taken.
func TestRangesThatPutsKeepAreBounded(t *testing.T) {
	const ranges = 200
	v := start(t, session.Config{States: 2 * 16 * ranges * 3 / 2})
	many := func() (session.Session, *memSink) {
		s, p := begin(t, v, 1, 2*ranges), newMemSink(t, 2*ranges)
		for i := range int64(ranges) {
			if err := v.PutChunk(t.Context(), s.ID, 2*i, bytes.NewReader([]byte("x")), p); err != nil {
				t.Fatal(err)
			}
		}
		return s, p
	}
	first, p := many()
	other, q := many()
	few, r := begin(t, v, 1, 4), newMemSink(t, 4)
	body, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- v.PutChunk(t.Context(), first.ID, 1, body, p) }()
	if _, err := w.Write([]byte("x")); err != nil { // the put has begun to read
		t.Fatal(err)
	}
	if err := v.PutChunk(t.Context(), other.ID, 1, bytes.NewReader([]byte("x")), q); !errors.Is(err, session.ErrBusy) {
		t.Errorf("a second session in many pieces: %v", err)
	}
	if err := v.PutChunk(t.Context(), few.ID, 1, bytes.NewReader([]byte("x")), r); err != nil {
		t.Errorf("a session in few pieces: %v", err)
	}
	if err := errors.Join(w.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	if err := v.PutChunk(t.Context(), other.ID, 1, bytes.NewReader([]byte("x")), q); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
