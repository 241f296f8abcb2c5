package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Begin makes a session for one file. If the same request made one before under its idempotency
// key, Begin answers with that session as far as it has got, or with its memory if it is finished.
// A new session costs one synced commit. No file is made yet.
//
// Errors: *catalog.FieldError, session.ErrInvalid, ErrTooLarge, ErrIdem, *catalog.QuotaError,
// *catalog.MIMEError, catalog.ErrTooManySessions, blob.ErrNoSpace, and access's.
func (u *Service) Begin(ctx context.Context, c access.Caller, req BeginRequest) (Upload, error) {
	meta, err := req.Meta.Validate()
	if err != nil {
		return Upload{}, err
	}
	req.Meta = meta
	if err := checkKeys(&req.Capsule, req.Idem); err != nil {
		return Upload{}, err
	}
	mark, err := fingerprint(meta, req.Bytes, req.ChunkSize)
	if err != nil {
		return Upload{}, err
	}
	n := note{Capsule: req.Capsule, Idem: req.Idem, Fingerprint: mark, Meta: meta}
	// The session that is found may end before the answer, and another request may finish under the
	// key. Then Begin looks again.
	for range 10 {
		up, again, err := u.beginOnce(ctx, c, req, n)
		if !again {
			return up, err
		}
	}
	return Upload{}, fmt.Errorf("%w: the sessions of this key keep ending while it is begun", blob.ErrUnavailable)
}

// errKeyFinished: a create has finished under the key since the key was looked up.
var errKeyFinished = errors.New("the idempotency key has been finished meanwhile")

func (u *Service) beginOnce(
	ctx context.Context, c access.Caller, req BeginRequest, n note,
) (up Upload, again bool, err error) {
	finished, found, err := u.findFinished(ctx, c, access.Upload, &n)
	if err != nil || found {
		return finished, false, err
	}
	s, created, refused := u.beginNew(ctx, c, req, n)
	switch {
	case created:
		return Upload{Session: s, Capsule: n.Capsule, Meta: n.Meta, IdemKey: n.Idem}, false, nil
	case errors.Is(refused, errKeyFinished):
		return up, true, nil
	case refused != nil:
		// The refusal holds for a first begin alone. A repeat is answered.
		s, err = u.cfg.Sessions.FindByKey(ctx, c.Principal, n.key())
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			return up, false, err
		}
		if s.ID == 0 {
			return up, false, refused
		}
	}
	if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
		return up, false, err
	}
	if finished, found, err = u.findFinished(ctx, c, access.Upload, &n); err != nil || found {
		return finished, false, err
	}
	if s.State == session.Aborted || s.State == session.Expired {
		return up, true, nil // the session no longer has the key
	}
	old, err := decodeNote(s.Note)
	if err != nil {
		return up, false, fmt.Errorf("session %s: %w", s.ID, err)
	}
	if !bytes.Equal(old.Fingerprint, n.Fingerprint) {
		return up, false, ErrIdem
	}
	up, err = u.uploadOf(ctx, s, old)
	return up, false, err
}

// beginNew makes the session of a key. If a session has the key already, beginNew gives that
// session, and created is false.
func (u *Service) beginNew(
	ctx context.Context, c access.Caller, req BeginRequest, n note,
) (s session.Session, created bool, err error) {
	size, err := u.chunkSize(req)
	if err == nil {
		err = u.checkNew(ctx, req.Refuse, req.Bytes)
	}
	if err != nil {
		return s, false, err
	}
	if err := u.checkEnded(c); err != nil {
		return s, false, err
	}
	encoded, err := n.encode()
	if err != nil {
		return s, false, err
	}
	return u.cfg.Sessions.Begin(access.NewContext(ctx, c), session.Spec{
		ChunkSize: size, BytesExpected: req.Bytes, Owner: c.Principal, Idem: n.key(), Note: encoded,
	})
}

// checkKeys checks the capsule's id and the idempotency key. An empty capsule id becomes "default".
func checkKeys(capsule *string, idem string) error {
	if *capsule == "" {
		*capsule = "default"
	}
	if !catalog.ValidCapsuleID(*capsule) {
		return &catalog.FieldError{Field: "capsule_id", Problem: "must match [a-z0-9][a-z0-9._-]{0,62}"}
	}
	if idem == "" {
		return nil
	}
	return catalog.ValidIdem(idem)
}

// chunkSize validates the sizes, and picks the chunk size if the client gives none: the usual one,
// or the smallest multiple of a MiB with which the file has at most MaxChunks chunks.
func (u *Service) chunkSize(req BeginRequest) (int64, error) {
	l, size := u.cfg.Limits, req.ChunkSize
	switch {
	case req.Bytes < session.Unknown:
		return 0, &catalog.FieldError{Field: "meta.bytes", Problem: "must not be negative"}
	case req.Bytes > l.MaxBytes:
		problem := fmt.Sprintf("%d bytes, and an upload may have %d", req.Bytes, l.MaxBytes)
		return 0, &SizeError{Limit: l.MaxBytes, Problem: problem}
	case size != 0 && (size < l.ChunkSizeMin || size > l.ChunkSizeMax):
		return 0, &catalog.FieldError{
			Field:   "chunk_size",
			Problem: fmt.Sprintf("must be %d to %d", l.ChunkSizeMin, l.ChunkSizeMax),
		}
	}
	if size == 0 {
		size = l.ChunkSize
		if least := (req.Bytes + l.MaxChunks - 1) / l.MaxChunks; least > size {
			const mib = 1 << 20
			size = (least + mib - 1) / mib * mib
		}
	}
	if req.Bytes == session.Unknown {
		if req.Chunks >= 0 {
			return 0, &catalog.FieldError{Field: "expected_chunks", Problem: "needs meta.bytes"}
		}
		return size, nil
	}
	chunks := (req.Bytes + size - 1) / size
	if chunks > l.MaxChunks {
		return 0, &SizeError{Limit: l.MaxChunks, Problem: fmt.Sprintf(
			"%d chunks of %d bytes, and an upload may have %d; take larger chunks", chunks, size, l.MaxChunks,
		)}
	}
	if req.Chunks >= 0 && req.Chunks != chunks {
		return 0, &catalog.FieldError{
			Field:   "expected_chunks",
			Problem: fmt.Sprintf("is %d, but %d bytes in chunks of %d are %d", req.Chunks, req.Bytes, size, chunks),
		}
	}
	return size, nil
}

// findFinished asks whether the caller may do a, and whether the key has a finished upload. An
// upload whose content is damaged does not count: the same request brings the bytes again and heals
// the memory. findFinished notes in n since when that content is damaged.
func (u *Service) findFinished(
	ctx context.Context, c access.Caller, a access.Action, n *note,
) (up Upload, ok bool, err error) {
	err = u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		up, ok, n.damaged = Upload{}, false, time.Time{}
		if _, err := access.Allow(r, c, a, n.Capsule, u.cfg.Clock.Now()); err != nil || n.Idem == "" {
			return err
		}
		row, m, deleted, found, err := catalog.FinishedIdem(r, n.Capsule, c.Principal, n.Idem)
		if err != nil || !found {
			return err
		}
		if !bytes.Equal(row.Fingerprint, n.Fingerprint) {
			return ErrIdem
		}
		if !deleted {
			if n.damaged, err = catalog.Damaged(r, m); err != nil || !n.damaged.IsZero() {
				return err
			}
		}
		ok = true
		up = Upload{Capsule: n.Capsule, Meta: n.Meta, IdemKey: n.Idem, Memory: row.Memory, Deleted: deleted}
		up.ID, up.State = session.SessionID(row.Session), session.Finished
		up.ChunkSize, up.BytesExpected = u.cfg.Limits.ChunkSize, m.Bytes
		up.Began, up.LastSeen = m.Created, m.Created
		up.Received = session.Add(nil, session.Range{End: m.Bytes})
		return nil
	})
	if err != nil || !ok || up.ID == 0 {
		return up, ok, err
	}
	// While the engine still remembers the session, its row is more exact.
	if s, err := u.cfg.Sessions.Status(ctx, up.ID); err == nil {
		up.Session = s
	} else if !errors.Is(err, session.ErrNotFound) {
		return up, ok, err
	}
	return up, ok, nil
}

// checkSpace is Config.CheckSpace with the error that clients get.
func (u *Service) checkSpace() error {
	err := u.cfg.CheckSpace()
	if err == nil || errors.Is(err, ErrAway) {
		return err
	}
	return fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
}

// checkNew refuses early a request that would begin something new of n bytes: with refuse if that
// is set, and with blob.ErrNoSpace if the stores could not take the bytes.
func (u *Service) checkNew(ctx context.Context, refuse error, n int64) error {
	if refuse != nil {
		return refuse
	}
	if err := u.checkSpace(); err != nil {
		return err
	}
	available, err := u.cfg.Blobs.Free(ctx)
	if err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if n > available || available <= 0 {
		return fmt.Errorf("%w: %d bytes are wanted, %d are free", blob.ErrNoSpace, n, available)
	}
	return nil
}
