package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// PutChunk stores chunk idx: exactly its length (while the length is unknown: or less, which fixes
// it), else nothing. r must end with io.EOF; any other error is a cut, and records nothing. When
// nil is returned the chunk is recorded, as safe as the sink's Commit made it. Repeating it with
// the same bytes is fine; other bytes are refused by the sink's Verifier.
//
// An end that is under way is waited for: where it is taken back, the put goes on.
//
// Errors: ErrShort, ErrLong, ErrRange, ErrSuperseded, ErrBusy, ErrConflict, ErrLimit, ErrNotFound
// and those of an ended session, or ErrSealed where an end takes too long; the reader's and the
// sink's own pass through.
func (v *Service) PutChunk(ctx context.Context, id SessionID, idx int64, r io.Reader, sink ByteSink) error {
	where := func(s *Session) (Range, error) { return s.chunk(idx) }
	_, err := v.put(ctx, id, where, r, sink, putMode{whole: true, exact: true})
	return err
}

// PutAt stores bytes from off on, as many as come: n of them are recorded when it returns, also
// with an error. It records at the edges of chunks, every Config.Flush, and what a cut leaves;
// whole makes it all or nothing. It claims most bytes (Unknown: as many as there can be), but none
// behind the session's end. Errors as PutChunk's.
func (v *Service) PutAt(
	ctx context.Context, id SessionID, off, most int64, r io.Reader, sink ByteSink, whole bool,
) (n int64, err error) {
	where := func(s *Session) (Range, error) { return s.from(off, most) }
	return v.put(ctx, id, where, r, sink, putMode{whole: whole})
}

// chunk is the range of chunk idx.
func (s *Session) chunk(idx int64) (Range, error) {
	if idx < 0 || idx > (math.MaxInt64-s.ChunkSize)/s.ChunkSize {
		return Range{}, fmt.Errorf("%w: chunk index %d", ErrRange, idx)
	}
	r := Range{idx * s.ChunkSize, (idx + 1) * s.ChunkSize}
	if s.BytesExpected >= 0 {
		if r.Off >= s.BytesExpected {
			return r, fmt.Errorf("%w: chunk index %d of %d chunks", ErrRange, idx, s.Chunks())
		}
		r.End = min(r.End, s.BytesExpected)
	}
	return r, nil
}

// from is the range of most bytes from off on, as far as the session goes.
func (s *Session) from(off, most int64) (Range, error) {
	r := Range{off, math.MaxInt64}
	if s.BytesExpected >= 0 {
		r.End = s.BytesExpected
	}
	if off < 0 || off > r.End || off == r.End && s.BytesExpected > 0 {
		return r, fmt.Errorf("%w: offset %d of %d bytes", ErrRange, off, s.BytesExpected)
	}
	if most >= 0 && most < r.End-off {
		r.End = off + most
	}
	return r, nil
}

// open loads a session that can be put into. It waits for an end that is under way.
func (v *Service) open(ctx context.Context, id SessionID) (Session, error) {
	s, err := v.WaitUnsealed(ctx, id)
	if err == nil {
		err = s.State.Err()
	}
	return s, err
}

type putMode struct {
	whole bool // all or nothing
	exact bool // the body must fill the range
}

// stream is one put on its way.
type stream struct {
	*put
	v     *Service
	l     *live
	s     Session // as of the last record
	since uint64  // the generation it began at
	sink  ByteSink
	mode  putMode

	pos     int64   // next byte to come
	kept    int64   // everything below is recorded
	pending []Range // written, not yet recorded
	flushed time.Time
}

// admit loads a session that can be put into, and the range that a put claims of it, and lets the
// sink decide. changes is what v.changes was before.
func (v *Service) admit(
	ctx context.Context, id SessionID, where func(*Session) (Range, error), sink ByteSink,
) (s Session, r Range, changes uint64, err error) {
	a, asks := sink.(Admitter)
	changes = v.changes(id).Load()
	if s, err = v.store.Load(ctx, id); err == nil && asks {
		err = a.Admit(ctx, s)
	}
	if err == nil && s.State == Sealed {
		changes = v.changes(id).Load()
		s, err = v.WaitUnsealed(ctx, id)
	}
	if err == nil {
		err = s.State.Err()
	}
	if err == nil {
		r, err = where(&s)
	}
	if err == nil && asks {
		var most int64
		most, err = a.Claim(ctx, s, r)
		r.End = min(r.End, r.Off+most)
	}
	return s, r, changes, err
}

func (v *Service) put(
	ctx context.Context, id SessionID, where func(*Session) (Range, error), r io.Reader, sink ByteSink, mode putMode,
) (int64, error) {
	l := v.hold(id)
	defer v.release(id, l)
	s, want, changes, err := v.admit(ctx, id, where, sink)
	if err != nil {
		return 0, err
	}
	if err := l.count(&l.open, v.cfg.Puts); err != nil {
		return 0, err
	}
	defer l.uncount(&l.open)
	p := v.newPut(want, mode.whole, r)
	if o, firm := v.meet(l, p); o != nil {
		s = Session{} // a put that waits keeps no ranges
		if err := v.claim(ctx, l, p, o, firm); err != nil {
			return 0, err
		}
	}
	defer l.unclaim(p)
	defer p.leave()
	// What an older put recorded before it left is to be seen here, what was dropped, and a length
	// that was fixed meanwhile.
	if s.ID == 0 || v.changes(id).Load() != changes {
		if s, want, _, err = v.admit(ctx, id, where, sink); err != nil {
			return 0, err
		}
		l.narrow(p, want)
	}
	if err := v.full(s, want.Off); err != nil {
		return 0, err
	}
	n, err := v.keepState(s)
	if err != nil {
		return 0, err
	}
	defer v.states.Add(-n)
	t := &stream{
		put: p, v: v, l: l, s: s, since: s.Gen, sink: sink, mode: mode,
		pos: want.Off, kept: want.Off, flushed: v.cfg.Clock.Now(),
	}
	err = t.run(ctx, r)
	if err != nil || len(t.pending) > 0 {
		t.undo(context.WithoutCancel(ctx))
	}
	return t.kept - want.Off, err
}

// undo lets the sink give back what was not recorded, as far as that is certain.
func (t *stream) undo(ctx context.Context) {
	u, ok := t.sink.(Committer)
	if !ok {
		return
	}
	s, err := t.v.store.Load(ctx, t.s.ID)
	if err != nil || s.State.Ended() {
		return
	}
	t.sinkMu.Lock()
	defer t.sinkMu.Unlock()
	if !t.fenced {
		t.buffer.Wait()
		u.Undo(Gaps(s.Received, t.r, 0))
	}
}

// full refuses early a put that would open a gap or add a piece past the bounds. One that begins at
// what is recorded may be a repeat, or make the pieces fewer: that shows when it is recorded.
func (v *Service) full(s Session, off int64) error {
	if Touches(s.Received, Range{off - 1, off + 1}) {
		return nil
	}
	switch {
	case s.EntryCount >= v.cfg.MaxEntries:
		return &LimitError{firstGap(s, off), fmt.Sprintf("the session has %d pieces", s.EntryCount)}
	case len(s.Received) > v.cfg.MaxGaps && off > 0:
		return &LimitError{firstGap(s, off), fmt.Sprintf("the session has %d gaps", len(s.Received)-1)}
	}
	return nil
}

// fewRanges is how many received ranges a session may have without being counted.
const fewRanges = 128

// keepState counts what a put keeps of the ranges of its session, as they were when it began and
// when it recorded last.
func (v *Service) keepState(s Session) (n int64, err error) {
	if v.cfg.States <= 0 || len(s.Received) <= fewRanges {
		return 0, nil
	}
	n = 2 * 16 * int64(len(s.Received))
	if v.states.Add(n) > v.cfg.States {
		v.states.Add(-n)
		return 0, fmt.Errorf("%w: too many puts into sessions in many pieces", ErrBusy)
	}
	return n, nil
}

// firstGap is the first gap of a session, or before off where its length is not known; empty where
// there is none.
func firstGap(s Session, off int64) Range {
	gaps := s.Missing(1)
	if len(gaps) == 0 && s.BytesExpected < 0 {
		gaps = Gaps(s.Received, Range{0, off}, 1)
	}
	if len(gaps) == 0 {
		return Range{}
	}
	return gaps[0]
}

// run streams the body and records it.
func (t *stream) run(ctx context.Context, r io.Reader) error {
	cut := t.copy(ctx, r)
	if cut != nil && (t.mode.whole || errors.Is(cut, errFatal)) {
		return t.reason(cut)
	}
	if cut == nil && t.mode.exact {
		if err := t.exact(); err != nil {
			return err
		}
	}
	if err := t.record(ctx, true); err != nil {
		return err
	}
	return t.reason(cut)
}

// reason gives the error that a put which stopped early is answered with.
func (t *stream) reason(cut error) error {
	if cut == nil {
		return nil
	}
	t.sinkMu.Lock()
	defer t.sinkMu.Unlock()
	if t.stopped {
		return ErrSuperseded
	}
	return cut
}

// exact checks that a body which ended cleanly has the length of its chunk, and
// gives the session its length where this was the short last chunk of an unknown one.
func (t *stream) exact() error {
	if t.pos == t.r.End {
		return nil
	}
	if t.s.BytesExpected >= 0 {
		return fmt.Errorf("%w: %d bytes of %d", ErrShort, t.pos-t.r.Off, t.r.Len())
	}
	if n := len(t.s.Received); n > 0 && t.s.Received[n-1].End > t.pos {
		return fmt.Errorf("%w: %d bytes, but bytes beyond them are here already", ErrShort, t.pos-t.r.Off)
	}
	return nil
}

// errFatal marks an error after which not even what arrived may be recorded.
var errFatal = errors.New("fatal")

// deliver hands the bytes at t.pos to the sink, split at the edges of chunks, which no entry
// crosses, and at what is recorded already.
func (t *stream) deliver(b []byte) error {
	for len(b) > 0 {
		at := Range{t.pos, t.pos + min(int64(len(b)), t.s.ChunkSize-t.pos%t.s.ChunkSize)}
		recorded := false
		if i := find(t.s.Received, t.pos); i < len(t.s.Received) {
			if next := t.s.Received[i]; next.Off <= t.pos {
				recorded = true
				at.End = min(at.End, next.End)
			} else {
				at.End = min(at.End, next.Off)
			}
		}
		if err := t.hand(b[:at.Len()], at, recorded); err != nil {
			return err
		}
		b = b[at.Len():]
		t.pos = at.End
	}
	return nil
}

// hand makes one call of the sink, under sinkMu.
func (t *stream) hand(b []byte, at Range, recorded bool) error {
	if err := t.lockSink(false); err != nil {
		return err
	}
	defer t.sinkMu.Unlock()
	if recorded {
		if ver, ok := t.sink.(Verifier); ok {
			return ver.VerifyAt(b, at.Off)
		}
		return nil
	}
	if err := writeAll(t.sink, b, at.Off); err != nil {
		return err
	}
	if n := len(t.pending); n > 0 && t.pending[n-1].End == at.Off && at.Off%t.s.ChunkSize != 0 {
		t.pending[n-1].End = at.End
	} else {
		t.pending = append(t.pending, at)
	}
	return nil
}

// writeAll hands all of b to the sink, which may take it in parts.
func writeAll(sink ByteSink, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := sink.WriteAt(b, off)
		if err == nil && n <= 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// touch counts as activity although nothing is recorded yet.
func (t *stream) touch(ctx context.Context) error {
	after, err := t.v.touched(ctx, t.s.ID)
	if err == nil {
		t.s.Seen = after.Seen
	}
	return err
}

// sameEntry reports whether a store's entry is the very one that was to be recorded.
func sameEntry(a, b Entry) bool { return a.Range == b.Range && bytes.Equal(a.Note, b.Note) }
