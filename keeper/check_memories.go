package keeper

import (
	"fmt"

	"sluice/catalog"
	"sluice/session"
)

// nameOf names a memory for people.
func nameOf(m catalog.Memory) string {
	name := m.Name
	if m.Path != "" {
		name = m.Path + "/" + name
	}
	in := "capsule " + m.Capsule
	if !m.Trashed.IsZero() {
		in = "the trash of " + in
	}
	return fmt.Sprintf("memory %s (%q in %s)", m.ID, name, in)
}

// about says which memory a finding is about.
func (f *Finding) about(m catalog.Memory) *Finding {
	f.Memory, f.Capsule = m.ID, m.Capsule
	return f
}

func (exp *expected) readMemories() {
	each(exp, catalog.Memories, "memories", func(m catalog.Memory) catalog.MemoryKey {
		return catalog.MemoryKey(m.ID)
	}, func(m catalog.Memory) {
		exp.check.sum.Memories++
		exp.checkMemory(m)
	})
}

func (exp *expected) checkMemory(m catalog.Memory) {
	trashed := !m.Trashed.IsZero()
	t := exp.capsules[m.Capsule]
	if t == nil {
		exp.check.wrong(KindRecord, "%s: there is no such capsule", nameOf(m)).about(m)
		t = &counters{}
	}
	t.memories++
	t.bytes += m.Bytes
	t.lastMemory = max(t.lastMemory, m.Seq)
	exp.listed[0]++
	exp.checkIndexed(m, catalog.OrderTable, catalog.OrderKey{Capsule: m.Capsule, Trash: trashed, Seq: m.Seq},
		"the list of its capsule")
	if trashed {
		t.trashed++
		due := catalog.Due{At: m.PurgeAt, Kind: catalog.DuePurge, Key: string(m.ID[:])}
		if _, ok, err := catalog.Dues.Find(exp.r, catalog.DueKey(due)); err == nil && !ok {
			exp.check.wrong(KindDue, "%s: nothing will empty it from the trash", nameOf(m)).about(m).
				mend(exp.check, "its end is put on the list again", func(tx catalog.Tx) error {
					return catalog.Dues.Put(tx, catalog.DueKey(due), due)
				})
		}
	} else {
		exp.listed[1]++
		exp.checkIndexed(m, catalog.DigestTable, catalog.DigestKey{Capsule: m.Capsule, SHA256: m.SHA256, Seq: m.Seq},
			"the list by SHA-256")
	}
	exp.checkContent(m)
	exp.checkRemembered(m)
}

// checkIndexed makes sure that an index leads to the memory.
func (exp *expected) checkIndexed(m catalog.Memory, table catalog.TableID, key catalog.Key, what string) {
	k := key.AppendKey(nil)
	row, err := exp.r.Get(table, k)
	if err == nil && row == any(m.ID) {
		return
	}
	f := exp.check.wrong(KindIndex, "%s is not in %s", nameOf(m), what).about(m)
	if other, ok := row.(catalog.MemoryID); ok && err == nil {
		// Two memories have one number: neither may replace the other.
		if o, ok, _ := catalog.Memories.Find(exp.r, catalog.MemoryKey(other)); ok && o.Capsule == m.Capsule &&
			o.Seq == m.Seq && o.Trashed.IsZero() == m.Trashed.IsZero() {
			f.Text += fmt.Sprintf(": memory %s has the same number %d there", other, m.Seq)
			return
		}
	}
	f.mend(exp.check, "it is put there again", func(tx catalog.Tx) error { return tx.Put(table, k, m.ID) })
	f.needsRows = false
}

// checkContent makes sure that the memory's content has a row.
func (exp *expected) checkContent(m catalog.Memory) {
	key := catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}
	exp.refs[key]++
	content, ok, err := catalog.Contents.Find(exp.r, key)
	switch {
	case err != nil: // readContents reports it
	case !ok:
		exp.check.missingContents[key] = true
		f := exp.check.wrong(KindContent, "%s: the record of its content (%x) is gone", nameOf(m), m.SHA256).about(m)
		f.Range = session.Range{End: m.Bytes}
		f.mend(exp.check, "its content is marked as damaged; storing the same bytes again heals it",
			func(tx catalog.Tx) error {
				if _, ok, err := catalog.Contents.Find(tx, key); ok || err != nil {
					return err
				}
				return catalog.Contents.Put(tx, key, catalog.Content{
					Capsule: m.Capsule, SHA256: m.SHA256, Bytes: m.Bytes, Refs: exp.refs[key],
					Damaged: exp.check.now.Now,
				})
			})
		f.quarantines = true
	case content.Bytes != m.Bytes:
		exp.check.wrong(KindRecord, "%s has %d bytes, and its content %d", nameOf(m), m.Bytes, content.Bytes).about(m)
	}
}

// checkRemembered makes sure that the memory can be found by its session and by its key.
func (exp *expected) checkRemembered(m catalog.Memory) {
	if m.By != 0 {
		want := catalog.Outcome{Session: m.By, Capsule: m.Capsule, Memory: m.ID, SHA256: m.SHA256, Bytes: m.Bytes}
		if out, err := catalog.Outcomes.Get(exp.r, catalog.Number(m.By)); err != nil || out != want {
			exp.became[session.SessionID(m.By)] = true
			exp.check.wrong(KindIndex, "%s: its session %d is not known to have become it", nameOf(m), m.By).about(m).
				mend(exp.check, "it is noted again", func(tx catalog.Tx) error {
					return catalog.Outcomes.Put(tx, catalog.Number(m.By), want)
				})
		}
	}
	if m.Idem == "" {
		return
	}
	row, ok, err := catalog.Idems.Find(exp.r, catalog.IdemKey{Capsule: m.Capsule, Owner: m.Owner, Key: m.Idem})
	if err == nil && (!ok || row.Memory != m.ID) {
		exp.check.wrong(KindIndex, "%s: its idempotency key %q does not lead to it", nameOf(m), m.Idem).about(m).
			mend(exp.check, "the key is forgotten; the same request would store the bytes once more",
				func(tx catalog.Tx) error {
					now, err := catalog.Memories.Get(tx, catalog.MemoryKey(m.ID))
					if err != nil {
						return err
					}
					now.Idem = ""
					return catalog.Memories.Put(tx, catalog.MemoryKey(m.ID), now)
				})
	}
}
