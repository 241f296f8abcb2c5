package session_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/session"
)

// A put that has to wait for an earlier one of the same bytes waits for ten seconds at most. After
// that no put takes over the earlier one. Otherwise two eager clients would still starve each
// other, only more slowly.
func TestAWaitForAnEarlierPutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 8)
		p := strictSink{newMemSink(t, 8)}
		var last *slowBody
		done := make(chan error, 3)
		for range 3 {
			last = newSlowBody()
			go func(body *slowBody) { done <- v.PutChunk(t.Context(), s.ID, 0, body, p) }(last)
			synctest.Wait()
		}
		for range 2 {
			began := time.Now()
			if err := v.PutChunk(t.Context(), s.ID, 0, newSlowBody(), p); !errors.Is(err, session.ErrBusy) ||
				time.Since(began) != 10*time.Second {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			time.Sleep(time.Minute)
		}
		last.ch <- []byte("01234567")
		close(last.ch)
		answers := map[bool]int{}
		for range 3 {
			answers[<-done == nil]++
		}
		if answers[true] != 1 || string(p.b) != "01234567" {
			t.Errorf("%d of 3 puts went well, %q", answers[true], p.b)
		}
		if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), p); err != nil {
			t.Errorf("a repeat: %v", err)
		}
	})
}

// stuckCommit is a sink whose Commit never ends.
type stuckCommit struct {
	*memSink
	never chan struct{}
}

func (s stuckCommit) Commit(context.Context, session.Range) ([]byte, error) {
	<-s.never
	return nil, errUnsafe
}

// A call that has to wait for a commit that never ends is refused after ten seconds.
func TestNobodyWaitsForEverForACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := start(t, session.Config{})
		s := begin(t, v, 8, 16)
		sink := stuckCommit{newMemSink(t, 16), make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), sink) }()
		synctest.Wait()
		for name, call := range map[string]func() error{
			"put":   func() error { return v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader(nil), newMemSink(t, 8)) },
			"drop":  func() error { _, _, err := v.Drop(t.Context(), s.ID, session.All(), nil); return err },
			"abort": func() error { return v.Abort(t.Context(), s.ID, nil) },
		} {
			began := time.Now()
			if err := call(); !errors.Is(err, session.ErrBusy) || time.Since(began) != 10*time.Second {
				t.Errorf("%s, after %s: %v", name, time.Since(began), err)
			}
		}
		close(sink.never)
		if err := <-done; err == nil {
			t.Error("the put went well")
		}
		if err := v.Abort(t.Context(), s.ID, nil); err != nil {
			t.Error(err)
		}
	})
}

// The number of puts of a session is bounded, and so is the number of those that wait for others of
// the same bytes.
func TestTheNumberOfPutsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, waiting = 8, 3
		v := start(t, session.Config{Puts: most, Waiting: waiting})
		s := begin(t, v, 8, 8*80)
		p := newMemSink(t, 8*80)
		put := func(idx int64, body string) error {
			return v.PutChunk(t.Context(), s.ID, idx, bytes.NewReader([]byte(body)), p)
		}
		var bodies []*slowBody
		done := make(chan error, most)
		run := func(idx int64) {
			b := newSlowBody()
			bodies = append(bodies, b)
			go func() { done <- v.PutChunk(t.Context(), s.ID, idx, unwakeable{b}, p) }()
			synctest.Wait()
		}
		for range 3 + waiting { // two are fenced, one runs
			run(0)
		}
		if err := put(0, "01234567"); !errors.Is(err, session.ErrBusy) {
			t.Errorf("one more that would wait: %v", err)
		}
		run(1)
		run(2)
		if err := put(3, "01234567"); !errors.Is(err, session.ErrBusy) {
			t.Errorf("one more: %v", err)
		}
		for _, b := range bodies {
			close(b.ch)
		}
		for range bodies {
			<-done
		}
		for idx := range int64(4) {
			if err := put(idx, "01234567"); err != nil {
				t.Errorf("when they have left: %v", err)
			}
		}
	})
}

// hookedStore is a Store that calls a function once, after it has loaded a session or before it
// records.
type hookedStore struct {
	session.Store
	loaded, record func()
}

func (d *hookedStore) Load(ctx context.Context, id session.SessionID) (session.Session, error) {
	s, err := d.Store.Load(ctx, id)
	if f := d.loaded; f != nil {
		d.loaded = nil
		f()
	}
	return s, err
}

func (d *hookedStore) Record(
	ctx context.Context, id session.SessionID, gen uint64, c session.Change,
) (session.Session, error) {
	if f := d.record; f != nil {
		d.record = nil
		f()
	}
	return d.Store.Record(ctx, id, gen, c)
}

// claimSink is a sink that notes the session of its claim.
type claimSink struct {
	*memSink
	s session.Session
}

func (c *claimSink) Admit(context.Context, session.Session) error { return nil }

func (c *claimSink) Claim(_ context.Context, s session.Session, r session.Range) (int64, error) {
	c.s = s
	return r.Len(), nil
}

// A put uses the session as it is once the put has its bytes to itself, not as it was when the put
// came.
func TestAPutKnowsWhatWasDroppedBeforeItsClaim(t *testing.T) {
	st := &hookedStore{Store: session.NewMem()}
	v, err := session.New(t.Context(), st, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, v, 8, 8)
	old := newMemSink(t, 8)
	if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), old); err != nil {
		t.Fatal(err)
	}
	st.loaded = func() {
		if _, _, err := v.Drop(t.Context(), s.ID, session.All(), nil); err != nil {
			t.Error(err)
		}
	}
	sink := &claimSink{memSink: newMemSink(t, 8)}
	if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("abcdefgh")), sink); err != nil {
		t.Error(err)
	}
	if !sink.s.Stale(s.Gen, session.All()) {
		t.Errorf("the sink was told of %+v", sink.s)
	}
}

// A length that is fixed between a put's first load and its claim holds for that put too.
func TestALengthIsFixedBeforeTheClaim(t *testing.T) {
	for name, c := range map[string]struct {
		last string // which fixes the length
		body string
		want error
	}{
		"the last chunk is whole": {"89ab", "89ab", nil},
		"it has too much":         {"89ab", "89abc", session.ErrLong},
		"there is no such chunk":  {"", "89ab", session.ErrRange},
	} {
		t.Run(name, func(t *testing.T) {
			st := &hookedStore{Store: session.NewMem()}
			v, err := session.New(t.Context(), st, session.Config{})
			if err != nil {
				t.Fatal(err)
			}
			s, p := begin(t, v, 8, session.Unknown), newMemSink(t, 16)
			st.loaded = func() {
				if err := v.PutChunk(t.Context(), s.ID, 1, strings.NewReader(c.last), p); err != nil {
					t.Error(err)
				}
			}
			if err := v.PutChunk(t.Context(), s.ID, 1, strings.NewReader(c.body), p); !errors.Is(err, c.want) {
				t.Errorf("%v, not %v", err, c.want)
			}
		})
	}
}

var errRefused = errors.New("refused")

// A put that meets an end waits for its outcome: before the put has begun, and when it is about to
// record. If the session opens again the put goes on.
func TestAPutWaitsForTheEndThatItMeets(t *testing.T) {
	ends := map[string]struct {
		end  func(*session.Service, session.SessionID, session.End) error
		want error
	}{
		"finish": {func(v *session.Service, id session.SessionID, end session.End) error {
			return v.Finish(context.Background(), end, session.Verified{ID: id, Bytes: 8})
		}, session.ErrFinished},
		"abort": {func(v *session.Service, id session.SessionID, end session.End) error {
			return v.Abort(context.Background(), id, end)
		}, session.ErrAborted},
		"expiry": {func(v *session.Service, id session.SessionID, end session.End) error {
			_, err := v.ClearAll(context.Background(), end)
			return err
		}, session.ErrAborted},
	}
	for name, end := range ends {
		for _, at := range []string{"before it begins", "before its claim", "before it records"} {
			if name == "finish" && at == "before it records" {
				continue // a complete session has nothing to record
			}
			for _, answer := range []error{nil, errRefused} {
				t.Run(name+" "+at, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { meetsAnEnd(t, end.end, at, answer, end.want) })
				})
			}
		}
	}
}

func meetsAnEnd(
	t *testing.T, end func(*session.Service, session.SessionID, session.End) error, at string, answer, ended error,
) {
	st := &hookedStore{Store: session.NewMem()}
	v, err := session.New(t.Context(), st, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, v, 8, session.Unknown)
	p := newMemSink(t, 16)
	if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), p); err != nil {
		t.Fatal(err)
	}
	sealed, goOn := make(chan struct{}), make(chan struct{})
	ending := make(chan error, 1)
	begins := func() {
		go func() {
			ending <- end(v, s.ID, func(context.Context, []session.Session) (bool, error) {
				close(sealed)
				<-goOn
				return false, answer
			})
		}()
	}
	idx, meet := int64(0), func() {
		begins()
		time.Sleep(time.Millisecond) // until it can go no further
	}
	switch at {
	case "before it begins":
		meet()
	case "before its claim":
		if st.loaded = meet; ended != session.ErrFinished { // a complete session has no other chunk
			idx = 1
		}
	case "before it records":
		st.record, idx = meet, 1
	}
	put := make(chan error, 1)
	go func() { put <- v.PutChunk(t.Context(), s.ID, idx, bytes.NewReader([]byte("01234567")), p) }()
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	if at == "before its claim" && !bytes.Equal(p.b[8:], make([]byte, 8)) {
		t.Errorf("it wrote %q while it was to wait", p.b[8:])
	}
	select {
	case err := <-put:
		// An abort fences the puts before it is carried out.
		if put <- err; !errors.Is(err, session.ErrSuperseded) || ended == session.ErrFinished {
			t.Errorf("answered before the end was decided: %v", err)
		}
	default:
	}
	close(goOn)
	if err := <-ending; !errors.Is(err, answer) {
		t.Errorf("the end: %v", err)
	}
	err = <-put
	switch {
	case answer == nil && !errors.Is(err, ended) && !errors.Is(err, session.ErrSuperseded):
		t.Errorf("the session has ended: %v", err)
	case answer != nil && err != nil && !errors.Is(err, session.ErrSuperseded):
		t.Errorf("the end was taken back: %v", err)
	}
	if time.Since(began) >= time.Second {
		t.Errorf("it took %s", time.Since(began))
	}
}

// panicSink is a sink that panics, or ends its goroutine, at one step.
type panicSink struct {
	*memSink
	at   string
	exit bool
}

func (b panicSink) panicAt(at string) {
	if at == b.at && b.exit {
		runtime.Goexit()
	}
	if at == b.at {
		panic(at)
	}
}

func (b panicSink) WriteAt(p []byte, off int64) (int, error) {
	b.panicAt("write")
	return b.memSink.WriteAt(p, off)
}

func (b panicSink) Commit(ctx context.Context, r session.Range) ([]byte, error) {
	b.panicAt("commit")
	return b.memSink.Commit(ctx, r)
}

func (b panicSink) Admit(context.Context, session.Session) error {
	b.panicAt("admit")
	return nil
}

func (b panicSink) Claim(_ context.Context, _ session.Session, r session.Range) (int64, error) {
	b.panicAt("claim")
	return r.Len(), nil
}

func (b panicSink) Recorded(session.Session) { b.panicAt("recorded") }

// panicBuffers are panicSink's memory.
type panicBuffers struct{ now *panicSink }

func (b panicBuffers) New() session.Buffer { return b }

func (b panicBuffers) panicAt(at string) {
	if b.now.memSink != nil {
		b.now.panicAt(at)
	}
}

func (b panicBuffers) Acquire(int64, int64) []byte { b.panicAt("acquire"); return nil }
func (b panicBuffers) Release()                    {}
func (b panicBuffers) Wait()                       { b.panicAt("wait") }

// runPanicking runs do, which does not return.
func runPanicking(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		do()
	}()
	<-done
}

// A put that panics, or ends its goroutine, leaves nothing behind that others wait for.
func TestAPanicLeavesNothing(t *testing.T) {
	for _, at := range []string{"admit", "claim", "write", "commit", "recorded", "acquire", "wait"} {
		for _, exit := range []bool{false, true} {
			t.Run(at, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var now panicSink
					v := start(t, session.Config{Puts: 1, Small: 2, Large: 4, MaxLarge: 1, Buffers: panicBuffers{&now}})
					s := begin(t, v, 8, 8)
					p := newMemSink(t, 8)
					now = panicSink{p, at, exit}
					runPanicking(func() {
						_ = v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), now)
					})
					now = panicSink{}
					began := time.Now()
					if err := v.PutChunk(t.Context(), s.ID, 0, bytes.NewReader([]byte("01234567")), p); err != nil {
						t.Error(err)
					}
					runPanicking(func() {
						_ = v.Finish(t.Context(), func(context.Context, []session.Session) (bool, error) {
							panicSink{nil, "end", exit}.panicAt("end")
							return false, nil
						}, session.Verified{ID: s.ID, Bytes: 8})
					})
					if err := v.Finish(t.Context(), nil, session.Verified{ID: s.ID, Bytes: 8}); err != nil {
						t.Error(err)
					}
					if time.Since(began) != 0 {
						t.Errorf("it took %s", time.Since(began))
					}
				})
			})
		}
	}
}
