package keeper

import (
	"fmt"
	"math"
	"time"

	"sluice/catalog"
)

// history is what the events say of a memory.
type history struct {
	last  catalog.Event
	state *catalog.Memory // from the newest event that has the whole memory
	seq   uint64
	// endLost: later events of the capsule are lost.
	endLost bool
}

// memories finds out what has become of memories whose rows were lost, or are not sure.
func (s *Salvage) memories(rows catalog.Reader) error {
	histories, err := s.histories(rows)
	if err != nil {
		return err
	}
	if err := s.findLostEnds(rows, histories); err != nil {
		return err
	}
	ends, err := s.purgeTimes(rows)
	if err != nil {
		return err
	}
	for m, err := range catalog.Memories.After(rows, catalog.MemoryKey{}) {
		if err != nil {
			return err
		}
		if !s.older[m.ID] {
			delete(histories, m.ID)
			continue
		}
		h, known := histories[m.ID]
		delete(histories, m.ID)
		switch {
		case known:
			if h.state == nil {
				h.state = &m
			}
			err = s.applyHistory(rows, h, ends)
		case !m.Trashed.IsZero():
			m.PurgeAt = s.now.Running + trashAnew.Milliseconds()
			fallthrough
		default:
			if err = s.put(rows, m, false); err == nil {
				s.reportMemory(m, KindOlder, ": its record may be older than it was, or it was deleted since")
			}
		}
		if err != nil {
			return err
		}
	}
	for id, h := range histories {
		var err error
		if h.state != nil || h.last.Type == catalog.MemoryPurged {
			err = s.applyHistory(rows, h, ends)
		} else {
			s.Found(Finding{
				Kind: KindLost, Capsule: h.last.Capsule, Memory: id,
				Text: fmt.Sprintf("memory %s in capsule %s: its record", id, h.last.Capsule),
			})
		}
		if err != nil {
			return err
		}
	}
	return s.unnamed(rows, histories)
}

// applyHistory stores or deletes a memory as its events say.
func (s *Salvage) applyHistory(rows catalog.Reader, h history, ends map[catalog.MemoryID]int64) error {
	if h.last.Type == catalog.MemoryPurged {
		s.deleteMemory(h.last.ID)
		return nil
	}
	m := *h.state
	m.Trashed, m.PurgeAt = time.Time{}, 0
	if h.last.Type == catalog.MemoryDeleted {
		m.Trashed, m.PurgeAt = h.last.Time, ends[m.ID]
		if m.PurgeAt == 0 {
			m.PurgeAt = s.now.Running + trashAnew.Milliseconds()
		}
	}
	if h.endLost {
		s.reportMemory(m, KindOlder,
			": later events of its capsule are lost: it may have been changed or deleted since")
	}
	return s.put(rows, m, !h.endLost)
}

// findLostEnds marks the histories whose end may be lost.
func (s *Salvage) findLostEnds(rows catalog.Reader, histories map[catalog.MemoryID]history) error {
	missing := map[string]uint64{} // the largest number of a missing event, by capsule
	end := func(capsule string, next uint64) error {
		if capsule == "" {
			return nil
		}
		if s.Lost(catalog.EventTable, catalog.EventKey{Capsule: capsule, Seq: next}.AppendKey(nil)) {
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
	for id, h := range histories {
		h.endLost = missing[h.last.Capsule] > h.last.Seq
		histories[id] = h
	}
	return nil
}

// put stores a memory. A memory that may have been deleted is left out if it has no content: then
// it was deleted, or both are lost.
func (s *Salvage) put(rows catalog.Reader, m catalog.Memory, known bool) error {
	_, found, err := catalog.Contents.Find(rows, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
	if err != nil {
		return err
	}
	if !found && !known {
		s.reportMemory(m, KindLost,
			": it is left out, as the record of its content is gone too: it was deleted, or both are lost")
		s.deleteMemory(m.ID)
		return nil
	}
	s.change(func(tx catalog.Tx) error { return catalog.Memories.Put(tx, catalog.MemoryKey(m.ID), m) })
	return nil
}

func (s *Salvage) deleteMemory(id catalog.MemoryID) {
	s.change(func(tx catalog.Tx) error { return catalog.Memories.Delete(tx, catalog.MemoryKey(id)) })
}

// histories reads the events of memories whose rows were lost, or are not sure.
func (s *Salvage) histories(rows catalog.Reader) (map[catalog.MemoryID]history, error) {
	out := map[catalog.MemoryID]history{}
	for e, err := range catalog.Events.After(rows, catalog.EventKey{}) {
		if err != nil {
			return nil, err
		}
		if e.ID == (catalog.MemoryID{}) || !s.Lost(catalog.MemoryTable, e.ID[:]) {
			continue
		}
		h := out[e.ID]
		if h.last = e; e.Memory != nil {
			h.state, h.seq = e.Memory, e.Seq
		}
		out[e.ID] = h
	}
	return out, nil
}

// purgeTimes gives the running time at which memories in the trash are to be purged.
func (s *Salvage) purgeTimes(rows catalog.Reader) (map[catalog.MemoryID]int64, error) {
	out := map[catalog.MemoryID]int64{}
	for d, err := range catalog.Dues.After(rows, catalog.DueKey{}) {
		if err != nil {
			return nil, err
		}
		if d.Kind == catalog.DuePurge && len(d.Key) == len(catalog.MemoryID{}) &&
			s.Lost(catalog.MemoryTable, []byte(d.Key)) {
			out[catalog.MemoryID([]byte(d.Key))] = d.At
		}
	}
	return out, nil
}
