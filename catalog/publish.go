package catalog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/session"
)

const (
	// PlaceGrace is how long a place that nothing names any more is kept, in running time. A reader
	// holds its place open, and looks its extents up again where one is gone already, so this need
	// not be long: whoever deletes something wants the room.
	PlaceGrace = time.Minute
	// KeepOutcome is how long after its memory is gone a finished session is told what it became,
	// in running time: as long as the engine keeps an ended session.
	KeepOutcome = session.KeepEnded
)

func (m Moment) in(d time.Duration) int64 { return m.Running + d.Milliseconds() }

// Publication is a verified upload that is to become a memory.
type Publication struct {
	// Memory has everything but Seq. By is the session that ends with it, or 0.
	Memory Memory
	// Content has everything but Refs. Its places were made for this upload.
	Content Content
	// IdemKey, if not empty, remembers the memory under (capsule, owner, key), with the request's
	// Fingerprint.
	IdemKey     string
	Fingerprint []byte
	// Keyed: only the key's own memory will do. Else what finds its key taken by another request is
	// published without it.
	Keyed bool
	At    Moment
}

// Publish makes an upload visible: the memory, its content, the counters, the event, the memory's
// idem and outcome, and the end of the session's reservation. A repeat by the same session gives
// the same memory, and ErrDeleted where that is gone. Another upload of the same request under the
// same key, faster than this one, leaves one memory: its own, which is returned where the bytes are
// the same; its content is this one where it was damaged. ErrKeyTaken and ErrDeleted where p is
// Keyed and the key has other bytes, or none any more.
func Publish(tx Tx, p Publication) (Memory, error) {
	m, at := p.Memory, p.At
	if m.By != 0 {
		if out, done, err := Outcomes.Find(tx, Number(m.By)); err != nil {
			return m, err
		} else if done {
			old, ok, err := Memories.Find(tx, MemoryKey(out.Memory))
			return old, errors.Join(err, errIf(!ok, ErrDeleted))
		}
	}
	c, err := Capsules.Get(tx, Name(m.Capsule))
	if err != nil {
		return m, err
	}
	if m.By != 0 {
		if err := unreserve(tx, &c, m.By); err != nil {
			return m, err
		}
	}
	if p.IdemKey != "" {
		row, old, deleted, found, err := FinishedIdem(tx, m.Capsule, m.Owner, p.IdemKey)
		switch {
		case err != nil:
			return m, err
		case found && !deleted && bytes.Equal(row.Fingerprint, p.Fingerprint) && old.SHA256 == m.SHA256:
			return old, errors.Join(repeat(tx, old, p), Capsules.Put(tx, Name(c.ID), c))
		case found && p.Keyed:
			return m, cmp.Or(errIf(deleted && bytes.Equal(row.Fingerprint, p.Fingerprint), ErrDeleted), ErrKeyTaken)
		case found:
			p.IdemKey = "" // the key stays with whom it belongs to
		}
	}
	if err := c.Fits(m.Bytes, 1); err != nil {
		return m, err
	}
	if err := refContent(tx, p.Content, 1, at); err != nil {
		return m, err
	}
	c.Memories++
	c.Bytes += m.Bytes
	m.Seq, m.Idem = c.Seq+1, p.IdemKey
	if err := emit(tx, &c, Event{Type: MemoryCreated, Time: at.Now, ID: m.ID, Memory: &m}); err != nil {
		return m, err
	}
	err = errors.Join(Capsules.Put(tx, Name(c.ID), c), Memories.Put(tx, MemoryKey(m.ID), m), show(tx, m))
	if m.By != 0 {
		err = errors.Join(err, Outcomes.Put(tx, Number(m.By), outcomeOf(m)))
	}
	if p.IdemKey != "" {
		key := IdemKey{m.Capsule, m.Owner, p.IdemKey}
		err = errors.Join(err, Idems.Put(tx, key, Idem{m.Capsule, m.Owner, p.IdemKey, p.Fingerprint, m.ID, m.By}))
	}
	return m, err
}

func outcomeOf(m Memory) Outcome {
	return Outcome{Session: m.By, Capsule: m.Capsule, Memory: m.ID, SHA256: m.SHA256, Bytes: m.Bytes}
}

// repeat ends an upload whose request another one has carried out: its outcome is the other's
// memory. Its bytes are garbage, or take the place of damaged ones.
func repeat(tx Tx, old Memory, p Publication) error {
	since, err := Damaged(tx, old)
	switch {
	case err != nil:
	case since.IsZero():
		err = Discard(tx, p.Content.Places(), p.At)
	default:
		err = refContent(tx, p.Content, 0, p.At)
	}
	if err != nil || p.Memory.By == 0 {
		return err
	}
	out := outcomeOf(old)
	out.Session = p.Memory.By
	return errors.Join(Outcomes.Put(tx, Number(out.Session), out), forgetLater(tx, DueOutcome, Number(out.Session), p.At))
}

// forgetLater makes the row of this key due to be forgotten.
func forgetLater(tx Tx, kind DueKind, k Key, at Moment) error {
	return due(tx, at.in(KeepOutcome), kind, string(k.AppendKey(nil)))
}

func due(tx Tx, at int64, kind DueKind, key string) error {
	return Dues.Put(tx, DueKey{at, kind, key}, Due{at, kind, key})
}

// show puts a visible memory into the indexes, hide takes it out.
func show(tx Tx, m Memory) error {
	return errors.Join(
		Order.Put(tx, OrderKey{m.Capsule, false, m.Seq}, m.ID),
		Digests.Put(tx, DigestKey{m.Capsule, m.SHA256, m.Seq}, m.ID),
	)
}

func hide(tx Tx, m Memory) error {
	return errors.Join(
		Order.Delete(tx, OrderKey{m.Capsule, false, m.Seq}),
		Digests.Delete(tx, DigestKey{m.Capsule, m.SHA256, m.Seq}),
	)
}

// Places lists the places that the content's extents are in, each once, sorted.
func (c Content) Places() []string {
	var out []string
	for _, e := range c.Extents {
		if e.Place != "" && (len(out) == 0 || out[len(out)-1] != e.Place) {
			out = append(out, e.Place)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// refContent adds so many references to content. Where the capsule has it already, the row switches
// to the copy that was just verified, which heals a rotten one, and the former places lose a
// reference.
func refContent(tx Tx, content Content, refs int64, at Moment) error {
	key := ContentKey{content.Capsule, content.SHA256}
	had, _, err := Contents.Find(tx, key)
	if err != nil {
		return err
	}
	was, is := had.Places(), content.Places()
	for _, name := range is {
		if slices.Contains(was, name) {
			continue
		}
		place, ok, err := Places.Find(tx, Name(name))
		if err != nil {
			return err
		}
		if ok && place.Refs == 0 {
			return fmt.Errorf("place %s is garbage already and can't be referred to", name)
		}
		if err := Places.Put(tx, Name(name), Place{name, place.Refs + 1}); err != nil {
			return err
		}
	}
	for _, name := range was {
		if slices.Contains(is, name) {
			continue
		}
		if err := unrefPlace(tx, name, at); err != nil {
			return err
		}
	}
	content.Refs = had.Refs + refs
	return Contents.Put(tx, key, content)
}

// unrefPlace takes one reference from a place. At zero it is garbage, for ever.
func unrefPlace(tx Tx, name string, at Moment) error {
	place, err := Places.Get(tx, Name(name))
	if err != nil {
		return fmt.Errorf("place %s: %v", name, err) // not found is our fault, and not the caller's
	}
	place.Refs--
	if err := Places.Put(tx, Name(name), place); err != nil || place.Refs > 0 {
		return err
	}
	return due(tx, at.in(PlaceGrace), DuePlace, name)
}

// unrefContent takes one reference from a content; with the last one the row goes.
func unrefContent(tx Tx, m Memory, at Moment) error {
	key := ContentKey{m.Capsule, m.SHA256}
	content, err := Contents.Get(tx, key)
	if err != nil {
		return fmt.Errorf("content of memory %s: %v", m.ID, err)
	}
	if content.Refs--; content.Refs > 0 {
		return Contents.Put(tx, key, content)
	}
	for _, name := range content.Places() {
		if err := unrefPlace(tx, name, at); err != nil {
			return err
		}
	}
	return Contents.Delete(tx, key)
}

// Discard makes places garbage that no content names: those of an ended session. Places that are in
// use, and those that are garbage already, are left as they are.
func Discard(tx Tx, places []string, at Moment) error {
	for _, name := range places {
		if _, ok, err := Places.Find(tx, Name(name)); err != nil {
			return err
		} else if ok {
			continue
		}
		if err := Places.Put(tx, Name(name), Place{Name: name}); err != nil {
			return err
		}
		if err := due(tx, at.in(PlaceGrace), DuePlace, name); err != nil {
			return err
		}
	}
	return nil
}
