package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"

	"sluice/catalog"
	"sluice/session"
)

// leftover is a place where bytes may be left that no row names: of a put that failed, a range
// that was replaced, a session that was aborted, or a create that was refused. The request that
// leaves them notes the place, and Reclaim frees the bytes as soon as no put can be writing there.
// So no search is needed. The list of leftovers is lost with the process; then the sweep for
// orphans finds the places of its incarnation.
type leftover struct {
	id session.SessionID
	// gen is the generation of the session's last Drop at the time of the write. Puts that begin
	// after a later Drop write elsewhere. anyGen: no put writes there any more.
	gen uint64
	// waitsForSession: the session is open, and its next puts write to this place too. They
	// overwrite what is left, or it is freed with the session.
	waitsForSession bool
	seq             uint64 // tells it from a later leftover at the same place
}

const (
	anyGen = math.MaxUint64
	// maxLeftovers bounds the list. Bytes at other places are freed when their session ends.
	maxLeftovers = 100_000
)

// rememberLeftover notes that bytes may be left at a place.
func (u *Service) rememberLeftover(place string, id session.SessionID, gen uint64) {
	if place == "" {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	was, known := u.leftovers[place]
	if !known && len(u.leftovers) >= maxLeftovers {
		return
	}
	u.leftoverSeq++
	u.leftovers[place] = leftover{id: id, gen: max(gen, was.gen), seq: u.leftoverSeq}
	select {
	case u.leftoverAdded <- struct{}{}:
	default:
	}
}

// AddLeftover notes a place of an earlier incarnation of the content store. Reclaim frees the bytes
// there that no row names.
func (u *Service) AddLeftover(place string, id session.SessionID) {
	u.rememberLeftover(place, id, anyGen)
}

// LeftoverAdded receives a value when a Reclaim may have something to free at once.
func (u *Service) LeftoverAdded() <-chan struct{} { return u.leftoverAdded }

// Reclaim frees the bytes at the leftovers where no put can be writing. all includes those that
// wait for their session. No backup may hold places meanwhile. A failure at one place does not stop
// the others; it returns the last.
func (u *Service) Reclaim(ctx context.Context, all bool) error {
	u.mu.Lock()
	todo := maps.Clone(u.leftovers)
	u.mu.Unlock()
	var failed error
	for place, l := range todo {
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
		if l.waitsForSession && !all {
			continue
		}
		now, err := u.reclaim(ctx, place, l)
		if err != nil {
			failed = fmt.Errorf("giving back what is left at %s: %w", place, err) // one failure stands for all
		}
		u.mu.Lock()
		if is, ok := u.leftovers[place]; ok && is.seq == l.seq {
			if u.leftovers[place] = now; now == (leftover{}) {
				delete(u.leftovers, place)
			}
		}
		u.mu.Unlock()
	}
	return failed
}

// reclaim frees the bytes at a leftover, and gives the leftover that remains: the zero value if
// none does. No put begins to write there while it decides. A put that begins later finds no place,
// or a gap where nothing was recorded, and records only bytes that it has written itself.
func (u *Service) reclaim(ctx context.Context, place string, l leftover) (leftover, error) {
	a := u.active.acquire(l.id)
	defer u.active.release(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := u.cfg.Sessions.Status(ctx, l.id)
	switch {
	case err != nil && !errors.Is(err, session.ErrNotFound):
		return l, err
	case err != nil || s.State.Ended():
		return u.reclaimEnded(ctx, place, l)
	case s.State != session.Open:
		return l, nil // sealed: its end decides
	}
	if l.gen != anyGen {
		if l.waitsForSession = l.gen >= placeGen(s); l.waitsForSession {
			return l, nil
		}
		for gen := range a.writers {
			if gen <= l.gen {
				return l, nil
			}
		}
	}
	entries, err := u.cfg.Sessions.Entries(ctx, l.id, session.All(), 0)
	if err != nil {
		return l, err
	}
	var keep []catalog.Extent
	for _, e := range entries {
		n, err := decodeEntryNote(e.Note)
		if err != nil {
			return l, err
		}
		if n.Place == place {
			keep = append(keep, n.extent(e.Range))
		}
	}
	if keep == nil {
		err = u.cfg.Blobs.Delete(ctx, place)
	} else {
		err = u.cfg.Blobs.Trim(ctx, place, keep)
	}
	if err != nil {
		return l, err
	}
	return leftover{}, nil
}

// reclaimEnded is reclaim for a session that has ended, in which nothing is recorded any more. Its
// bytes are content or garbage.
func (u *Service) reclaimEnded(ctx context.Context, place string, l leftover) (leftover, error) {
	var row catalog.Place
	var keep []catalog.Extent
	err := u.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		keep = nil
		if row, _, err = catalog.Places.Find(r, catalog.Name(place)); err != nil || row.Refs != 1 {
			return err
		}
		out, ok, err := catalog.Outcomes.Find(r, catalog.Number(l.id))
		if err != nil || !ok {
			return err
		}
		content, _, err := catalog.Contents.Find(r, catalog.ContentKey{Capsule: out.Capsule, SHA256: out.SHA256})
		for _, e := range content.Extents {
			if e.Place == place {
				keep = append(keep, e)
			}
		}
		return err
	})
	switch {
	case err != nil:
	case row.Refs == 0:
		err = u.cfg.Blobs.Delete(ctx, place)
	case keep != nil:
		err = u.cfg.Blobs.Trim(ctx, place, keep)
	}
	if err != nil {
		return l, err
	}
	return leftover{}, nil
}

// withdraw drops the entries of r from the session. Their bytes are garbage then.
func (u *Service) withdraw(ctx context.Context, id session.SessionID, r session.Range) (session.Session, error) {
	s, dropped, err := u.cfg.Sessions.Drop(ctx, id, r, u.clipNote)
	if err != nil || placeGen(s) == 0 {
		return s, err
	}
	for _, e := range dropped {
		if n, err := decodeEntryNote(e.Note); err == nil {
			u.rememberLeftover(n.Place, id, placeGen(s)-1)
		}
	}
	return s, nil
}

// addWriter counts a put that may write to the places of a generation, or of a later one, until
// removeWriter.
func (a *activeSession) addWriter(gen uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writers == nil {
		a.writers = map[uint64]int{}
	}
	a.writers[gen]++
}

func (a *activeSession) removeWriter(gen uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writers[gen]--; a.writers[gen] == 0 {
		delete(a.writers, gen)
	}
}

// Undo implements session.Committer.
func (k *sink) Undo(rest []session.Range) {
	if k.writer == nil || k.undone {
		return
	}
	k.undone = true
	place, err := k.writer.Undo(rest)
	if err != nil {
		k.u.cfg.Log.Warn("giving back what a failed put has written", "session", k.s.ID, "err", err)
	}
	k.u.rememberLeftover(place, k.s.ID, placeGen(k.s))
}
