package keeper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/catalog"
	"sluice/session"
)

// Rescue is what becomes of the rows that are left of damaged metadata. First Keep says of each whether it is taken into new metadata; then Settle brings what was taken into
// agreement, as far as that is more than a Check with Repair does, which is to follow.
//
// A row that is not sure may be older than it was, or deleted since. None that lets anybody in is taken then: a token may have been revoked, a role taken away. A
// memory is, since it can be told from the events of its capsule what has become of it, and its bytes can be compared; what follows from other rows is made anew.
type Rescue struct {
	// Lost reports whether the newest row of this key may have been lost.
	Lost func(table catalog.TableID, key []byte) bool
	// Found is called for each thing that is missing, or may be older than it was.
	Found func(Finding)

	store    catalog.Store
	now      catalog.Moment
	capsules map[string]catalog.Capsule // those that are not sure
	older    map[catalog.MemoryID]bool  // memories that are not sure
	changed  []func(catalog.Tx) error
}

// KindLost and KindOlder are what a rescue finds, beside the kinds of Check.
const (
	KindLost  Kind = "lost"  // a record is gone for good
	KindOlder Kind = "older" // a record may be older than it was
)

// trashAnew is how long a memory stays in the trash of which nobody knows when it went there.
const trashAnew = 7 * 24 * time.Hour

// Keep reports whether a row is taken.
func (r *Rescue) Keep(row any, sure bool) bool {
	if sure {
		return true
	}
	switch v := row.(type) {
	case catalog.Capsule:
		if r.capsules == nil {
			r.capsules = map[string]catalog.Capsule{}
		}
		r.capsules[v.ID] = v
	case catalog.Memory:
		if r.older == nil {
			r.older = map[catalog.MemoryID]bool{}
		}
		r.older[v.ID] = true
		return true
	case catalog.Content, catalog.Event, catalog.Principal: // what they say never changes, or is compared
		return true
	case catalog.Token:
		r.tell(KindLost, "token %s (%q of principal %s) is void: it may have been revoked", v.ID, v.Name, v.Principal)
	}
	return false
}

// tell tells of something; say in the result what it is about before the next is told.
func (r *Rescue) tell(kind Kind, format string, args ...any) {
	r.Found(Finding{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (r *Rescue) tellOf(m catalog.Memory, kind Kind, format string, args ...any) {
	f := Finding{Kind: kind, Text: nameOf(m) + fmt.Sprintf(format, args...)}
	r.Found(*f.about(m))
}

// Settle makes principals, capsules and memories of what is known of those that were lost, and ends what can't go on. sessions and rows are the new metadata, which nobody
// else has open.
func (r *Rescue) Settle(ctx context.Context, sessions session.Store, rows catalog.Store, clock session.Clock) error {
	stats, err := sessions.Stats(ctx)
	if err != nil {
		return err
	}
	r.store, r.now = rows, catalog.Moment{Now: clock.Now(), Running: max(stats.Newest, 1)}
	for _, step := range []func(catalog.Reader) error{r.principals, r.memories, r.members, r.holders, r.outcomes} {
		r.changed = nil
		if err := rows.View(ctx, step); err != nil {
			return err
		}
		if err := r.apply(ctx); err != nil {
			return err
		}
	}
	return r.forget(ctx, sessions)
}

// settled is how many changes one commit has.
const settled = 1000

func (r *Rescue) apply(ctx context.Context) error {
	for some := range slices.Chunk(r.changed, settled) {
		err := r.store.Update(ctx, func(tx catalog.Tx) error {
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

func (r *Rescue) change(f func(catalog.Tx) error) { r.changed = append(r.changed, f) }

// principals gives tokens their principals back. Without an admin nobody could come in.
func (r *Rescue) principals(rows catalog.Reader) error {
	admin, made := false, map[string]bool{}
	for p, err := range catalog.Principals.After(rows, "") {
		if err != nil {
			return err
		}
		admin = admin || p.Admin
	}
	for t, err := range catalog.Tokens.After(rows, catalog.TokenKey{}) {
		if err == nil {
			err = r.need(rows, made, t.Principal, "a token")
		}
		if err != nil {
			return err
		}
	}
	if !admin {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		r.tell(KindLost, "every admin: principal %s is one from now on; remove the file admin-token, and the next start writes a token for it", id)
		r.putPrincipal(catalog.Principal{ID: id.String(), Name: "admin", Admin: true, Created: r.now.Now})
	}
	return nil
}

// holders gives roles their principals back.
func (r *Rescue) holders(rows catalog.Reader) error {
	made := map[string]bool{}
	for c, err := range catalog.Capsules.After(rows, "") {
		if err != nil {
			return err
		}
		for _, p := range c.Members() {
			if err := r.need(rows, made, p, "a role in capsule "+c.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// need makes a principal that something names and that is not there.
func (r *Rescue) need(rows catalog.Reader, made map[string]bool, id, what string) error {
	_, ok, err := catalog.Principals.Find(rows, catalog.Name(id))
	if err != nil || ok || made[id] {
		return err
	}
	made[id] = true
	r.tell(KindLost, "principal %s, who has %s: the record; it is made anew without its name, its bounds and, if it had it, the admin right", id, what)
	r.putPrincipal(catalog.Principal{ID: id, Name: "recovered", Created: r.now.Now})
	return nil
}

func (r *Rescue) putPrincipal(p catalog.Principal) {
	r.change(func(tx catalog.Tx) error { return catalog.Principals.Put(tx, catalog.Name(p.ID), p) })
}

// story is what the events say of a memory.
type story struct {
	last  catalog.Event
	state *catalog.Memory // as the newest event has it that has all of it
	seq   uint64
}

// memories finds out what has become of memories whose rows were lost, or are not sure.
func (r *Rescue) memories(rows catalog.Reader) error {
	stories, err := r.stories(rows)
	if err != nil {
		return err
	}
	ends, err := r.purges(rows)
	if err != nil {
		return err
	}
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return err
		}
		if !r.older[m.ID] {
			delete(stories, m.ID)
			continue
		}
		s, known := stories[m.ID]
		delete(stories, m.ID)
		switch {
		case known:
			if s.state == nil {
				s.state = &m
			}
			err = r.retell(rows, s, ends)
		case !m.Trashed.IsZero():
			m.PurgeAt = r.now.Running + trashAnew.Milliseconds()
			fallthrough
		default:
			if err = r.put(rows, m); err == nil {
				r.tellOf(m, KindOlder, ": its record may be older than it was, or it was deleted since")
			}
		}
		if err != nil {
			return err
		}
	}
	for id, s := range stories {
		var err error
		if s.state != nil || s.last.Type == catalog.MemoryPurged {
			err = r.retell(rows, s, ends)
		} else {
			r.Found(Finding{Kind: KindLost, Capsule: s.last.Capsule, Memory: id, Text: fmt.Sprintf("memory %s in capsule %s: its record", id, s.last.Capsule)})
		}
		if err != nil {
			return err
		}
	}
	return r.unknown(rows, stories)
}

// retell makes of a memory what the events say.
func (r *Rescue) retell(rows catalog.Reader, s story, ends map[catalog.MemoryID]int64) error {
	if s.last.Type == catalog.MemoryPurged {
		r.drop(s.last.ID)
		return nil
	}
	m := *s.state
	m.Trashed, m.PurgeAt = time.Time{}, 0
	if s.last.Type == catalog.MemoryDeleted {
		m.Trashed, m.PurgeAt = s.last.Time, ends[m.ID]
		if m.PurgeAt == 0 {
			m.PurgeAt = r.now.Running + trashAnew.Milliseconds()
		}
	}
	return r.put(rows, m)
}

// put stores a memory that is not sure, unless it has no content: then it was deleted, or both are lost.
func (r *Rescue) put(rows catalog.Reader, m catalog.Memory) error {
	_, whole, err := catalog.Contents.Find(rows, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
	if err != nil {
		return err
	}
	if !whole {
		r.tellOf(m, KindLost, ": it is left out, as the record of its content is gone too: it was deleted, or both are lost")
		r.drop(m.ID)
		return nil
	}
	r.change(func(tx catalog.Tx) error { return catalog.Memories.Put(tx, catalog.MemoryKey(m.ID), m) })
	return nil
}

func (r *Rescue) drop(id catalog.MemoryID) {
	r.change(func(tx catalog.Tx) error { return catalog.Memories.Delete(tx, catalog.MemoryKey(id)) })
}

// stories reads the events of memories whose rows were lost, or are not sure.
func (r *Rescue) stories(rows catalog.Reader) (map[catalog.MemoryID]story, error) {
	out := map[catalog.MemoryID]story{}
	for e, err := range catalog.Events.After(rows, catalog.EventKey{}) {
		if err != nil {
			return nil, err
		}
		if e.ID == (catalog.MemoryID{}) || !r.Lost(catalog.MemoryTable, e.ID[:]) {
			continue
		}
		s := out[e.ID]
		if s.last = e; e.Memory != nil {
			s.state, s.seq = e.Memory, e.Seq
		}
		out[e.ID] = s
	}
	return out, nil
}

// purges gives when memories in the trash are due to go.
func (r *Rescue) purges(rows catalog.Reader) (map[catalog.MemoryID]int64, error) {
	out := map[catalog.MemoryID]int64{}
	for d, err := range catalog.Dues.After(rows, catalog.DueKey{}) {
		if err != nil {
			return nil, err
		}
		if d.Kind == catalog.DuePurge && len(d.Key) == len(catalog.MemoryID{}) && r.Lost(catalog.MemoryTable, []byte(d.Key)) {
			out[catalog.MemoryID([]byte(d.Key))] = d.At
		}
	}
	return out, nil
}

// unknown tells of memories that lists lead to, and of which nothing else is known.
func (r *Rescue) unknown(rows catalog.Reader, stories map[catalog.MemoryID]story) error {
	for row, err := range rows.Scan(catalog.OrderTable, nil, nil, false) {
		if err != nil {
			return err
		}
		id, ok := row.(catalog.MemoryID)
		if !ok || !r.Lost(catalog.MemoryTable, id[:]) {
			continue
		}
		if _, told := stories[id]; told {
			continue
		}
		if _, there, err := catalog.Memories.Find(rows, catalog.MemoryKey(id)); err != nil {
			return err
		} else if !there {
			r.Found(Finding{Kind: KindLost, Memory: id, Text: fmt.Sprintf("memory %s: its record", id)})
		}
	}
	return nil
}

// members makes the capsules again that are in use, or were not sure. Who has a role there must be confirmed by the index of roles.
func (r *Rescue) members(rows catalog.Reader) error {
	roles := map[string][]string{}
	for k, err := range catalog.Roles.After(rows, catalog.RoleKey{}) {
		if err != nil {
			return err
		}
		roles[k.Capsule] = append(roles[k.Capsule], k.Principal)
	}
	admin := ""
	for p, err := range catalog.Principals.After(rows, "") {
		if err != nil {
			return err
		}
		if p.Admin && admin == "" {
			admin = p.ID
		}
	}
	used, err := r.used(rows)
	if err != nil {
		return err
	}
	for id := range r.capsules {
		used[id] = used[id] || len(roles[id]) > 0
	}
	for id := range roles {
		used[id] = true
	}
	for _, id := range sorted(used) {
		if _, there, err := catalog.Capsules.Find(rows, catalog.Name(id)); err != nil || there {
			if err != nil {
				return err
			}
			continue
		}
		if !used[id] {
			continue // deleted: nothing is in it, and nobody has a role there
		}
		if c, err := r.capsule(rows, id, roles[id], admin); err != nil {
			return err
		} else if catalog.ValidCapsuleID(id) {
			r.change(func(tx catalog.Tx) error { return catalog.Capsules.Put(tx, catalog.Name(id), c) })
		}
	}
	return nil
}

// used gives the capsules in which there is something.
func (r *Rescue) used(rows catalog.Reader) (map[string]bool, error) {
	used := map[string]bool{}
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return nil, err
		}
		used[m.Capsule] = true
	}
	for v, err := range catalog.Reservations.After(rows, catalog.Number(0)) {
		if err != nil {
			return nil, err
		}
		used[v.Capsule] = true
	}
	return used, nil
}

// capsule makes one again. confirmed are the principals that have a role in it.
func (r *Rescue) capsule(rows catalog.Reader, id string, confirmed []string, admin string) (catalog.Capsule, error) {
	c, old := r.capsules[id]
	f := Finding{Kind: KindOlder, Capsule: id, Text: fmt.Sprintf("capsule %s: its record may be older than it was", id)}
	if !old {
		c = catalog.Capsule{ID: id, Name: id, Created: r.now.Now}
		f.Kind, f.Text = KindLost, fmt.Sprintf("capsule %s: its record, with its name, its quotas and who has which role in it", id)
	}
	was := c.Members()
	gone := func(p string) bool { return !slices.Contains(confirmed, p) }
	c.Owners, c.Controllers = slices.DeleteFunc(slices.Clone(c.Owners), gone), slices.DeleteFunc(slices.Clone(c.Controllers), gone)
	if c.Subject != "" && gone(c.Subject) {
		c.Subject = ""
	}
	if len(c.Owners) == 0 {
		c.Owners = []string{admin}
		f.Text += fmt.Sprintf("; the admin %s owns it now, and can give it back", admin)
	}
	if is := c.Members(); !slices.Equal(is, was) {
		f.Text += fmt.Sprintf("; roles had: %q then, and now: %q; known to have had one in the end: %q", was, is, confirmed)
	}
	for e, err := range catalog.Events.Back(rows, catalog.EventKey{Capsule: id}, catalog.EventKey{Capsule: id, Seq: math.MaxUint64}) {
		if err != nil {
			return c, err
		}
		c.Seq = max(c.Seq, e.Seq)
		break
	}
	r.Found(f)
	return c, nil
}

// outcomes notes what sessions have become of which that is lost: those to which a memory leads.
func (r *Rescue) outcomes(rows catalog.Reader) error {
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
			r.change(func(tx catalog.Tx) error { return catalog.Outcomes.Put(tx, catalog.Number(m.By), out) })
		}
	}
	return nil
}

// forget lets finished sessions go of which nobody knows what they became.
func (r *Rescue) forget(ctx context.Context, sessions session.Store) error {
	var lost []session.Session
	err := session.Page(ctx, sessions, session.Query{State: session.Finished, Limit: 500}, func(s session.Session) (bool, error) {
		err := r.store.View(ctx, func(rows catalog.Reader) error {
			_, known, err := catalog.Outcomes.Find(rows, catalog.Number(s.ID))
			if err == nil && !known {
				lost = append(lost, session.Session{ID: s.ID, Gen: s.Gen})
			}
			return err
		})
		return true, err
	})
	for _, s := range lost {
		if err != nil {
			break
		}
		r.Found(Finding{Kind: KindLost, Session: s.ID, Text: fmt.Sprintf("session %s: what it became; it is forgotten", s.ID)})
		_, err = sessions.Move(ctx, s.ID, session.Step{Gen: s.Gen, To: session.Gone})
	}
	return errors.Join(err, ctx.Err())
}
