package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

// sink takes the bytes of one put. Each buffer passes once: it is written to the content store, and
// its CRC-32C is kept for the note of its entry. If it continues the prefix hash, it is hashed into
// a clone of that state. The clone becomes the state only in Recorded, so the bytes of a put that
// was cut or superseded never move the hash.
//
//	Admit, Claim ─▶ checks of the caller and of the announced length
//	WriteAt  ─┬─▶ Writer ─────────▶ place       Commit: extent, CRC, hash state ─▶ note
//	          ├─▶ CRC-32C per run               Recorded: the clone is published
//	          └─▶ clone of SHA-256, body's digest
//	VerifyAt ───▶ the same, but the bytes are compared with recorded ones and not written
type sink struct {
	u    *Service
	ctx  context.Context
	c    access.Caller // must still be allowed to write when bytes are recorded
	put  Put
	body *orderedBody
	// chunk: the put is one whole chunk, and start is its index; else start is an offset.
	chunk bool
	start int64

	// Set by Admit; most is as in maxBytes.
	capsule string
	most    int64
	// Set by Claim:
	s       session.Session // as it was claimed
	last    session.Session // as of the last record
	active  *activeSession  // nil: no bytes are claimed
	claimed session.Range
	gen     uint64 // under which the put counts as a writer

	writer blob.Writer
	runs   []run // written and not committed
	// unrecorded: something was committed and is not recorded.
	unrecorded bool
	hash       *prefixHash
	// undone: Undo has run, and has noted the leftover.
	undone bool

	bodySHA hash.Hash // of the whole body, if the client gave a digest
	bodyCRC uint32
	// streaming: entries are recorded before the body's digest can be known. The caller compares it
	// at the end.
	streaming bool
	rechecked bool // the caller's rights were checked again since the body began

	back    io.ReadCloser // the recorded bytes that the body is compared with
	backAt  int64
	backEnd int64
	buf     []byte
}

// run is a contiguous range of written bytes within one chunk: the entry that the engine will
// record.
type run struct {
	session.Range
	crc uint32
}

// newSink makes the sink of a put. The caller must call close.
func (u *Service) newSink(ctx context.Context, c access.Caller, body io.Reader, p Put) *sink {
	k := &sink{u: u, ctx: context.WithoutCancel(ctx), c: c, put: p, body: newBody(body, p)}
	if p.SHA256 != nil {
		k.bodySHA = sha256.New()
	}
	return k
}

// setSession makes s the session that the put works with, and counts the put as a writer of its
// places.
func (k *sink) setSession(s session.Session) {
	k.active.addWriter(placeGen(s))
	if k.s.ID != 0 {
		k.active.removeWriter(k.gen)
	}
	k.s, k.last, k.gen = s, s, placeGen(s)
}

func (k *sink) close() {
	if k.active == nil {
		return
	}
	defer k.u.active.release(k.active)
	defer k.active.removeWriter(k.gen)
	k.body.done()
	if k.back != nil {
		defer k.back.Close()
	}
	if k.writer != nil {
		if len(k.runs) > 0 || k.unrecorded {
			k.Undo(nil) // a newer put or an end has come between; Reclaim finds what is left
		}
		if err := k.writer.Close(); err != nil {
			k.u.cfg.Log.Warn("closing a place failed", "session", k.s.ID, "err", err)
		}
	}
}

// WriteAt implements session.ByteSink.
func (k *sink) WriteAt(p []byte, off int64) (int, error) {
	if err := k.openWriter(); err != nil {
		return 0, err
	}
	k.writer.ReadSoon(k.body.aheadOfHash()) // the background hasher will read the bytes
	n, err := k.writer.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	if i := len(k.runs) - 1; i < 0 || k.runs[i].End != off || off%k.s.ChunkSize == 0 {
		k.runs = append(k.runs, run{Range: session.Range{Off: off, End: off}})
	}
	at := &k.runs[len(k.runs)-1]
	for part := range slices.Chunk(p, hashBlock) {
		if err := k.digest(part, at.End); err != nil {
			return n, err
		}
		at.crc = crc32.Update(at.crc, castagnoli, part)
		at.End += int64(len(part))
	}
	return n, nil
}

// openWriter makes sure that the put has a Writer.
func (k *sink) openWriter() (err error) {
	if k.writer == nil {
		if err := k.u.checkSpace(); err != nil {
			return err
		}
		k.writer, err = k.u.cfg.Blobs.Writer(k.ctx, k.s.ID, placeGen(k.s), wholeSize(k.s))
	}
	return err
}

// wholeSize gives the length of the session's content if it fits one chunk, else -1.
func wholeSize(s session.Session) int64 {
	if s.BytesExpected > s.ChunkSize {
		return -1
	}
	return s.BytesExpected
}

// placeGen gives the generation in the name of a place. It grows with each Drop, so that bytes that
// replace others go to another place.
func placeGen(s session.Session) uint64 {
	if n := len(s.Dropped); n > 0 {
		return s.Dropped[n-1].Gen
	}
	return 0
}

// digest gives p to the digests.
func (k *sink) digest(p []byte, off int64) error {
	err := k.hashBuffer(p, off)
	if k.bodySHA != nil {
		k.bodySHA.Write(p)
	}
	if k.put.CRC32C != nil {
		k.bodyCRC = crc32.Update(k.bodyCRC, castagnoli, p)
	}
	return err
}

// hashBuffer gives p to the session's prefix hash if p continues it.
func (k *sink) hashBuffer(p []byte, off int64) error {
	end := off + int64(len(p))
	if k.hash == nil {
		ph, err := k.u.prefixHash(k.ctx, k.active, k.s)
		if err != nil || ph.off < off || ph.off >= end {
			return err
		}
		k.hash = &ph
	}
	if k.hash.off >= off && k.hash.off < end {
		k.hash.h.Write(p[k.hash.off-off:])
		k.hash.off = end
	}
	return nil
}

// VerifyAt implements session.Verifier. It always reads the recorded bytes from the store.
func (k *sink) VerifyAt(p []byte, off int64) error {
	r := session.Range{Off: off, End: off + int64(len(p))}
	if k.back == nil || k.backAt != off || k.backEnd < r.End {
		if err := k.openRecorded(r); err != nil {
			return err
		}
	}
	if cap(k.buf) < len(p) {
		k.buf = make([]byte, len(p))
	}
	b := k.buf[:len(p)]
	if _, err := io.ReadFull(k.back, b); err != nil {
		return fmt.Errorf("comparing with what is recorded at %d: %w", off, err)
	}
	k.backAt = r.End
	if !bytes.Equal(b, p) {
		return k.conflict(r)
	}
	return k.digest(p, off)
}

// conflict gives the reason why recorded bytes differ from the put's: the put brings other bytes,
// or the recorded ones are corrupt or missing.
func (k *sink) conflict(r session.Range) error {
	entries, err := k.u.cfg.Sessions.Entries(k.ctx, k.s.ID, r, 0)
	if err != nil {
		return err
	}
	var there []session.Range
	for _, e := range entries {
		there = session.Add(there, e.Range)
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return err
		}
		if err := k.u.cfg.Blobs.Check(k.ctx, n.extent(e.Range), blob.CheckAll); err != nil {
			return err
		}
	}
	if !session.Covers(there, r) {
		return session.ErrSuperseded // some were dropped meanwhile
	}
	return session.ErrConflict
}

// lookAheadBytes is how many bytes a comparison reads at least before it asks for entries again. It
// is more than any buffer of a put.
const lookAheadBytes = 1 << 20

// openRecorded opens the recorded bytes from r on, for some chunks.
func (k *sink) openRecorded(r session.Range) error {
	if k.back != nil {
		k.back.Close()
		k.back = nil
	}
	entries, err := k.u.cfg.Sessions.Entries(
		k.ctx, k.s.ID, session.Range{Off: r.Off, End: r.Off + 2*k.s.ChunkSize + lookAheadBytes}, 0,
	)
	if err != nil {
		return err
	}
	for i := 1; i < len(entries); i++ {
		if entries[i-1].End != entries[i].Off {
			entries = entries[:i]
		}
	}
	if len(entries) == 0 || entries[0].Off > r.Off || entries[len(entries)-1].End < r.End {
		return session.ErrSuperseded // some were dropped meanwhile
	}
	extents, err := extentsOf(entries, r.Off)
	if err != nil {
		return err
	}
	first := entries[0].Off
	k.backAt, k.backEnd = r.Off, entries[len(entries)-1].End
	k.back, err = k.u.cfg.Blobs.Read(k.ctx, extents, r.Off-first, k.backEnd-r.Off)
	return err
}

// Commit implements session.Committer. It returns the note of the entry.
func (k *sink) Commit(ctx context.Context, r session.Range) ([]byte, error) {
	if err := k.digested(); err != nil {
		return nil, err
	}
	if err := k.allowed(ctx); err != nil {
		return nil, err
	}
	if len(k.runs) == 0 || k.runs[0].Range != r {
		return nil, fmt.Errorf("bytes %d to %d were not written as one piece", r.Off, r.End-1)
	}
	e, err := k.writer.Commit(ctx, r.Off, r.Len(), k.runs[0].crc)
	if err != nil {
		return nil, err
	}
	k.runs, k.unrecorded = k.runs[1:], true
	n := entryNote{Place: e.Place, Off: e.Off, CRC: e.CRC32C}
	if k.hash != nil && k.hash.off == r.End {
		n.Gen, n.Hashed = k.hash.gen, k.hash.off
		if n.State, err = k.hash.checkpoint(); err != nil {
			return nil, err
		}
	}
	return n.encode()
}

// allowed asks again whether the caller may write. The body may have taken long, and a role or a
// token may have been taken away meanwhile.
func (k *sink) allowed(ctx context.Context) error {
	k.rechecked = true
	return k.mayWrite(ctx)
}

// mayWrite asks whether the caller may write now.
func (k *sink) mayWrite(ctx context.Context) error {
	return k.u.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		return k.u.allow(r, k.c, access.Upload, k.capsule)
	})
}

// checkAtEnd checks digest and rights at the end of a successful put. It matters for a put whose
// bytes were all recorded already, which has committed nothing.
func (k *sink) checkAtEnd() error {
	if err := k.digested(); err != nil || k.rechecked {
		return err
	}
	return k.allowed(k.ctx)
}

// digested compares the body's digest with the client's before anything is recorded. A digest makes
// a put all or nothing, so the body is complete when digested is first called.
func (k *sink) digested() error {
	if k.streaming {
		return nil
	}
	return k.compare()
}

func (k *sink) compare() error {
	var sum []byte
	if k.bodySHA != nil {
		sum = k.bodySHA.Sum(nil)
	}
	return k.put.compare(sum, k.bodyCRC)
}

// compare reports, as an error, that a body with these digests is not the announced one. It ignores
// sum if the client gave no SHA-256.
func (p Put) compare(sum []byte, crc uint32) error {
	if want := p.SHA256; want != nil && !bytes.Equal(sum, want[:]) {
		return &ChecksumError{
			What: "sha-256 of the body",
			Want: hex.EncodeToString(want[:]),
			Got:  hex.EncodeToString(sum),
		}
	}
	if want := p.CRC32C; want != nil && *want != crc {
		return &ChecksumError{
			What: "crc32c of the body",
			Want: fmt.Sprintf("%08x", *want),
			Got:  fmt.Sprintf("%08x", crc),
		}
	}
	return nil
}

// Recorded implements session.Committer.
func (k *sink) Recorded(s session.Session) {
	k.last, k.unrecorded = s, false
	// If bytes were too few to be recorded, they are in the hash state and not yet in the session.
	if k.hash != nil && len(k.runs) == 0 {
		k.active.advanceHash(s, *k.hash)
	}
}

var (
	_ session.ByteSink  = (*sink)(nil)
	_ session.Admitter  = (*sink)(nil)
	_ session.Verifier  = (*sink)(nil)
	_ session.Committer = (*sink)(nil)
)
