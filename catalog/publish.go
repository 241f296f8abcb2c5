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
	// PlaceGrace is how long a place is kept that nothing names any more, in running time. A reader
	// keeps its place open, and looks up the extents again if a place is gone. So the time need not
	// be long, and deleting frees space soon.
	PlaceGrace = time.Minute
	// KeepOutcome is how long the outcome of a finished session is kept after its memory is gone,
	// in running time: as long as the engine remembers an ended session.
	KeepOutcome = session.KeepEnded
)

func (m Moment) in(d time.Duration) int64 { return m.Running + d.Milliseconds() }

// Publication is a verified upload that is to become a memory.
type Publication struct {
	// Memory has all fields except Seq. By is the session that ends with it, or 0.
	Memory Memory
	// Content has all fields except Refs. Its places were made for this upload.
	Content Content
	// IdemKey, if not empty, is stored with the request's Fingerprint, so that (capsule, owner,
	// key) finds the memory.
	IdemKey     string
	Fingerprint []byte
	// Keyed: the memory must have the key. Else an upload whose key belongs to another request is
	// published without it.
	Keyed bool
	At    Moment
}

// Publish makes an upload visible: the memory, its content, the counters, the event, the memory's
// idempotency row and outcome, and the end of the session's reservation. A repeat by the same
// session gives the same memory, and ErrDeleted if that is gone. Another upload of the same request
// under the same key may have been faster. Then only its memory exists. Publish returns that memory
// if the bytes are the same; if its content was damaged, this content replaces it. If p is Keyed,
// Publish gives ErrKeyTaken if the key has other bytes, and ErrDeleted if its memory is gone. A new
// memory whose type the capsule does not take is a *MIMEError.
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
		if err := unreserve(tx, &c, m.By, true); err != nil {
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
			p.IdemKey = "" // the key stays with the other request
		}
	}
	if err := CheckMIME(m.MIME, c.MIMETypes); err != nil {
		return m, err
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

// repeat ends an upload whose request another upload has carried out. The outcome is the other's
// memory. The bytes are garbage, or replace damaged ones.
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
	return errors.Join(
		Outcomes.Put(tx, Number(out.Session), out), forgetLater(tx, DueOutcome, Number(out.Session), p.At),
	)
}

// forgetLater makes the row of this key due for deletion.
func forgetLater(tx Tx, kind DueKind, k Key, at Moment) error {
	return due(tx, at.in(KeepOutcome), kind, string(k.AppendKey(nil)))
}

func due(tx Tx, at int64, kind DueKind, key string) error {
	return Dues.Put(tx, DueKey{at, kind, key}, Due{at, kind, key})
}

// show puts a visible memory into the indexes; hide takes it out.
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

// Places lists the places of the content's extents, each once, sorted.
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

// refContent adds so many references to content. If the capsule has that content already, the row
// switches to the copy that was just verified, and the former places lose a reference. So a corrupt
// copy is healed.
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

// unrefPlace takes one reference from a place. At zero the place is garbage, for ever.
func unrefPlace(tx Tx, name string, at Moment) error {
	place, err := Places.Get(tx, Name(name))
	if err != nil {
		return fmt.Errorf("place %s: %v", name, err) // %v: the caller must not see our ErrNotFound as its own
	}
	place.Refs--
	if err := Places.Put(tx, Name(name), place); err != nil || place.Refs > 0 {
		return err
	}
	return due(tx, at.in(PlaceGrace), DuePlace, name)
}

// unrefContent takes one reference from a content. The last one deletes the row.
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

// Discard makes places garbage that no content names: those of an ended session. It leaves alone
// places that are in use or garbage already.
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
