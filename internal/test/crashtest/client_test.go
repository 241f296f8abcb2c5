package crashtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// client calls a server. It notes in the model which calls are under way, and their answers.
type client struct {
	w *server
	m *model
	// failed gets the error of a call. If it is nil, no call may fail.
	failed func(name, doing string, err error)
	err    error // of the first call that may not fail
	trace  func(doing string, answered bool, err error)
}

var ctx = context.Background()

// call runs one call. widen adds the possible outcomes, has applies the answer, undo applies a
// refusal.
func (c *client) call(name, doing string, widen func(), do func() error, has, undo func()) bool {
	if c.err != nil {
		return false
	}
	doing += " " + name
	c.m.start(doing, widen)
	c.logCall(doing, false, nil)
	err := do()
	c.logCall(doing, true, err)
	if err == nil {
		c.m.ack(has)
		return true
	}
	c.m.ack(func() {
		if undo != nil {
			undo()
		}
		if f := c.m.files[name]; f != nil {
			f.harmed = true
		}
	})
	if c.failed == nil {
		c.err = fmt.Errorf("%s: %w", doing, err)
	} else {
		c.failed(name, doing, err)
	}
	return false
}

func (c *client) logCall(doing string, answered bool, err error) {
	if c.trace != nil {
		c.trace(doing, answered, err)
	}
}

// begin begins an upload of these bytes.
func (c *client) begin(f file) {
	f.can = nowhere
	c.m.mu.Lock()
	c.m.files[f.name] = &f
	c.m.mu.Unlock()
	c.beginAgain(&f)
}

// beginAgain begins the upload, or asks for the one that was begun under its idempotency key.
func (c *client) beginAgain(f *file) bool {
	was := f.can
	var up upload.Upload
	return c.call(f.name, "begin", func() { f.can |= open }, func() (err error) {
		size := int64(len(f.content))
		if f.unknown {
			size = session.Unknown
		}
		up, err = c.w.Uploads.Begin(ctx, c.as(f), upload.BeginRequest{
			Capsule: "default", Meta: catalog.Meta{Name: f.name}, Bytes: size, Chunks: -1, ChunkSize: chunk,
			Idem: f.idem,
		})
		return err
	}, func() { f.id, f.can = up.ID, open }, func() { f.can = was })
}

// get gives the upload if it was begun.
func (c *client) get(name string) (*file, bool) {
	f := c.m.files[name]
	return f, c.err == nil && f != nil && f.id != 0
}

// chunk puts one chunk.
func (c *client) chunk(name string, i int64) bool {
	f, ok := c.get(name)
	if !ok {
		return false
	}
	r := session.Range{Off: i * chunk, End: min((i+1)*chunk, int64(len(f.content)))}
	return c.call(name, fmt.Sprintf("put chunk %d of", i), func() { f.may = session.Add(f.may, r) }, func() error {
		return c.w.Uploads.PutChunk(
			ctx, c.as(f), f.id, i, bytes.NewReader(f.content[r.Off:r.End]), upload.Put{Length: r.Len()},
		)
	}, func() { f.must = session.Add(f.must, r) }, nil)
}

// put puts a range. Its body breaks off after cut bytes, unless cut is negative.
func (c *client) put(name string, off, n, cut int64) bool {
	f, ok := c.get(name)
	if !ok {
		return false
	}
	r := session.Range{Off: off, End: off + n}
	var got int64
	doing := fmt.Sprintf("put bytes %d to %d of", r.Off, r.End)
	return c.call(name, doing, func() { f.may = session.Add(f.may, r) }, func() (err error) {
		var body io.Reader = bytes.NewReader(f.content[r.Off:r.End])
		if cut >= 0 {
			body = io.MultiReader(io.LimitReader(body, cut), cutBody{})
		}
		got, err = c.w.Uploads.PutRange(ctx, c.as(f), f.id, off, body, upload.Put{Length: n})
		if cut >= 0 && errors.Is(err, errCut) ||
			(n < minPiece || cut >= 0 && cut < minPiece) && errors.Is(err, session.ErrLimit) {
			return nil
		}
		return err
	}, func() { f.must = session.Add(f.must, session.Range{Off: off, End: off + got}) }, nil)
}

var errCut = errors.New("the connection broke")

type cutBody struct{}

func (cutBody) Read([]byte) (int, error) { return 0, errCut }

// replace withdraws the bytes that are there, and puts others.
func (c *client) replace(name string, off int64, with []byte) bool {
	f, ok := c.get(name)
	if !ok {
		return false
	}
	r := session.Range{Off: off, End: off + int64(len(with))}
	return c.call(name, fmt.Sprintf("replace bytes %d to %d of", r.Off, r.End), func() {
		f.old = append(f.old, patch{r, bytes.Clone(f.content[r.Off:r.End])})
		f.content = replaced(f.content, off, with)
		f.must, f.may = session.Sub(f.must, r), session.Add(f.may, r)
	}, func() error { return c.putReplacing(f, r) },
		func() { f.must, f.old = session.Add(f.must, r), f.without(r) }, nil)
}

func (c *client) putReplacing(f *file, r session.Range) error {
	p := upload.Put{Length: r.Len(), Replace: true}
	body := bytes.NewReader(f.content[r.Off:r.End])
	if r.Off%chunk == 0 && (r.End-r.Off == chunk || r.End == int64(len(f.content))) {
		return c.w.Uploads.PutChunk(ctx, c.as(f), f.id, r.Off/chunk, body, p)
	}
	_, err := c.w.Uploads.PutRange(ctx, c.as(f), f.id, r.Off, body, p)
	return err
}

// replaceAgain repeats a replacement that was not answered.
func (c *client) replaceAgain(f *file) bool {
	r := f.old[0].Range
	return c.call(
		f.name, fmt.Sprintf("replace bytes %d to %d again of", r.Off, r.End),
		func() { f.must = session.Sub(f.must, r) },
		func() error { return c.putReplacing(f, r) },
		func() { f.must, f.old = session.Add(f.must, r), f.without(r) }, nil,
	)
}

// without gives the old versions except that of r.
func (f *file) without(r session.Range) []patch {
	return slices.DeleteFunc(slices.Clone(f.old), func(p patch) bool { return p.Range == r })
}

// finish finishes uploads together.
func (c *client) finish(names ...string) bool {
	var fs []*file
	var reqs []upload.FinishRequest
	for _, name := range names {
		f, ok := c.get(name)
		if !ok {
			return false
		}
		fs = append(fs, f)
		reqs = append(reqs, upload.FinishRequest{
			ID: f.id, SHA256: sha256.Sum256(f.content), Length: int64(len(f.content)),
		})
	}
	var ms []catalog.Memory
	return c.call(names[0], fmt.Sprintf("finish %d:", len(names)), func() {
		for _, f := range fs {
			f.can |= visible
			if len(fs) > 1 {
				f.batch = names[0]
			}
		}
	}, func() (err error) {
		ms, err = c.w.Uploads.FinishBatch(ctx, c.as(fs[0]), reqs)
		return err
	}, func() {
		for i, f := range fs {
			f.can, f.memory, f.batch = visible, ms[i].ID, ""
		}
	}, func() {
		for _, f := range fs {
			f.can, f.harmed, f.batch = f.before, true, ""
		}
	})
}

// create is a whole upload in one request.
func (c *client) create(name, idem string, content []byte) {
	f := &file{name: name, idem: idem, content: content, created: true, can: nowhere}
	c.m.mu.Lock()
	c.m.files[name] = f
	c.m.mu.Unlock()
	c.createAgain(f)
}

func (c *client) createAgain(f *file) bool {
	var m catalog.Memory
	return c.call(f.name, "create", func() { f.can |= visible }, func() (err error) {
		m, err = c.w.Uploads.Create(ctx, c.as(f), upload.CreateRequest{
			Capsule: "default", Meta: catalog.Meta{Name: f.name}, Idem: f.idem,
			Put: upload.Put{Length: int64(len(f.content))},
		}, bytes.NewReader(f.content))
		return err
	}, func() { f.can, f.memory = visible, m.ID }, func() { f.can = f.before })
}

// end is a call that moves an upload from one fate to another.
func (c *client) end(name, doing string, from, to fate, do func(f *file) error) {
	f := c.m.files[name]
	if c.err != nil || f == nil || f.can != from {
		return
	}
	c.call(
		name, doing, func() { f.can |= to }, func() error { return do(f) }, func() { f.can = to },
		func() { f.can = from },
	)
}

func (c *client) abort(name string) {
	c.end(name, "abort", open, aborted, func(f *file) error { return c.w.Uploads.Abort(ctx, c.as(f), f.id) })
}

func (c *client) trash(name string) {
	c.end(
		name, "delete", visible, trashed,
		func(f *file) error { return c.w.Memories.Delete(ctx, c.w.Me, f.memory, false) },
	)
}

func (c *client) restore(name string) {
	c.end(name, "restore", trashed, visible, func(f *file) error {
		_, err := c.w.Memories.Restore(ctx, c.w.Me, f.memory)
		return err
	})
}

func (c *client) purge(name string, from fate) {
	c.end(name, "purge", from, purged, func(f *file) error { return c.w.Memories.Delete(ctx, c.w.Me, f.memory, true) })
}

// tick lets an hour pass. These uploads, if they are as the test expects, end by that.
func (c *client) tick(ends ...string) {
	c.w.clock.Advance(hour)
	if c.failed != nil {
		ends = c.m.names() // an upload whose call has failed is not in the state that the script expects
	}
	end := func(sure bool) {
		for _, name := range ends {
			f := c.m.files[name]
			for from, to := range map[fate]fate{open: expired, trashed: purged} {
				switch {
				case f == nil || f.can&from == 0:
				case sure && f.can == from|to && c.failed == nil:
					f.can = to
				default:
					f.can |= to
				}
			}
		}
	}
	var rights func(int64)
	var ended func()
	c.call("", "tick", func() {
		end(false)
		rights = c.m.tick(c.w.Engine.Running(), hour)
		ended = c.m.ending()
	}, func() error { _, err := c.w.Keeper.Tick(ctx); return err }, func() {
		end(true)
		ended()
		rights(c.w.Engine.Running())
	}, nil)
}

func (c *client) sweep() {
	c.call("", "sweep", nil, func() error { _, err := c.w.Keeper.Sweep(ctx); return err }, func() {}, nil)
}
