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

// PutChunk stores chunk idx of the caller's session: all of it, or nothing. When it returns nil the
// chunk survives the death of the process, and a power loss if the content store is set to that.
// The same bytes again are fine. It costs one commit, which waits for an fsync only if the stores
// are set to survive power loss.
//
// Errors: session's (ErrShort, ErrLong, ErrRange, ErrConflict, ErrSuperseded, ErrLimit, ended
// states), ErrTooLarge, *ChecksumError, blob.ErrNoSpace, blob.ErrUnavailable, and access's. A body
// must end with io.EOF. Any other error means that the body was cut, and is returned.
func (u *Service) PutChunk(
	ctx context.Context, c access.Caller, id session.SessionID, idx int64, body io.Reader, p Put,
) error {
	k := u.newSink(ctx, c, body, p)
	defer k.close()
	k.chunk, k.start = true, idx
	err := u.cfg.Sessions.PutChunk(access.NewContext(ctx, c), id, idx, k.body, k)
	return k.finishPut(err, err == nil)
}

// PutRange stores bytes from offset off. It records them in several entries as they come, and n
// bytes are recorded when it returns, also with an error. With a digest it is all or nothing.
// Replace needs p.Length. Otherwise it is as PutChunk.
func (u *Service) PutRange(
	ctx context.Context, c access.Caller, id session.SessionID, off int64, body io.Reader, p Put,
) (n int64, err error) {
	k := u.newSink(ctx, c, body, p)
	defer k.close()
	k.start = off
	whole := p.SHA256 != nil || p.CRC32C != nil || p.Whole
	n, err = u.cfg.Sessions.PutAt(access.NewContext(ctx, c), id, off, p.Length, k.body, k, whole)
	return n, k.finishPut(err, n > 0)
}

// maxBytes gives how many bytes the session may have. most is the bound of a ticket, or 0.
func (u *Service) maxBytes(s session.Session, most int64) int64 {
	if s.BytesExpected >= 0 {
		return s.BytesExpected
	}
	all := min(s.ChunkSize*u.cfg.Limits.MaxChunks, u.cfg.Limits.MaxBytes)
	if most > 0 {
		all = min(all, most)
	}
	return all
}

// Admit implements session.Admitter. It is the first of the two decisions about the caller. It also
// refuses a chunk or an offset that no upload of unknown length may have.
func (k *sink) Admit(ctx context.Context, s session.Session) error {
	n, err := k.u.decide(ctx, k.c, s, access.Upload)
	if k.capsule, k.most = n.Capsule, n.most; err != nil || s.BytesExpected >= 0 {
		return err
	}
	limit := k.u.maxBytes(s, k.most)
	chunks := (limit + s.ChunkSize - 1) / s.ChunkSize
	switch {
	case k.chunk && k.start >= chunks:
		problem := fmt.Sprintf("chunk index %d, and an upload in such chunks may have %d", k.start, chunks)
		return &SizeError{Limit: chunks, Problem: problem}
	case !k.chunk && k.start >= limit:
		return &SizeError{Limit: limit, Problem: fmt.Sprintf(
			"offset %d, and an upload in chunks of %d bytes may have %d", k.start, s.ChunkSize, limit,
		)}
	}
	return nil
}

// Claim implements session.Admitter. It compares the announced length with the bytes that may come,
// and joins the session's other puts. If a restart leaves recorded entries in doubt they are
// compared first. If the put replaces them they are withdrawn.
func (k *sink) Claim(ctx context.Context, s session.Session, r session.Range) (mayCome int64, err error) {
	mayCome = k.u.maxBytes(s, k.most) - r.Off
	if k.active != nil { // it has joined already, and the session has changed since
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
	// The order has to know which put is at the hash. If the hash can't be loaded, the put itself
	// will return the error.
	_, _ = k.u.hashed(k.ctx, k.active, s)
	k.active.join(k.body, r)
	return mayCome, nil
}

// announced compares the announced length of the body with r, the session's bytes that the put is
// for. At most mayCome bytes may come.
func (k *sink) announced(s session.Session, r session.Range, mayCome int64) error {
	length := k.put.Length
	switch {
	case length > mayCome || k.chunk && length > r.Len():
		return fmt.Errorf(
			"%w: %d bytes from %d on, where %d may come", session.ErrLong, length, r.Off, min(r.Len(), mayCome),
		)
	case k.chunk && length >= 0 && length < r.Len() && s.BytesExpected >= 0:
		return fmt.Errorf("%w: %d bytes for a chunk of %d", session.ErrShort, length, r.Len())
	case !k.chunk && k.put.Replace && length < 0:
		return &catalog.FieldError{Field: "replace", Problem: "needs a Content-Length"}
	}
	return nil
}

// checkSpaceAt refuses a put early if its first byte is new and there is no space for it. A repeat
// needs no space. New bytes after recorded ones are refused when they come (sink.openWriter).
func (k *sink) checkSpaceAt(s session.Session, off int64) error {
	if !k.put.Replace && session.Covers(s.Received, session.Range{Off: off, End: off + 1}) {
		return nil
	}
	return k.u.checkSpace()
}

// finishPut ends a put that the engine answers with err. It decides about the caller once more, and
// drops entries that turned out to be unreadable. If anything was recorded ahead of the prefix
// hash, it starts a background hasher.
func (k *sink) finishPut(err error, recorded bool) error {
	if k.active == nil {
		return err // the put was not admitted
	}
	k.body.done()
	if err == nil {
		err = k.checkAtEnd()
	} else if refused := k.mayWrite(k.ctx); refused != nil {
		err = refused // what has become of the session is no longer the caller's concern
	}
	if err = k.u.handleUnreadable(k.ctx, k.s.ID, k.claimed, err); !recorded {
		return err
	}
	if off, e := k.u.hashed(k.ctx, k.active, k.last); e == nil && off < k.last.Prefix() {
		k.u.startHasher(k.s.ID)
	}
	return err
}

// handleUnreadable drops the entries that a put of r has found to be unreadable, and gives the
// error that the put is answered with.
func (u *Service) handleUnreadable(ctx context.Context, id session.SessionID, r session.Range, err error) error {
	unreadable := errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing)
	if !unreadable && !errors.Is(err, session.ErrSuperseded) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	// An end deletes the entries and their places, and fences the running puts. Then the answer is
	// how the session ended.
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

// clipNote gives the note of what a Drop leaves of an entry. It reads the entry's bytes again, and
// checks all of them.
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
	if _, err := io.Copy(io.Discard, content); err != nil { // at the end the store compares the CRC
		return nil, err
	}
	n.Off += rest.Off - e.Off
	n.CRC = crc.Sum32()
	if n.Hashed > rest.End {
		n.Gen, n.Hashed, n.State = 0, 0, nil
	}
	return n.encode()
}
