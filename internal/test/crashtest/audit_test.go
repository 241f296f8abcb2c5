package crashtest

import (
	"cmp"
	"errors"
	"fmt"

	"sluice/blob"
	"sluice/catalog"
	"sluice/keeper"
	"sluice/session"
)

// auditedRows are all rows that must agree with each other.
type auditedRows struct {
	capsule  catalog.Capsule
	memories map[catalog.MemoryID]catalog.Memory
	contents map[catalog.ContentKey]catalog.Content
	places   map[string]int64 // references by the rows of contents
	open     map[uint64]session.Session
	openWith map[string]int64 // open sessions by their owner
}

// audit compares counters, references, indexes and reservations with the rows that they are about,
// and reads every extent from the disk.
func audit(w *server) error {
	a := &auditedRows{
		memories: map[catalog.MemoryID]catalog.Memory{}, contents: map[catalog.ContentKey]catalog.Content{},
		places: map[string]int64{}, open: map[uint64]session.Session{}, openWith: map[string]int64{},
	}
	if err := a.sessions(w); err != nil {
		return err
	}
	var errs []error
	err := w.Catalog.View(ctx, func(r catalog.Reader) error {
		errs = nil
		for _, check := range []func(catalog.Reader) error{
			a.load, a.checkCapsule, a.checkIndexes, a.checkPlaces, a.checkReservations, a.checkTickets,
			a.checkEvents,
		} {
			errs = append(errs, check(r))
		}
		return nil
	})
	for _, content := range a.contents {
		for _, e := range content.Extents {
			if err := w.Blobs.Check(ctx, e, blob.CheckAll); err != nil {
				errs = append(errs, fmt.Errorf("content %x: %w", content.SHA256[:4], err))
			}
		}
	}
	if err := errors.Join(append(errs, err, checked(w))...); err != nil {
		return fmt.Errorf("the books do not agree: %w", err)
	}
	return nil
}

// checked gives what `sluice check` finds wrong, except bytes that a power loss may have taken, and
// sessions that these servers remember for longer than their outcomes.
func checked(w *server) error {
	var errs []error
	expected := func(f keeper.Finding) bool {
		return f.Note || f.Kind == keeper.KindPiece || f.Kind == keeper.KindHash ||
			f.Kind == keeper.KindRecord && f.Session != 0
	}
	_, err := keeper.Check(ctx, keeper.CheckConfig{
		Sessions: w.Meta.Sessions(), Catalog: w.Catalog, Blobs: w.Blobs, Clock: w.clock,
		Found: func(f keeper.Finding) {
			if !expected(f) {
				errs = append(errs, fmt.Errorf("check finds %s: %s", f.Kind, f.Text))
			}
		},
	})
	return errors.Join(append(errs, err)...)
}

func (a *auditedRows) sessions(w *server) error {
	var received, expected int64
	err := session.Page(ctx, w.Meta.Sessions(), session.Query{Limit: 1000}, func(s session.Session) (bool, error) {
		entries, err := w.Engine.Entries(ctx, s.ID, session.All(), 0)
		if err != nil {
			return false, err
		}
		var have []session.Range
		for _, e := range entries {
			have = session.Add(have, e.Range)
		}
		switch {
		case s.State.Ended():
			if len(entries) > 0 {
				return false, fmt.Errorf("session %s is %s, and has %d entries", s.ID, s.State, len(entries))
			}
		case s.State != session.Open:
			return false, fmt.Errorf("session %s is %s", s.ID, s.State)
		default:
			a.open[uint64(s.ID)] = s
			received += s.Bytes()
			expected += max(s.BytesExpected, 0)
			if s.EntryCount != len(entries) || fmt.Sprint(have) != fmt.Sprint(s.Received) {
				return false, fmt.Errorf(
					"session %s: received %v in %d pieces, and its entries are %v", s.ID, s.Received, s.EntryCount,
					entries,
				)
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	st, err := w.Engine.Stats(ctx)
	if err == nil && (st.Open != int64(len(a.open)) || st.BytesReceived != received || st.BytesExpected != expected) {
		err = fmt.Errorf(
			"the sessions' figures are %+v, and %d are open with %d bytes of %d", st, len(a.open), received, expected,
		)
	}
	return err
}

func (a *auditedRows) load(r catalog.Reader) (err error) {
	if a.capsule, err = catalog.Capsules.Get(r, "default"); err != nil {
		return err
	}
	for m, err := range catalog.Memories.After(r, catalog.MemoryKey{}) {
		if err != nil {
			return err
		}
		a.memories[m.ID] = m
	}
	for c, err := range catalog.Contents.After(r, catalog.ContentKey{}) {
		if err != nil {
			return err
		}
		a.contents[catalog.ContentKey{Capsule: c.Capsule, SHA256: c.SHA256}] = c
		for _, place := range c.Places() {
			a.places[place]++
		}
	}
	return nil
}

func (a *auditedRows) checkCapsule(r catalog.Reader) error {
	c, want := a.capsule, a.capsule
	want.Memories, want.Bytes, want.Trashed, want.Sessions, want.Reserved = 0, 0, 0, 0, 0
	refs := map[catalog.ContentKey]int64{}
	for _, m := range a.memories {
		want.Memories++
		want.Bytes += m.Bytes
		if !m.Trashed.IsZero() {
			want.Trashed++
		}
		refs[catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256}]++
	}
	for res, err := range catalog.Reservations.After(r, catalog.Number(0)) {
		if err != nil {
			return err
		}
		want.Sessions++
		want.Reserved += res.Bytes
	}
	if c.Memories != want.Memories || c.Bytes != want.Bytes || c.Trashed != want.Trashed ||
		c.Sessions != want.Sessions || c.Reserved != want.Reserved {
		return fmt.Errorf("the capsule counts %+v, and its rows are %+v", c, want)
	}
	if len(refs) != len(a.contents) {
		return fmt.Errorf("%d contents for %d digests", len(a.contents), len(refs))
	}
	for key, n := range refs {
		if a.contents[key].Refs != n {
			return fmt.Errorf("content %x has %d references, and %d memories", key.SHA256[:4], a.contents[key].Refs, n)
		}
	}
	return nil
}

func (a *auditedRows) checkIndexes(r catalog.Reader) error {
	n := 0
	for _, m := range a.memories {
		trash := !m.Trashed.IsZero()
		id, err := catalog.Order.Get(r, catalog.OrderKey{Capsule: m.Capsule, Trash: trash, Seq: m.Seq})
		if err != nil || id != m.ID {
			return fmt.Errorf("memory %s is not in its order: %w", m.Name, err)
		}
		_, ok, err := catalog.Digests.Find(r, catalog.DigestKey{Capsule: m.Capsule, SHA256: m.SHA256, Seq: m.Seq})
		if err != nil || ok == trash {
			return fmt.Errorf("memory %s, in the trash %v, is found by its digest: %v, %w", m.Name, trash, ok, err)
		}
		if trash {
			if _, err := catalog.Dues.Get(r, catalog.DueKey{
				At: m.PurgeAt, Kind: catalog.DuePurge, Key: string(m.ID[:]),
			}); err != nil {
				return fmt.Errorf("memory %s stays in the trash for ever: %w", m.Name, err)
			}
		}
		if m.By != 0 {
			if out, err := catalog.Outcomes.Get(r, catalog.Number(m.By)); err != nil || out.Memory != m.ID {
				return fmt.Errorf("the outcome of memory %s: %+v, %w", m.Name, out, err)
			}
		}
		if m.Idem != "" {
			row, err := catalog.Idems.Get(r, catalog.IdemKey{Capsule: m.Capsule, Owner: m.Owner, Key: m.Idem})
			if err != nil || row.Memory != m.ID {
				return fmt.Errorf("the key of memory %s: %+v, %w", m.Name, row, err)
			}
		}
	}
	for _, err := range catalog.Order.After(r, catalog.OrderKey{}) {
		if err != nil {
			return err
		}
		n++
	}
	if n != len(a.memories) {
		return fmt.Errorf("%d rows of order for %d memories", n, len(a.memories))
	}
	return nil
}

func (a *auditedRows) checkPlaces(r catalog.Reader) error {
	due := map[string]bool{}
	for d, err := range catalog.Dues.After(r, catalog.DueKey{}) {
		if err != nil {
			return err
		}
		if d.Kind == catalog.DuePlace {
			due[d.Key] = true
		}
	}
	n := 0
	for p, err := range catalog.Places.After(r, "") {
		if err != nil {
			return err
		}
		if p.Refs != a.places[p.Name] || due[p.Name] != (p.Refs == 0) {
			return fmt.Errorf(
				"place %s has %d references, is named by %d contents, and is due: %v", p.Name, p.Refs, a.places[p.Name],
				due[p.Name],
			)
		}
		if p.Refs > 0 {
			n++
		}
	}
	if n != len(a.places) {
		return fmt.Errorf("%d places have a row, and %d are named", n, len(a.places))
	}
	return nil
}

func (a *auditedRows) checkReservations(r catalog.Reader) error {
	owners := map[string]catalog.Usage{}
	n := 0
	for res, err := range catalog.Reservations.After(r, catalog.Number(0)) {
		if err != nil {
			return err
		}
		s, ok := a.open[res.Session]
		if !ok {
			return fmt.Errorf("a reservation of session %d, which is not open", res.Session)
		}
		if s.BytesExpected >= 0 && res.Bytes < s.BytesExpected {
			return fmt.Errorf("session %d reserves %d of %d bytes", res.Session, res.Bytes, s.BytesExpected)
		}
		payer := cmp.Or(res.Payer, res.Owner)
		u := owners[payer]
		u.Owner, u.Sessions, u.Reserved = payer, u.Sessions+1, u.Reserved+res.Bytes
		owners[payer] = u
		a.openWith[res.Owner]++
		n++
	}
	if n != len(a.open) {
		return fmt.Errorf("%d reservations for %d open sessions", n, len(a.open))
	}
	for u, err := range catalog.Usages.After(r, "") {
		if err != nil {
			return err
		}
		if owners[u.Owner] != u {
			return fmt.Errorf("usage is %+v, and the reservations are %+v", u, owners[u.Owner])
		}
		delete(owners, u.Owner)
	}
	if len(owners) > 0 {
		return fmt.Errorf("no usage for %v", owners)
	}
	return nil
}

// checkTickets compares what each ticket counts with the open sessions.
func (a *auditedRows) checkTickets(r catalog.Reader) error {
	for g, err := range catalog.Grants.After(r, "") {
		if err != nil {
			return err
		}
		if g.Kind == catalog.Ticket && (g.Open != a.openWith[g.ID] || g.Done < 0 || g.Open+g.Done > g.Uploads) {
			return fmt.Errorf("ticket %+v, and %d sessions are open with it", g, a.openWith[g.ID])
		}
	}
	return nil
}

func (a *auditedRows) checkEvents(r catalog.Reader) error {
	next := uint64(1)
	for e, err := range catalog.Events.After(r, catalog.EventKey{Capsule: "default"}) {
		if err != nil {
			return err
		}
		if e.Capsule != "default" || e.Seq != next {
			return fmt.Errorf("event %d of %s where %d belongs", e.Seq, e.Capsule, next)
		}
		next++
	}
	if next-1 != a.capsule.Seq {
		return fmt.Errorf("%d events, and the capsule counts %d", next-1, a.capsule.Seq)
	}
	return nil
}
