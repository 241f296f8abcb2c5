package keeper

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"time"

	"sluice/catalog"
	"sluice/session"
)

// later makes something due after so much running time.
func (c *check) later(tx catalog.Tx, after time.Duration, kind catalog.DueKind, key string) error {
	d := catalog.Due{At: c.now.Running + after.Milliseconds(), Kind: kind, Key: key}
	return catalog.Dues.Put(tx, catalog.DueKey(d), d)
}

// readDues makes sure that no due work would take away what is in use.
func (exp *expected) readDues() {
	exp.dues.places, exp.dues.outcomes = map[string]bool{}, map[string]bool{}
	exp.dues.idems, exp.dues.principals = map[string]bool{}, map[string]bool{}
	exp.dues.grants, exp.dues.tickets = map[string]bool{}, map[string]bool{}
	each(exp, catalog.Dues, "things to clean up", func(d catalog.Due) catalog.DueKey {
		return catalog.DueKey(d)
	}, func(d catalog.Due) {
		var what string // the due work that must not be
		switch d.Kind {
		case catalog.DuePlace:
			exp.dues.places[d.Key] = true
			if _, ok, err := catalog.Places.Find(exp.r, catalog.Name(d.Key)); err == nil && !ok {
				what = fmt.Sprintf("the deletion of place %s, which is no garbage", d.Key)
			}
		case catalog.DuePurge:
			id := catalog.MemoryID{}
			copy(id[:], d.Key)
			m, ok, err := catalog.Memories.Find(exp.r, catalog.MemoryKey(id))
			if err == nil && (!ok || m.Trashed.IsZero() || m.PurgeAt != d.At) {
				what = fmt.Sprintf("the end of memory %s, which is not in the trash until then", id)
			}
		case catalog.DueOutcome:
			exp.dues.outcomes[d.Key] = true
			if len(d.Key) != 8 {
				what = "what became of a session that has no number"
				break
			}
			n := binary.BigEndian.Uint64([]byte(d.Key))
			out, ok, err := catalog.Outcomes.Find(exp.r, catalog.Number(n))
			m, _, errM := catalog.Memories.Find(exp.r, catalog.MemoryKey(out.Memory))
			if err == nil && errM == nil && (!ok || m.By == n) {
				what = fmt.Sprintf("to forget what became of session %d, which is to be remembered", n)
			}
		case catalog.DueIdem:
			exp.dues.idems[d.Key] = true
			row, err := exp.r.Get(catalog.IdemTable, []byte(d.Key))
			idem, ok := row.(catalog.Idem)
			_, lives, errM := catalog.Memories.Find(exp.r, catalog.MemoryKey(idem.Memory))
			if (err == nil && ok || isNotFound(err)) && errM == nil && (!ok || lives) {
				what = fmt.Sprintf("to forget the idempotency key %q, which is to be remembered", idem.Key)
			}
		case catalog.DueToken:
			row, err := exp.r.Get(catalog.TokenTable, []byte(d.Key))
			if t, ok := row.(catalog.Token); err == nil && ok && t.Expires.IsZero() {
				what = fmt.Sprintf("the end of token %s, which has none", t.ID)
			}
		case catalog.DuePrincipal:
			exp.dues.principals[d.Key] = true
			if _, ok, err := catalog.Principals.Find(exp.r, catalog.Name(d.Key)); err == nil && ok {
				what = fmt.Sprintf("the end of what principal %s has, who is there", d.Key)
			}
		case catalog.DueGrant:
			exp.dues.grants[d.Key] = true
		case catalog.DueTicket:
			exp.dues.tickets[d.Key] = true
			if _, ok, err := catalog.Grants.Find(exp.r, catalog.Name(d.Key)); err == nil && ok {
				what = fmt.Sprintf("the end of what ticket %s has under way, which has not ended", d.Key)
			}
		default:
			exp.check.unreadable = true
			exp.check.wrong(KindDue, "something unknown is due (kind %d)", d.Kind)
		}
		if what != "" {
			exp.check.wrong(KindDue, "this is due and must not be: %s", what).
				mend(exp.check, "it is taken off the list", func(tx catalog.Tx) error {
					return catalog.Dues.Delete(tx, catalog.DueKey(d))
				})
		}
	})
}

// checkPlaces compares the counts of references. It makes sure that places that nothing names are
// going to be collected, and no others.
func (exp *expected) checkPlaces() {
	seen := map[string]bool{}
	each(exp, catalog.Places, "places", func(p catalog.Place) catalog.Name {
		return catalog.Name(p.Name)
	}, func(p catalog.Place) {
		seen[p.Name], exp.check.namedPlaces[p.Name] = true, true
		exp.checkPlace(p)
	})
	for _, name := range sorted(exp.places) {
		if !seen[name] {
			exp.check.wrong(KindCounter, "%s is in use, and nothing says so", exp.check.cfg.File(name)).at(name).
				mend(exp.check, "it is noted", func(tx catalog.Tx) error {
					return catalog.Places.Put(tx, catalog.Name(name), catalog.Place{Name: name, Refs: exp.places[name]})
				})
		}
	}
	for name := range exp.check.sessionPlaces {
		exp.check.namedPlaces[name] = true
	}
}

func (f *Finding) at(place string) *Finding {
	f.Place = place
	return f
}

func (exp *expected) checkPlace(p catalog.Place) {
	want, holder := exp.places[p.Name], exp.check.sessionPlaces[p.Name]
	file := exp.check.cfg.File(p.Name)
	switch {
	case want < p.Refs && !exp.check.cfg.KnownPlace(p.Name):
		f := exp.check.wrong(KindLeftover,
			"%s: %d contents had their bytes there, and the records of %d are lost; it is kept",
			file, p.Refs, p.Refs-want).at(p.Name)
		f.Note = true
	case want > 0 && p.Refs != want:
		text := fmt.Sprintf("%s: %d contents are counted that have their bytes there, and there are %d",
			file, p.Refs, want)
		f := exp.check.wrong(KindCounter, "%s", text).at(p.Name)
		f.mend(exp.check, "it is counted anew", func(tx catalog.Tx) error {
			return exp.inUse(tx, p.Name, &catalog.Place{Name: p.Name, Refs: want})
		})
	case want > 0 || holder != 0 && p.Refs > 0:
		if exp.dues.places[p.Name] {
			exp.check.wrong(KindDue, "%s is in use and is about to be deleted", file).at(p.Name).
				mend(exp.check, "it is taken off the list", func(tx catalog.Tx) error {
					return exp.inUse(tx, p.Name, &p)
				})
		}
	case holder != 0:
		f := exp.check.wrong(KindDue, "%s is about to be deleted, and has pieces of the %s",
			file, exp.check.sessions[holder]).at(p.Name)
		f.Session = holder
		f.mend(exp.check, "it is kept", func(tx catalog.Tx) error { return exp.inUse(tx, p.Name, nil) })
	case p.Refs != 0:
		f := exp.check.wrong(KindCounter, "%s: %d contents are counted that have their bytes there, and there are none",
			file, p.Refs).at(p.Name)
		if len(exp.check.missingContents) > 0 {
			f.Text += "; it may hold what is missing elsewhere, so it is kept"
			return
		}
		f.mend(exp.check, "it is left to the collector", func(tx catalog.Tx) error { return exp.garbage(tx, p.Name) })
	case !exp.dues.places[p.Name]:
		exp.check.wrong(KindDue, "%s is garbage, and nothing will delete it", file).at(p.Name).
			mend(exp.check, "it is left to the collector", func(tx catalog.Tx) error { return exp.garbage(tx, p.Name) })
	}
}

// inUse stores a place's row, and takes its deletion off the list. A nil row stands for a place
// that only a session uses: it has none.
func (exp *expected) inUse(tx catalog.Tx, name string, row *catalog.Place) error {
	var due []catalog.Due
	for d, err := range catalog.Dues.After(tx, catalog.DueKey{}) {
		if err != nil {
			return err
		}
		if d.Kind == catalog.DuePlace && d.Key == name {
			due = append(due, d)
		}
	}
	for _, d := range due {
		if err := catalog.Dues.Delete(tx, catalog.DueKey(d)); err != nil {
			return err
		}
	}
	if row == nil {
		return catalog.Places.Delete(tx, catalog.Name(name))
	}
	return catalog.Places.Put(tx, catalog.Name(name), *row)
}

// garbage gives a place to the collector, with the usual grace.
func (exp *expected) garbage(tx catalog.Tx, name string) error {
	if err := catalog.Places.Put(tx, catalog.Name(name), catalog.Place{Name: name}); err != nil {
		return err
	}
	return exp.check.later(tx, catalog.PlaceGrace, catalog.DuePlace, name)
}

// checkReservations compares the reservations with the open sessions, and the usage of their owners
// with the reservations.
func (exp *expected) checkReservations() {
	held := map[session.SessionID]catalog.Reservation{}
	each(exp, catalog.Reservations, "reservations", func(r catalog.Reservation) catalog.Number {
		return catalog.Number(r.Session)
	}, func(r catalog.Reservation) {
		id := session.SessionID(r.Session)
		o := exp.check.sessions[id]
		switch {
		case o == nil:
			f := exp.check.wrong(KindReserved, "%d bytes of capsule %s are reserved for session %s, which is not open",
				r.Bytes, r.Capsule, id)
			f.Session, f.Capsule = id, r.Capsule
			f.mend(exp.check, "they are given back", func(tx catalog.Tx) error {
				return catalog.Reservations.Delete(tx, catalog.Number(r.Session))
			})
		case r.Capsule == o.reserved.Capsule && r.Owner == o.reserved.Owner && o.reserves(r.Bytes):
			if payer, known := exp.payer(r.Owner); !known || payer == r.Payer {
				held[id] = r
			}
		}
	})
	usages := map[string]*catalog.Usage{}
	for _, id := range sorted(exp.check.sessions) {
		o := exp.check.sessions[id]
		r, ok := held[id]
		if !ok {
			r = o.reserved
			r.Payer, _ = exp.payer(r.Owner)
			f := exp.check.wrong(KindReserved, "%s: %d bytes are to be reserved for it, and are not", o, r.Bytes)
			f.Session, f.Capsule = id, o.reserved.Capsule
			f.mend(exp.check, "they are reserved", func(tx catalog.Tx) error {
				return catalog.Reservations.Put(tx, catalog.Number(id), r)
			})
		}
		if t := exp.capsules[r.Capsule]; t != nil {
			t.sessions++
			t.reserved += r.Bytes
		}
		exp.countForTicket(r)
		payer := cmp.Or(r.Payer, r.Owner)
		if usages[payer] == nil {
			usages[payer] = &catalog.Usage{Owner: payer}
		}
		usages[payer].Sessions++
		usages[payer].Reserved += r.Bytes
	}
	var keys [][]byte
	for _, owner := range sorted(usages) {
		want := *usages[owner]
		keys = append(keys, []byte(owner))
		if has, err := catalog.Usages.Get(exp.r, catalog.Name(owner)); err != nil || has != want {
			exp.check.wrong(KindCounter,
				"principal %s counts %d uploads under way with %d bytes, and there are %d with %d",
				owner, has.Sessions, has.Reserved, want.Sessions, want.Reserved).
				mend(exp.check, "it is counted anew", func(tx catalog.Tx) error {
					return catalog.Usages.Put(tx, catalog.Name(owner), want)
				})
		}
	}
	if countRows(exp.r, catalog.UsageTable) != int64(len(keys)) {
		exp.reportOrphans(catalog.UsageTable, keys, "a principal counts uploads under way, and has none")
	}
}

// checkIdems makes sure that a key is remembered as long as its memory lives, and forgotten after
// that.
func (exp *expected) checkIdems() {
	each(exp, catalog.Idems, "idempotency keys", func(i catalog.Idem) catalog.IdemKey {
		return catalog.IdemKey{Capsule: i.Capsule, Owner: i.Owner, Key: i.Key}
	}, func(i catalog.Idem) {
		key := string(catalog.IdemKey{Capsule: i.Capsule, Owner: i.Owner, Key: i.Key}.AppendKey(nil))
		if _, ok, err := catalog.Memories.Find(exp.r, catalog.MemoryKey(i.Memory)); err == nil && !ok &&
			!exp.dues.idems[key] {
			exp.check.wrong(KindDue, "the idempotency key %q in capsule %s is of memory %s, which is gone, and "+
				"nothing will forget it", i.Key, i.Capsule, i.Memory).
				mend(exp.check, "it is put on the list", func(tx catalog.Tx) error {
					return exp.check.later(tx, catalog.KeepOutcome, catalog.DueIdem, key)
				})
		}
	})
}

// checkOutcomes does the same for the outcomes of sessions.
func (exp *expected) checkOutcomes() {
	each(exp, catalog.Outcomes, "outcomes of sessions", func(o catalog.Outcome) catalog.Number {
		return catalog.Number(o.Session)
	}, func(o catalog.Outcome) {
		key := string(catalog.Number(o.Session).AppendKey(nil))
		if _, ok, err := catalog.Memories.Find(exp.r, catalog.MemoryKey(o.Memory)); err == nil && !ok &&
			!exp.dues.outcomes[key] {
			exp.check.wrong(KindDue, "session %d became memory %s, which is gone, and nothing will forget that",
				o.Session, o.Memory).
				mend(exp.check, "it is put on the list", func(tx catalog.Tx) error {
					return exp.check.later(tx, catalog.KeepOutcome, catalog.DueOutcome, key)
				})
		}
	})
	for _, id := range exp.check.finished {
		if _, ok, err := catalog.Outcomes.Find(exp.r, catalog.Number(id)); err == nil && !ok && !exp.became[id] {
			exp.check.wrong(KindRecord, "session %s is finished, and what it became is not known", id).Session = id
		}
	}
}

// checkCheckpoints makes sure that states of the hash are kept for open sessions alone.
func (exp *expected) checkCheckpoints() {
	each(exp, catalog.Checkpoints, "states of hashes", func(st catalog.HashCheckpoint) catalog.CheckpointKey {
		return catalog.CheckpointKey{Session: st.Session, Off: st.Off}
	}, func(st catalog.HashCheckpoint) {
		if exp.check.sessions[session.SessionID(st.Session)] == nil {
			f := exp.check.wrong(KindHash, "a state of the hash at byte %d is kept for session %d, which is not open",
				st.Off, st.Session)
			f.Session = session.SessionID(st.Session)
			f.mend(exp.check, "it is removed", func(tx catalog.Tx) error {
				return catalog.Checkpoints.Delete(tx, catalog.CheckpointKey{Session: st.Session, Off: st.Off})
			})
		}
	})
}
