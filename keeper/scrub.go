package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/panics"
)

const (
	// scrubEvery is the shortest time between the beginnings of two passes over all content.
	scrubEvery = 24 * time.Hour
	// scrubRetry is the rest before the first pass, when a start has other things to do, and after
	// a pass that could not go on.
	scrubRetry = time.Minute
)

// Scrub re-reads all stored content past the caches, again and again until ctx ends, at most
// perSecond bytes a second on average, and compares each extent with its CRC-32C. It logs content
// that is not what was stored, and marks it as damaged, as Check does. It remembers nothing from
// one start to the next: each start begins at a content that pick chooses (0 ≤ pick(n) < n), so
// that many short runs look at everything too.
//
// Before it reports an extent it looks the content's row up again. If a re-upload or a deletion has
// changed the row meanwhile, the collector may have deleted the bytes, and there is nothing to
// report.
func (k *Keeper) Scrub(ctx context.Context, perSecond int64, pick func(n int64) int64) {
	s := &scrub{k: k, perSecond: perSecond}
	pause(ctx, scrubRetry)
	from, err := k.startKey(ctx, pick)
	for ctx.Err() == nil {
		began := k.cfg.Clock.Now()
		if err == nil {
			s.bytes, s.damaged = 0, 0
			err = s.pass(ctx, from)
		}
		wait := scrubEvery - k.cfg.Clock.Now().Sub(began)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.cfg.Log.Error("re-reading the stored content failed; it is tried again", "err", err)
			err, wait = nil, scrubRetry
		default:
			k.cfg.Log.Info("all stored content was read again", "bytes", s.bytes, "damaged", s.damaged)
		}
		pause(ctx, min(max(wait, scrubRetry), scrubEvery))
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// scrub is one run of Scrub.
type scrub struct {
	k              *Keeper
	perSecond      int64
	bytes, damaged int64 // of this pass
}

// startKey chooses a content to begin at: a capsule by the bytes it has, and there any digest.
func (k *Keeper) startKey(ctx context.Context, pick func(n int64) int64) (from catalog.ContentKey, err error) {
	err = k.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		from = catalog.ContentKey{}
		total := int64(0)
		for c, err := range catalog.Capsules.After(r, "") {
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if total += c.Bytes; c.Bytes > 0 && pick(total) < c.Bytes {
				from.Capsule = c.ID
			}
		}
		return nil
	})
	for i := range from.SHA256 {
		from.SHA256[i] = byte(pick(256))
	}
	return from, err
}

// pass looks at each content once: from the given key to the end, and then from the beginning.
func (s *scrub) pass(ctx context.Context, from catalog.ContentKey) error {
	after, around := &from, false
	for {
		content, ok, err := contentAfter(ctx, s.k.cfg.Catalog, after)
		if err != nil {
			return err
		}
		key := catalog.ContentKey{Capsule: content.Capsule, SHA256: content.SHA256}
		switch {
		case !ok && around, around && slices.Compare(key.AppendKey(nil), from.AppendKey(nil)) > 0:
			return nil
		case !ok:
			after, around = nil, true
			continue
		}
		after = &key
		err = panics.Try(func() error { return s.content(ctx, content) })
		if panicked := (*panics.Error)(nil); errors.As(err, &panicked) {
			s.k.cfg.Log.Error("looking at a stored content failed; the others are looked at",
				"sha256", fmt.Sprintf("%x", content.SHA256), "err", err)
		} else if err != nil {
			return err
		}
	}
}

// content checks one content. It skips marked content, which stays damaged until it is stored again
// or a Check finds it right.
func (s *scrub) content(ctx context.Context, content catalog.Content) error {
	if err := s.k.cfg.InPlace(); err != nil {
		return err
	}
	if !content.Damaged.IsZero() {
		s.damaged++
		return nil
	}
	if len(content.Extents) == 0 {
		s.bytes += content.Bytes
		if found := damagesInline(content); len(found) > 0 {
			return s.reportCorrupt(ctx, content, catalog.Extent{}, errors.New(found[0].problem))
		}
		return nil
	}
	for _, e := range content.Extents {
		began := s.k.cfg.Clock.Now()
		err := s.k.cfg.Blobs.Check(ctx, e, blob.CheckAll)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, blob.ErrUnavailable) { // no other content can be read either
			return err
		}
		s.bytes += e.Len
		if err != nil {
			return s.reportCorrupt(ctx, content, e, err)
		}
		if took := time.Duration(float64(e.Len) / float64(s.perSecond) * float64(time.Second)); took > 0 {
			pause(ctx, took-s.k.cfg.Clock.Now().Sub(began))
		}
	}
	return ctx.Err()
}

// reportCorrupt marks and logs content that is not what was stored, if its row has not changed.
func (s *scrub) reportCorrupt(ctx context.Context, content catalog.Content, e catalog.Extent, cause error) error {
	k := s.k
	key := catalog.ContentKey{Capsule: content.Capsule, SHA256: content.SHA256}
	var now catalog.Content
	var there bool
	err := k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		now, there, err = catalog.Contents.Find(r, key)
		return err
	})
	if err != nil || !there || !same(now, content) {
		return err
	}
	if err := k.cfg.InPlace(); err != nil {
		return err
	}
	if e.Place != "" && !isDamage(cause) {
		k.cfg.Log.Error("stored content could not be read; it is tried again in the next pass",
			"sha256", fmt.Sprintf("%x", content.SHA256), "place", e.Place, "err", cause)
		return nil
	}
	marked, err := mark(ctx, k.cfg.Catalog, content, k.cfg.Clock.Now())
	if err != nil || !marked {
		return err
	}
	s.damaged++
	memories, err := memoriesOf(ctx, k.cfg.Catalog, content)
	for _, m := range memories {
		k.cfg.Log.Error("a memory is damaged: its bytes are not what was stored; it is not given out until the "+
			"same bytes are stored again",
			"memory", m.ID, "capsule", m.Capsule, "name", m.Name, "bytes", m.Bytes, "place", e.Place, "err", cause)
	}
	return err
}
