package keeper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
)

func isNotFound(err error) bool { return errors.Is(err, catalog.ErrNotFound) }

// isDamage reports whether an error of reading says that the bytes are corrupt or missing, rather
// than that they could not be read just now.
func isDamage(err error) bool {
	return errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrMissing)
}

// words describes the error of an extent for people.
func (c *check) words(err error, place string) string {
	switch {
	case errors.Is(err, blob.ErrMissing):
		return fmt.Sprintf("%s is gone", c.cfg.File(place))
	case errors.Is(err, blob.ErrCorrupt):
		return fmt.Sprintf("%s does not hold there what was stored", c.cfg.File(place))
	}
	return fmt.Sprintf("%s can't be read: %v", c.cfg.File(place), err)
}

// read counts bytes for the summary and the progress.
func (c *check) read(n int64) {
	c.sum.Bytes += n
	c.done += n
	c.cfg.Progress(c.done, max(c.total, c.done))
}

// contents compares all content with its checksums.
func (c *check) contents(ctx context.Context) error {
	var after *catalog.ContentKey
	for {
		content, ok, err := contentAfter(ctx, c.cfg.Catalog, after)
		if err != nil || !ok {
			return err
		}
		key := catalog.ContentKey{Capsule: content.Capsule, SHA256: content.SHA256}
		after = &key
		if c.missingContents[key] { // reported already
			continue
		}
		if err := c.verify(ctx, content); err != nil {
			return err
		}
		if err := c.report(ctx); err != nil {
			return err
		}
	}
}

// contentAfter gives the first readable content behind a key; nil: the first of all.
func contentAfter(
	ctx context.Context, store catalog.Store, after *catalog.ContentKey,
) (content catalog.Content, ok bool, err error) {
	var lo []byte
	if after != nil {
		lo = keyAfter(after.AppendKey(nil))
	}
	err = store.View(ctx, func(r catalog.Reader) error {
		ok = false
		for row, err := range r.Scan(catalog.ContentTable, lo, nil, false) {
			if err == nil {
				content, ok = row.(catalog.Content)
			}
			// A row that lies under another's key would lead back.
			key := catalog.ContentKey{Capsule: content.Capsule, SHA256: content.SHA256}
			if ok = ok && bytes.Compare(key.AppendKey(nil), lo) >= 0; ok {
				return nil
			}
		}
		return nil
	})
	return content, ok, err
}

// damage is a defect of a part of a content.
type damage struct {
	session.Range
	place, problem string
	temporary      bool // it could not be read now, and may be readable later
}

// verify compares one content with its checksums.
func (c *check) verify(ctx context.Context, content catalog.Content) error {
	found, err := c.damages(ctx, content)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		if content.Damaged.IsZero() {
			return nil
		}
		for _, m := range c.memoriesOf(ctx, content) {
			c.unmark(c.wrong(KindContent, "%s is marked as damaged, and its bytes are right", nameOf(m)).about(m),
				content)
		}
		return nil
	}
	for _, m := range c.memoriesOf(ctx, content) {
		for _, d := range found {
			f := c.wrong(KindContent, "%s: bytes %s are damaged: %s", nameOf(m), span(d.Range), d.problem).about(m).
				at(d.place)
			f.Range = d.Range
			if d.Empty() {
				f.Text = fmt.Sprintf("%s: %s", nameOf(m), d.problem)
			}
			if !content.Damaged.IsZero() {
				f.Text += fmt.Sprintf(" (marked since %s)", content.Damaged.UTC().Format(time.RFC3339))
			}
			if d.temporary && content.Damaged.IsZero() {
				continue
			}
			f.Remedy, f.quarantines = "the content is marked as damaged and not given out; storing the same bytes "+
				"again heals it", true
			f.fix = func(ctx context.Context) error {
				_, err := mark(ctx, c.cfg.Catalog, content, c.now.Now)
				return err
			}
		}
	}
	return nil
}

func (c *check) unmark(f *Finding, content catalog.Content) {
	f.mend(c, "the mark is taken away", func(tx catalog.Tx) error {
		key := catalog.ContentKey{Capsule: content.Capsule, SHA256: content.SHA256}
		now, err := catalog.Contents.Get(tx, key)
		if err != nil || !same(now, content) {
			return err
		}
		now.Damaged = time.Time{}
		return catalog.Contents.Put(tx, key, now)
	})
	f.needsRows = false
}

// mark notes that a content, as it was looked up, is damaged. If its row is gone or has changed,
// mark gives false and does nothing: the row stands for other bytes then.
func mark(ctx context.Context, store catalog.Store, was catalog.Content, at time.Time) (marked bool, err error) {
	key := catalog.ContentKey{Capsule: was.Capsule, SHA256: was.SHA256}
	err = store.Update(ctx, func(tx catalog.Tx) error {
		marked = false
		now, ok, err := catalog.Contents.Find(tx, key)
		if err != nil || !ok || !same(now, was) {
			return err
		}
		marked = true
		if !now.Damaged.IsZero() {
			return nil
		}
		now.Damaged = at
		return catalog.Contents.Put(tx, key, now)
	})
	return marked && err == nil, err
}

// same reports whether two rows have their bytes at the same places.
func same(a, b catalog.Content) bool {
	return a.Bytes == b.Bytes && a.CRC32C == b.CRC32C && slices.Equal(a.Extents, b.Extents) &&
		bytes.Equal(a.Inline, b.Inline)
}

// damages re-reads a content. It computes SHA-256 over all bytes only if each extent is intact.
func (c *check) damages(ctx context.Context, content catalog.Content) (found []damage, err error) {
	if len(content.Extents) == 0 {
		c.read(content.Bytes)
		return damagesInline(content), nil
	}
	at := int64(0)
	for _, e := range content.Extents {
		if e.Len <= 0 || e.Off < 0 || e.Off > math.MaxInt64-e.Len || at > math.MaxInt64-e.Len {
			return []damage{{problem: "the list of where its bytes are is damaged"}}, nil
		}
		r := session.Range{Off: at, End: at + e.Len}
		at += e.Len
		err := c.cfg.Blobs.Check(ctx, e, blob.CheckAll)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			continue
		}
		if k := len(found) - 1; k >= 0 && found[k].End == r.Off && found[k].problem == c.words(err, e.Place) {
			found[k].End = r.End
			continue
		}
		found = append(found, damage{r, e.Place, c.words(err, e.Place), !isDamage(err)})
	}
	if at != content.Bytes {
		found = append(found, damage{problem: fmt.Sprintf("it has %d bytes, and %d are stored", content.Bytes, at)})
	}
	if len(found) > 0 {
		c.read(content.Bytes)
		return found, nil
	}
	sum := sha256.New()
	reader, err := c.cfg.Blobs.Read(ctx, content.Extents, 0, content.Bytes)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(sum, counter{ctx, c}), reader)
		reader.Close()
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return []damage{{problem: fmt.Sprintf("it can't be read: %v", err), temporary: !isDamage(err)}}, nil
	case catalog.SHA256(sum.Sum(nil)) != content.SHA256:
		return []damage{{problem: fmt.Sprintf("its bytes are as they were written, and their SHA-256 is %x and not %x",
			sum.Sum(nil), content.SHA256)}}, nil
	}
	return nil, nil
}

func damagesInline(content catalog.Content) []damage {
	all := session.Range{End: content.Bytes}
	switch {
	case content.Inline == nil && content.Bytes > 0:
		return []damage{{all, "", "they are gone", false}}
	case int64(len(content.Inline)) != content.Bytes:
		return []damage{{problem: fmt.Sprintf("it has %d bytes, and %d are stored in its record",
			content.Bytes, len(content.Inline))}}
	case crc32.Checksum(content.Inline, crc32.MakeTable(crc32.Castagnoli)) != content.CRC32C ||
		sha256.Sum256(content.Inline) != content.SHA256:
		return []damage{{all, "", "its record does not hold what was stored", false}}
	}
	return nil
}

// counter counts the bytes that are written to it, and stops with its context.
type counter struct {
	ctx   context.Context
	check *check
}

func (c counter) Write(p []byte) (int, error) {
	c.check.read(int64(len(p)))
	return len(p), c.ctx.Err()
}

// memoriesOf gives the memories that have a content. If there is none, it gives a stand-in with the
// content's name.
func (c *check) memoriesOf(ctx context.Context, content catalog.Content) []catalog.Memory {
	out, err := memoriesOf(ctx, c.cfg.Catalog, content)
	if err != nil || len(out) == 0 {
		return []catalog.Memory{{
			Capsule: content.Capsule,
			Meta:    catalog.Meta{Name: fmt.Sprintf("content %x", content.SHA256)},
		}}
	}
	return out
}

// memoriesOf finds the memories of a content: the visible ones by digest, those in the trash by a
// walk through the trash.
func memoriesOf(ctx context.Context, store catalog.Store, content catalog.Content) (out []catalog.Memory, err error) {
	err = store.View(ctx, func(r catalog.Reader) error {
		out = nil
		add := func(id catalog.MemoryID, err error) {
			if err != nil {
				return
			}
			if m, err := catalog.Memories.Get(r, catalog.MemoryKey(id)); err == nil && m.SHA256 == content.SHA256 {
				out = append(out, m)
			}
		}
		digest := catalog.DigestKey{Capsule: content.Capsule, SHA256: content.SHA256}
		end := digest
		end.Seq = math.MaxUint64
		for id, err := range catalog.Digests.Scan(r, digest, end) {
			add(id, err)
		}
		trash := catalog.OrderKey{Capsule: content.Capsule, Trash: true}
		for id, err := range catalog.Order.Scan(r, trash,
			catalog.OrderKey{Capsule: content.Capsule, Trash: true, Seq: math.MaxUint64}) {
			add(id, err)
		}
		return nil
	})
	return out, err
}

// places looks for stored places that nothing names.
func (c *check) places(ctx context.Context) error {
	var stretches []blob.PlaceInfo
	for after := ""; ; {
		page, err := c.cfg.Blobs.Places(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("listing the content: %w", err)
		}
		if len(page) == 0 {
			c.reportStretches(stretches)
			return c.report(ctx)
		}
		for _, p := range page {
			after = p.Name
			c.sum.Places++
			if p.Holds != nil {
				stretches = append(stretches, p)
				continue
			}
			if c.namedPlaces[p.Name] || c.sessions[p.Session] != nil {
				continue
			}
			if !c.cfg.KnownPlace(p.Name) {
				c.wrong(KindLeftover, "nothing names %s (%d bytes): the record of what it is may be lost, or in a "+
					"newer copy of the metadata; it is kept", c.cfg.File(p.Name), p.Bytes).at(p.Name).Note = true
				continue
			}
			c.wrong(KindLeftover, "nothing names %s (%d bytes): it is left of an upload that was cut, and the "+
				"server deletes it within minutes of its start; move it away if you miss something",
				c.cfg.File(p.Name), p.Bytes).at(p.Name).Note = true
		}
		if err := c.report(ctx); err != nil {
			return err
		}
	}
}

// reportStretches reports stretches that the store can't assign to a place.
func (c *check) reportStretches(stretches []blob.PlaceInfo) {
	for _, p := range stretches {
		var names []string
		for name := range c.namedPlaces {
			if p.Holds(name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		text := fmt.Sprintf("nothing names the %d bytes at %s: they are left of an upload that was cut, and the "+
			"server gives them back", p.Bytes, c.cfg.File(p.Name))
		if !c.cfg.KnownPlace(p.Name) {
			text = fmt.Sprintf("nothing names the %d bytes at %s: the record of what they are may be lost, or in a "+
				"newer copy of the metadata; they are kept", p.Bytes, c.cfg.File(p.Name))
		}
		if len(names) > 0 {
			text = fmt.Sprintf("the head of %s is damaged (and of %d places more): its content was read all the "+
				"same, and is kept", names[0], len(names)-1)
		}
		c.wrong(KindLeftover, "%s", text).at(p.Name).Note = true
	}
}
