package catalog

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Moment is the present moment on both clocks: the wall clock, for people, and the session engine's
// running time in ms, by which things become due.
type Moment struct {
	Now     time.Time
	Running int64
}

// NewCapsule stores c, which has an id, its roles, its quotas and its MIME types. It gives
// ErrExists if the id is taken.
func NewCapsule(tx Tx, c Capsule, at Moment) (Capsule, error) {
	if !ValidCapsuleID(c.ID) {
		return c, &FieldError{Field: "capsule_id", Problem: "must match [a-z0-9][a-z0-9._-]{0,62}"}
	}
	if _, taken, err := Capsules.Find(tx, Name(c.ID)); err != nil || taken {
		return c, errors.Join(err, errIf(taken, ErrExists))
	}
	if err := checkCapsule(&c); err != nil {
		return c, err
	}
	c.Created = at.Now
	c.Memories, c.Bytes, c.Trashed, c.Sessions, c.Reserved = 0, 0, 0, 0, 0
	// The numbers of events go on after those of an earlier capsule of the same name.
	c.Seq = 0
	for e, err := range Events.Back(tx, EventKey{c.ID, 0}, EventKey{c.ID, math.MaxUint64}) {
		if err != nil {
			return c, err
		}
		c.Seq = e.Seq
		break
	}
	if err := emit(tx, &c, Event{Type: CapsuleCreated, Time: at.Now}); err != nil {
		return c, err
	}
	return c, errors.Join(putRoles(tx, Capsule{}, c), Capsules.Put(tx, Name(c.ID), c))
}

func errIf(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

// ChangeCapsule lets change edit a copy of the row: its name, roles, quotas and MIME types.
func ChangeCapsule(tx Tx, id string, change func(*Capsule) error, at Moment) (Capsule, error) {
	before, err := Capsules.Get(tx, Name(id))
	if err != nil {
		return before, err
	}
	c := before
	c.Owners, c.Controllers = slices.Clone(c.Owners), slices.Clone(c.Controllers)
	if err := change(&c); err != nil {
		return before, err
	}
	if err := checkCapsule(&c); err != nil {
		return before, err
	}
	if err := emit(tx, &c, Event{Type: CapsuleUpdated, Time: at.Now}); err != nil {
		return c, err
	}
	return c, errors.Join(putRoles(tx, before, c), Capsules.Put(tx, Name(id), c))
}

// DeleteCapsule removes an empty capsule. It gives ErrNotEmpty if the capsule has a memory, also
// one in the trash, or an open session.
func DeleteCapsule(tx Tx, id string, at Moment) error {
	c, err := Capsules.Get(tx, Name(id))
	if err != nil {
		return err
	}
	if c.Memories > 0 || c.Sessions > 0 {
		return fmt.Errorf(
			"%w: %d memories, %d of them in the trash, and %d open sessions",
			ErrNotEmpty, c.Memories, c.Trashed, c.Sessions,
		)
	}
	if err := emit(tx, &c, Event{Type: CapsuleDeleted, Time: at.Now}); err != nil {
		return err
	}
	return errors.Join(putRoles(tx, c, Capsule{}), Capsules.Delete(tx, Name(id)))
}

// maxRoles bounds the owners of one capsule, and its controllers.
const maxRoles = 100

// checkCapsule checks what clients give, and brings the MIME types into their normal form.
func checkCapsule(c *Capsule) (err error) {
	if err := checkText("name", c.Name, 0, maxName, false); err != nil {
		return err
	}
	switch {
	case len(c.Owners) == 0:
		return &FieldError{Field: "owners", Problem: "must name at least one principal"}
	case len(c.Owners) > maxRoles || len(c.Controllers) > maxRoles:
		return &FieldError{
			Field:   "owners and controllers",
			Problem: fmt.Sprintf("may name %d principals each", maxRoles), Limit: maxRoles,
		}
	case c.QuotaBytes < 0 || c.QuotaMemories < 0:
		return &FieldError{Field: "quota", Problem: "must not be negative; 0 is no bound"}
	}
	c.MIMETypes, err = CleanMIMEPatterns("mime_types", c.MIMETypes)
	return err
}

// Members lists all principals that have a role, each once.
func (c Capsule) Members() []string {
	all := append(slices.Clone(c.Owners), c.Controllers...)
	if c.Subject != "" {
		all = append(all, c.Subject)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// putRoles changes the index of roles from the roles of before to those of after. It writes a row
// whenever a role changes, also of somebody who stays a member: see AccessTables.
func putRoles(tx Tx, before, after Capsule) error {
	was, is := before.Members(), after.Members()
	if before.ID == after.ID && before.Subject == after.Subject && slices.Equal(before.Owners, after.Owners) &&
		slices.Equal(before.Controllers, after.Controllers) {
		return nil
	}
	lost := func(p string) bool { return slices.Contains(was, p) && !slices.Contains(is, p) }
	for _, p := range was {
		if lost(p) {
			if err := Roles.Delete(tx, RoleKey{p, before.ID}); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(was, lost) { // what they have let others do ends with their role, for good
		if _, err := endGrants(tx, GrantsOf(before.ID), 0, func(g GrantRef) bool { return lost(g.Maker) }); err != nil {
			return err
		}
	}
	for _, p := range is {
		if err := Roles.Put(tx, RoleKey{p, after.ID}, RoleKey{p, after.ID}); err != nil {
			return err
		}
	}
	return nil
}

// MostEvents is how many events a capsule keeps. The newest are kept. The first row shows which
// event is the oldest.
const MostEvents = 10_000

// emit gives the event the capsule's next number, without a gap, and removes the event that is too
// old by now. The caller stores the capsule.
func emit(tx Tx, c *Capsule, e Event) error {
	c.Seq++
	e.Capsule, e.Seq = c.ID, c.Seq
	if c.Seq > MostEvents {
		if err := Events.Delete(tx, EventKey{c.ID, c.Seq - MostEvents}); err != nil {
			return err
		}
	}
	return Events.Put(tx, EventKey{c.ID, c.Seq}, e)
}

// ForgetEvents removes at most n events of a capsule that are too old. Older programs kept all
// events. more: there may be others.
func ForgetEvents(tx Tx, capsule string, n int) (more bool, err error) {
	c, err := Capsules.Get(tx, Name(capsule))
	if err != nil || c.Seq <= MostEvents {
		return false, err
	}
	var old []EventKey
	for e, err := range Events.Scan(tx, EventKey{c.ID, 0}, EventKey{c.ID, c.Seq - MostEvents + 1}) {
		if err != nil {
			return false, err
		}
		if old = append(old, EventKey{c.ID, e.Seq}); len(old) == n {
			break
		}
	}
	for _, key := range old {
		if err := Events.Delete(tx, key); err != nil {
			return false, err
		}
	}
	return len(old) == n, nil
}
