package upload

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// verified is a session whose content has been compared with the length and digest of its finish.
type verified struct {
	s        session.Session
	n        note
	sum      catalog.SHA256
	length   int64
	keyed    bool
	recorded []catalog.Extent // one for each entry
	extents  []catalog.Extent // joined, for publishing
	sniffed  Sniffed          // nothing, if no list of types bounds it
	draft    catalog.Memory
	memory   *catalog.Memory // set once the session is finished
}

// content gives the content that is published.
func (v *verified) content() catalog.Content {
	return catalog.Content{Capsule: v.n.Capsule, SHA256: v.sum, Bytes: v.length, Extents: v.extents}
}

// mostFailedRanges bounds the ranges that all failures of a batch name together. The failure of a
// single session has its own bound.
const mostFailedRanges = 10_000

// shorten subtracts the ranges that err names from the budget, and removes those that exceed it.
func shorten(err error, budget *int) error {
	clip := func(rs []session.Range, more *bool) []session.Range {
		if len(rs) > *budget {
			rs, *more = slices.Clone(rs[:*budget]), true
		}
		*budget -= len(rs)
		return rs
	}
	var incomplete *session.IncompleteError
	var sum *ChecksumError
	switch {
	case errors.As(err, &incomplete):
		incomplete.Missing = clip(incomplete.Missing, &incomplete.More)
	case errors.As(err, &sum):
		sum.Bad = clip(sum.Bad, &sum.More)
	}
	return err
}

// Finish verifies the session's length and SHA-256 and makes the session a memory. The memory is
// readable, listed and counted when Finish returns, and not before. It costs one synced commit. A
// repeat gives the same memory.
//
// Errors: *session.IncompleteError, *ChecksumError and *LengthError (an open session stays open,
// and a finished one finished), ErrAlreadyFinished if the memory was deleted since,
// *catalog.QuotaError, *catalog.MIMEError if the capsule or the caller's ticket does not take the
// type or the first bytes contradict it, and the errors of session and access.
func (u *Service) Finish(ctx context.Context, c access.Caller, req FinishRequest) (catalog.Memory, error) {
	ms, err := u.FinishBatch(ctx, c, []FinishRequest{req})
	var batch *BatchError
	if errors.As(err, &batch) {
		err = batch.Failures[0].Err
	}
	if err != nil {
		return catalog.Memory{}, err
	}
	return ms[0], nil
}

// FinishBatch finishes sessions of one capsule in one transaction. Either all become visible at
// once, or none does and a *BatchError says why. The memories are in the order of the requests. It
// gives a *catalog.FieldError if the sessions have more than [Limits].BatchEntries entries
// together.
func (u *Service) FinishBatch(ctx context.Context, c access.Caller, reqs []FinishRequest) ([]catalog.Memory, error) {
	seen := map[session.SessionID]bool{}
	for _, req := range reqs {
		if seen[req.ID] {
			return nil, &catalog.FieldError{Field: "finishes", Problem: fmt.Sprintf("names session %s twice", req.ID)}
		}
		seen[req.ID] = true
	}
	// Between the verification and the seal another request may replace bytes, or finish a session.
	// Then FinishBatch verifies again.
	for range 10 {
		ms, again, err := u.finishOnce(ctx, c, reqs)
		if !again {
			return ms, err
		}
	}
	return nil, fmt.Errorf("%w: the sessions keep changing while they are finished", blob.ErrUnavailable)
}

func (u *Service) finishOnce(
	ctx context.Context, c access.Caller, reqs []FinishRequest,
) (ms []catalog.Memory, again bool, err error) {
	vs := make([]*verified, len(reqs))
	var failures []Failure
	ranges, entries := mostFailedRanges, 0
	var counted int64
	defer func() { u.finishingEntries.Add(-counted) }()
	for i, req := range reqs {
		if vs[i], err = u.verify(ctx, c, req); err != nil {
			if ctx.Err() != nil {
				return nil, false, ctx.Err()
			}
			if errors.Is(err, session.ErrFinished) || errors.Is(err, session.ErrGenMoved) {
				return nil, true, nil // by another request: the next try answers with its result
			}
			failures = append(failures, Failure{req.ID, shorten(err, &ranges)})
			continue
		}
		limit := u.cfg.Limits.BatchEntries
		if entries += len(vs[i].recorded); limit > 0 && entries > limit && len(reqs) > 1 {
			problem := fmt.Sprintf("have more than %d pieces together; finish them in smaller batches", limit)
			return nil, false, &catalog.FieldError{Field: "finishes", Problem: problem}
		}
		n := int64(len(vs[i].recorded))
		counted += n
		all, most := u.finishingEntries.Add(n), u.cfg.Limits.FinishEntries
		if most > 0 && all > most && all > counted {
			return nil, false, fmt.Errorf("%w: uploads in too many pieces are being finished", session.ErrBusy)
		}
	}
	if failures != nil {
		return nil, false, &BatchError{failures}
	}
	var open []*verified
	var wants []session.Verified
	for _, v := range vs {
		if v.n.Capsule != vs[0].n.Capsule {
			return nil, false, &catalog.FieldError{Field: "finishes", Problem: "must be sessions of one capsule"}
		}
		if v.memory == nil {
			open = append(open, v)
			wants = append(wants, session.Verified{ID: v.s.ID, Gen: v.s.Gen, Bytes: v.length})
		}
	}
	if len(open) > 0 {
		err := u.cfg.Sessions.Finish(ctx, u.committing(c, open), wants...)
		if errors.Is(err, session.ErrGenMoved) || errors.Is(err, session.ErrFinished) ||
			errors.Is(err, session.ErrLength) {
			return nil, true, nil // the session has changed: the next try answers
		}
		if err != nil {
			again, err := u.handleEndError(ctx, open, err)
			return nil, again, err
		}
	}
	for _, v := range vs {
		u.active.forget(v.s.ID)
		ms = append(ms, *v.memory)
	}
	return ms, false, nil
}

// handleEndError turns the error of an end into the error of its batch, and drops the entries that
// the content store could not keep. If no session has such an entry any more, because other
// requests have dropped or replaced them, the finish is to be tried again.
func (u *Service) handleEndError(ctx context.Context, open []*verified, err error) (again bool, _ error) {
	id := open[0].s.ID
	var end *session.EndError
	if errors.As(err, &end) {
		id, err = end.ID, end.Err
	}
	var failed *blob.PersistError
	if !errors.As(err, &failed) {
		return false, &BatchError{[]Failure{{id, err}}}
	}
	var failures []Failure
	ranges := mostFailedRanges
	for _, v := range open {
		after, hit, e := u.dropFailedExtents(context.WithoutCancel(ctx), v.s, failed)
		switch {
		case e != nil:
			failures = append(failures, Failure{v.s.ID, errors.Join(err, e)})
		case hit:
			failures = append(failures, Failure{v.s.ID, shorten(after.Incomplete(v.length), &ranges)})
		}
	}
	if failures == nil {
		return true, nil
	}
	return false, &BatchError{failures}
}

// dropFailedExtents drops the entries whose bytes lie in the extents that could not be persisted.
// hit says whether bytes are missing now.
func (u *Service) dropFailedExtents(
	ctx context.Context, s session.Session, failed *blob.PersistError,
) (after session.Session, hit bool, err error) {
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.All(), 0)
	if err != nil {
		return s, false, err
	}
	after = s
	for _, e := range entries {
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return s, hit, err
		}
		at := session.Range{Off: n.Off, End: n.Off + e.Len()}
		for _, f := range failed.Lost {
			if f.Place == n.Place && at.Overlaps(session.Range{Off: f.Off, End: f.Off + f.Len}) {
				u.cfg.Log.Error(
					"the disk lost a recorded piece; it will be asked for again",
					"session", s.ID, "from", e.Off, "bytes", e.Len(), "err", failed.Err,
				)
				if after, err = u.cfg.Sessions.DropEntry(ctx, s.ID, e); err != nil {
					return after, hit, err
				}
				hit = hit || !session.Covers(after.Received, e.Range)
				break
			}
		}
	}
	return after, hit, nil
}

// verify compares one session with its finish request. It waits until the hash has reached the end.
func (u *Service) verify(ctx context.Context, c access.Caller, req FinishRequest) (*verified, error) {
	s, n, err := u.loadOwn(ctx, c, req.ID, access.Upload, true)
	if err != nil {
		return nil, err
	}
	if s.State == session.Finished {
		return u.repeatFinish(ctx, s, n, req)
	}
	if s.State.Ended() {
		return nil, s.State.Err()
	}
	end := s.BytesExpected
	if count := len(s.Received); count > 0 && end < 0 && s.Received[count-1].End > req.Length {
		end = s.Received[count-1].End
	}
	if end >= 0 && end != req.Length {
		return nil, &LengthError{Want: end, Got: req.Length}
	}
	if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeCrash); err != nil {
		return nil, err
	}
	if err := s.Incomplete(req.Length); err != nil {
		return nil, err
	}
	sum, s, err := u.waitForDigest(ctx, s, req.Length)
	if err != nil {
		return nil, err
	}
	if sum != req.SHA256 && !req.UseServerDigest {
		return nil, u.mismatch(ctx, s, sum, req)
	}
	return u.assemble(ctx, c, s, n, sum, req)
}

// assemble gathers all that the commit of a verified session needs.
func (u *Service) assemble(
	ctx context.Context, c access.Caller, s session.Session, n note, sum catalog.SHA256, req FinishRequest,
) (*verified, error) {
	entries, err := u.cfg.Sessions.Entries(ctx, s.ID, session.All(), 0)
	if err != nil {
		return nil, err
	}
	extents, err := extentsOf(entries, 0)
	if err != nil {
		return nil, u.changedOr(ctx, s, fmt.Errorf("session %s: %w", s.ID, err))
	}
	id, err := uuid.NewV7FromReader(u.cfg.Rand)
	if err != nil {
		return nil, err
	}
	v := &verified{
		s: s, n: n, sum: sum, length: req.Length, keyed: req.Keyed, recorded: extents, extents: coalesce(extents),
		draft: catalog.Memory{
			ID: id, Capsule: n.Capsule, Meta: n.Meta, Bytes: req.Length, SHA256: sum, Created: u.cfg.Clock.Now(),
			Owner: c.Principal, By: uint64(s.ID), Idem: n.Idem,
		},
	}
	return v, u.sniff(ctx, c, v)
}

// repeatFinish answers the repeat of a finish.
func (u *Service) repeatFinish(ctx context.Context, s session.Session, n note, req FinishRequest) (*verified, error) {
	v := &verified{s: s, n: n}
	err := u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		out, m, err := outcome(r, s.ID)
		switch {
		case errors.Is(err, catalog.ErrNotFound):
			return ErrAlreadyFinished
		case err != nil:
			return err
		case out.Bytes != req.Length:
			return &LengthError{Want: out.Bytes, Got: req.Length}
		case out.SHA256 != req.SHA256 && !req.UseServerDigest:
			return &ChecksumError{
				What: "sha256",
				Want: hex.EncodeToString(req.SHA256[:]),
				Got:  hex.EncodeToString(out.SHA256[:]),
			}
		case m.ID != out.Memory:
			return ErrAlreadyFinished
		}
		v.memory = &m
		return nil
	})
	return v, err
}

// mismatch describes a wrong digest. If the client gave the CRCs of its chunks, it names the bad
// chunks.
func (u *Service) mismatch(ctx context.Context, s session.Session, sum catalog.SHA256, req FinishRequest) error {
	e := &ChecksumError{What: "sha256", Want: hex.EncodeToString(req.SHA256[:]), Got: hex.EncodeToString(sum[:])}
	if req.CRC32C == nil {
		return e
	}
	chunks, err := u.chunkCRCs(ctx, s)
	if err != nil {
		return err
	}
	if len(chunks) != len(req.CRC32C) {
		problem := fmt.Sprintf("has %d values for %d chunks", len(req.CRC32C), len(chunks))
		return u.changedOr(ctx, s, &catalog.FieldError{Field: "chunk_crc32c", Problem: problem})
	}
	for i, chunk := range chunks {
		if chunk.CRC32C != req.CRC32C[i] {
			e.Bad = session.Add(e.Bad, session.Range{Off: chunk.Index, End: chunk.Index + 1})
		}
	}
	return u.changedOr(ctx, s, e)
}

// committing gives the upload's part of an end. It makes all extents durable, and then publishes
// them in one transaction, which asks for the role and the token again. It is idempotent by session
// id, and fenced by the session's generation.
func (u *Service) committing(c access.Caller, open []*verified) session.End {
	return func(ctx context.Context, sealed []session.Session) (ended bool, err error) {
		gens := map[session.SessionID]uint64{}
		for _, s := range sealed {
			gens[s.ID] = s.Gen
		}
		var extents []catalog.Extent
		for _, v := range open {
			extents = append(extents, v.recorded...)
		}
		if err := u.cfg.Blobs.Persist(ctx, extents); err != nil {
			return false, err
		}
		at := u.moment()
		memories := make([]catalog.Memory, len(open))
		err = u.commitSniffed(ctx, c, open, func(tx catalog.Tx) error {
			if err := u.allow(tx, c, access.Upload, open[0].n.Capsule); err != nil {
				return err
			}
			capsule, ticket, err := takersOf(tx, c, open[0].n.Capsule)
			if err != nil {
				return err
			}
			for i, v := range open {
				if err := fitsTicket(ticket, v.length, v.n.Meta.MIME); err != nil {
					return &session.EndError{ID: v.s.ID, Err: err}
				}
				if err := tx.EndSession(v.s.ID, gens[v.s.ID], session.Finished); err != nil {
					return &session.EndError{ID: v.s.ID, Err: err}
				}
				m, err := catalog.Publish(tx, catalog.Publication{
					Memory: v.draft, Content: v.content(),
					IdemKey: v.n.Idem, Fingerprint: v.n.Fingerprint, Keyed: v.keyed, At: at,
				})
				if err == nil && m.ID == v.draft.ID {
					err = takes(v.sniffed, v.n.Meta.MIME, capsule.MIMETypes, ticket.MIME)
				}
				if err != nil {
					return &session.EndError{ID: v.s.ID, Err: keyTaken(err)}
				}
				if err := catalog.ForgetCheckpoints(tx, uint64(v.s.ID)); err != nil {
					return err
				}
				memories[i] = m
			}
			return nil
		})
		if err != nil {
			return false, unknownOutcome(err)
		}
		for i, v := range open {
			v.memory = &memories[i]
		}
		return true, nil
	}
}
