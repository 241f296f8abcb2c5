package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// role is the set of roles that the guest may have in the capsule. It is a set, as fate is.
type role uint8

const (
	stranger role = 1 << iota
	subject
	controller
)

func (r role) String() string {
	return map[role]string{stranger: "stranger", subject: "subject", controller: "controller"}[r]
}

// The states that a token may have: a set too.
const (
	valid = 1 << iota
	revoked
)

// guest is the second principal, whose rights change while it uploads.
type guest struct {
	id, secret, tokenID string
	caller              access.Caller
	role                role
	token               uint8
	ends                time.Time
	due                 int64 // the running time, in ms, at which the token is gone for good; 0: never
}

// tick notes what a tick by that much may do to the token. The function that it gives notes what
// the tick did, by the running time after it.
func (g *guest) tick(running int64, by time.Duration) (did func(running int64)) {
	if g == nil || g.due == 0 {
		return func(int64) {}
	}
	was := g.token
	if running+by.Milliseconds() >= g.due {
		g.token |= revoked
	}
	return func(running int64) {
		if g.token = was; running >= g.due {
			g.token = revoked
		}
	}
}

func (g *guest) live(now time.Time) bool {
	return g.token == valid && (g.ends.IsZero() || now.Before(g.ends))
}

func (g *guest) reads(now time.Time) bool { return g.live(now) && g.role != stranger }

func (g *guest) writes(now time.Time) bool { return g.reads(now) && !g.caller.ReadOnly }

// as gives the caller that an upload belongs to.
func (c *client) as(f *file) access.Caller {
	if f.guest {
		return c.m.guest.caller
	}
	return c.w.Me
}

// blind reports whether the upload's owner may not look at it.
func (c *client) blind(f *file) bool { return f.guest && !c.m.guest.reads(c.w.clock.Now()) }

// barred reports whether the upload's owner may not write.
func (c *client) barred(f *file) bool { return f.guest && !c.m.guest.writes(c.w.clock.Now()) }

var refusals = []error{access.ErrForbidden, access.ErrUnauthenticated, catalog.ErrNotFound}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(want error) bool { return errors.Is(err, want) })
}

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

// checkGuest finds out what became of a change of its rights.
func (c *client) checkGuest() error {
	g := c.m.guest
	row, err := c.w.Memories.ReadCapsule(ctx, c.w.Me, "default")
	if err != nil {
		return err
	}
	is := stranger
	switch {
	case slices.Contains(row.Controllers, g.id):
		is = controller
	case row.Subject == g.id:
		is = subject
	}
	if g.role&is == 0 {
		return fmt.Errorf("the guest is %s in %+v", is, row)
	}
	g.role = is
	_, err = c.w.Access.Authenticate(ctx, g.secret)
	expired := !g.ends.IsZero() && !c.w.clock.Now().Before(g.ends)
	switch {
	case err != nil && !errors.Is(err, access.ErrUnauthenticated):
		return err
	case expired && err == nil:
		return errors.New("a token whose time is over is good")
	case expired: // the clock may be set back
		is := uint8(revoked)
		err := c.w.Catalog.View(ctx, func(r catalog.Reader) error {
			_, there, err := catalog.Tokens.Find(r, catalog.TokenKey(g.caller.Token))
			if there {
				is = valid
			}
			return err
		})
		if err == nil && g.token&is == 0 {
			err = fmt.Errorf("the guest's token is %d, and may be %d", is, g.token)
		}
		g.token = is
		return err
	case g.token&revoked == 0 && err != nil:
		return fmt.Errorf("a token that nobody revoked: %w", err)
	case g.token&valid == 0 && err == nil:
		return errors.New("a token that was revoked is good")
	case err == nil:
		g.token = valid
	default:
		g.token = revoked
	}
	return nil
}

// change is a change of the guest's rights.
type change struct {
	doing      string
	widen, has func()
	do         func() error
}

func (l *serverRun) toRole(to role) change {
	g := l.m.guest
	return change{
		doing: "make the guest " + to.String(),
		widen: func() { g.role |= to },
		has:   func() { g.role = to },
		do: func() error {
			who, controllers := "", []string{}
			switch to {
			case subject:
				who = g.id
			case controller:
				controllers = []string{g.id}
			}
			_, err := l.w.Memories.UpdateCapsule(ctx, l.w.Me, "default", memories.CapsuleChange{
				Subject: &who, Controllers: &controllers,
			})
			return err
		},
	}
}

func (l *serverRun) revoke() change {
	g := l.m.guest
	return change{
		doing: "revoke the guest's token",
		widen: func() { g.token |= revoked },
		has:   func() { g.token = revoked },
		do:    func() error { return l.w.Access.RevokeToken(ctx, l.w.Me, g.tokenID) },
	}
}

func (l *serverRun) apply(c change) bool {
	g := l.m.guest
	was := *g
	return l.call("", c.doing, c.widen, c.do, c.has, func() { g.role, g.token = was.role, was.token })
}

func (l *serverRun) newToken(readOnly bool, ends time.Duration) bool {
	g := l.m.guest
	var t catalog.Token
	var secret string
	doing := fmt.Sprintf("a new token for the guest, read-only %v, for %v", readOnly, ends)
	return l.call("", doing, nil, func() (err error) {
		t, secret, err = l.w.Access.CreateToken(ctx, l.w.Me, access.TokenRequest{
			Principal: g.id, Name: "guest", ReadOnly: readOnly, TTL: ends,
		})
		return err
	}, func() {
		g.secret, g.tokenID, g.token, g.ends, g.due = secret, t.ID, valid, t.Expires, 0
		if ends > 0 {
			g.due = l.w.Engine.Running() + ends.Milliseconds()
		}
		g.caller = access.Caller{Principal: g.id, Token: t.Hash, ReadOnly: readOnly}
	}, nil)
}

// rights changes the guest's rights, between two calls.
func (l *serverRun) rights() {
	g := l.m.guest
	switch n := l.rng.IntN(10); {
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

// barring draws a change that ends the guest's right to write.
func (l *serverRun) barring() change {
	if l.rng.IntN(2) == 0 {
		return l.revoke()
	}
	return l.toRole(stranger)
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
	if !f.guest {
		other = l.m.guest.caller
	}
	wants := append([]error{session.ErrNotFound}, refusals...)
	switch {
	case !f.guest && f.can == visible && l.m.guest.role != controller:
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

// during runs a call. The guest loses its right to write in the middle of it.
func (l *serverRun) during(f *file, doing string, may func(), do func(change func()) error, has func()) {
	c, ran := l.barring(), false
	g := l.m.guest
	was := *g
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
			g.role, g.token = was.role, was.token
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

// midway ends the guest's right in the middle of a put, a finish or a create.
func (l *serverRun) midway() {
	if !l.m.guest.writes(l.w.clock.Now()) {
		return
	}
	if f := l.pick(func(f *file) bool { return f.guest && f.can == open && f.whole() }); f != nil {
		l.during(f, "finish", func() {}, func(change func()) error {
			l.w.between = change
			defer func() { l.w.between = nil }()
			return l.tryFinish(f, l.as(f))
		}, func() {})
		return
	}
	if f := l.pick(func(f *file) bool { return f.guest && f.can == open && len(f.old) == 0 && !f.whole() }); f != nil {
		gap := session.Gaps(f.must, session.Range{End: int64(len(f.content))}, 1)[0]
		got := int64(0)
		doing := fmt.Sprintf("put bytes %d to %d", gap.Off, gap.End)
		l.during(f, doing, func() { f.may = session.Add(f.may, gap) }, func(change func()) (err error) {
			got, err = l.w.Uploads.PutRange(
				ctx, l.as(f), f.id, gap.Off, turning(f.content[gap.Off:gap.End], change), upload.Put{Length: gap.Len()},
			)
			return err
		}, func() { f.must = session.Add(f.must, session.Range{Off: gap.Off, End: gap.Off + got}) })
		return
	}
	f := &file{name: l.name(), content: l.content(), created: true, can: nowhere, age: age{guest: true}}
	if len(f.content) == 0 {
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
