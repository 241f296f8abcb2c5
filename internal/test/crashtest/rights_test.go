package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/memories"
)

// role is the set of roles that a guest may have in the capsule. It is a set, as fate is.
type role uint8

const (
	stranger role = 1 << iota
	subject
	controller
)

func (r role) String() string {
	return map[role]string{stranger: "stranger", subject: "subject", controller: "controller"}[r]
}

// The states that a principal, a token, a ticket or a link may have: a set too.
const (
	valid = 1 << iota
	revoked
	absent // never made
)

// guest is a principal whose rights change while it uploads.
type guest struct {
	name, id, secret, tokenID string
	caller                    access.Caller
	is                        uint8
	role                      role
	token                     uint8
	ends                      time.Time
	due                       int64 // the running time, in ms, at which the token is gone for good; 0: never
}

func (g *guest) live(now time.Time) bool {
	return g.is == valid && g.token == valid && (g.ends.IsZero() || now.Before(g.ends))
}

func (g *guest) reads(now time.Time) bool { return g.live(now) && g.role != stranger }

func (g *guest) writes(now time.Time) bool { return g.reads(now) && !g.caller.ReadOnly }

// grant is an upload ticket or a read link, and what is known of it.
type grant struct {
	name, id, secret string // without its secret nobody can use it
	kind             catalog.GrantKind
	maker            string // the guest that made it; "": the admin
	caller           access.Caller
	is               uint8 // of its row, which outlives a deleted maker for a while
	byRole           bool  // a role is being taken, and the grant goes with it
	ends             time.Time
	due              int64

	uploads int64
	buried  int64 // finished uploads that the model has forgotten
	file    string
	most    int64 // bytes that a link may give out
	read    int64 // acknowledged, and may: asked for
	may     int64
}

// burnt is a secret that is good for nothing any more.
type burnt struct {
	what, secret string
	link         bool
}

// rights are the principals, tickets, links and quotas of a model.
type rights struct {
	guest  *guest // the newest guest, if there is one
	guests map[string]*guest
	grants map[string]*grant
	burnt  []burnt
	quota  []int64 // that the capsule may have, of memories
	made   int     // names
}

func newRights() rights {
	return rights{guests: map[string]*guest{}, grants: map[string]*grant{}, quota: []int64{0}}
}

func (r rights) clone() rights {
	out := r
	out.guests, out.grants = map[string]*guest{}, map[string]*grant{}
	for name, g := range r.guests {
		c := *g
		out.guests[name] = &c
	}
	for name, g := range r.grants {
		c := *g
		out.grants[name] = &c
	}
	if r.guest != nil {
		out.guest = out.guests[r.guest.name]
	}
	out.burnt, out.quota = slices.Clone(r.burnt), slices.Clone(r.quota)
	return out
}

// back gives a function that sets the rights back to what they are now.
func (r *rights) back() func() {
	was := r.clone()
	return func() {
		// The pointers stay: calls that are under way have them.
		for name, g := range was.guests {
			*r.guests[name] = *g
		}
		maps.DeleteFunc(r.guests, func(name string, _ *guest) bool { return was.guests[name] == nil })
		for name, g := range was.grants {
			*r.grants[name] = *g
		}
		maps.DeleteFunc(r.grants, func(name string, _ *grant) bool { return was.grants[name] == nil })
		r.burnt, r.quota = was.burnt, was.quota
	}
}

func (r *rights) burn(what, secret string, link bool) {
	if secret != "" {
		r.burnt = append(r.burnt, burnt{what, secret, link})
	}
}

// usable reports whether a ticket or a link is good for something.
func (r *rights) usable(g *grant, now time.Time) bool {
	maker := r.guests[g.maker]
	return g.secret != "" && g.is == valid && now.Before(g.ends) && (maker == nil || maker.is == valid)
}

func (r *rights) reads(by string, now time.Time) bool {
	if g := r.guests[by]; g != nil {
		return g.reads(now)
	}
	if g := r.grants[by]; g != nil {
		return r.usable(g, now)
	}
	return true
}

func (r *rights) writes(by string, now time.Time) bool {
	if g := r.guests[by]; g != nil {
		return g.writes(now)
	}
	return r.reads(by, now)
}

// over gives whether a principal or a ticket has surely ended, or may have: then the keeper ends
// its uploads.
func (r *rights) over(by string) (surely, perhaps bool) {
	is := uint8(valid)
	if g := r.guests[by]; g != nil {
		is = g.is
	} else if g := r.grants[by]; g != nil {
		is = g.is
	}
	return is == revoked, is&revoked != 0
}

// grantsOf gives the tickets and links of a guest whose rows may be there.
func (r *rights) grantsOf(maker string) (out []*grant) {
	for _, g := range r.grants {
		if g.maker == maker && g.is&valid != 0 {
			out = append(out, g)
		}
	}
	return out
}

func (r *rights) end(g *grant) {
	g.is, g.byRole = revoked, false
	r.burn(g.name, g.secret, g.kind == catalog.Link)
}

// tick notes what a tick by that much may do to the rights. The function that it gives notes what
// the tick did, by the running time after it.
func (r *rights) tick(running int64, by time.Duration) (did func(running int64)) {
	var after []func(int64)
	reaches := func(due int64) bool { return due != 0 && running+by.Milliseconds() >= due }
	if g := r.guest; g != nil && g.due != 0 {
		was := g.token
		if reaches(g.due) {
			g.token |= revoked
		}
		after = append(after, func(running int64) {
			if g.token = was; running >= g.due {
				g.token = revoked
				r.burn("a token", g.secret, false)
			}
		})
	}
	for _, g := range r.grants {
		surely, perhaps := r.over(g.maker)
		if was := g.is; was&valid != 0 && (perhaps || reaches(g.due)) {
			g.is |= revoked
			after = append(after, func(running int64) {
				if g.is = was; surely || running >= g.due {
					r.end(g)
				}
			})
		}
	}
	return func(running int64) {
		for _, f := range after {
			f(running)
		}
	}
}

// ending notes that the keeper may abort the uploads of principals and tickets that have ended. The
// function that it gives notes that the keeper has done so.
func (m *model) ending() (did func()) {
	var surely []*file
	for _, f := range m.files {
		sure, perhaps := m.over(f.by)
		if f.can&open == 0 || !perhaps {
			continue
		}
		f.can |= aborted
		if sure {
			surely = append(surely, f)
		}
	}
	return func() {
		for _, f := range surely {
			f.can &^= open
		}
	}
}

// as gives the caller that an upload belongs to.
func (c *client) as(f *file) access.Caller {
	if g := c.m.guests[f.by]; g != nil {
		return g.caller
	}
	if g := c.m.grants[f.by]; g != nil {
		return g.caller
	}
	return c.w.Me
}

// blind reports whether the upload's owner may not look at it.
func (c *client) blind(f *file) bool { return !c.m.reads(f.by, c.w.clock.Now()) }

// barred reports whether the upload's owner may not write.
func (c *client) barred(f *file) bool { return !c.m.writes(f.by, c.w.clock.Now()) }

// full reports whether the ticket of an upload allows no more uploads. known is false if that can't
// be read.
func (c *client) full(f *file) (is, known bool) {
	if c.m.grants[f.by] == nil {
		return false, true
	}
	g, err := c.w.Access.Grant(ctx, c.as(f))
	return g.Open+g.Done >= g.Uploads, err == nil
}

// fits reports whether the ticket of an upload, if it has one, surely allows one more.
func (c *client) fits(f *file) bool {
	full, known := c.full(f)
	return known && !full
}

var refusals = []error{access.ErrForbidden, access.ErrUnauthenticated, catalog.ErrNotFound}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(want error) bool { return errors.Is(err, want) })
}

// change is a change of rights.
type change struct {
	doing      string
	widen, has func()
	do         func() error
}

func (c *client) apply(ch change) bool {
	back := c.m.back()
	return c.call("", ch.doing, ch.widen, ch.do, ch.has, back)
}

func (c *client) toRole(to role) change {
	g := c.m.guest
	return change{
		doing: "make the guest " + to.String(),
		widen: func() {
			g.role |= to
			for _, gr := range c.m.grantsOf(g.name) {
				if to == stranger {
					gr.is |= revoked
					gr.byRole = true
				}
			}
		},
		has: func() {
			g.role = to
			for _, gr := range c.m.grantsOf(g.name) {
				if to == stranger {
					c.m.end(gr)
				}
			}
		},
		do: func() error {
			who, controllers := "", []string{}
			switch to {
			case subject:
				who = g.id
			case controller:
				controllers = []string{g.id}
			}
			_, err := c.w.Memories.UpdateCapsule(ctx, c.w.Me, "default", memories.CapsuleChange{
				Subject: &who, Controllers: &controllers,
			})
			return err
		},
	}
}

func (c *client) revoke() change {
	g := c.m.guest
	return change{
		doing: "revoke the guest's token",
		widen: func() { g.token |= revoked },
		has: func() {
			g.token = revoked
			c.m.burn("a token", g.secret, false)
		},
		do: func() error { return c.w.Access.RevokeToken(ctx, c.w.Me, g.tokenID) },
	}
}

func (c *client) revokeGrant(g *grant) change {
	return change{
		doing: "revoke " + g.name,
		widen: func() { g.is |= revoked },
		has:   func() { c.m.end(g) },
		do:    func() error { return c.w.Access.RevokeGrant(ctx, c.w.Me, g.kind, g.id) },
	}
}

func (c *client) deleteGuest() change {
	g := c.m.guest
	return change{
		doing: "delete the guest",
		widen: func() { g.is |= revoked },
		has: func() {
			g.is = revoked
			c.m.burn("a token of a deleted principal", g.secret, false)
			for _, gr := range c.m.grantsOf(g.name) {
				c.m.burn(gr.name+", whose maker is deleted", gr.secret, gr.kind == catalog.Link)
			}
		},
		do: func() error { return c.w.Access.DeletePrincipal(ctx, c.w.Me, g.id) },
	}
}

// newGuest makes a principal, or takes one whose making was not answered. The guest before it is
// gone.
func (c *client) newGuest() bool {
	for _, g := range c.m.guests {
		if g.is == valid && g != c.m.guest {
			c.m.mu.Lock()
			c.m.guest = g
			c.m.mu.Unlock()
			return true
		}
	}
	c.m.made++
	g := &guest{name: fmt.Sprintf("guest %d", c.m.made), is: absent, role: stranger, token: revoked}
	return c.call("", "make "+g.name, func() {
		g.is = absent | valid
		c.m.guests[g.name] = g
	}, func() error {
		p, err := c.w.Access.CreatePrincipal(ctx, c.w.Me, g.name, false)
		g.id = p.ID
		return err
	}, func() { g.is, c.m.guest = valid, g }, func() { delete(c.m.guests, g.name) })
}

func (c *client) newToken(readOnly bool, ends time.Duration) bool {
	g := c.m.guest
	var t catalog.Token
	var secret string
	doing := fmt.Sprintf("a new token for the guest, read-only %v, for %v", readOnly, ends)
	return c.call("", doing, nil, func() (err error) {
		t, secret, err = c.w.Access.CreateToken(ctx, c.w.Me, access.TokenRequest{
			Principal: g.id, Name: "guest", ReadOnly: readOnly, TTL: ends,
		})
		return err
	}, func() {
		g.secret, g.tokenID, g.token, g.ends, g.due = secret, t.ID, valid, t.Expires, 0
		if ends > 0 {
			g.due = c.w.Engine.Running() + ends.Milliseconds()
		}
		g.caller = access.Caller{Principal: g.id, Token: t.Hash, ReadOnly: readOnly}
	}, nil)
}

// newGrant makes a ticket for so many uploads, or, of a file, a link for so many downloads. The
// guest makes it, if it may, and else the admin.
func (c *client) newGrant(of *file, n int64, ends time.Duration) *grant {
	c.m.made++
	g, req := &grant{name: fmt.Sprintf("ticket %d", c.m.made), kind: catalog.Ticket, is: absent, uploads: n},
		access.GrantRequest{TTL: ends}
	req.Capsule, req.MaxBytes, req.Uploads = "default", 1<<20, n
	if of != nil {
		g.name, g.kind, g.file = fmt.Sprintf("link %d", c.m.made), catalog.Link, of.name
		g.most = n * max(int64(len(of.content)), 1)
		req.Grant = catalog.Grant{Memory: of.memory, Downloads: n}
	}
	req.Name, req.Kind = g.name, g.kind
	as := c.w.Me
	if by := c.m.guest; by != nil && by.writes(c.w.clock.Now()) {
		as, g.maker = by.caller, by.name
		if !by.ends.IsZero() {
			ends = min(ends, by.ends.Sub(c.w.clock.Now()))
		}
	}
	g.ends, g.due = c.w.clock.Now().Add(ends), c.w.Engine.Running()+ends.Milliseconds()
	var made catalog.Grant
	var secret string
	if !c.call("", "make "+g.name, func() {
		g.is = absent | valid
		c.m.grants[g.name] = g
	}, func() (err error) {
		made, secret, err = c.w.Access.CreateGrant(ctx, as, req)
		return err
	}, func() {
		g.is, g.id, g.secret = valid, made.ID, secret
		g.caller = access.Caller{
			Principal: made.ID, Token: made.Hash, TokenID: made.ID, Grant: made.Kind, Memory: made.Memory,
		}
	}, func() { delete(c.m.grants, g.name) }) {
		return nil
	}
	return g
}

// follow reads all bytes through a link. If back is set, half of them count as not given out.
func (c *client) follow(g *grant, back bool) {
	f := c.m.files[g.file]
	n := max(int64(len(f.content)), 1)
	used, was := g.read+n > g.most, g.may
	c.call("", "read through "+g.name, func() { g.may += n }, func() error {
		caller, err := c.w.Access.OpenLink(ctx, g.secret)
		if err != nil {
			return err
		}
		file, err := c.w.Memories.Open(ctx, caller, f.memory)
		if err != nil {
			return err
		}
		err = c.w.Access.Promise(ctx, caller, int64(len(f.content)), int64(len(f.content)))
		if used {
			if err == nil {
				return fmt.Errorf("%w: it gives out more than it may", errWrong)
			}
			if errors.Is(err, catalog.ErrNotFound) {
				return nil
			}
		}
		if err != nil {
			return err
		}
		body, err := file.Body(context.Background(), 0, int64(len(f.content)))
		if err != nil {
			return err
		}
		defer body.Close()
		if b, err := io.ReadAll(body); err != nil || !bytes.Equal(b, f.content) {
			return fmt.Errorf("%w: other bytes, %w", errWrong, err)
		}
		if back {
			return c.w.Access.Unread(ctx, caller, n)
		}
		return nil
	}, func() {
		switch {
		case used || back:
			g.may = was
		default:
			g.read += n
		}
	}, nil)
}

// endOwner is what a request does at once after it has ended a principal or a ticket.
func (c *client) endOwner(by string) {
	id := ""
	if g := c.m.guests[by]; g != nil {
		id = g.id
	} else if g := c.m.grants[by]; g != nil {
		id = g.id
	}
	if surely, _ := c.m.over(by); !surely || id == "" {
		return
	}
	var mine []*file
	for _, f := range c.m.files {
		if f.by == by && f.can&open != 0 {
			mine = append(mine, f)
		}
	}
	c.call("", "end what is left of "+by, func() {
		for _, f := range mine {
			f.can |= aborted
		}
		for _, g := range c.m.grantsOf(by) {
			g.is |= revoked
		}
	}, func() error { return c.w.Keeper.EndOwner(ctx, id) }, func() {
		for _, f := range mine {
			f.can = aborted
		}
		for _, g := range c.m.grantsOf(by) {
			c.m.end(g)
		}
	}, nil)
}

// setQuota bounds the memories of the capsule; 0 is no bound.
func (c *client) setQuota(n int64) bool {
	was := c.m.quota
	doing := fmt.Sprintf("set the quota to %d memories", n)
	return c.call("", doing, func() { c.m.quota = append(slices.Clone(was), n) },
		func() error {
			_, err := c.w.Memories.UpdateCapsule(ctx, c.w.Me, "default", memories.CapsuleChange{QuotaMemories: &n})
			return err
		}, func() { c.m.quota = []int64{n} }, func() { c.m.quota = was })
}

// checkRights compares the principals, their rights, the tickets, the links and the quota with the
// answers, and notes what became of a change that was not answered.
func (c *client) checkRights() error {
	row, err := c.w.Memories.ReadCapsule(ctx, c.w.Me, "default")
	if err != nil {
		return err
	}
	if !slices.Contains(c.m.quota, row.QuotaMemories) {
		return fmt.Errorf("the quota is %d, and may be %d", row.QuotaMemories, c.m.quota)
	}
	c.m.quota = []int64{row.QuotaMemories}
	if err := c.checkGuests(); err != nil {
		return err
	}
	if g := c.m.guest; g != nil && g.is == valid {
		if err := c.checkRole(g, row); err != nil {
			return err
		}
		if err := c.checkToken(g); err != nil {
			return err
		}
	}
	if err := c.checkGrants(); err != nil {
		return err
	}
	for _, b := range c.m.burnt {
		_, err := c.w.Access.Authenticate(ctx, b.secret)
		_, asLink := c.w.Access.OpenLink(ctx, b.secret)
		if !errors.Is(err, access.ErrUnauthenticated) || !errors.Is(asLink, catalog.ErrNotFound) {
			return fmt.Errorf("%s has ended, and is good for something: %w, %w", b.what, err, asLink)
		}
	}
	return nil
}

// resolved narrows a set to what is there.
func resolved(name string, can *uint8, there bool) error {
	is := *can &^ valid
	if there {
		is = *can & valid
	}
	if is == 0 {
		return fmt.Errorf("%s: it is there: %v, and it may be %03b", name, there, *can)
	}
	*can = is
	return nil
}

func (c *client) checkGuests() error {
	page, _, err := c.w.Access.ListPrincipals(ctx, c.w.Me, "", 1000)
	if err != nil {
		return err
	}
	listed := map[string]string{}
	for _, p := range page {
		if c.m.guests[p.Name] == nil && p.ID != c.w.Me.Principal {
			return fmt.Errorf("principal %s is there, which nobody knows of", p.Name)
		}
		listed[p.Name] = p.ID
	}
	for name, g := range c.m.guests {
		id, there := listed[name]
		was := g.is
		if err := resolved(name, &g.is, there); err != nil {
			return err
		}
		if there {
			g.id = id
		}
		if was != g.is && g.is == revoked {
			c.deleteGuestOf(g)
		}
		if g.is == absent {
			delete(c.m.guests, name)
		}
	}
	return nil
}

// deleteGuestOf notes that a deletion without an answer has happened.
func (c *client) deleteGuestOf(g *guest) {
	now := c.m.guest
	c.m.guest = g
	c.deleteGuest().has()
	c.m.guest = now
}

func (c *client) checkRole(g *guest, row catalog.Capsule) error {
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
	for _, gr := range c.m.grants {
		switch {
		case !gr.byRole || gr.maker != g.name:
		case is == stranger: // both are one commit
			c.m.end(gr)
		default:
			gr.is, gr.byRole = gr.is&^revoked, false
		}
	}
	return nil
}

func (c *client) checkToken(g *guest) error {
	_, err := c.w.Access.Authenticate(ctx, g.secret)
	expired := !g.ends.IsZero() && !c.w.clock.Now().Before(g.ends)
	switch {
	case err != nil && !errors.Is(err, access.ErrUnauthenticated):
		return err
	case expired && err == nil:
		return errors.New("a token whose time is over is good")
	case expired: // the clock may be set back
		there := false
		if err := c.w.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			_, there, err = catalog.Tokens.Find(r, catalog.TokenKey(g.caller.Token))
			return err
		}); err != nil {
			return err
		}
		return resolved("the guest's token", &g.token, there)
	}
	return resolved("the guest's token", &g.token, err == nil)
}

func (c *client) checkGrants() error {
	rows := map[string]catalog.Grant{}
	err := c.w.Catalog.View(ctx, func(r catalog.Reader) error {
		for row, err := range catalog.Grants.After(r, "") {
			if err != nil {
				return err
			}
			if c.m.grants[row.Name] == nil {
				return fmt.Errorf("%+v is there, which nobody knows of", row)
			}
			rows[row.Name] = row
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, g := range c.m.grants {
		row, there := rows[name]
		was := g.is
		if err := resolved(name, &g.is, there); err != nil {
			return err
		}
		if there {
			g.id = row.ID
		}
		switch {
		case g.is == absent:
			delete(c.m.grants, name)
		case g.is == revoked && was != revoked:
			c.m.end(g)
		}
		if err := c.checkUse(g); err != nil {
			return err
		}
		if there && (row.Read < g.read || row.Read > g.may || g.kind == catalog.Link && row.Read > g.most) {
			return fmt.Errorf("%s counts %d bytes, and gave out %d to %d of %d", name, row.Read, g.read, g.may, g.most)
		}
		if there {
			g.read, g.may = row.Read, row.Read
		}
	}
	return nil
}

// checkUse makes sure that a secret is good exactly while it should be.
func (c *client) checkUse(g *grant) (err error) {
	if g.secret == "" {
		return nil
	}
	if g.kind == catalog.Link {
		_, err = c.w.Access.OpenLink(ctx, g.secret)
	} else {
		_, err = c.w.Access.Authenticate(ctx, g.secret)
	}
	if err != nil && !isRefusal(err) {
		return err
	}
	if usable := c.m.usable(g, c.w.clock.Now()); usable != (err == nil) {
		return fmt.Errorf("%s: it should be good: %v, and its use says %w", g.name, usable, err)
	}
	return nil
}

// checkCounts compares what the tickets count with the uploads: finished ones exactly, and under
// way at least those that are known.
func (c *client) checkCounts() error {
	done, under := map[string]int64{}, map[string]int64{}
	for _, f := range c.m.files {
		switch {
		case f.can == open:
			under[f.by]++
		case f.can&(visible|trashed|purged) != 0:
			done[f.by]++
		}
	}
	return c.w.Catalog.View(ctx, func(r catalog.Reader) error {
		for name, g := range c.m.grants {
			row, there, err := catalog.Grants.Find(r, catalog.Name(g.id))
			if err != nil {
				return err
			}
			if there && (row.Done != done[name]+g.buried || row.Open < under[name]) {
				return fmt.Errorf(
					"%s counts %d finished and %d under way, and there are %d and %d", name, row.Done, row.Open,
					done[name]+g.buried, under[name],
				)
			}
		}
		return nil
	})
}
