package catalog

import (
	"errors"
	"iter"
	"math"
	"slices"
	"time"
)

// visible gives a memory that is not in the trash, and its capsule.
func visible(tx Tx, id MemoryID) (m Memory, c Capsule, err error) {
	if m, err = Memories.Get(tx, MemoryKey(id)); err != nil {
		return m, c, err
	}
	if !m.Trashed.IsZero() {
		return m, c, ErrNotFound
	}
	c, err = Capsules.Get(tx, Name(m.Capsule))
	return m, c, err
}

// ChangeMemory lets change edit a copy of the row's metadata.
func ChangeMemory(tx Tx, id MemoryID, change func(*Meta) error, at Moment) (Memory, error) {
	m, c, err := visible(tx, id)
	if err != nil {
		return m, err
	}
	m.Tags = slices.Clone(m.Tags)
	if err := change(&m.Meta); err != nil {
		return m, err
	}
	if m.Meta, err = m.Meta.Validate(); err != nil {
		return m, err
	}
	if err := emit(tx, &c, Event{Type: MemoryUpdated, Time: at.Now, ID: id, Memory: &m}); err != nil {
		return m, err
	}
	return m, errors.Join(Memories.Put(tx, MemoryKey(id), m), Capsules.Put(tx, Name(c.ID), c))
}

// Trash moves a memory into the trash for `keep` of running time. Until then Untrash brings it
// back, and it still counts. It gives ErrNotFound if the memory is in the trash already.
func Trash(tx Tx, id MemoryID, keep time.Duration, at Moment) error {
	m, c, err := visible(tx, id)
	if err != nil {
		return err
	}
	if err := hide(tx, m); err != nil {
		return err
	}
	m.Trashed, m.PurgeAt = at.Now, at.in(keep)
	c.Trashed++
	if err := emit(tx, &c, Event{Type: MemoryDeleted, Time: at.Now, ID: id}); err != nil {
		return err
	}
	return errors.Join(
		Order.Put(tx, OrderKey{m.Capsule, true, m.Seq}, id),
		due(tx, m.PurgeAt, DuePurge, string(id[:])),
		Memories.Put(tx, MemoryKey(id), m),
		Capsules.Put(tx, Name(c.ID), c),
	)
}

// Untrash brings a memory back, in its old position of every list. It gives ErrNotFound if the
// memory is not in the trash.
func Untrash(tx Tx, id MemoryID, at Moment) (Memory, error) {
	m, err := Memories.Get(tx, MemoryKey(id))
	if err != nil {
		return m, err
	}
	if m.Trashed.IsZero() {
		return m, ErrNotFound
	}
	c, err := Capsules.Get(tx, Name(m.Capsule))
	if err != nil {
		return m, err
	}
	if err := untrash(tx, &m, &c); err != nil {
		return m, err
	}
	if err := emit(tx, &c, Event{Type: MemoryRestored, Time: at.Now, ID: id, Memory: &m}); err != nil {
		return m, err
	}
	return m, errors.Join(
		show(tx, m),
		Memories.Put(tx, MemoryKey(id), m),
		Capsules.Put(tx, Name(c.ID), c),
	)
}

// untrash undoes what Trash wrote, except the rows of the memory and the capsule.
func untrash(tx Tx, m *Memory, c *Capsule) error {
	key := DueKey{m.PurgeAt, DuePurge, string(m.ID[:])}
	m.Trashed, m.PurgeAt = time.Time{}, 0
	c.Trashed--
	return errors.Join(Order.Delete(tx, OrderKey{m.Capsule, true, m.Seq}), Dues.Delete(tx, key))
}

// Purge removes a memory for good, whether it is in the trash or not. Its idempotency row and its
// session's outcome are kept for a while longer.
func Purge(tx Tx, id MemoryID, at Moment) error {
	m, err := Memories.Get(tx, MemoryKey(id))
	if err != nil {
		return err
	}
	c, err := Capsules.Get(tx, Name(m.Capsule))
	if err != nil {
		return err
	}
	if m.Trashed.IsZero() {
		err = hide(tx, m)
	} else {
		err = untrash(tx, &m, &c)
	}
	if err := errors.Join(err, unrefContent(tx, m, at)); err != nil {
		return err
	}
	if m.By != 0 {
		err = errors.Join(err, forgetLater(tx, DueOutcome, Number(m.By), at))
	}
	if m.Idem != "" {
		err = errors.Join(err, forgetLater(tx, DueIdem, IdemKey{m.Capsule, m.Owner, m.Idem}, at))
	}
	c.Memories--
	c.Bytes -= m.Bytes
	err = errors.Join(err, emit(tx, &c, Event{Type: MemoryPurged, Time: at.Now, ID: id}))
	return errors.Join(
		err,
		Memories.Delete(tx, MemoryKey(id)),
		Capsules.Put(tx, Name(c.ID), c),
	)
}

// FinishedIdem gives the upload that was finished under a key. deleted says that the memory is gone
// or in the trash; m is zero then.
func FinishedIdem(r Reader, capsule, owner, key string) (row Idem, m Memory, deleted, ok bool, err error) {
	row, ok, err = Idems.Find(r, IdemKey{capsule, owner, key})
	if err != nil || !ok {
		return row, m, false, false, err
	}
	m, found, err := Memories.Find(r, MemoryKey(row.Memory))
	if err != nil || !found || !m.Trashed.IsZero() {
		return row, Memory{}, true, err == nil, err
	}
	return row, m, false, true, nil
}

// Damaged gives the time when a memory's content was marked as damaged; zero if it is not marked.
func Damaged(r Reader, m Memory) (since time.Time, err error) {
	content, _, err := Contents.Find(r, ContentKey{m.Capsule, m.SHA256})
	return content.Damaged, err
}

// SaveCheckpoint stores a checkpoint of the prefix hash. A newer one at the same offset stays.
func SaveCheckpoint(tx Tx, st HashCheckpoint) error {
	had, ok, err := Checkpoints.Find(tx, CheckpointKey{st.Session, st.Off})
	if err != nil || ok && had.Gen > st.Gen {
		return err
	}
	return Checkpoints.Put(tx, CheckpointKey{st.Session, st.Off}, st)
}

// CheckpointsBack gives the checkpoints of a session, the furthest first.
func CheckpointsBack(r Reader, session uint64) iter.Seq2[HashCheckpoint, error] {
	return Checkpoints.Back(r, CheckpointKey{session, 0}, CheckpointKey{session, math.MaxInt64})
}

// ForgetCheckpoints removes all checkpoints of a session.
func ForgetCheckpoints(tx Tx, session uint64) error {
	var offs []int64
	// Forwards: that is cheaper than backwards.
	for st, err := range Checkpoints.Scan(tx, CheckpointKey{session, 0}, CheckpointKey{session, math.MaxInt64}) {
		if err != nil {
			return err
		}
		offs = append(offs, st.Off)
	}
	for _, off := range offs {
		if err := Checkpoints.Delete(tx, CheckpointKey{session, off}); err != nil {
			return err
		}
	}
	return nil
}

// DueBy gives at most n works that are due at this running time (ms), from a key on, the longest
// due first. It skips rows that can't be read, so that they do not hold up the others.
func DueBy(r Reader, from DueKey, running int64, n int) (out []Due, err error) {
	for d, err := range Dues.Scan(r, from, DueKey{At: running + 1}) {
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil || len(out) == n {
			return out, err
		}
		out = append(out, d)
	}
	return out, nil
}

// RunDue does one due work, except the deletion of a place's bytes, and the ends of a deleted
// principal's and of an ended ticket's sessions: the caller must have seen to these before. more:
// the work is too much for one commit, and stays due. A repeat does nothing.
func RunDue(tx Tx, d Due, at Moment) (more bool, err error) {
	key := DueKey(d)
	if _, ok, err := Dues.Find(tx, key); err != nil || !ok {
		return false, err
	}
	switch d.Kind {
	case DuePurge:
		err = Purge(tx, MemoryID([]byte(d.Key)), at)
	case DuePlace:
		err = Places.Delete(tx, Name(d.Key))
	case DueOutcome:
		err = tx.Delete(OutcomeTable, []byte(d.Key))
	case DueIdem:
		err = tx.Delete(IdemTable, []byte(d.Key))
	case DueToken:
		err = DeleteToken(tx, SHA256([]byte(d.Key)))
	case DuePrincipal:
		more, err = endPrincipal(tx, d.Key, at)
	case DueTicket: // its sessions have ended
	case DueGrant:
		err = EndGrant(tx, d.Key)
	}
	if more {
		return true, err
	}
	return false, errors.Join(err, Dues.Delete(tx, key))
}
