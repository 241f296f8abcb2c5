package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// status asks for an upload. If its owner must be refused, it asks the stores.
func (c *client) status(f *file) (up upload.Upload, err error) {
	up, err = c.w.Uploads.Status(ctx, c.as(f), f.id)
	if !c.blind(f) {
		return up, err
	}
	if !isRefusal(err) {
		return up, fmt.Errorf("its owner, who may not look, is told %v, %w", up, err)
	}
	if up.Session, err = c.w.Engine.Status(ctx, f.id); err != nil || up.State != session.Finished {
		return up, err
	}
	err = c.w.Catalog.View(ctx, func(r catalog.Reader) error {
		out, err := catalog.Outcomes.Get(r, catalog.Number(f.id))
		if errors.Is(err, catalog.ErrNotFound) {
			up.Deleted = true
			return nil
		}
		if err != nil {
			return err
		}
		m, ok, err := catalog.Memories.Find(r, catalog.MemoryKey(out.Memory))
		up.Memory, up.Deleted = out.Memory, !ok || !m.Trashed.IsZero()
		return err
	})
	return up, err
}

// rights changes the guest's rights, between two calls.
func (l *serverRun) rights() {
	g := l.m.guest
	switch n := l.rng.IntN(11); {
	case g.is != valid:
		l.newGuest()
	case n == 10:
		if l.apply(l.deleteGuest()) && l.rng.IntN(2) == 0 {
			l.endOwner(g.name)
		}
	case !g.live(l.w.clock.Now()) || g.caller.ReadOnly && n < 6:
		l.newToken(l.rng.IntN(5) == 0, time.Duration(l.rng.IntN(3))*30*time.Hour)
	case g.role == stranger:
		l.apply(l.toRole([]role{subject, controller}[l.rng.IntN(2)]))
	case n < 4:
		l.apply(l.toRole([]role{stranger, stranger, subject, controller}[l.rng.IntN(4)]))
	case n < 7:
		l.apply(l.revoke())
	case n < 9:
		l.newToken(true, 0)
	default:
		l.newToken(false, hour)
	}
}

// barring draws a change that ends the right to write of the guest, or of its ticket.
func (l *serverRun) barring(by string) change {
	gr := l.m.grants[by]
	switch n := l.rng.IntN(5); {
	case n == 0 && (gr == nil || gr.maker == l.m.guest.name):
		return l.deleteGuest()
	case gr != nil && (n < 3 || gr.maker != l.m.guest.name):
		return l.revokeGrant(gr)
	case gr == nil && n < 3:
		return l.revoke()
	}
	return l.toRole(stranger)
}

// grants makes, uses and ends tickets and links.
func (l *serverRun) doGrants() {
	now := l.w.clock.Now()
	ttl := []time.Duration{1000 * hour, 1000 * hour, 30 * hour, hour}[l.rng.IntN(4)]
	var all, links []*grant
	for _, name := range slices.Sorted(maps.Keys(l.m.grants)) {
		g := l.m.grants[name]
		if g.is == valid {
			all = append(all, g)
		}
		if f := l.m.files[g.file]; g.kind == catalog.Link && f != nil && f.can == visible && l.m.usable(g, now) {
			links = append(links, g)
		}
	}
	n := l.rng.IntN(8)
	switch f := l.pick(func(f *file) bool { return f.can == visible }); {
	case len(links) > 0 && n < 3:
		g := links[l.rng.IntN(len(links))]
		l.on(l.m.files[g.file])
		l.follow(g, l.rng.IntN(3) == 0)
	case len(all) > 0 && n < 5:
		g := all[l.rng.IntN(len(all))]
		if l.apply(l.revokeGrant(g)) && l.rng.IntN(2) == 0 {
			l.endOwner(g.name)
		}
	case f != nil && n < 7:
		l.newGrant(f, 1+l.rng.Int64N(2), ttl)
	default:
		l.newGrant(nil, 1+l.rng.Int64N(4), ttl)
	}
}

// ticketed gives the name of a ticket, which may have ended, or "".
func (l *serverRun) ticketed() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(l.m.grants)) {
		if g := l.m.grants[name]; g.kind == catalog.Ticket && g.secret != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[l.rng.IntN(len(names))]
}

// doQuota bounds the memories, so that one more fits or none.
func (l *serverRun) doQuota() {
	row, err := l.w.Memories.ReadCapsule(ctx, l.w.Me, "default")
	if err == nil && row.Memories+row.Sessions > 0 {
		l.setQuota(row.Memories + row.Sessions + l.rng.Int64N(2))
	}
}

// bounded begins or creates while a quota holds, and then lifts it.
func (l *serverRun) bounded() {
	row, err := l.w.Memories.ReadCapsule(ctx, l.w.Me, "default")
	if err != nil {
		return
	}
	f := &file{name: l.name(), content: l.content(), can: nowhere}
	f.created = l.rng.IntN(2) == 0
	l.add(f)
	switch fits := row.Fits(0, 1) == nil; {
	case !fits && f.created:
		l.callRefused(f.name, "create beyond the quota", []error{catalog.ErrQuota}, func() error {
			return l.tryCreate(f, l.w.Me)
		})
	case !fits:
		l.callRefused(f.name, "begin beyond the quota", []error{catalog.ErrQuota}, func() error {
			return l.tryBegin(f, l.w.Me)
		})
	case f.created:
		l.on(f)
		l.createAgain(f)
	default:
		l.on(f)
		l.beginAgain(f)
	}
	if l.rng.IntN(2) == 0 {
		l.setQuota(0)
	}
}

// refused tries what the guest may not do. Nothing of it is done.
func (l *serverRun) refused(f *file) {
	l.on(f)
	b := f.content
	one := session.Range{End: min(chunk, int64(len(b)))}
	as := l.as(f)
	switch l.rng.IntN(6) {
	case 0:
		l.callRefused(f.name, "may not begin again", refusals, func() error { return l.tryBegin(f, as) })
	case 1:
		l.callRefused(f.name, "may not create", refusals, func() error { return l.tryCreate(f, as) })
	case 2, 3:
		if f.id == 0 || one.Empty() {
			return
		}
		l.callRefused(f.name, "may not put", refusals, func() error {
			return l.w.Uploads.PutChunk(
				ctx, as, f.id, 0, bytes.NewReader(b[:one.End]),
				upload.Put{Length: one.Len(), Replace: l.rng.IntN(2) == 0},
			)
		})
	case 4:
		if f.id != 0 {
			l.callRefused(f.name, "may not finish", refusals, func() error { return l.tryFinish(f, as) })
		}
	default:
		if f.id != 0 {
			l.callRefused(f.name, "may not abort", refusals, func() error { return l.w.Uploads.Abort(ctx, as, f.id) })
		}
	}
}

// meddle tries what nobody may do to an upload of another principal.
func (l *serverRun) meddle(f *file) {
	l.on(f)
	other := l.w.Me
	if f.by == "" {
		other = l.m.guest.caller
	}
	wants := append([]error{session.ErrNotFound}, refusals...)
	switch {
	case f.by == "" && f.can == visible && l.m.guest.role != controller:
		l.callRefused(
			f.name, "another may not delete", wants,
			func() error { return l.w.Memories.Delete(ctx, other, f.memory, true) },
		)
	case f.id == 0:
	case l.rng.IntN(2) == 0:
		l.callRefused(f.name, "another may not finish", wants, func() error { return l.tryFinish(f, other) })
	default:
		l.callRefused(
			f.name, "another may not abort", wants, func() error { return l.w.Uploads.Abort(ctx, other, f.id) },
		)
	}
}

// during runs a call. Its caller loses the right to write in the middle of it.
func (l *serverRun) during(f *file, doing string, may func(), do func(change func()) error, has func()) {
	c, ran := l.barring(f.by), false
	back := l.m.back()
	l.on(f)
	l.call(f.name, fmt.Sprintf("%s in the middle of: %s", c.doing, doing), func() { may(); c.widen() }, func() error {
		var failed error
		err := do(func() {
			if failed = c.do(); failed == nil {
				ran = true
			}
		})
		switch {
		case failed != nil:
			return failed
		case !ran:
			return errors.Join(err, errNotYet)
		case err == nil:
			return fmt.Errorf("%w: it was done although the right had gone", errWrong)
		case !isRefusal(err):
			return err
		}
		return nil
	}, func() { c.has(); has() }, func() {
		if ran {
			c.has()
		} else {
			back()
		}
		has()
	})
}

// errNotYet: the call failed before its middle.
var errNotYet = errors.New("it did not come so far")

// turning gives a body in the middle of which something happens.
func turning(b []byte, change func()) io.Reader {
	half := len(b) / 2
	return io.MultiReader(bytes.NewReader(b[:half]), &roleChangingBody{change}, bytes.NewReader(b[half:]))
}

type roleChangingBody struct{ change func() }

func (t *roleChangingBody) Read([]byte) (int, error) {
	t.change()
	return 0, io.EOF
}

// midway ends a right in the middle of a put, a finish or a create.
func (l *serverRun) midway() {
	mine := func(f *file) bool { return f.by != "" && f.can == open && f.id != 0 && !l.barred(f) }
	if f := l.pick(func(f *file) bool { return mine(f) && f.whole() }); f != nil {
		l.during(f, "finish", func() {}, func(change func()) error {
			l.w.between = change
			defer func() { l.w.between = nil }()
			return l.tryFinish(f, l.as(f))
		}, func() {})
		return
	}
	if f := l.pick(func(f *file) bool { return mine(f) && len(f.old) == 0 && !f.whole() }); f != nil {
		gap := session.Gaps(f.must, session.Range{End: int64(len(f.content))}, 1)[0]
		got := int64(0)
		doing := fmt.Sprintf("put bytes %d to %d", gap.Off, gap.End)
		before := gap // what comes after the change is never recorded
		before.End = gap.Off + gap.Len()/2
		l.during(f, doing, func() { f.may = session.Add(f.may, before) }, func(change func()) (err error) {
			got, err = l.w.Uploads.PutRange(
				ctx, l.as(f), f.id, gap.Off, turning(f.content[gap.Off:gap.End], change), upload.Put{Length: gap.Len()},
			)
			return err
		}, func() { f.must = session.Add(f.must, session.Range{Off: gap.Off, End: gap.Off + got}) })
		return
	}
	f := &file{name: l.name(), content: l.content(), created: true, can: nowhere, by: l.m.guest.name}
	if len(f.content) == 0 || l.barred(f) {
		return
	}
	l.add(f)
	l.during(f, "create", func() {}, func(change func()) error {
		_, err := l.w.Uploads.Create(ctx, l.as(f), upload.CreateRequest{
			Capsule: "default", Meta: catalog.Meta{Name: f.name}, Put: upload.Put{Length: int64(len(f.content))},
		}, turning(f.content, change))
		return err
	}, func() {})
}
