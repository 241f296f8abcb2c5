package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/google/uuid"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// Create is a whole upload in one request, of any size. If the idempotency key has finished, Create
// answers with that memory. It reads the body then only to compare a digest other than SHA-256. A
// content of one chunk or less costs one synced commit and no session. A larger one, and one of
// unknown length, goes through a session that ends with the request. A body that is cut leaves
// nothing that a row names.
//
// Errors: those of Begin, PutChunk and Finish; ErrAlreadyFinished if the key's memory was deleted.
func (u *Service) Create(
	ctx context.Context, c access.Caller, req CreateRequest, body io.Reader,
) (catalog.Memory, error) {
	meta, err := req.Meta.Validate()
	if err != nil {
		return catalog.Memory{}, err
	}
	if err := checkKeys(&req.Capsule, req.Idem); err != nil {
		return catalog.Memory{}, err
	}
	mark, err := fingerprint(meta, req.Put.Length, 0)
	if err != nil {
		return catalog.Memory{}, err
	}
	n := note{Capsule: req.Capsule, Idem: req.Idem, Fingerprint: mark, Meta: meta}
	finished, found, err := u.findFinished(ctx, c, access.Write, &n)
	if err != nil {
		return catalog.Memory{}, err
	}
	if found {
		return u.repeatCreate(ctx, finished, req.Put, body)
	}
	size, err := u.chunkSize(BeginRequest{Bytes: req.Put.Length, Chunks: -1})
	if err == nil {
		err = u.checkNew(ctx, req.Refuse, max(req.Put.Length, 0))
	}
	if err != nil {
		return catalog.Memory{}, err
	}
	if req.Put.Length >= 0 && req.Put.Length <= u.cfg.Limits.ChunkSize {
		return u.createSmall(ctx, c, n, req.Put, body)
	}
	return u.createLarge(ctx, c, n, req.Put, size, body)
}

// repeatCreate answers a create with the memory of an upload that had finished, unless the request
// announces other bytes. A SHA-256 is compared with the memory's, and the body is not read. If the
// client announces another digest, the body is read and hashed.
func (u *Service) repeatCreate(
	ctx context.Context, finished Upload, p Put, body io.Reader,
) (m catalog.Memory, err error) {
	if finished.Deleted {
		return m, ErrAlreadyFinished
	}
	err = u.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if m, err = catalog.Memories.Get(r, catalog.MemoryKey(finished.Memory)); err == nil && !m.Trashed.IsZero() {
			err = catalog.ErrNotFound // it was trashed meanwhile
		}
		return err
	})
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return m, ErrAlreadyFinished
	case err != nil:
		return m, err
	case p.SHA256 != nil && *p.SHA256 != m.SHA256:
		return m, fmt.Errorf("%w: its memory has the SHA-256 %x", ErrIdem, m.SHA256)
	case p.CRC32C == nil && !p.Whole:
		return m, nil
	}
	sum, crc := sha256.New(), newCRC()
	if _, err := io.Copy(io.MultiWriter(sum, crc), io.LimitReader(body, m.Bytes+1)); err != nil {
		return m, err
	}
	if err := p.compare(sum.Sum(nil), crc.Sum32()); err != nil {
		return m, err
	}
	if !bytes.Equal(sum.Sum(nil), m.SHA256[:]) {
		return m, fmt.Errorf("%w: its memory has the SHA-256 %x", ErrIdem, m.SHA256)
	}
	return m, nil
}

// createSmall streams the body into a place of its own, or keeps it inline, and publishes it. If it
// can't publish the content it deletes the place itself, because no row names the place.
func (u *Service) createSmall(
	ctx context.Context, c access.Caller, n note, p Put, body io.Reader,
) (m catalog.Memory, err error) {
	removePending, err := u.addPending(ctx, n, p.Length)
	if err != nil {
		return m, err
	}
	defer removePending()
	sum, crc := sha256.New(), newCRC()
	content := catalog.Content{Capsule: n.Capsule, Bytes: p.Length}
	if p.Length <= u.cfg.Limits.InlineMax {
		content.Inline, err = io.ReadAll(io.LimitReader(body, p.Length+1))
		sum.Write(content.Inline)
		crc.Write(content.Inline)
		if err == nil && int64(len(content.Inline)) != p.Length {
			err = fmt.Errorf("%w: %d bytes of %d", session.ErrShort, len(content.Inline), p.Length)
		}
		content.CRC32C = crc.Sum32()
	} else {
		id, releaseID, e := u.reserveID()
		if e != nil {
			return m, e
		}
		defer releaseID()
		defer func() {
			if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
				u.deletePlaces(ctx, id, content.Places()...)
			}
		}()
		content.Extents, err = u.writePlace(ctx, id, body, p.Length, sum, crc)
	}
	if err != nil {
		return m, err
	}
	copy(content.SHA256[:], sum.Sum(nil))
	if err := p.compare(content.SHA256[:], crc.Sum32()); err != nil {
		return m, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := u.cfg.Blobs.Persist(ctx, content.Extents); err != nil {
		return m, err
	}
	removePending() // from here on the commit counts it
	return u.publish(ctx, c, n, content)
}

// pendingCreates counts what the running creates will bring to a capsule.
type pendingCreates struct{ bytes, memories int64 }

// addPending makes sure that the capsule takes the declared type, and that its quota allows size
// more bytes beside those of all running creates, before a byte of the body is read. The caller
// must call removePending.
func (u *Service) addPending(ctx context.Context, n note, size int64) (removePending func(), err error) {
	add := func(bytes, memories int64) pendingCreates {
		u.mu.Lock()
		defer u.mu.Unlock()
		is := u.pending[n.Capsule]
		is.bytes, is.memories = is.bytes+bytes, is.memories+memories
		if u.pending[n.Capsule] = is; is == (pendingCreates{}) {
			delete(u.pending, n.Capsule)
		}
		return is
	}
	all := add(size, 1)
	removePending = sync.OnceFunc(func() { add(-size, -1) })
	err = u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, catalog.Name(n.Capsule))
		if err == nil && n.damaged.IsZero() { // what heals a memory is of a type that was taken
			err = catalog.CheckMIME(n.Meta.MIME, c.MIMETypes)
		}
		if err == nil {
			err = c.Fits(all.bytes, all.memories)
		}
		return err
	})
	if err != nil {
		removePending()
	}
	return removePending, err
}

// deletePlaces deletes places that no row names.
func (u *Service) deletePlaces(ctx context.Context, id session.SessionID, places ...string) {
	for _, place := range places {
		if err := u.cfg.Blobs.Delete(context.WithoutCancel(ctx), place); err != nil {
			u.cfg.Log.Warn("taking away what a create has left; it is tried again", "place", place, "err", err)
			u.rememberLeftover(place, id, anyGen)
		}
	}
}

// reserveID gives an id that no session has, for the place of a create. The collector leaves the
// place alone until releaseID is called.
func (u *Service) reserveID() (id session.SessionID, releaseID func(), err error) {
	var raw [8]byte
	if _, err := io.ReadFull(u.cfg.Rand, raw[:]); err != nil {
		return 0, nil, err
	}
	id = session.SessionID(binary.BigEndian.Uint64(raw[:]) | 1)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.creating[id] = struct{}{}
	return id, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.creating, id)
	}, nil
}

// writePlace copies exactly n bytes to a new place, and into both digests.
func (u *Service) writePlace(
	ctx context.Context, id session.SessionID, body io.Reader, n int64, sum hash.Hash, crc hash.Hash32,
) ([]catalog.Extent, error) {
	w, err := u.cfg.Blobs.Writer(ctx, id, 0, n)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	err = u.cfg.Sessions.Copy(digesting{w, io.MultiWriter(sum, crc)}, body, n)
	var e catalog.Extent
	if err == nil {
		e, err = w.Commit(context.WithoutCancel(ctx), 0, n, crc.Sum32())
	}
	if err != nil {
		if place, failed := w.Undo([]session.Range{{End: n}}); place != "" {
			u.deletePlaces(ctx, id, place)
		} else if failed != nil {
			u.cfg.Log.Warn("taking away what a create has left", "err", failed)
		}
		return nil, err
	}
	return []catalog.Extent{e}, nil
}

// digesting writes to a place, and gives the written bytes to digests.
type digesting struct {
	w    blob.Writer
	sums io.Writer
}

// WriteAt implements session.ByteSink.
func (d digesting) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.w.WriteAt(p, off)
	for part := range slices.Chunk(p[:n], hashBlock) {
		_, _ = d.sums.Write(part) // a digest never fails
	}
	return n, err
}

// publish makes a durable content a memory, in the one transaction of a create without a session.
func (u *Service) publish(
	ctx context.Context, c access.Caller, n note, content catalog.Content,
) (m catalog.Memory, err error) {
	id, err := uuid.NewV7FromReader(u.cfg.Rand)
	if err != nil {
		return m, err
	}
	at := u.moment()
	draft := catalog.Memory{
		ID: id, Capsule: n.Capsule, Meta: n.Meta, Bytes: content.Bytes, SHA256: content.SHA256, Created: at.Now,
		Owner: c.Principal, Idem: n.Idem,
	}
	var sniffed Sniffed
	commit := func(tx catalog.Tx) error {
		capsule, err := access.Allow(tx, c, access.Write, n.Capsule, at.Now)
		if err != nil {
			return err
		}
		m, err = catalog.Publish(tx, catalog.Publication{
			Memory: draft, Content: content, IdemKey: n.Idem, Fingerprint: n.Fingerprint, Keyed: true, At: at,
		})
		if err == nil && m.ID == draft.ID {
			err = takes(sniffed, n.Meta.MIME, capsule.MIMETypes)
		}
		return err
	}
	if err = u.cfg.Catalog.Update(ctx, commit); errors.Is(err, errUnsniffed) {
		if sniffed, err = u.sniffContent(ctx, content); err == nil {
			err = u.cfg.Catalog.Update(ctx, commit)
		}
	}
	// Another request with the same key was faster. If this content has healed that memory, a row
	// names the places, and Reclaim keeps them.
	if err == nil && m.ID != draft.ID {
		for _, place := range content.Places() {
			u.rememberLeftover(place, 0, anyGen)
		}
	}
	return m, keyTaken(err)
}

// keyTaken turns catalog.ErrKeyTaken into the error that clients get.
func keyTaken(err error) error {
	if errors.Is(err, catalog.ErrKeyTaken) {
		return fmt.Errorf("%w: %w", ErrIdem, err)
	}
	return err
}

// createLarge sends the body through a session of its own, and aborts the session if the request
// fails.
func (u *Service) createLarge(
	ctx context.Context, c access.Caller, n note, p Put, size int64, body io.Reader,
) (m catalog.Memory, err error) {
	if err := u.checkEnded(c); err != nil {
		return m, err
	}
	encoded, err := n.encode()
	if err != nil {
		return m, err
	}
	s, _, err := u.cfg.Sessions.Begin(access.NewContext(ctx, c), session.Spec{
		ChunkSize: size, BytesExpected: p.Length, Owner: c.Principal, Note: encoded,
	})
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			if e := u.cfg.Sessions.Abort(context.WithoutCancel(ctx), s.ID, u.Release); e != nil &&
				!errors.Is(e, session.ErrFinished) {
				u.cfg.Log.Warn("aborting a failed create", "session", s.ID, "err", e)
			}
			u.active.forget(s.ID)
		}
	}()
	length, err := u.streamInto(ctx, c, s, p, body)
	if err != nil {
		return m, err
	}
	return u.Finish(
		context.WithoutCancel(ctx), c, FinishRequest{ID: s.ID, Length: length, UseServerDigest: true, Keyed: true},
	)
}

// streamInto puts the whole body into the session, and compares the body's digest at the end.
func (u *Service) streamInto(
	ctx context.Context, c access.Caller, s session.Session, p Put, body io.Reader,
) (int64, error) {
	// Entries are recorded as their bytes come, so the digest of the whole can only be compared
	// afterwards. The session ends with the request in any case.
	k := u.newSink(ctx, c, body, p)
	k.streaming = true
	defer k.close()
	length, err := u.cfg.Sessions.PutAt(access.NewContext(ctx, c), s.ID, 0, p.Length, k.body, k, false)
	if err == nil {
		err = k.compare()
	}
	if err == nil && s.BytesExpected >= 0 && length != s.BytesExpected {
		err = fmt.Errorf("%w: %d bytes of %d", session.ErrShort, length, s.BytesExpected)
	}
	return length, err
}
