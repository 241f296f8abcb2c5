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
	k.chunk, k.from = true, idx
	err := u.cfg.Sessions.PutChunk(ctx, id, idx, k.in, k)
	return k.end(err, err == nil)
}

// PutRange stores bytes from off on: n of them are recorded when it returns, also with an error, in
// pieces as they come. With a digest it is all or nothing. Replace needs p.Length. Otherwise as
// PutChunk.
func (u *Service) PutRange(ctx context.Context, c access.Caller, id session.SessionID, off int64, body io.Reader, p Put) (n int64, err error) {
	k := u.newSink(ctx, c, body, p)
	defer k.close()
	k.from = off
	whole := p.SHA256 != nil || p.CRC32C != nil || p.Whole
	n, err = u.cfg.Sessions.PutAt(ctx, id, off, p.Length, k.in, k, whole)
	return n, k.end(err, n > 0)
}

// most is how many bytes the session may have.
func (u *Service) most(s session.Session) int64 {
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
	most := k.u.most(s)
	chunks := (most + s.ChunkSize - 1) / s.ChunkSize
	switch {
	case k.chunk && k.from >= chunks:
		return fmt.Errorf("%w: chunk index %d, and an upload in such chunks may have %d", ErrTooLarge, k.from, chunks)
	case !k.chunk && k.from >= most:
		return fmt.Errorf("%w: offset %d, and an upload in chunks of %d bytes may have %d", ErrTooLarge, k.from, s.ChunkSize, most)
	}
	return nil
}

// Claim implements session.Admitter: it compares what is announced with what may come, and joins
// the session's other puts. Recorded pieces are compared first if a restart leaves them in doubt,
// and withdrawn if they are to be replaced.
func (k *sink) Claim(ctx context.Context, s session.Session, r session.Range) (most int64, err error) {
	most = k.u.most(s) - r.Off
	if k.t != nil { // the session has changed since it joined them
		k.use(s)
		return most, nil
	}
	if err := k.announced(s, r, most); err != nil {
		return most, err
	}
	if s, err = k.u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
		return most, err
	}
	if err := k.takesFirst(s, r.Off); err != nil {
		return most, err
	}
	if k.put.Replace {
		if s, err = k.u.withdraw(ctx, s.ID, r); err != nil {
			return most, k.u.lost(ctx, s.ID, r, err)
		}
	}
	k.t, k.r = k.u.tracks.hold(s.ID), r
	if len(s.Received) == 0 {
		k.t.trust()
	}
	k.use(s)
	// It has to be known which put is at the hash. What keeps that from being loaded the put itself
	// will say.
	_, _ = k.u.hashed(k.ctx, k.t, s)
	k.t.order(k.in, r)
	return most, nil
}

// announced compares what the client says of its body with the bytes r of the session that it is
// for, of which most may come.
func (k *sink) announced(s session.Session, r session.Range, most int64) error {
	length := k.put.Length
	switch {
	case length > most || k.chunk && length > r.Len():
		return fmt.Errorf("%w: %d bytes from %d on, where %d may come", session.ErrLong, length, r.Off, min(r.Len(), most))
	case k.chunk && length >= 0 && length < r.Len() && s.BytesExpected >= 0:
		return fmt.Errorf("%w: %d bytes for a chunk of %d", session.ErrShort, length, r.Len())
	case !k.chunk && k.put.Replace && length < 0:
		return &catalog.FieldError{Field: "replace", Problem: "needs a Content-Length"}
	}
	return nil
}

// takesFirst refuses a put early that brings something new from its first byte on, where there is
// no room for that. A repeat needs none; what is new behind it is refused when it comes
// (sink.open).
func (k *sink) takesFirst(s session.Session, off int64) error {
	if !k.put.Replace && session.Covers(s.Received, session.Range{Off: off, End: off + 1}) {
		return nil
	}
	return k.u.hasRoom()
}

// end is the end of a put that the engine answers with err: it decides once more, lets a background
// hasher hash what came ahead, if anything was recorded, and drops what turned out to be lost.
func (k *sink) end(err error, recorded bool) error {
	if k.t == nil {
		return err // it was not admitted
	}
	k.in.done()
	if err == nil {
		err = k.over()
	}
	if err = k.u.lost(k.ctx, k.s.ID, k.r, err); !recorded {
		return err
	}
	if off, e := k.u.hashed(k.ctx, k.t, k.last); e == nil && off < k.last.Prefix() {
		k.u.startHasher(k.s.ID)
	}
	return err
}

// lost drops what a put of r has found to be lost, and gives the error that it is answered with.
func (u *Service) lost(ctx context.Context, id session.SessionID, r session.Range, err error) error {
	lost := errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing)
	if !lost && !errors.Is(err, session.ErrSuperseded) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	// An end takes the pieces and their places away, and fences what runs: what has become of the
	// session is the answer then.
	if s, e := u.cfg.Sessions.WaitUnsealed(ctx, id); e == nil && s.State.Ended() {
		return s.State.Err()
	}
	if !lost {
		return err
	}
	u.cfg.Log.Error("recorded bytes are lost; they will be asked for again", "session", id, "from", r.Off, "err", err)
	if e := u.dropLost(ctx, id, r); e != nil {
		return errors.Join(err, e)
	}
	return fmt.Errorf("%w: what was recorded here is lost, look at the status", session.ErrSuperseded)
}

// recut gives the note of what a Drop leaves of an entry: its bytes are read again, and checked as
// a whole.
func (u *Service) recut(ctx context.Context, e session.Entry, rest session.Range) ([]byte, error) {
	p, err := decodePiece(e.Note)
	if err != nil {
		return nil, err
	}
	body, err := u.cfg.Blobs.Read(ctx, []catalog.Extent{p.extent(e.Range)}, 0, e.Len())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	crc := newCRC()
	if _, err := io.CopyN(io.Discard, body, rest.Off-e.Off); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(crc, body, rest.Len()); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, body); err != nil { // to the end: the store compares its CRC there
		return nil, err
	}
	p.Off += rest.Off - e.Off
	p.CRC = crc.Sum32()
	if p.Hashed > rest.End {
		p.Gen, p.Hashed, p.State = 0, 0, nil
	}
	return p.encode()
}
