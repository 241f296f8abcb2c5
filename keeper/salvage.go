package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sluice/catalog"
	"sluice/session"
)

// Salvage brings out the rows that are left of damaged metadata. First Keep decides for each
// whether it is taken into new metadata. Then Reconcile makes the taken rows agree, as far as that
// is more than a Check with Repair does, which is to follow.
//
// A row that is not sure may be older than it was, or deleted since. None that grants access is
// taken then: a token may have been revoked, a role taken away. A memory is taken: the events of
// its capsule say what has become of it, and its bytes can be compared. Rows that follow from other
// rows are made anew.
type Salvage struct {
	// Lost reports whether the newest row of this key may have been lost.
	Lost func(table catalog.TableID, key []byte) bool
	// Found is called for each thing that is missing, or may be older than it was.
	Found func(Finding)
	// Restored: the only content is what the rows of contents name.
	Restored bool
	// Content, which may be nil, is searched for the bytes of contents whose rows are lost.
	Content RawPlaces

	store    catalog.Store
	now      catalog.Moment
	random   io.Reader
	capsules map[string]catalog.Capsule // capsules that are not sure
	older    map[catalog.MemoryID]bool  // memories that are not sure
	// principalsUnsure may have lost the admin right since, or were deleted.
	principalsUnsure map[string]catalog.Principal
	made             map[string]bool             // principals that were made anew
	identities       map[string]catalog.Identity // of principals, as their list says
	changed          []func(catalog.Tx) error
}

// KindLost and KindOlder are what a Salvage finds, beside the kinds of Check.
const (
	KindLost  Kind = "lost"  // a row is gone for good
	KindOlder Kind = "older" // a row may be older than it was
)

// trashAnew is how long a memory stays in the trash if nothing says when it got there.
const trashAnew = 7 * 24 * time.Hour

// Keep reports whether a row is taken.
func (s *Salvage) Keep(row any, sure bool) bool {
	if sure {
		return true
	}
	switch v := row.(type) {
	case catalog.Capsule:
		if s.capsules == nil {
			s.capsules = map[string]catalog.Capsule{}
		}
		s.capsules[v.ID] = v
	case catalog.Memory:
		if s.older == nil {
			s.older = map[catalog.MemoryID]bool{}
		}
		s.older[v.ID] = true
		return true
	case catalog.Content, catalog.Event: // such rows never change, or are compared
		return true
	case catalog.Principal:
		if s.principalsUnsure == nil {
			s.principalsUnsure = map[string]catalog.Principal{}
		}
		s.principalsUnsure[v.ID] = v
	case catalog.Token:
		s.report(KindLost, "token %s (%q of principal %s) is void: it may have been revoked", v.ID, v.Name, v.Principal)
	case catalog.Grant:
		s.report(KindLost, "grant %s (%q of principal %s) is void: it may have been revoked", v.ID, v.Name, v.Maker)
	}
	return false
}

// report reports one finding that is about nothing in particular.
func (s *Salvage) report(kind Kind, format string, args ...any) {
	s.Found(Finding{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (s *Salvage) reportMemory(m catalog.Memory, kind Kind, format string, args ...any) {
	f := Finding{Kind: kind, Text: nameOf(m) + fmt.Sprintf(format, args...)}
	s.Found(*f.about(m))
}

// Reconcile makes principals, capsules and memories from what is known of the lost ones, and ends
// sessions that can't go on. sessions and rows are the new metadata, which no other process has
// open. random is for the id of an admin.
func (s *Salvage) Reconcile(
	ctx context.Context, sessions session.Store, rows catalog.Store, clock session.Clock, random io.Reader,
) error {
	stats, err := sessions.Stats(ctx)
	if err != nil {
		return err
	}
	s.made = map[string]bool{}
	s.store, s.random, s.now = rows, random, catalog.Moment{Now: clock.Now(), Running: max(stats.Newest, 1)}
	for _, step := range []func(catalog.Reader) error{
		s.readIdentities, s.principals, s.memories, s.recoverCapsules, s.rolePrincipals, s.tokenLists, s.grantLists,
		s.identityList, s.outcomes, s.places,
	} {
		s.changed = nil
		if err := rows.View(ctx, step); err != nil {
			return err
		}
		if err := s.apply(ctx); err != nil {
			return err
		}
	}
	if s.Content != nil {
		if err := s.recoverContents(ctx, s.Content); err != nil {
			return err
		}
	}
	return s.forgetSessions(ctx, sessions)
}

// changesPerCommit is how many changes one commit has.
const changesPerCommit = 1000

func (s *Salvage) apply(ctx context.Context) error {
	for some := range slices.Chunk(s.changed, changesPerCommit) {
		err := s.store.Update(ctx, func(tx catalog.Tx) error {
			for _, change := range some {
				if err := change(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *Salvage) change(f func(catalog.Tx) error) { s.changed = append(s.changed, f) }

// places forgets, in restored metadata, the places of contents whose rows were lost.
func (s *Salvage) places(rows catalog.Reader) error {
	if !s.Restored {
		return nil
	}
	named := map[string]bool{}
	for row, err := range rows.Scan(catalog.ContentTable, nil, nil, false) {
		if err != nil {
			return err
		}
		if c, ok := row.(catalog.Content); ok {
			for _, name := range c.Places() {
				named[name] = true
			}
		}
	}
	for p, err := range catalog.Places.After(rows, "") {
		if err != nil {
			return err
		}
		if p.Refs > 0 && !named[p.Name] {
			s.change(func(tx catalog.Tx) error { return catalog.Places.Delete(tx, catalog.Name(p.Name)) })
		}
	}
	return nil
}

// outcomes notes the lost outcomes of sessions that a memory leads to.
func (s *Salvage) outcomes(rows catalog.Reader) error {
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return err
		}
		if m.By == 0 {
			continue
		}
		if _, there, err := catalog.Outcomes.Find(rows, catalog.Number(m.By)); err != nil {
			return err
		} else if !there {
			out := catalog.Outcome{Session: m.By, Capsule: m.Capsule, Memory: m.ID, SHA256: m.SHA256, Bytes: m.Bytes}
			s.change(func(tx catalog.Tx) error { return catalog.Outcomes.Put(tx, catalog.Number(m.By), out) })
		}
	}
	return nil
}

// forgetSessions removes finished sessions with an unknown outcome.
func (s *Salvage) forgetSessions(ctx context.Context, sessions session.Store) error {
	var unknown []session.Session
	err := session.Page(ctx, sessions, session.Query{State: session.Finished, Limit: 500},
		func(ended session.Session) (bool, error) {
			err := s.store.View(ctx, func(rows catalog.Reader) error {
				_, known, err := catalog.Outcomes.Find(rows, catalog.Number(ended.ID))
				if err == nil && !known {
					unknown = append(unknown, session.Session{ID: ended.ID, Gen: ended.Gen})
				}
				return err
			})
			return true, err
		})
	for _, ended := range unknown {
		if err != nil {
			break
		}
		s.Found(Finding{
			Kind: KindLost, Session: ended.ID,
			Text: fmt.Sprintf("session %s: what it became; it is forgotten", ended.ID),
		})
		_, err = sessions.Move(ctx, ended.ID, session.Step{Gen: ended.Gen, To: session.Gone})
	}
	return errors.Join(err, ctx.Err())
}
