package keeper

import (
	"fmt"
	"math"
	"time"

	"sluice/catalog"
)

// unnamed recovers memories that indexes lead to and that have no events. The index by SHA-256
// leads from a content to the visible ones: such a memory keeps its bytes and loses its name.
func (s *Salvage) unnamed(rows catalog.Reader, histories map[catalog.MemoryID]history) error {
	missing := map[catalog.MemoryID]bool{}
	for _, index := range []catalog.TableID{catalog.OrderTable, catalog.DigestTable} {
		for row, err := range rows.Scan(index, nil, nil, false) {
			if err != nil {
				return err
			}
			id, ok := row.(catalog.MemoryID)
			if _, known := histories[id]; known || !ok || !s.Lost(catalog.MemoryTable, id[:]) {
				continue
			}
			_, there, err := catalog.Memories.Find(rows, catalog.MemoryKey(id))
			if err != nil {
				return err
			}
			missing[id] = missing[id] || !there
		}
	}
	if err := s.recoverByDigest(rows, missing); err != nil {
		return err
	}
	for id, is := range missing {
		if is {
			s.Found(Finding{Kind: KindLost, Memory: id, Text: fmt.Sprintf("memory %s: its record", id)})
		}
	}
	return nil
}

// recoverByDigest finds the contents of lost memories, and gives the memories new names.
func (s *Salvage) recoverByDigest(rows catalog.Reader, missing map[catalog.MemoryID]bool) error {
	left := 0
	for _, is := range missing {
		if is {
			left++
		}
	}
	for row, err := range rows.Scan(catalog.ContentTable, nil, nil, false) {
		if err != nil || left == 0 {
			return err
		}
		c, ok := row.(catalog.Content)
		if !ok {
			continue
		}
		key := catalog.DigestKey{Capsule: c.Capsule, SHA256: c.SHA256}
		end := key
		end.Seq = math.MaxUint64
		for id, err := range catalog.Digests.Scan(rows, key, end) {
			if err != nil {
				return err
			}
			if !missing[id] {
				continue
			}
			delete(missing, id)
			left--
			m := catalog.Memory{
				ID: id, Capsule: c.Capsule, Bytes: c.Bytes, SHA256: c.SHA256, Created: timeOf(id, s.now.Now),
				Meta: catalog.Meta{Name: "recovered-" + id.String(), MIME: "application/octet-stream"},
			}
			if m.Seq, err = seqOf(rows, key, id); err != nil {
				return err
			}
			s.reportMemory(m, KindLost,
				": its name, path, type, tags and owner; it has this name from now on, and its bytes")
			s.change(func(tx catalog.Tx) error { return catalog.Memories.Put(tx, catalog.MemoryKey(id), m) })
		}
	}
	return nil
}

// seqOf finds the number under which the index by SHA-256 has a memory.
func seqOf(rows catalog.Reader, key catalog.DigestKey, id catalog.MemoryID) (uint64, error) {
	lo, hi := uint64(0), uint64(math.MaxUint64) // lo ≤ number < hi
	for hi-lo > 1 {
		middle := lo + (hi-lo)/2
		from, to := key, key
		from.Seq, to.Seq = lo, middle
		within := false
		for is, err := range catalog.Digests.Scan(rows, from, to) {
			if err != nil {
				return 0, err
			}
			within = within || is == id
		}
		if within {
			hi = middle
		} else {
			lo = middle
		}
	}
	return lo, nil
}

// timeOf gives the time that an id contains.
func timeOf(id catalog.MemoryID, now time.Time) time.Time {
	if id.Version() != 7 {
		return now
	}
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec).UTC().Truncate(time.Millisecond)
}
