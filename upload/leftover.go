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

// leftover is a place at which something may be left that no record names: of a put that failed, of
// what was replaced, of a session that was aborted, of a create that was refused. Whoever leaves it
// says so, and it is given back as soon as nobody can be writing there; nobody has to search for
// it. What is known here is lost with the process; then the search for orphans finds the places of
// its incarnation.
type leftover struct {
	id session.SessionID
	// gen is that of the session's last Drop when it was written: puts that begin after a later one
	// write elsewhere. At whatMayCome nobody writes any more.
	gen uint64
	// waitsForSession: the session is open, and its next puts write to this place too: over what is
	// left, or it goes with the session.
	waitsForSession bool
	seq             uint64 // tells it from what is left there later
}

const (
	anyGen = math.MaxUint64
	// maxLeftovers bounds how many are remembered. What is more goes with its session.
	maxLeftovers = 100_000
)

// rememberLeftover remembers that something is left at a place.
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

// AddLeftover remembers a place of an earlier incarnation of the content store: what of it no
// record names is given back.
func (u *Service) AddLeftover(place string, id session.SessionID) {
	u.rememberLeftover(place, id, anyGen)
}

// LeftoverAdded has something where a Reclaim may give something back at once.
func (u *Service) LeftoverAdded() <-chan struct{} { return u.leftoverAdded }

// Reclaim gives back what has been left, as far as nobody can be writing there; all looks also at
// what waits for its session. No place may be held meanwhile by whoever copies what the records
// name. One failure keeps none of the others.
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
			failed = fmt.Errorf("giving back what is left at %s: %w", place, err) // they are alike
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

// reclaim gives back what is left at a place, and says what then still is: nothing, as the zero
// leftover. While it decides nobody begins to write there: who does so afterwards finds no place,
// or one with a hole where nothing was recorded, and records what he has written himself.
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
		return l, nil // whether it ends shows
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

// reclaimEnded is reclaim where the session has ended: nobody records anything of it any more. What
// it has become is content, or garbage.
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

// withdraw forgets what is recorded of r, whose bytes are garbage then.
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
// wrote.
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
