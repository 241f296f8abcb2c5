package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// found is what a server shows of one upload.
type found struct {
	is      fate
	session upload.Upload
	memory  catalog.Memory
}

// check compares what the server shows with the answers so far, and notes in the model the outcome
// of each call that was under way.
func (c *client) check() error {
	listed, err := c.listed()
	if err != nil {
		return err
	}
	batches := map[string]fate{}
	for _, name := range c.m.names() {
		f := c.m.files[name]
		got, err := c.look(f, listed)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if f.can&got.is == 0 {
			return fmt.Errorf("%s: it is %s", f, got.is)
		}
		if f.batch != "" {
			if was, ok := batches[f.batch]; ok && was != got.is {
				return fmt.Errorf("%s: of its batch one is %s, and another %s", f, was, got.is)
			}
			batches[f.batch] = got.is
		}
		if got.is == open {
			err = c.checkOpen(f, got.session)
		} else if got.is == visible {
			f.memory = got.memory.ID
			err = c.checkContent(f)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		f.can = got.is
		if got.session.ID != 0 {
			f.id = got.session.ID
		}
	}
	for _, f := range c.m.files {
		f.batch = ""
	}
	newest := c.m.newest()
	row, err := c.w.Memories.ReadCapsule(ctx, c.w.Me, "default")
	if err == nil && row.Seq < newest {
		err = fmt.Errorf("the newest event is %d, and a reader saw %d", row.Seq, newest)
	}
	return err
}

// listed gives the contents of the lists by name. It fails if they show something that nobody sent.
func (c *client) listed() (map[string]found, error) {
	out := map[string]found{}
	var wrong error
	for at, is := range map[bool]fate{false: visible, true: trashed} {
		err := eachMemory(c.w, at, func(m catalog.Memory) {
			if _, twice := out[m.Name]; twice {
				wrong = fmt.Errorf("%s is there twice", m.Name)
			}
			f := c.m.files[m.Name]
			if f == nil || f.memory != (catalog.MemoryID{}) && f.memory != m.ID {
				wrong = fmt.Errorf("%s is there as %s, which nobody knows of", m.Name, m.ID)
			} else if m.SHA256 != sha256.Sum256(f.content) || m.Bytes != int64(len(f.content)) {
				wrong = fmt.Errorf("%s: its row says %x and %d bytes", f, m.SHA256, m.Bytes)
			}
			out[m.Name] = found{is: is, memory: m}
		})
		if err := errors.Join(err, wrong); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// look finds out the state of an upload.
func (c *client) look(f *file, listed map[string]found) (found, error) {
	got, there := listed[f.name]
	if f.id == 0 {
		switch {
		case there:
			return got, nil
		case f.created && f.memory != (catalog.MemoryID{}):
			return found{is: purged}, nil
		case f.idem == "" || f.created:
			return found{is: nowhere}, nil // a client that does not know the id begins anew
		}
		// Asked for by its idempotency key later.
		if f.can&open != 0 {
			return found{is: f.can & (nowhere | open) & -(f.can & (nowhere | open))}, nil
		}
		return found{is: nowhere}, nil
	}
	up, err := c.status(f)
	if errors.Is(err, session.ErrNotFound) {
		return found{is: nowhere}, nil
	}
	if err != nil {
		return got, err
	}
	states := map[session.State]fate{session.Open: open, session.Aborted: aborted, session.Expired: expired}
	is, ok := states[up.State]
	switch {
	case ok && there:
		return got, fmt.Errorf("its session is %s, and it is listed", up.State)
	case ok:
		return found{is: is, session: up}, nil
	case up.State != session.Finished:
		return got, fmt.Errorf("its session is %s", up.State)
	case there && got.memory.ID != up.Memory:
		return got, fmt.Errorf("its session became %s, and %s is listed", up.Memory, got.memory.ID)
	case up.Deleted == (there && got.is == visible):
		return got, fmt.Errorf("its session says deleted %v, and it is listed %v", up.Deleted, there)
	case !there:
		got.is = purged
	}
	got.session = up
	return got, nil
}

// checkOpen: every acknowledged byte is there, or is reported missing if it may be lost. Nothing is
// there that was not sent.
func (c *client) checkOpen(f *file, up upload.Upload) error {
	for _, r := range f.must {
		if !session.Covers(up.Received, r) && !f.harmed {
			return fmt.Errorf("bytes %v were acknowledged, and %v are there", r, up.Received)
		}
	}
	for _, r := range up.Received {
		if !session.Covers(f.may, r) {
			return fmt.Errorf("bytes %v are there, and %v were sent", r, f.may)
		}
	}
	if c.blind(f) {
		return nil // the loss shows when the content is asked for again
	}
	crcs, err := c.w.Uploads.ChunkCRCs(ctx, c.as(f), f.id)
	if err != nil {
		return err
	}
	for _, got := range crcs {
		r := session.Range{Off: got.Index * chunk, End: min((got.Index+1)*chunk, int64(len(f.content)))}
		if !slices.ContainsFunc(f.versions(r), func(b []byte) bool {
			return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) == got.CRC32C
		}) {
			return fmt.Errorf("chunk %d has CRC %08x, which is of nothing that was sent", got.Index, got.CRC32C)
		}
	}
	f.must = slices.Clone(up.Received)
	return nil
}

// checkContent reads the stored content.
func (c *client) checkContent(f *file) error {
	file, err := c.w.Memories.Open(ctx, c.w.Me, f.memory)
	if err != nil {
		return err
	}
	body, err := file.Body(ctx, 0, int64(len(f.content)))
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	if !bytes.Equal(b, f.content) {
		return errors.New("its bytes are not what was sent")
	}
	return nil
}

// goOn is the client after the server is back. It repeats unanswered calls, and brings everything
// to its end.
func (c *client) goOn() error {
	for _, name := range c.m.names() {
		if err := c.goOnWith(c.m.files[name]); err != nil {
			return fmt.Errorf("going on with %s: %w", c.m.files[name], err)
		}
	}
	if c.m.files["later"] == nil {
		c.create("later", "", bytesOf("later", 1, 700)) // and the server takes new ones
	}
	return c.err
}

func (c *client) goOnWith(f *file) error {
	if c.barred(f) {
		return nil
	}
	for range 6 {
		switch {
		case c.err != nil:
			return c.err
		case f.can == purged:
			return nil
		case f.can == aborted || f.can == expired:
			return c.checkEnded(f)
		case f.can == trashed:
			c.restore(f.name)
		case f.can == visible:
			return c.repeat(f)
		case f.created:
			f.memory = catalog.MemoryID{}
			c.createAgain(f)
		case f.id == 0 || f.can == nowhere:
			if !c.fits(f) {
				return nil
			}
			c.beginAgain(f)
		default:
			if err := c.complete(f); err != nil {
				return err
			}
		}
	}
	return errors.New("it comes to no end")
}

// checkEnded: an aborted upload stays aborted.
func (c *client) checkEnded(f *file) error {
	if len(f.content) == 0 {
		return nil // it has no chunk to put
	}
	err := c.w.Uploads.PutChunk(
		ctx, c.as(f), f.id, 0, bytes.NewReader(f.content[:min(chunk, len(f.content))]), upload.Put{Length: -1},
	)
	if f.can == aborted && !errors.Is(err, session.ErrAborted) ||
		f.can == expired && !errors.Is(err, session.ErrExpired) {
		return fmt.Errorf("a put is answered with %w", err)
	}
	return nil
}

// repeat repeats a finish, which has one effect.
func (c *client) repeat(f *file) error {
	if f.created && f.idem == "" {
		return c.checkContent(f)
	}
	was := f.memory
	if f.created {
		c.createAgain(f)
	} else {
		c.finish(f.name)
	}
	if c.err == nil && f.memory != was {
		return fmt.Errorf("it was %s, and repeated it is %s", was, f.memory)
	}
	return errors.Join(c.err, c.checkContent(f))
}

// complete puts the missing bytes, and finishes.
func (c *client) complete(f *file) error {
	for len(f.old) > 0 {
		if !c.replaceAgain(f) {
			return c.err
		}
	}
	up, err := c.w.Uploads.Status(ctx, c.as(f), f.id)
	if err != nil {
		return err
	}
	for _, r := range session.Gaps(up.Received, session.Range{End: int64(len(f.content))}, 0) {
		if !c.put(f.name, r.Off, r.Len(), -1) {
			return c.err
		}
	}
	if !f.harmed {
		c.finish(f.name)
		return c.err
	}
	// A loss of the disk may show only now. Then it is reported as missing, once.
	failed := c.failed
	var incomplete error
	c.failed = func(_, _ string, err error) { incomplete = err }
	c.finish(f.name)
	c.failed = failed
	if incomplete != nil && !errors.Is(incomplete, session.ErrIncomplete) {
		return incomplete
	}
	return c.err
}

// collect lets time pass. Then the disk has nothing that no row names.
func (c *client) collect() error {
	c.sweep()
	for range 3 {
		c.tick()
	}
	c.sweep()
	if c.err != nil {
		return c.err
	}
	named := map[string]bool{}
	err := c.w.Catalog.View(ctx, func(r catalog.Reader) error {
		for row, err := range catalog.Contents.After(r, catalog.ContentKey{}) {
			if err != nil {
				return err
			}
			for _, place := range row.Places() {
				named[place] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	places, err := c.w.Blobs.Places(ctx, "", 10_000)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.Holds != nil { // its head is corrupt
			before := len(named)
			maps.DeleteFunc(named, func(name string, _ bool) bool { return p.Holds(name) })
			if len(named) == before {
				return fmt.Errorf("%s is left over: it is of no place that is named", p.Name)
			}
			continue
		}
		s, err := c.w.Engine.Status(ctx, p.Session)
		if !named[p.Name] && (err != nil || s.State.Ended()) {
			return fmt.Errorf("place %s is left over (its session: %s, %w)", p.Name, s.State, err)
		}
	}
	for _, p := range places {
		delete(named, p.Name)
	}
	if len(named) > 0 {
		return fmt.Errorf("%v are named, and not there", named)
	}
	return nil
}
