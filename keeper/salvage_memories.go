package keeper

import (
	"fmt"
	"math"
	"time"

	"sluice/catalog"
)

// story is what the events say of a memory.
type story struct {
	last  catalog.Event
	state *catalog.Memory // as the newest event has it that has all of it
	seq   uint64
	// open: later events of the capsule are lost.
	open bool
}

// memories finds out what has become of memories whose rows were lost, or are not sure.
func (r *Salvage) memories(rows catalog.Reader) error {
	stories, err := r.stories(rows)
	if err != nil {
		return err
	}
	if err := r.endings(rows, stories); err != nil {
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
			if err = r.put(rows, m, false); err == nil {
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
	return r.nameless(rows, stories)
}

// retell makes of a memory what the events say.
func (r *Salvage) retell(rows catalog.Reader, s story, ends map[catalog.MemoryID]int64) error {
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
	if s.open {
		r.tellOf(m, KindOlder, ": later events of its capsule are lost: it may have been changed or deleted since")
	}
	return r.put(rows, m, !s.open)
}

// endings finds the stories of which the end may be lost.
func (r *Salvage) endings(rows catalog.Reader, stories map[catalog.MemoryID]story) error {
	missing := map[string]uint64{} // the largest number of an event that is missing, by capsule
	end := func(capsule string, next uint64) error {
		if capsule == "" {
			return nil
		}
		if r.Lost(catalog.EventTable, catalog.EventKey{Capsule: capsule, Seq: next}.AppendKey(nil)) {
			missing[capsule] = math.MaxUint64
			return nil
		}
		c, ok, err := catalog.Capsules.Find(rows, catalog.Name(capsule))
		if ok && c.Seq >= next {
			missing[capsule] = c.Seq
		}
		return err
	}
	capsule, next := "", uint64(0)
	for e, err := range catalog.Events.After(rows, catalog.EventKey{}) {
		if err == nil && e.Capsule != capsule {
			err = end(capsule, next)
			capsule, next = e.Capsule, e.Seq
		}
		if err != nil {
			return err
		}
		if e.Seq > next {
			missing[capsule] = e.Seq - 1
		}
		next = e.Seq + 1
	}
	if err := end(capsule, next); err != nil {
		return err
	}
	for id, s := range stories {
		s.open = missing[s.last.Capsule] > s.last.Seq
		stories[id] = s
	}
	return nil
}

// put stores a memory. One that is not known to be there is left out where it has no content: then
// it was deleted, or both are lost.
func (r *Salvage) put(rows catalog.Reader, m catalog.Memory, known bool) error {
	_, whole, err := catalog.Contents.Find(rows, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
	if err != nil {
		return err
	}
	if !whole && !known {
		r.tellOf(m, KindLost, ": it is left out, as the record of its content is gone too: it was deleted, or both are lost")
		r.drop(m.ID)
		return nil
	}
	r.change(func(tx catalog.Tx) error { return catalog.Memories.Put(tx, catalog.MemoryKey(m.ID), m) })
	return nil
}

func (r *Salvage) drop(id catalog.MemoryID) {
	r.change(func(tx catalog.Tx) error { return catalog.Memories.Delete(tx, catalog.MemoryKey(id)) })
}

// stories reads the events of memories whose rows were lost, or are not sure.
func (r *Salvage) stories(rows catalog.Reader) (map[catalog.MemoryID]story, error) {
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
func (r *Salvage) purges(rows catalog.Reader) (map[catalog.MemoryID]int64, error) {
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
