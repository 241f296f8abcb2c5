package linear

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"math"

	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// do makes the call.
func (c *client) do(ctx context.Context, o *op) (err error) {
	w := c.w
	switch o.kind {
	case begin:
		req := upload.BeginRequest{
			Capsule: capsule, Meta: catalog.Meta{Name: o.name}, Bytes: int64(len(contents[o.content])), Chunks: -1,
			Idem: keyName(o.key),
		}
		if o.chunked {
			req.ChunkSize = req.Bytes / pieces
		}
		up, err := w.Uploads.Begin(ctx, c.as(o), req)
		return c.show(o, err, up)
	case create:
		req := upload.CreateRequest{
			Capsule: capsule, Meta: catalog.Meta{Name: o.name},
			Put: upload.Put{Length: int64(len(contents[o.content]))},
		}
		if o.key >= 0 {
			req.Idem = keyName(o.key)
		}
		m, err := w.Uploads.Create(ctx, c.as(o), req, bytes.NewReader(contents[o.content]))
		o.rows = []row{rowOf(m)}
		return err
	case put:
		return c.put(ctx, o)
	case finish, batch:
		return c.finish(ctx, o)
	case abort:
		return w.Uploads.Abort(ctx, c.as(o), session.SessionID(o.sids[0]))
	case status:
		up, err := w.Uploads.Status(ctx, c.as(o), session.SessionID(o.sids[0]))
		return c.show(o, err, up)
	case sessions:
		ups, _, err := w.Uploads.List(ctx, w.Me, "", 1000)
		return c.show(o, err, ups...)
	case trash, purge:
		return w.Memories.Delete(ctx, w.Me, o.id, o.kind == purge)
	case restore, update, read:
		return c.memory(ctx, o)
	case revokeToken, revokeTicket, takeRole, giveRole, setQuota:
		return c.right(ctx, o)
	default:
		return c.look(ctx, o)
	}
}

func (c *client) put(ctx context.Context, o *op) error {
	all, id := contents[o.content], session.SessionID(o.sids[0])
	n := len(all) / pieces
	b := all[o.piece*n : (o.piece+1)*n]
	body := c.body(o, b)
	if o.chunked {
		return c.w.Uploads.PutChunk(ctx, c.as(o), id, int64(o.piece), body, upload.Put{Length: int64(n)})
	}
	crc := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) // with it the put has its whole effect or none
	_, err := c.w.Uploads.PutRange(
		ctx, c.as(o), id, int64(o.piece*n), body, upload.Put{Length: int64(n), CRC32C: &crc},
	)
	return err
}

func (c *client) finish(ctx context.Context, o *op) (err error) {
	var reqs []upload.FinishRequest
	for _, sid := range o.sids {
		b := contents[c.h.contentOf(sid)]
		req := upload.FinishRequest{ID: session.SessionID(sid), SHA256: sha256.Sum256(b), Length: int64(len(b))}
		if o.only {
			req.SHA256[0]++
		}
		reqs = append(reqs, req)
	}
	var ms []catalog.Memory
	if o.kind == batch {
		ms, err = c.w.Uploads.FinishBatch(ctx, c.as(o), reqs)
	} else {
		var m catalog.Memory
		m, err = c.w.Uploads.Finish(ctx, c.as(o), reqs[0])
		ms = []catalog.Memory{m}
	}
	for _, m := range ms {
		o.rows = append(o.rows, rowOf(m))
	}
	return err
}

// show notes sessions as an answer shows them.
func (c *client) show(o *op, err error, ups ...upload.Upload) error {
	if err != nil {
		return err
	}
	for _, up := range ups {
		s := shown{target: targetOf(up), state: up.State, memory: up.Memory, deleted: up.Deleted}
		n := max(up.BytesExpected/pieces, 1)
		for i := range int64(pieces) {
			switch r := (session.Range{Off: i * n, End: (i + 1) * n}); {
			case session.Covers(up.Received, r):
				s.have |= 1 << i
			case session.Covers(session.Gaps(up.Received, session.Range{End: up.BytesExpected}, 0), r):
			default:
				s.have |= 1 << 7 // a part of a piece
			}
		}
		o.shown = append(o.shown, s)
	}
	return nil
}

func (c *client) memory(ctx context.Context, o *op) (err error) {
	var m catalog.Memory
	switch o.kind {
	case restore:
		m, err = c.w.Memories.Restore(ctx, c.w.Me, o.id)
	case update:
		m, err = c.w.Memories.Update(ctx, c.w.Me, o.id, memories.Change{Description: &o.version})
	default:
		if c.rng.IntN(2) == 0 {
			m, err = c.w.Memories.Read(ctx, c.w.Me, o.id)
		} else {
			m, err = c.content(ctx, o)
		}
	}
	o.rows = []row{rowOf(m)}
	return err
}

// content reads a memory with its bytes, which must be those that were sent.
func (c *client) content(ctx context.Context, o *op) (m catalog.Memory, err error) {
	f, err := c.w.Memories.Open(ctx, c.w.Me, o.id)
	if err != nil {
		return m, err
	}
	m = f.Memory // a second look may find another state
	body, err := f.Body(ctx, 0, m.Bytes)
	if err != nil {
		return m, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if i := contentOf(m.SHA256, m.Bytes); err == nil && (i < 0 || !bytes.Equal(b, contents[i])) {
		err = errors.New("these are not the bytes that were sent")
	}
	return m, err
}

func (c *client) look(ctx context.Context, o *op) (err error) {
	switch o.kind {
	case ping:
		var present map[catalog.MemoryID]bool
		present, err = c.w.Memories.Ping(ctx, c.w.Me, o.ids)
		for _, id := range o.ids {
			o.present = append(o.present, present[id])
		}
	case counters:
		var row catalog.Capsule
		row, err = c.w.Memories.ReadCapsule(ctx, c.w.Me, capsule)
		o.counts = counts{row.Memories, row.Bytes, row.Trashed, row.Sessions, row.Reserved, row.Seq}
	case feed:
		o.events, err = c.w.events(ctx, o.from)
	case list:
		req := memories.ListRequest{Capsule: capsule, Trash: o.inTrash, Limit: o.limit}
		if o.only {
			sum := catalog.SHA256(sha256.Sum256(contents[o.content]))
			req.SHA256 = &sum
		}
		if o.from != math.MaxUint64 {
			req.Cursor = c.page.next
		}
		var page []catalog.Memory
		page, o.next, err = c.w.Memories.List(ctx, c.w.Me, req)
		o.more = o.next != ""
		for _, m := range page {
			o.rows = append(o.rows, rowOf(m))
		}
	}
	return err
}
