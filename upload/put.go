package upload

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// PutChunk stores chunk idx of the caller's session: whole, or nothing of it. When it returns nil
// the chunk survives the death of the process, and power loss where the content store is set to
// that. The same bytes again are fine. It costs one commit, which waits for an fsync only where the
// stores are set to survive power loss.
//
// Errors: session's (ErrShort, ErrLong, ErrRange, ErrConflict, ErrSuperseded, ErrLimit, ended
// states), ErrTooLarge, *ChecksumError, blob.ErrNoSpace, blob.ErrUnavailable, access's. A body must
// end with io.EOF; its other errors are cuts, and pass through.
func (u *Service) PutChunk(ctx context.Context, c access.Caller, id session.SessionID, idx int64, body io.Reader, p Put) error {
	k := u.newSink(ctx, c, body, p)
	defer k.close()
	k.chunk, k.start = true, idx
	err := u.cfg.Sessions.PutChunk(ctx, id, idx, k.body, k)
	return k.finishPut(err, err == nil)
}

// PutRange stores bytes from off on: n of them are recorded when it returns, also with an error, in
// pieces as they come. With a digest it is all or nothing. Replace needs p.Length. Otherwise as
// PutChunk.
func (u *Service) PutRange(ctx context.Context, c access.Caller, id session.SessionID, off int64, body io.Reader, p Put) (n int64, err error) {
	k := u.newSink(ctx, c, body, p)
	defer k.close()
	k.start = off
	whole := p.SHA256 != nil || p.CRC32C != nil || p.Whole
	n, err = u.cfg.Sessions.PutAt(ctx, id, off, p.Length, k.body, k, whole)
	return n, k.finishPut(err, n > 0)
}

// maxBytes is how many bytes the session may have.
func (u *Service) maxBytes(s session.Session) int64 {
	if s.BytesExpected >= 0 {
		return s.BytesExpected
	}
	return min(s.ChunkSize*u.cfg.Limits.MaxChunks, u.cfg.Limits.MaxBytes)
}

// Admit implements session.Admitter: the first of the two decisions about the caller. It refuses
// what no upload of unknown length may have.
func (k *sink) Admit(ctx context.Context, s session.Session) error {
	n, err := k.u.decide(ctx, k.c, s, access.Write)
	if k.capsule = n.Capsule; err != nil || s.BytesExpected >= 0 {
		return err
	}
	limit := k.u.maxBytes(s)
	chunks := (limit + s.ChunkSize - 1) / s.ChunkSize
	switch {
	case k.chunk && k.start >= chunks:
		return fmt.Errorf("%w: chunk index %d, and an upload in such chunks may have %d", ErrTooLarge, k.start, chunks)
	case !k.chunk && k.start >= limit:
		return fmt.Errorf("%w: offset %d, and an upload in chunks of %d bytes may have %d", ErrTooLarge, k.start, s.ChunkSize, limit)
	}
	return nil
}

// Claim implements session.Admitter: it compares what is announced with what may come, and joins
// the session's other puts. Recorded pieces are compared first if a restart leaves them in doubt,
// and withdrawn if they are to be replaced.
func (k *sink) Claim(ctx context.Context, s session.Session, r session.Range) (mayCome int64, err error) {
	mayCome = k.u.maxBytes(s) - r.Off
	if k.active != nil { // the session has changed since it joined them
		k.setSession(s)
		return mayCome, nil
	}
	if err := k.announced(s, r, mayCome); err != nil {
		return mayCome, err
	}
	if s, err = k.u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
		return mayCome, err
	}
	if err := k.checkSpaceAt(s, r.Off); err != nil {
		return mayCome, err
	}
	if k.put.Replace {
		if s, err = k.u.withdraw(ctx, s.ID, r); err != nil {
			return mayCome, k.u.handleUnreadable(ctx, s.ID, r, err)
		}
	}
	k.active, k.claimed = k.u.active.acquire(s.ID), r
	if len(s.Received) == 0 {
		k.active.markChecked()
	}
	k.setSession(s)
	// It has to be known which put is at the hash. What keeps that from being loaded the put itself
	// will say.
	_, _ = k.u.hashed(k.ctx, k.active, s)
	k.active.join(k.body, r)
	return mayCome, nil
}

// announced compares what the client says of its body with the bytes r of the session that it is
// for, of which most may come.
func (k *sink) announced(s session.Session, r session.Range, mayCome int64) error {
	length := k.put.Length
	switch {
	case length > mayCome || k.chunk && length > r.Len():
		return fmt.Errorf("%w: %d bytes from %d on, where %d may come", session.ErrLong, length, r.Off, min(r.Len(), mayCome))
	case k.chunk && length >= 0 && length < r.Len() && s.BytesExpected >= 0:
		return fmt.Errorf("%w: %d bytes for a chunk of %d", session.ErrShort, length, r.Len())
	case !k.chunk && k.put.Replace && length < 0:
		return &catalog.FieldError{Field: "replace", Problem: "needs a Content-Length"}
	}
	return nil
}

// checkSpaceAt refuses a put early that brings something new from its first byte on, where there is
// no room for that. A repeat needs none; what is new behind it is refused when it comes
// (sink.open).
func (k *sink) checkSpaceAt(s session.Session, off int64) error {
	if !k.put.Replace && session.Covers(s.Received, session.Range{Off: off, End: off + 1}) {
		return nil
	}
	return k.u.checkSpace()
}

// finishPut is the finishPut of a put that the engine answers with err: it decides once more, lets
// a background hasher hash what came ahead, if anything was recorded, and drops what turned out to
// be lost.
func (k *sink) finishPut(err error, recorded bool) error {
	if k.active == nil {
		return err // it was not admitted
	}
	k.body.done()
	if err == nil {
		err = k.checkAtEnd()
	}
	if err = k.u.handleUnreadable(k.ctx, k.s.ID, k.claimed, err); !recorded {
		return err
	}
	if off, e := k.u.hashed(k.ctx, k.active, k.last); e == nil && off < k.last.Prefix() {
		k.u.startHasher(k.s.ID)
	}
	return err
}

// handleUnreadable drops what a put of r has found to be handleUnreadable, and gives the error that
// it is answered with.
func (u *Service) handleUnreadable(ctx context.Context, id session.SessionID, r session.Range, err error) error {
	unreadable := errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing)
	if !unreadable && !errors.Is(err, session.ErrSuperseded) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	// An end takes the pieces and their places away, and fences what runs: what has become of the
	// session is the answer then.
	if s, e := u.cfg.Sessions.WaitUnsealed(ctx, id); e == nil && s.State.Ended() {
		return s.State.Err()
	}
	if !unreadable {
		return err
	}
	u.cfg.Log.Error("recorded bytes are lost; they will be asked for again", "session", id, "from", r.Off, "err", err)
	if e := u.dropUnreadable(ctx, id, r); e != nil {
		return errors.Join(err, e)
	}
	return fmt.Errorf("%w: what was recorded here is lost, look at the status", session.ErrSuperseded)
}

// clipNote gives the note of what a Drop leaves of an entry: its bytes are read again, and checked
// as a whole.
func (u *Service) clipNote(ctx context.Context, e session.Entry, rest session.Range) ([]byte, error) {
	n, err := decodeEntryNote(e.Note)
	if err != nil {
		return nil, err
	}
	content, err := u.cfg.Blobs.Read(ctx, []catalog.Extent{n.extent(e.Range)}, 0, e.Len())
	if err != nil {
		return nil, err
	}
	defer content.Close()
	crc := newCRC()
	if _, err := io.CopyN(io.Discard, content, rest.Off-e.Off); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(crc, content, rest.Len()); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, content); err != nil { // to the end: the store compares its CRC there
		return nil, err
	}
	n.Off += rest.Off - e.Off
	n.CRC = crc.Sum32()
	if n.Hashed > rest.End {
		n.Gen, n.Hashed, n.State = 0, 0, nil
	}
	return n.encode()
}
