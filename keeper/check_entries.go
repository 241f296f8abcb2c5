package keeper

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"io"
	"slices"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// entries re-reads what open sessions have received, and compares the saved states of their hashes
// with it.
func (c *check) entries(ctx context.Context) error {
	for _, id := range sorted(c.sessions) {
		if err := c.entriesOf(ctx, c.sessions[id]); err != nil {
			return err
		}
		if err := c.report(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) entriesOf(ctx context.Context, o *openSession) error {
	entries, err := c.cfg.Sessions.Entries(ctx, o.s.ID, session.All(), 0)
	if err != nil {
		return ctx.Err() // readSession has reported it
	}
	prefix := 0 // the number of good entries from the first on, without a gap
	for i, e := range entries {
		good, err := c.entry(ctx, o, e)
		if err != nil {
			return err
		}
		if good && prefix == i && (i == 0 && e.Off == 0 || i > 0 && entries[i-1].End == e.Off) {
			prefix++
		}
	}
	return c.checkpoints(ctx, o, entries[:prefix])
}

// entry re-reads one entry.
func (c *check) entry(ctx context.Context, o *openSession, e session.Entry) (good bool, err error) {
	what, place := "", ""
	p, err := upload.InspectPiece(e)
	if err != nil {
		what = fmt.Sprintf("where they are can't be read: %v", err)
	} else if err := c.cfg.Blobs.Check(ctx, p.Extent, blob.CheckAll); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		place, what = p.Extent.Place, c.words(err, p.Extent.Place)
		if !isDamage(err) {
			c.wrong(KindPiece, "%s: bytes %s can't be read now: %s", o, span(e.Range), what).of(o, e.Range).at(place)
			return false, nil
		}
	}
	c.read(e.Len())
	if what == "" {
		return true, nil
	}
	f := c.wrong(KindPiece, "%s: bytes %s are lost: %s", o, span(e.Range), what).of(o, e.Range).at(place)
	f.Remedy = "they are dropped; the client is asked for them again"
	f.fix = func(ctx context.Context) error {
		return c.change(ctx, o.s.ID,
			session.Change{Remove: []session.Range{e.Range}, Drop: e.Range, Length: session.Unknown})
	}
	return false, nil
}

// of says which bytes of which session a finding is about.
func (f *Finding) of(o *openSession, r session.Range) *Finding {
	f.Session, f.Capsule, f.Range = o.s.ID, o.reserved.Capsule, r
	return f
}

// change records a change of a session as it is now. It does not count as activity.
func (c *check) change(ctx context.Context, id session.SessionID, change session.Change) error {
	s, err := c.cfg.Sessions.Load(ctx, id)
	if err == nil {
		_, err = c.cfg.Sessions.Record(ctx, id, s.Gen, change)
	}
	return err
}

// savedCheckpoint is a saved state of SHA-256, and how to remove it.
type savedCheckpoint struct {
	off   int64
	state []byte
	fix   func(context.Context) error
}

// checkpoints hashes the contiguous entries that a session begins with, and compares each saved
// state on the way.
func (c *check) checkpoints(ctx context.Context, o *openSession, entries []session.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	all, extents, err := c.savedCheckpoints(ctx, o, entries)
	if err != nil || len(all) == 0 {
		return err
	}
	reader, err := c.cfg.Blobs.Read(ctx, extents, 0, entries[len(entries)-1].End)
	if err != nil {
		return c.unread(ctx, o, err)
	}
	defer reader.Close()
	sum := sha256.New()
	for at, i := int64(0), 0; i < len(all); i++ {
		if _, err := io.CopyN(sum, reader, all[i].off-at); err != nil {
			return c.unread(ctx, o, err)
		}
		at = all[i].off
		if is, err := sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil || bytes.Equal(is, all[i].state) {
			continue
		}
		f := c.wrong(KindHash, "%s: the saved state of its SHA-256 at byte %d is not that of its bytes", o, at).
			of(o, session.Range{})
		f.Remedy, f.fix = "it is removed; the hash is computed again", all[i].fix
	}
	return ctx.Err()
}

func (c *check) unread(ctx context.Context, o *openSession, err error) error {
	if ctx.Err() == nil {
		c.wrong(KindPiece, "%s: it can't be read now: %v", o, err).of(o, session.Range{})
	}
	return ctx.Err()
}

// savedCheckpoints collects the states that the server would continue from, by their offset.
func (c *check) savedCheckpoints(
	ctx context.Context, o *openSession, entries []session.Entry,
) (all []savedCheckpoint, extents []catalog.Extent, err error) {
	end := entries[len(entries)-1].End
	counts := func(off int64, gen uint64) bool {
		return off > 0 && off <= end && !o.s.Stale(gen, session.Range{End: off})
	}
	for _, e := range entries {
		p, err := upload.InspectPiece(e)
		if err != nil {
			return nil, nil, err
		}
		extents = append(extents, p.Extent)
		if !counts(p.Hashed, p.Gen) {
			continue
		}
		all = append(all, savedCheckpoint{p.Hashed, p.State, func(ctx context.Context) error {
			note, err := upload.WithoutState(e)
			if err != nil {
				return err
			}
			return c.change(ctx, o.s.ID, session.Change{
				Remove: []session.Range{e.Range}, Add: []session.Entry{{Range: e.Range, Note: note}},
				Length: session.Unknown,
			})
		}})
	}
	noted := len(all)
	err = c.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		all = all[:noted]
		for st, err := range catalog.CheckpointsBack(r, uint64(o.s.ID)) {
			if err == nil && counts(st.Off, st.Gen) {
				key := catalog.CheckpointKey{Session: st.Session, Off: st.Off}
				all = append(all, savedCheckpoint{st.Off, st.State, func(ctx context.Context) error {
					return c.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
						return catalog.Checkpoints.Delete(tx, key)
					})
				}})
			}
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b savedCheckpoint) int { return cmp.Compare(a.off, b.off) })
	return all, extents, errors.Join(err, ctx.Err())
}
