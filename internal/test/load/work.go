package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"

	"sluice/api"
)

// Client is one of several clients that work at the same time, with its own source of randomness.
type Client struct {
	*Facts
	api  *api.Client
	rand *rand.Rand
}

// Client gives a client of a server.
func (f *Facts) Client(c *api.Client, r *rand.Rand) *Client {
	return &Client{Facts: f, api: c, rand: r}
}

// entitled are the refusals that a server in trouble may give.
var entitled = []api.Code{api.CodeStorageFull, api.CodeUnavailable, api.CodeResourceExhausted}

// Work does one thing after the other until ctx ends. It ignores refusals that the server is
// entitled to in the midst of mishaps.
func (c *Client) Work(ctx context.Context) error {
	for ctx.Err() == nil {
		ops := []func(context.Context) error{
			c.create, c.create, c.upload, c.upload, c.upload, c.goOn, c.goOn, c.remove, c.restore, c.batch,
		}
		err := ops[c.rand.IntN(len(ops))](ctx)
		var refused *api.Error
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.As(err, &refused):
			if !slices.Contains(entitled, refused.Code) {
				return err
			}
		default:
			return nil // the connection is gone
		}
	}
	return nil
}

func (c *Client) noise(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := c.rand.Uint64()
		for j := i; j < min(n, i+8); j++ {
			b[j] = byte(v >> (8 * (j - i)))
		}
	}
	return b
}

// create stores a file in one request, with an idempotency key, so that it can be sent again.
func (c *Client) create(ctx context.Context) error {
	idem, b := "create-"+c.name(), c.noise(c.rand.IntN(3*chunkSize))
	m := &memory{sum: sum(b), body: b, state: "stored"}
	c.locked(func() { c.creates[idem] = m })
	return c.createAs(ctx, idem, m)
}

func (c *Client) createAs(ctx context.Context, idem string, m *memory) error {
	got, err := c.api.Create(
		ctx, api.CreateRequest{Name: idem, Idem: idem}, bytes.NewReader(m.body), int64(len(m.body)),
	)
	if err != nil {
		return err
	}
	if got.SHA256 != m.sum {
		return fmt.Errorf("create %s answers SHA-256 %s, not %s", idem, got.SHA256, m.sum)
	}
	c.acknowledged(func() {
		delete(c.creates, idem)
		m.body = nil
		c.memories[got.MemoryID] = m
	})
	return nil
}

// upload begins one, puts its chunks in any order, some as ranges, and mostly ends it.
func (c *Client) upload(ctx context.Context) error {
	u := &upload{name: "upload-" + c.name(), acked: map[int]bool{}, state: "open"}
	size := int64(0)
	for range 1 + c.rand.IntN(6) {
		u.chunks = append(u.chunks, c.noise(chunkSize))
		size += chunkSize
	}
	last, less := len(u.chunks)-1, c.rand.IntN(chunkSize-1)
	u.chunks[last] = u.chunks[last][less:]
	size -= int64(less)
	s, err := c.api.Begin(ctx, api.BeginRequest{
		CapsuleID: "default", Meta: api.Meta{Name: u.name, Bytes: &size}, ChunkSize: chunkSize, Idem: u.name,
	})
	if err != nil {
		return err
	}
	u.id, u.asked = s.SessionID, "nothing"
	c.acknowledged(func() { c.uploads[u.id] = u })
	defer c.give(u)
	return c.carry(ctx, u)
}

// take gives an open upload that no client works on, and hides it from the others until give.
func (f *Facts) take(n int) (us []*upload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.uploads {
		if len(us) < n && u.state == "open" && u.asked == "" {
			u.asked = "nothing"
			us = append(us, u)
		}
	}
	return us
}

func (f *Facts) give(us ...*upload) {
	f.locked(func() {
		for _, u := range us {
			if u.asked == "nothing" {
				u.asked = ""
			}
		}
	})
}

// goOn continues an upload that was left.
func (c *Client) goOn(ctx context.Context) error {
	us := c.take(1)
	if len(us) == 0 {
		return nil
	}
	defer c.give(us...)
	return c.carry(ctx, us[0])
}

// carry puts the missing chunks and ends the upload in one of several ways, or leaves it.
func (c *Client) carry(ctx context.Context, u *upload) error {
	for _, i := range c.rand.Perm(len(u.chunks)) {
		var have bool
		c.locked(func() { have = u.acked[i] })
		if have && c.rand.IntN(8) > 0 {
			continue
		}
		if err := c.put(ctx, u, i); err != nil {
			return err
		}
		if c.rand.IntN(12) == 0 {
			return nil
		}
	}
	switch c.rand.IntN(6) {
	case 0:
		return nil
	case 1:
		c.locked(func() { u.asked = "aborted" })
		err := c.api.Abort(ctx, u.id)
		if err == nil {
			c.acknowledged(func() { u.state, u.asked = "aborted", "" })
		}
		return err
	}
	c.locked(func() { u.asked = "finished" })
	b := u.content()
	m, err := c.api.Finish(ctx, api.FinishRequest{SessionID: u.id, SHA256: sum(b), TotalLen: int64(len(b))})
	if err != nil {
		return err
	}
	c.finished(u, m)
	return nil
}

func (c *Client) finished(u *upload, m api.Memory) {
	c.acknowledged(func() {
		u.state, u.asked = "finished", ""
		c.memories[m.MemoryID] = &memory{sum: sum(u.content()), state: "stored"}
	})
}

// put puts chunk i: whole, or as two ranges.
func (c *Client) put(ctx context.Context, u *upload, i int) error {
	b := u.chunks[i]
	if half := int64(len(b) / 2); half > 4096 && c.rand.IntN(4) == 0 {
		off := int64(i) * chunkSize
		for _, r := range [][2]int64{{0, half}, {half, int64(len(b))}} {
			if _, err := c.api.PutRange(
				ctx, u.id, off+r[0], bytes.NewReader(b[r[0]:r[1]]), r[1]-r[0], api.PutOptions{},
			); err != nil {
				return err
			}
		}
	} else if err := c.api.PutChunk(
		ctx, u.id, int64(i), bytes.NewReader(b), int64(len(b)), api.PutOptions{},
	); err != nil {
		return err
	}
	c.acknowledged(func() { u.acked[i] = true })
	return nil
}

// batch finishes several together.
func (c *Client) batch(ctx context.Context) error {
	us := c.take(3)
	defer c.give(us...)
	var reqs []api.FinishRequest
	var ids []string
	for _, u := range us {
		for i := range u.chunks {
			if err := c.put(ctx, u, i); err != nil {
				return err
			}
		}
		b := u.content()
		reqs, ids = append(reqs, api.FinishRequest{
			SessionID: u.id, SHA256: sum(b), TotalLen: int64(len(b)),
		}), append(ids, u.id)
	}
	if len(us) == 0 {
		return nil
	}
	name := c.name()
	c.locked(func() {
		for _, u := range us {
			u.asked = "finished"
		}
		c.batches[name] = ids
	})
	ms, err := c.api.FinishBatch(ctx, reqs)
	if err != nil {
		return err
	}
	for i, m := range ms {
		c.finished(us[i], m)
	}
	c.locked(func() { delete(c.batches, name) })
	return nil
}

// pick gives a memory in this state, and with this requested state.
func (f *Facts) pick(state, asked string) (id string, m *memory) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, m := range f.memories {
		if m.state == state && m.asked == "" {
			m.asked = asked
			return id, m
		}
	}
	return "", nil
}

func (c *Client) remove(ctx context.Context) error {
	purge := c.rand.IntN(3) == 0
	to := "trashed"
	if purge {
		to = "purged"
	}
	id, m := c.pick("stored", to)
	if m == nil {
		return nil
	}
	err := c.api.DeleteMemory(ctx, id, purge)
	if err == nil {
		c.acknowledged(func() { m.state, m.asked = to, "" })
	}
	return err
}

func (c *Client) restore(ctx context.Context) error {
	id, m := c.pick("trashed", "stored")
	if m == nil {
		return nil
	}
	_, err := c.api.RestoreMemory(ctx, id)
	if err == nil {
		c.acknowledged(func() { m.state, m.asked = "stored", "" })
	}
	return err
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func reader(b []byte) *bytes.Reader { return bytes.NewReader(b) }

// read gives a memory's bytes.
func read(ctx context.Context, c *api.Client, id string) ([]byte, error) {
	body, _, err := c.Content(ctx, id, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}
