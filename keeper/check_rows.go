package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sluice/catalog"
	"sluice/session"
)

// expected is what the rows of the catalog should say. It follows from the rows that follow from
// nothing else: capsules (their roles), memories, contents, and the open sessions.
type expected struct {
	check    *check
	r        catalog.Reader
	capsules map[string]*counters
	refs     map[catalog.ContentKey]int64 // how many memories point to a content
	places   map[string]int64             // how many contents name a place
	listed   [2]int64                     // how many memories Order should list (all), and Digests (the visible ones)
	became   map[session.SessionID]bool   // sessions whose outcome is noted anew
	dues     struct {                     // the due work, by its key
		places, outcomes, idems, principals, grants, tickets map[string]bool
	}
	tickets map[string]*ticketCount // by their ids
}

// counters is a capsule's row, and what its counters should be.
type counters struct {
	row                                          catalog.Capsule
	memories, bytes, trashed, sessions, reserved int64
	lastMemory, lastEvent                        uint64 // the largest number of a memory, and of an event
}

// rows compares the rows of the catalog with each other.
func (c *check) rows(ctx context.Context) error {
	err := c.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		c.pending, c.namedPlaces, c.missingContents = nil, map[string]bool{}, map[catalog.ContentKey]bool{}
		c.sum.Capsules, c.sum.Memories, c.sum.Contents = 0, 0, 0
		exp := &expected{
			check: c, r: r, capsules: map[string]*counters{}, refs: map[catalog.ContentKey]int64{},
			places: map[string]int64{}, became: map[session.SessionID]bool{},
		}
		for _, step := range []func(){
			exp.readCapsules, exp.readDues, exp.readMemories, exp.readContents,
			exp.checkIndexes, exp.checkRoles, exp.checkPlaces, exp.checkGrants, exp.checkReservations,
			exp.checkTickets, exp.checkEvents, exp.checkCounters, exp.checkIdems, exp.checkOutcomes,
			exp.checkCheckpoints, exp.checkAccess,
		} {
			if err := ctx.Err(); err != nil {
				return err
			}
			step()
		}
		return nil
	})
	return errors.Join(err, c.report(ctx))
}

// each visits the rows of a table. It reports rows that can't be read, and rows that lie under a
// wrong key. If the keys that the rows should have ascend and each exists, every row is under its
// right key.
func each[K catalog.Key, V any](exp *expected, t catalog.Table[K, V], what string, key func(V) K, visit func(V)) {
	var before []byte
	for row, err := range exp.r.Scan(t.ID, nil, nil, false) {
		if err != nil {
			exp.check.unreadable = true
			exp.check.wrong(KindRecord, "a record of the %s can't be read: %v", what, err)
			continue
		}
		v, ok := row.(V)
		if !ok {
			exp.check.unreadable = true
			exp.check.wrong(KindRecord, "a record among the %s is something else: %T", what, row)
			continue
		}
		k := key(v).AppendKey(nil)
		_, err := exp.r.Get(t.ID, k)
		if bytes.Compare(before, k) >= 0 || errors.Is(err, catalog.ErrNotFound) {
			exp.check.unreadable = true
			exp.check.wrong(KindRecord, "a record of the %s is not where it belongs: %+v", what, v)
		}
		before = k
		visit(v)
	}
}

func (exp *expected) readCapsules() {
	each(exp, catalog.Capsules, "capsules", func(c catalog.Capsule) catalog.Name {
		return catalog.Name(c.ID)
	}, func(c catalog.Capsule) {
		exp.check.sum.Capsules++
		exp.capsules[c.ID] = &counters{row: c}
	})
}

func (exp *expected) readContents() {
	each(exp, catalog.Contents, "contents", func(c catalog.Content) catalog.ContentKey {
		return catalog.ContentKey{Capsule: c.Capsule, SHA256: c.SHA256}
	}, func(c catalog.Content) {
		exp.check.sum.Contents++
		exp.check.total += c.Bytes
		key := catalog.ContentKey{Capsule: c.Capsule, SHA256: c.SHA256}
		for _, name := range c.Places() {
			exp.places[name]++
			exp.check.namedPlaces[name] = true
		}
		want := exp.refs[key]
		if c.Refs != want {
			exp.check.wrong(KindCounter, "content %x in capsule %s counts %d memories that have it, and there are %d",
				c.SHA256, c.Capsule, c.Refs, want).
				mend(exp.check, "it is counted anew", func(tx catalog.Tx) error {
					now, err := catalog.Contents.Get(tx, key)
					if err != nil {
						return err
					}
					now.Refs = want
					return catalog.Contents.Put(tx, key, now)
				})
		}
		if want == 0 {
			exp.check.wrong(KindLeftover, "content %x in capsule %s (%d bytes) is kept, and no memory has it",
				c.SHA256, c.Capsule, c.Bytes).Note = true
		}
	})
}

// checkIndexes looks for rows of an index that lead nowhere, if it has more rows than it should.
func (exp *expected) checkIndexes() {
	for i, index := range []struct {
		table catalog.TableID
		what  string
		key   func(catalog.Memory) []byte // nil: the memory is not in it
	}{
		{catalog.OrderTable, "a list of memories", func(m catalog.Memory) []byte {
			return catalog.OrderKey{Capsule: m.Capsule, Trash: !m.Trashed.IsZero(), Seq: m.Seq}.AppendKey(nil)
		}},
		{catalog.DigestTable, "the list by SHA-256", func(m catalog.Memory) []byte {
			if !m.Trashed.IsZero() {
				return nil
			}
			return catalog.DigestKey{Capsule: m.Capsule, SHA256: m.SHA256, Seq: m.Seq}.AppendKey(nil)
		}},
	} {
		if countRows(exp.r, index.table) == exp.listed[i] {
			continue
		}
		var keys [][]byte
		for row := range exp.r.Scan(catalog.MemoryTable, nil, nil, false) {
			if m, ok := row.(catalog.Memory); ok {
				if k := index.key(m); k != nil {
					keys = append(keys, k)
				}
			}
		}
		exp.reportOrphans(index.table, keys, "%s leads to a memory that is not there or is elsewhere", index.what)
	}
}

// reportOrphans reports the rows of a table that are under none of these keys.
func (exp *expected) reportOrphans(table catalog.TableID, keys [][]byte, format string, args ...any) {
	for _, k := range otherKeys(exp.r, table, keys) {
		exp.check.wrong(KindIndex, format+fmt.Sprintf(" (row %x)", k), args...).
			mend(exp.check, "it is taken out", func(tx catalog.Tx) error { return tx.Delete(table, k) })
	}
}

func (exp *expected) checkRoles() {
	var keys [][]byte
	for _, t := range exp.capsules {
		for _, p := range t.row.Members() {
			role := catalog.RoleKey{Principal: p, Capsule: t.row.ID}
			keys = append(keys, role.AppendKey(nil))
			if row, err := catalog.Roles.Get(exp.r, role); err != nil || row != role {
				f := exp.check.wrong(KindIndex,
					"capsule %s: principal %s has a role in it, and does not find it", t.row.ID, p)
				f.Capsule = t.row.ID
				f.mend(exp.check, "the role is listed again", func(tx catalog.Tx) error {
					return catalog.Roles.Put(tx, role, role)
				})
			}
		}
	}
	if countRows(exp.r, catalog.RoleTable) != int64(len(keys)) {
		slices.SortFunc(keys, bytes.Compare)
		exp.reportOrphans(catalog.RoleTable, keys, "a principal finds a capsule in which it has no role")
	}
}

// checkEvents makes sure that each capsule's events are numbered without a gap, up to its own
// count.
func (exp *expected) checkEvents() {
	var capsule string
	var last uint64
	each(exp, catalog.Events, "events", func(e catalog.Event) catalog.EventKey {
		return catalog.EventKey{Capsule: e.Capsule, Seq: e.Seq}
	}, func(e catalog.Event) {
		if e.Capsule != capsule {
			capsule, last = e.Capsule, 0
			if t := exp.capsules[capsule]; t == nil {
				last = e.Seq - 1 // nothing says how many events it has forgotten
			} else if t.row.Seq > catalog.MostEvents {
				last = min(e.Seq-1, t.row.Seq-catalog.MostEvents)
			}
		}
		if e.Seq > last+1 {
			exp.reportGap(capsule, last+1, e.Seq-1)
		}
		last = e.Seq
		if t := exp.capsules[capsule]; t != nil {
			t.lastEvent = last
		}
	})
	for _, t := range exp.capsules {
		if top := max(t.row.Seq, t.lastMemory); top > t.lastEvent {
			from := t.lastEvent + 1
			if top > catalog.MostEvents {
				from = max(from, top-catalog.MostEvents+1)
			}
			exp.reportGap(t.row.ID, from, top)
			t.lastEvent = top
		}
	}
}

// mostFilled is how many events one gap is filled with at most.
const mostFilled = 10_000

// reportGap reports missing events. They are replaced by events that only say that the capsule has
// changed.
func (exp *expected) reportGap(capsule string, from, to uint64) {
	f := exp.check.wrong(KindEvent, "capsule %s: its events %d to %d are missing", capsule, from, to)
	f.Capsule = capsule
	if to-from >= mostFilled || to == math.MaxUint64 {
		return
	}
	f.mend(exp.check, "events that say that the capsule has changed take their numbers", func(tx catalog.Tx) error {
		for n := from; n <= to; n++ {
			e := catalog.Event{Capsule: capsule, Seq: n, Type: catalog.CapsuleUpdated, Time: exp.check.now.Now}
			if err := catalog.Events.Put(tx, catalog.EventKey{Capsule: capsule, Seq: n}, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkCounters compares the counters of the capsules with what was counted.
func (exp *expected) checkCounters() {
	for _, id := range sorted(exp.capsules) {
		t := exp.capsules[id]
		want := t.row
		want.Memories, want.Bytes, want.Trashed = t.memories, t.bytes, t.trashed
		want.Sessions, want.Reserved = t.sessions, t.reserved
		want.Seq = max(t.row.Seq, t.lastEvent)
		for _, n := range []struct {
			what      string
			has, want any
		}{
			{"memories", t.row.Memories, want.Memories},
			{"bytes", t.row.Bytes, want.Bytes},
			{"memories in the trash", t.row.Trashed, want.Trashed},
			{"uploads under way", t.row.Sessions, want.Sessions},
			{"reserved bytes", t.row.Reserved, want.Reserved},
			{"events", t.row.Seq, want.Seq},
		} {
			if n.has == n.want {
				continue
			}
			f := exp.check.wrong(KindCounter, "capsule %s counts %v %s, and there are %v", id, n.has, n.what, n.want)
			f.Capsule = id
			f.mend(exp.check, "it is counted anew", func(tx catalog.Tx) error {
				now, err := catalog.Capsules.Get(tx, catalog.Name(id))
				if err != nil {
					return err
				}
				now.Memories, now.Bytes, now.Trashed = want.Memories, want.Bytes, want.Trashed
				now.Sessions, now.Reserved, now.Seq = want.Sessions, want.Reserved, want.Seq
				return catalog.Capsules.Put(tx, catalog.Name(id), now)
			})
		}
	}
}
