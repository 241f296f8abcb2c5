package upload

import (
	"context"
	"errors"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Status gives the caller's session. An ended session is known for session.KeepEnded.
func (u *Service) Status(ctx context.Context, c access.Caller, id session.SessionID) (Upload, error) {
	s, n, err := u.loadOwn(ctx, c, id, access.Look, true)
	if err != nil {
		return Upload{}, err
	}
	if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
		return Upload{}, err
	}
	return u.uploadOf(ctx, s, n)
}

// uploadOf adds to a session what its note and its outcome say.
func (u *Service) uploadOf(ctx context.Context, s session.Session, n note) (Upload, error) {
	up := Upload{Session: s, Capsule: n.Capsule, Meta: n.Meta, IdemKey: n.Idem}
	if s.State != session.Finished {
		return up, nil
	}
	err := u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		out, m, err := outcome(r, s.ID)
		if errors.Is(err, catalog.ErrNotFound) {
			up.Deleted = true
			return nil
		}
		up.Memory, up.Deleted = out.Memory, m.ID != out.Memory
		return err
	})
	return up, err
}

// outcome gives what a finished session became. m is the zero Memory if the memory is gone or in
// the trash.
func outcome(r catalog.Reader, id session.SessionID) (out catalog.Outcome, m catalog.Memory, err error) {
	if out, err = catalog.Outcomes.Get(r, catalog.Number(id)); err != nil {
		return out, m, err
	}
	m, ok, err := catalog.Memories.Find(r, catalog.MemoryKey(out.Memory))
	if err != nil || !ok || !m.Trashed.IsZero() {
		return out, catalog.Memory{}, err
	}
	return out, m, nil
}

// List gives a page of the caller's own open sessions, newest first. These can be resumed from any
// device. It leaves out sessions in whose capsule the caller has no role any more, and sessions
// that end meanwhile. So a page may be short and still have a next one.
func (u *Service) List(
	ctx context.Context, c access.Caller, cursor string, limit int,
) (page []Upload, next string, err error) {
	q := session.Query{Owner: &c.Principal, State: session.Open, After: cursor, Limit: limit}
	sessions, next, err := u.cfg.Sessions.List(ctx, q)
	if err != nil {
		return nil, "", err
	}
	for _, s := range sessions {
		n, err := decodeNote(s.Note)
		if err != nil {
			return nil, "", err
		}
		err = u.cfg.Catalog.View(ctx, func(r catalog.Reader) error { return u.allow(r, c, access.Look, n.Capsule) })
		if errors.Is(err, access.ErrForbidden) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
			return nil, "", err
		}
		if s.State.Ended() {
			continue // it ended while its entries were checked
		}
		page = append(page, Upload{Session: s, Capsule: n.Capsule, Meta: n.Meta, IdemKey: n.Idem})
	}
	return page, next, nil
}

// ChunkCRCs gives the CRC-32C of every complete chunk of the caller's session, in order.
func (u *Service) ChunkCRCs(ctx context.Context, c access.Caller, id session.SessionID) ([]ChunkCRC, error) {
	s, _, err := u.loadOwn(ctx, c, id, access.Look, true)
	if err != nil {
		return nil, err
	}
	if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeReboot); err != nil {
		return nil, err
	}
	return u.chunkCRCs(ctx, s)
}

func (u *Service) chunkCRCs(ctx context.Context, s session.Session) ([]ChunkCRC, error) {
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.All(), 0)
	if err != nil {
		return nil, err
	}
	var out []ChunkCRC
	for len(entries) > 0 {
		idx := entries[0].Off / s.ChunkSize
		end := (idx + 1) * s.ChunkSize
		n, bytes := 0, int64(0)
		for n < len(entries) && entries[n].Off < end {
			bytes += entries[n].Len()
			n++
		}
		if bytes == s.ChunkSize ||
			entries[n-1].End == s.BytesExpected && entries[0].Off == idx*s.ChunkSize &&
				bytes == s.BytesExpected-idx*s.ChunkSize {
			crc, err := chunkCRC(entries[:n])
			if err != nil {
				return nil, err
			}
			out = append(out, ChunkCRC{idx, crc})
		}
		entries = entries[n:]
	}
	return out, nil
}
