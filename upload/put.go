package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

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
	s, capsule, err := u.loadForPut(ctx, c, id)
	if err != nil {
		return err
	}
	most := u.most(s)
	chunks := (most + s.ChunkSize - 1) / s.ChunkSize
	switch {
	case idx >= chunks && s.BytesExpected < 0:
		return fmt.Errorf("%w: chunk index %d, and an upload in such chunks may have %d", ErrTooLarge, idx, chunks)
	case idx < 0 || idx >= chunks:
		return fmt.Errorf("%w: chunk index %d of %d chunks", session.ErrRange, idx, chunks)
	}
	r := session.Range{Off: idx * s.ChunkSize, End: min((idx+1)*s.ChunkSize, most)}
	switch {
	case p.Length > r.Len():
		return fmt.Errorf("%w: %d bytes for a chunk of %d", session.ErrLong, p.Length, r.Len())
	case p.Length >= 0 && p.Length < r.Len() && s.BytesExpected >= 0:
		return fmt.Errorf("%w: %d bytes for a chunk of %d", session.ErrShort, p.Length, r.Len())
	}
	if err := u.takesFirst(s, r.Off, p); err != nil {
		return err
	}
	if p.Replace {
		if s, err = u.withdraw(ctx, id, r); err != nil {
			return u.after(ctx, id, r, false, err)
		}
	}
	k := u.newSink(ctx, c, capsule, s, p)
	defer k.close()
	err = k.stream(body, r, func(in *orderedBody) error { return u.Sessions.PutChunk(ctx, id, idx, in, k) })
	if err == nil {
		err = k.over()
	}
	return u.after(ctx, id, r, err == nil, err)
}

// PutRange stores bytes from off on: n of them are recorded when it returns, also with an error, in
// pieces as they come. With a digest it is all or nothing. Replace needs p.Length. Otherwise as
// PutChunk.
func (u *Service) PutRange(ctx context.Context, c access.Caller, id session.SessionID, off int64, body io.Reader, p Put) (n int64, err error) {
	s, capsule, err := u.loadForPut(ctx, c, id)
	if err != nil {
		return 0, err
	}
	most := u.most(s)
	switch {
	case off >= most && s.BytesExpected < 0:
		return 0, fmt.Errorf("%w: offset %d, and an upload in chunks of %d bytes may have %d", ErrTooLarge, off, s.ChunkSize, most)
	case off < 0 || off > most || off == most && most > 0:
		return 0, fmt.Errorf("%w: offset %d, and the upload ends at %d", session.ErrRange, off, most)
	case p.Length > most-off:
		return 0, fmt.Errorf("%w: %d bytes from %d, and the upload ends at %d", session.ErrLong, p.Length, off, most)
	case p.Replace && p.Length < 0:
		return 0, &catalog.FieldError{Field: "replace", Problem: "needs a Content-Length"}
	}
	r := session.Range{Off: off, End: most}
	if p.Length >= 0 {
		r.End = off + p.Length
	}
	if err := u.takesFirst(s, off, p); err != nil {
		return 0, err
	}
	if p.Replace {
		if s, err = u.withdraw(ctx, id, r); err != nil {
			return 0, u.after(ctx, id, r, false, err)
		}
	}
	k := u.newSink(ctx, c, capsule, s, p)
	defer k.close()
	whole := p.SHA256 != nil || p.CRC32C != nil || p.Whole
	err = k.stream(body, r, func(in *orderedBody) (err error) {
		n, err = u.Sessions.PutAt(ctx, id, off, in, k, whole)
		return err
	})
	if err == nil {
		err = k.over()
	}
	return n, u.after(ctx, id, r, n > 0, err)
}

// most is how many bytes the session may have.
func (u *Service) most(s session.Session) int64 {
	if s.BytesExpected >= 0 {
		return s.BytesExpected
	}
	return min(s.ChunkSize*u.Config.Limits.MaxChunks, u.Config.Limits.MaxBytes)
}

// loadForPut loads a session for a put of its creator, whose pieces can be trusted, and the capsule
// that it is for.
func (u *Service) loadForPut(ctx context.Context, c access.Caller, id session.SessionID) (session.Session, string, error) {
	s, n, err := u.loadOwn(ctx, c, id, access.Write, false)
	if err != nil {
		return s, "", err
	}
	s, err = u.ensureChecked(ctx, s, blob.CheckBeforeReboot)
	return s, n.Capsule, err
}

// takesFirst refuses a put early that brings something new from its first byte on, where there is
// no room for that. A repeat needs none; what is new behind it is refused when it comes
// (sink.open).
func (u *Service) takesFirst(s session.Session, off int64, p Put) error {
	if !p.Replace && session.Covers(s.Received, session.Range{Off: off, End: off + 1}) {
		return nil
	}
	return u.hasRoom()
}

// after looks at how a put ended: it lets a background hasher hash what came ahead, if anything was
// recorded, and drops what turned out to be lost.
func (u *Service) after(ctx context.Context, id session.SessionID, r session.Range, recorded bool, err error) error {
	lost := errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing)
	if lost || errors.Is(err, session.ErrSuperseded) {
		// An end takes the pieces and their places away, and fences what runs: what has become of
		// the session is the answer then.
		if s, e := u.Sessions.Settled(context.WithoutCancel(ctx), id); e == nil && s.State.Ended() {
			return s.State.Err()
		}
	}
	if lost {
		u.Log.Error("recorded bytes are lost; they will be asked for again", "session", id, "from", r.Off, "err", err)
		if e := u.dropLost(context.WithoutCancel(ctx), id, r); e != nil {
			return errors.Join(err, e)
		}
		return fmt.Errorf("%w: what was recorded here is lost, look at the status", session.ErrSuperseded)
	}
	if !recorded {
		return err
	}
	s, e := u.Sessions.Status(ctx, id)
	if e != nil || s.State != session.Open {
		return err
	}
	t := u.tracks.hold(id)
	defer u.tracks.release(t)
	if roll, e := u.prefixHash(ctx, t, s); e == nil && roll.off < s.Prefix() {
		u.startHasher(id)
	}
	return err
}

// recut gives the note of what a Drop leaves of an entry: its bytes are read again, and checked as
// a whole.
func (u *Service) recut(ctx context.Context, e session.Entry, rest session.Range) ([]byte, error) {
	p, err := decodePiece(e.Note)
	if err != nil {
		return nil, err
	}
	body, err := u.Blobs.Read(ctx, []catalog.Extent{p.extent(e.Range)}, 0, e.Len())
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

// bounded fails a body that goes on past n bytes: those it announced, or where the session itself
// has no end yet, those it may have.
type bounded struct {
	io.Reader
	n int64
}

// Limit implements session.LimitedReader.
func (b *bounded) Limit() int64 { return b.n }

func (b *bounded) Read(p []byte) (int, error) {
	if b.n <= 0 {
		var one [1]byte
		if n, err := b.Reader.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, session.ErrLong
	}
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.n)])
	b.n -= int64(n)
	return n, err
}

// SetReadDeadline lets a newer put wake this one, where the body can be woken.
func (b *bounded) SetReadDeadline(t time.Time) error {
	if d, ok := b.Reader.(session.DeadlineReader); ok {
		return d.SetReadDeadline(t)
	}
	return errors.ErrUnsupported
}
