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

// PutChunk stores chunk idx: exactly its length, else nothing. While the session's length is
// unknown a shorter body fixes it. r must end with io.EOF; after any other error of r nothing is
// recorded. When nil is returned the chunk is recorded, and as safe as the sink's Commit has made
// it. A repeat with the same bytes is fine; the sink's Verifier refuses other bytes.
//
// PutChunk waits for an end that is under way, and goes on if the session opens again.
//
// Errors: ErrShort, ErrLong, ErrRange, ErrSuperseded, ErrBusy, ErrConflict, ErrLimit, ErrNotFound
// and those of an ended session, or ErrSealed if an end takes too long; the reader's and the sink's
// own pass through.
func (v *Service) PutChunk(ctx context.Context, id SessionID, idx int64, r io.Reader, sink ByteSink) error {
	rangeOf := func(s *Session) (Range, error) { return s.chunk(idx) }
	_, err := v.put(ctx, id, rangeOf, r, sink, putMode{whole: true, exact: true})
	return err
}

// PutAt stores bytes from offset off, as many as come. n of them are recorded when it returns, also
// with an error. It records at the edges of chunks, every Config.Flush, and after a body that was
// cut; with whole it is all or nothing. It claims at most limit bytes (Unknown: as many as there
// can be), and none past the session's end. Errors as PutChunk's.
func (v *Service) PutAt(
	ctx context.Context, id SessionID, off, limit int64, r io.Reader, sink ByteSink, whole bool,
) (n int64, err error) {
	rangeOf := func(s *Session) (Range, error) { return s.rangeFrom(off, limit) }
	return v.put(ctx, id, rangeOf, r, sink, putMode{whole: whole})
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

// rangeFrom is the range of at most limit bytes from offset off, as far as the session goes.
func (s *Session) rangeFrom(off, limit int64) (Range, error) {
	r := Range{off, math.MaxInt64}
	if s.BytesExpected >= 0 {
		r.End = s.BytesExpected
	}
	if off < 0 || off > r.End || off == r.End && s.BytesExpected > 0 {
		return r, fmt.Errorf("%w: offset %d of %d bytes", ErrRange, off, s.BytesExpected)
	}
	if limit >= 0 && limit < r.End-off {
		r.End = off + limit
	}
	return r, nil
}

// loadOpen loads a session that can be put into. It waits for an end that is under way.
func (v *Service) loadOpen(ctx context.Context, id SessionID) (Session, error) {
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
	v      *Service
	active *activeSession
	s      Session // as of the last record
	since  uint64  // the generation at its beginning
	sink   ByteSink
	mode   putMode

	pos        int64   // next byte to come
	recordedTo int64   // all bytes of the put below are recorded
	pending    []Range // written, not yet recorded
	flushed    time.Time
}

// admit loads a session that can be put into, and lets the sink decide. It returns the range that
// the put claims, and the count of v.changes from before the load.
func (v *Service) admit(
	ctx context.Context, id SessionID, rangeOf func(*Session) (Range, error), sink ByteSink,
) (s Session, r Range, changes uint64, err error) {
	a, asks := sink.(Admitter)
	changes = v.changes(id).Load()
	if s, err = v.store.Load(ctx, id); err == nil && asks {
		err = a.Admit(ctx, s)
	}
	if err == nil && s.State == Sealed {
		changes = v.changes(id).Load()
		if s, err = v.WaitUnsealed(ctx, id); err == nil && asks {
			err = a.Admit(ctx, s) // the wait may have been long
		}
	}
	if err == nil {
		err = s.State.Err()
	}
	if err == nil {
		r, err = rangeOf(&s)
	}
	if err == nil && asks {
		var most int64
		if most, err = a.Claim(ctx, s, r); most < r.Len() {
			r.End = r.Off + most
		}
	}
	return s, r, changes, err
}

func (v *Service) put(
	ctx context.Context, id SessionID, rangeOf func(*Session) (Range, error), r io.Reader, sink ByteSink, mode putMode,
) (int64, error) {
	a := v.acquire(id)
	defer v.release(id, a)
	s, want, changes, err := v.admit(ctx, id, rangeOf, sink)
	if err != nil {
		return 0, err
	}
	if err := a.count(&a.putting, v.cfg.Puts); err != nil {
		return 0, err
	}
	defer a.uncount(&a.putting)
	p := v.newPut(want, mode.whole, r)
	if o, protected := v.meet(a, p); o != nil {
		s = Session{} // a put that waits keeps no ranges
		if err := v.claim(ctx, a, p, o, protected); err != nil {
			return 0, err
		}
	}
	defer a.unclaim(p)
	defer p.leave()
	// The put must see what an older put recorded before it left, what was dropped, and a length
	// that was fixed meanwhile.
	if s.ID == 0 || v.changes(id).Load() != changes {
		if s, want, _, err = v.admit(ctx, id, rangeOf, sink); err != nil {
			return 0, err
		}
		a.narrow(p, want)
	}
	if err := v.checkNewEntry(s, want.Off); err != nil {
		return 0, err
	}
	n, err := v.countRanges(s)
	if err != nil {
		return 0, err
	}
	defer v.rangeBytes.Add(-n)
	t := &stream{
		put: p, v: v, active: a, s: s, since: s.Gen, sink: sink, mode: mode,
		pos: want.Off, recordedTo: want.Off, flushed: v.cfg.Clock.Now(),
	}
	err = t.run(ctx, r)
	if err != nil || len(t.pending) > 0 {
		t.undo(context.WithoutCancel(ctx))
	}
	return t.recordedTo - want.Off, err
}

// undo lets the sink give back the bytes that certainly were not recorded.
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

// checkNewEntry refuses a put early if it would add a gap or an entry past the bounds. A put that
// begins at recorded bytes may be a repeat, or make the entries fewer. That shows when it is
// recorded, and checkBounds decides then.
func (v *Service) checkNewEntry(s Session, off int64) error {
	if Touches(s.Received, Range{off - 1, off + 1}) {
		return nil
	}
	switch {
	case s.EntryCount >= v.cfg.MaxEntries:
		return v.tooManyPieces(s, off)
	case len(s.Received) > v.cfg.MaxGaps && off > 0:
		return v.tooManyGaps(s, off)
	}
	return nil
}

// fewRanges is how many received ranges a session may have without being counted.
const fewRanges = 128

// countRanges counts the memory of a put's received ranges, in bytes: those of the session as it
// was at the beginning, and as of the last record. The caller must subtract n from rangeBytes.
func (v *Service) countRanges(s Session) (n int64, err error) {
	if v.cfg.States <= 0 || len(s.Received) <= fewRanges {
		return 0, nil
	}
	n = 2 * 16 * int64(len(s.Received))
	if v.rangeBytes.Add(n) > v.cfg.States {
		v.rangeBytes.Add(-n)
		return 0, fmt.Errorf("%w: too many puts into sessions in many pieces", ErrBusy)
	}
	return n, nil
}

// firstGap is the first gap of a session; if its length is unknown, the first gap before off. It is
// empty if there is none.
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
	copyErr := t.copy(ctx, r)
	if copyErr != nil && (t.mode.whole || errors.Is(copyErr, errFatal)) {
		return t.reason(copyErr)
	}
	if copyErr == nil && t.mode.exact {
		if err := t.checkLength(); err != nil {
			return err
		}
	}
	if err := t.record(ctx, true); err != nil {
		return err
	}
	return t.reason(copyErr)
}

// reason returns the error of a put that stopped early because of cause.
func (t *stream) reason(cause error) error {
	if cause == nil {
		return nil
	}
	t.sinkMu.Lock()
	defer t.sinkMu.Unlock()
	if t.stopped {
		return ErrSuperseded
	}
	return cause
}

// checkLength checks that a body which ended cleanly has the length of its chunk. A shorter one is
// right only as the last chunk of an unknown length.
func (t *stream) checkLength() error {
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

// errFatal marks an error after which not even the bytes that arrived may be recorded.
var errFatal = errors.New("fatal")

// deliver hands the bytes at t.pos to the sink. It splits them at the edges of chunks, since no
// entry crosses one, and at recorded ranges.
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
		if err := t.callSink(b[:at.Len()], at, recorded); err != nil {
			return err
		}
		b = b[at.Len():]
		t.pos = at.End
	}
	return nil
}

// callSink makes one call of the sink, under sinkMu.
func (t *stream) callSink(b []byte, at Range, recorded bool) error {
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

// touch counts as activity before anything is recorded.
func (t *stream) touch(ctx context.Context) error {
	after, err := t.v.loadAndTouch(ctx, t.s.ID)
	if err == nil {
		t.s.Seen = after.Seen
	}
	return err
}

// sameEntry reports whether a store's entry is the very one that was to be recorded.
func sameEntry(a, b Entry) bool { return a.Range == b.Range && bytes.Equal(a.Note, b.Note) }
