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
	"sluice/session"
	"sluice/upload"
)

const (
	// orphanGrace is how long a place must be an orphan before it is deleted. It is longer than any
	// put takes from its first byte to its record.
	orphanGrace = time.Hour
	// maxSuspects bounds the orphans that a Sweep remembers for the next one.
	maxSuspects = 100_000
)

// Sweep looks through all places for orphans: places that no row of the catalog names and whose
// session has ended or is unknown. It gives the number of deleted places.
//
// It deletes an orphan of an earlier incarnation of the store: nobody writes to it any more, so no
// entry can come. It deletes an orphan of this incarnation if it was one at an earlier Sweep,
// orphanGrace of running time ago: no upload can be about to name it. Most of these are deleted
// before, by Reclaim. An error at one place does not stop the others. Places of an incarnation that
// the catalog can't know are reported and stay.
func (k *Keeper) Sweep(ctx context.Context) (deleted int, err error) {
	k.sweeps.Lock()
	defer k.sweeps.Unlock()
	if err := k.cfg.InPlace(); err != nil {
		return 0, err
	}
	s := &sweep{k: k, suspects: map[string]int64{}, now: k.cfg.Sessions.Running()}
	for after := ""; ; {
		places, err := k.cfg.Blobs.Places(ctx, after, 1000)
		if err != nil || ctx.Err() != nil {
			return s.deleted, errors.Join(s.failed.join(), err, ctx.Err())
		}
		if len(places) == 0 {
			break
		}
		for _, p := range places {
			after = p.Name
			s.failed.add(panics.Try(func() error { return s.place(ctx, p) }))
		}
	}
	k.suspects, k.looked = s.suspects, true
	if s.unknown > 0 {
		k.cfg.Log.Warn("places that nothing names are kept: the records of what they are may be lost, or in a "+
			"newer copy of the metadata", "places", s.unknown, "bytes", s.unknownBytes)
	}
	s.deleteStretches(ctx)
	s.failed.add(k.forgetEvents(ctx))
	return s.deleted, errors.Join(s.failed.join(), ctx.Err())
}

// forgetEvents removes events that exceed the number that a capsule keeps.
func (k *Keeper) forgetEvents(ctx context.Context) error {
	var ids []string
	var failed failures
	err := k.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		ids = ids[:0]
		for c, err := range catalog.Capsules.After(r, "") {
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if c.Seq > catalog.MostEvents {
				ids = append(ids, c.ID)
			}
		}
		return nil
	})
	failed.add(err)
	for _, id := range ids {
		for more := true; more && ctx.Err() == nil; {
			err := k.cfg.Catalog.Update(ctx, func(tx catalog.Tx) (err error) {
				if more, err = catalog.ForgetEvents(tx, id, batch); errors.Is(err, catalog.ErrNotFound) {
					err = nil
				}
				return err
			})
			if err != nil {
				failed.add(fmt.Errorf("forgetting the old events of capsule %s: %w", id, err))
				break
			}
		}
	}
	return failed.join()
}

// sweep is one run of Sweep.
type sweep struct {
	k         *Keeper
	now       int64
	suspects  map[string]int64 // the orphans, and since when each is one, in running time
	stretches []blob.PlaceInfo
	// unknown counts orphans that the metadata can't know.
	unknown, unknownBytes int64
	deleted               int
	failed                failures
}

// place deletes a place that has been an orphan for long enough.
func (s *sweep) place(ctx context.Context, p blob.PlaceInfo) error {
	if p.Holds != nil {
		if !s.k.cfg.KnownIncarnation(p.Incarnation) {
			s.countUnknown(p)
		} else if len(s.stretches) < maxSuspects {
			s.stretches = append(s.stretches, p)
		}
		return nil
	}
	since, before := s.k.suspects[p.Name]
	orphan, open, err := s.k.orphan(ctx, p)
	if !s.k.cfg.KnownIncarnation(p.Incarnation) {
		if orphan {
			s.countUnknown(p)
		}
		return nil
	}
	if open && p.Earlier && !s.k.looked {
		s.k.cfg.Uploads.AddLeftover(p.Name, p.Session)
	}
	if orphan && (p.Earlier || before && s.now-since >= orphanGrace.Milliseconds()) && !s.k.held() {
		if err = s.delete(ctx, p); err == nil {
			return nil
		}
	}
	if err != nil {
		err = fmt.Errorf("place %s, which nothing may name: %w", p.Name, err)
	}
	switch {
	case (orphan || err != nil) && before:
		s.suspects[p.Name] = since
	case orphan && len(s.suspects) < maxSuspects:
		s.suspects[p.Name] = s.now
	}
	return err
}

// countUnknown counts an orphan that another copy of the metadata may name.
func (s *sweep) countUnknown(p blob.PlaceInfo) {
	s.unknown, s.unknownBytes = s.unknown+1, s.unknownBytes+p.Bytes
}

func (s *sweep) delete(ctx context.Context, p blob.PlaceInfo) error {
	if err := s.k.delete(ctx, p.Name); err != nil {
		return err
	}
	s.k.cfg.Log.Info("deleted a place that nothing names", "place", p.Name, "bytes", p.Bytes)
	s.deleted++
	return nil
}

// deleteStretches deletes stretches that the store can't assign to a place: torn ends, and places
// with a corrupt head. They are garbage if no row names a place there.
func (s *sweep) deleteStretches(ctx context.Context) {
	if len(s.stretches) == 0 || s.k.held() {
		return
	}
	named, err := NamedIn(ctx, s.k.cfg.Catalog, s.k.cfg.Sessions, s.stretches)
	if err != nil {
		s.failed.add(fmt.Errorf("looking for what names places whose heads can't be read: %w", err))
		return
	}
	for _, p := range s.stretches {
		if names := named[p.Name]; len(names) > 0 {
			s.k.cfg.Log.Warn("the head of a place that is in use is damaged: its content can be read and is kept",
				"place", names[0], "bytes", p.Bytes, "places", len(names))
		} else if err := s.delete(ctx, p); err != nil {
			s.failed.add(fmt.Errorf("what is left at %s: %w", p.Name, err))
		}
	}
}

// NamedIn gives, by the name of each stretch (see blob.PlaceInfo.Holds), the places that a row
// names and whose bytes may be there.
func NamedIn(
	ctx context.Context, rows catalog.Store, sessions Lister, stretches []blob.PlaceInfo,
) (map[string][]string, error) {
	named := map[string][]string{}
	look := func(place string) {
		for _, p := range stretches {
			if p.Holds(place) && !slices.Contains(named[p.Name], place) {
				named[p.Name] = append(named[p.Name], place)
			}
		}
	}
	// Sessions come first: their entries move to the catalog, and never back.
	for _, st := range []session.State{session.Open, session.Sealed} {
		err := session.Page(ctx, sessions, session.Query{State: st, Limit: 500}, func(s session.Session) (bool, error) {
			entries, err := sessions.Entries(ctx, s.ID, session.All(), 0)
			if errors.Is(err, session.ErrNotFound) {
				err = nil
			}
			for _, e := range entries {
				// An unreadable entry may be at any place: then all places are kept.
				p, bad := upload.InspectPiece(e)
				if bad != nil {
					return false, fmt.Errorf("session %s, byte %d: %w", s.ID, e.Off, bad)
				}
				look(p.Extent.Place)
			}
			return true, errors.Join(err, ctx.Err())
		})
		if err != nil {
			return nil, err
		}
	}
	return named, rows.View(ctx, func(r catalog.Reader) error {
		for p, err := range catalog.Places.After(r, "") {
			if err != nil {
				return err
			}
			look(p.Name)
		}
		return nil
	})
}

// orphan reports whether nothing names a place, or whether its session is open.
func (k *Keeper) orphan(ctx context.Context, p blob.PlaceInfo) (orphan, open bool, err error) {
	if k.cfg.Uploads.Creating(p.Session) {
		return false, false, nil
	}
	s, err := k.cfg.Sessions.Status(ctx, p.Session)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return false, false, err
	}
	if err == nil && !s.State.Ended() {
		return false, true, nil
	}
	named := false
	err = k.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		_, named, err = catalog.Places.Find(r, catalog.Name(p.Name))
		return err
	})
	return err == nil && !named, false, err
}
