package linear

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"sluice/access"
	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
)

// The owners of uploads. Each key belongs to one owner, so that a key says whose an upload is.
const (
	me     = iota // the admin, whose rights stay
	guest         // a principal with a role and a token
	ticket        // an upload ticket that the guest has made
)

const allKeys = keys + 1 + 3

func ownerOf(key int) int {
	switch {
	case key < keys:
		return me
	case key == keys:
		return guest
	}
	return ticket
}

// drawKey draws the admin's keys most often.
func (c *client) drawKey() int {
	if c.rng.IntN(2) == 0 {
		return c.rng.IntN(keys)
	}
	return keys + c.rng.IntN(allKeys-keys)
}

// others are the callers beside the admin.
type others struct {
	guest, ticket              access.Caller
	tokenID, ticketID, guestID string
	uploads                    int // that the ticket allows
}

// invite makes the guest and its ticket.
func (w *server) invite(ctx context.Context, uploads int) (o others, err error) {
	p, err := w.Access.CreatePrincipal(ctx, w.Me, "guest", false)
	if err != nil {
		return o, err
	}
	t, _, err := w.Access.CreateToken(ctx, w.Me, access.TokenRequest{Principal: p.ID})
	if err != nil {
		return o, err
	}
	o.guestID, o.tokenID, o.uploads = p.ID, t.ID, uploads
	o.guest = access.Caller{Principal: p.ID, Token: t.Hash, TokenID: t.ID}
	if err := w.setRole(ctx, p.ID); err != nil {
		return o, err
	}
	g, _, err := w.Access.CreateGrant(ctx, o.guest, access.GrantRequest{
		Grant: catalog.Grant{Kind: catalog.Ticket, Capsule: capsule, MaxBytes: 1 << 20, Uploads: int64(uploads)},
		TTL:   1000 * time.Hour,
	})
	o.ticketID = g.ID
	o.ticket = access.Caller{Principal: g.ID, Token: g.Hash, TokenID: g.ID, Grant: g.Kind}
	return o, err
}

// setRole makes these the controllers of the capsule.
func (w *server) setRole(ctx context.Context, who ...string) error {
	_, err := w.Memories.UpdateCapsule(ctx, w.Me, capsule, memories.CapsuleChange{Controllers: &who})
	return err
}

func (c *client) as(o *op) access.Caller {
	switch o.owner {
	case guest:
		return c.h.others.guest
	case ticket:
		return c.h.others.ticket
	}
	return c.w.Me
}

// body gives the body of a put. Now and then the guest loses its role in the middle of it.
func (c *client) body(o *op, b []byte) io.Reader {
	if o.owner == me || c.rng.IntN(6) > 0 {
		return bytes.NewReader(b)
	}
	return io.MultiReader(bytes.NewReader(b[:len(b)/2]), &midway{c}, bytes.NewReader(b[len(b)/2:]))
}

// midway takes the guest's role when it is read.
type midway struct{ c *client }

func (m *midway) Read([]byte) (int, error) {
	m.c.call(&op{kind: takeRole, client: m.c.n, key: -1})
	return 0, io.EOF
}

// right makes a call that changes rights or the quota.
func (c *client) right(ctx context.Context, o *op) error {
	switch o.kind {
	case revokeToken:
		return c.w.Access.RevokeToken(ctx, c.w.Me, c.h.others.tokenID)
	case revokeTicket:
		err := c.w.Access.RevokeGrant(ctx, c.w.Me, catalog.Ticket, c.h.others.ticketID)
		if err == nil && c.rng.IntN(2) == 0 {
			_ = c.w.Keeper.EndOwner(ctx, c.h.others.ticketID) // as a request does; else the next tick
		}
		return err
	case takeRole:
		return c.w.setRole(ctx)
	case giveRole:
		return c.w.setRole(ctx, c.h.others.guestID)
	}
	n := int64(o.limit)
	_, err := c.w.Memories.UpdateCapsule(ctx, c.w.Me, capsule, memories.CapsuleChange{QuotaMemories: &n})
	return err
}

// rights are those of one moment.
type rights struct {
	tokenGone, ticketGone, roleGone bool
	quota                           int // of memories; 0: none
}

// may reports whether an owner may upload.
func (r rights) may(owner int) bool {
	switch owner {
	case guest:
		return !r.tokenGone && !r.roleGone
	case ticket:
		return !r.ticketGone
	}
	return true
}

// usedUp reports whether the ticket allows no more uploads.
func (c *checker) usedUp(s *state) bool {
	n := 0
	for _, u := range s.ups {
		if ownerOf(u.key) == ticket && u.state != session.Aborted {
			n++
		}
	}
	return n >= c.uploads
}

// exceeds reports whether so many memories more are over the quota.
func (s *state) exceeds(more int) bool {
	if s.quota == 0 {
		return false
	}
	n := s.counts()
	return int(n.memories+n.open)+more > s.quota
}

// pending counts the creates that ran beside o: while they run, the quota counts them.
func (h *history) pending(o *op) (n int) {
	for _, e := range h.ops {
		if e.kind == create && e.call < o.ret && o.call < e.ret {
			n++
		}
	}
	return n
}

// bars decides about a call by the rights alone: whether they explain its answer, or exclude it.
// Otherwise the call is done only if change says that it may have an effect. A call that changes
// nothing may have been allowed before its look, if a right was taken meanwhile.
func (c *checker) bars(s *state, o *op, owner int) (decided, explains, change bool) {
	switch may := s.may(owner); {
	case may:
		return o.answer == refused && !o.lost, false, true
	case o.lost:
		return true, false, false // it has no effect
	case o.answer == refused:
		return true, true, false
	default:
		return !o.meanwhile, false, false
	}
}

// right is a call that changes the rights or the quota.
func (c *checker) right(s *state, o *op) bool {
	gone := false
	switch o.kind {
	case revokeToken:
		gone, s.tokenGone = s.tokenGone, true
	case revokeTicket:
		gone, s.ticketGone = s.ticketGone, true
	default:
		switch o.kind {
		case takeRole:
			s.roleGone, s.ticketGone = true, true // the ticket stays gone
		case giveRole:
			s.roleGone = false
		default:
			s.quota = o.limit
		}
		_, done := c.emit(s, catalog.CapsuleUpdated)
		return done && (o.lost || o.answer == ok)
	}
	if gone {
		return o.lost || o.answer == notFound
	}
	return o.lost || o.answer == ok
}

// expel is the keeper's abort of an upload of a ticket that has ended.
func (c *checker) expel(s *state, o *op) bool {
	u := s.bySID(o.sids[0])
	for i := range s.ups {
		if v := &s.ups[i]; u == nil && v.sid == 0 && ownerOf(v.key) == ticket && v.state == session.Open {
			key := v.key
			if !s.learn(v, o.sids[0]) {
				return false
			}
			u = s.bySID(o.sids[0])
			if u.key != key {
				return false
			}
		}
	}
	if u == nil || u.state != session.Open || !s.ticketGone {
		return false
	}
	u.state, u.have = session.Aborted, 0
	e, done := c.emit(s, catalog.SessionAborted)
	return done && e.session == u.sid
}

// expelled gives, for each upload of the ticket that was aborted, an operation of the keeper that
// may have done it.
func (h *history) expelled(events []event) (out []*op) {
	first := int64(-1)
	for _, o := range h.ops {
		if o.ends() && (first < 0 || o.call < first) {
			first = o.call
		}
	}
	if first < 0 {
		return nil
	}
	owner := map[uint64]int{}
	for _, t := range h.known.sessions {
		owner[t.sid] = ownerOf(t.key)
	}
	for _, e := range events {
		by, known := owner[e.session]
		if e.what == catalog.SessionAborted && (by == ticket || !known) {
			out = append(out, &op{
				kind: expel, client: 100 + len(out), call: first, ret: h.clock.Add(1), lost: true, sids: []uint64{e.session},
				key: -1,
			})
		}
	}
	return out
}

// ends reports whether the call takes a right away.
func (o *op) ends() bool {
	return o.kind == revokeToken || o.kind == revokeTicket || o.kind == takeRole
}

// meanwhile reports whether a right was being taken while o ran.
func (h *history) meanwhile(o *op) bool {
	for _, e := range h.ops {
		if e.ends() && e.call < o.ret && o.call < e.ret {
			return true
		}
	}
	return false
}

// errRefused lists the errors that say that a caller may not.
var errRefused = []error{access.ErrUnauthenticated, access.ErrForbidden, access.ErrHidden}

func isRefusal(err error) bool {
	for _, is := range errRefused {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
