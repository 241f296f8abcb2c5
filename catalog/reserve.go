package catalog

import "errors"

// Bounds are the server's own bounds on the open sessions of one owner; 0 is no bound. A
// principal's row may set others.
type Bounds struct {
	// MaxSessions bounds the number of open sessions, and QuotaBytes the bytes that they may bring
	// together.
	MaxSessions, QuotaBytes int64
}

// Reserve takes the quota of a session from the bounds of its capsule and its owner: r.Bytes, or,
// if less is left, at least `least`, which the session is known to bring. If the session has a
// reservation already, Reserve takes only the difference. It gives back what is too much once
// `least` is r.Bytes. A session that a ticket owns counts for the ticket and for its maker. Errors:
// *QuotaError, *CountError of ErrTooManySessions, *UsedUpError, ErrNotFound for the capsule.
func Reserve(tx Tx, r Reservation, least int64, b Bounds) error {
	had, again, err := Reservations.Find(tx, Number(r.Session))
	if err != nil {
		return err
	}
	more, need, one := r.Bytes-had.Bytes, max(least-had.Bytes, 0), int64(1)
	if again {
		if one = 0; more == 0 || more < 0 && least < r.Bytes {
			return nil
		}
		r.Payer = had.Payer
	}
	c, err := Capsules.Get(tx, Name(r.Capsule))
	if err != nil {
		return err
	}
	if err := c.Fits(need, one); err != nil {
		return err
	}
	p, err := payerOf(tx, &r, again)
	if err != nil {
		return err
	}
	payer, b := Name(r.payer()), b.Of(p)
	u, _, err := Usages.Find(tx, payer)
	if err != nil {
		return err
	}
	if b.MaxSessions > 0 && u.Sessions+one > b.MaxSessions {
		return &CountError{
			Err: ErrTooManySessions, Of: "the principal", Things: "open sessions", Limit: b.MaxSessions,
			Used: u.Sessions, Remedy: "finish or abort some",
		}
	}
	if err := b.Fits(u, need); err != nil {
		return err
	}
	if c.QuotaBytes > 0 {
		more = min(more, max(c.QuotaBytes-c.Bytes-c.Reserved, need))
	}
	if b.QuotaBytes > 0 {
		more = min(more, max(b.QuotaBytes-u.Reserved, need))
	}
	if again && more == 0 {
		return nil
	}
	r.Bytes = had.Bytes + more
	c.Sessions += one
	c.Reserved += more
	u.Owner = string(payer)
	u.Sessions += one
	u.Reserved += more
	return errors.Join(
		Reservations.Put(tx, Number(r.Session), r),
		Capsules.Put(tx, Name(c.ID), c),
		Usages.Put(tx, payer, u),
	)
}

// payerOf gives the principal that the reservation counts for, if it is there. If the session is
// new and a ticket owns it, payerOf counts it for the ticket.
func payerOf(tx Tx, r *Reservation, again bool) (Principal, error) {
	p, ok, err := Principals.Find(tx, Name(r.payer()))
	if err != nil || ok || again {
		return p, err
	}
	if r.Payer, err = begunWith(tx, r.Owner); err != nil || r.Payer == "" {
		return p, err
	}
	p, _, err = Principals.Find(tx, Name(r.Payer))
	return p, err
}

// BoundsOf gives the bounds of an owner: the server's own are b.
func BoundsOf(r Reader, owner string, b Bounds) (Bounds, error) {
	p, ok, err := Principals.Find(r, Name(owner))
	if ok {
		b = b.Of(p)
	}
	return b, err
}

// Fits gives a *QuotaError if the owner's quota does not allow so many more bytes of open sessions.
func (b Bounds) Fits(u Usage, bytes int64) error {
	if b.QuotaBytes > 0 && bytes > 0 && u.Reserved+bytes > b.QuotaBytes {
		return &QuotaError{Of: "principal", Limit: b.QuotaBytes, Used: u.Reserved, Wanted: bytes}
	}
	return nil
}

// Of gives the bounds of a principal: its own, where its row sets them.
func (b Bounds) Of(p Principal) Bounds {
	if p.MaxOpenSessions > 0 {
		b.MaxSessions = p.MaxOpenSessions
	}
	if p.QuotaBytes > 0 {
		b.QuotaBytes = p.QuotaBytes
	}
	return b
}

// Fits gives a *QuotaError if the capsule's quota does not allow so many more bytes and memories.
func (c Capsule) Fits(bytes, memories int64) error {
	if used := c.Bytes + c.Reserved; c.QuotaBytes > 0 && bytes > 0 && used+bytes > c.QuotaBytes {
		return &QuotaError{Of: "capsule", Limit: c.QuotaBytes, Used: used, Wanted: bytes}
	}
	if used := c.Memories + c.Sessions; c.QuotaMemories > 0 && memories > 0 && used+memories > c.QuotaMemories {
		return &QuotaError{Of: "capsule", Limit: c.QuotaMemories, Used: used, Wanted: memories, Count: true}
	}
	return nil
}

// unreserve gives back what the session holds of c, of its principal's bounds, and of its ticket's
// unless it is finished. The caller stores c. It does nothing for a session without a reservation.
func unreserve(tx Tx, c *Capsule, session uint64, finished bool) error {
	r, ok, err := Reservations.Find(tx, Number(session))
	if err != nil || !ok {
		return err
	}
	if err := endedWith(tx, r, finished); err != nil {
		return err
	}
	payer := Name(r.payer())
	u, err := Usages.Get(tx, payer)
	if err != nil {
		return err
	}
	c.Sessions--
	c.Reserved -= r.Bytes
	u.Sessions--
	u.Reserved -= r.Bytes
	if u.Sessions == 0 && u.Reserved == 0 {
		err = Usages.Delete(tx, payer)
	} else {
		err = Usages.Put(tx, payer, u)
	}
	return errors.Join(err, Reservations.Delete(tx, Number(session)))
}

// SessionEnded gives back what an aborted or expired session held, and emits the event. It gives
// the principal that the session counted for. A repeat does nothing, and gives "".
func SessionEnded(tx Tx, session uint64, what EventType, at Moment) (payer string, err error) {
	r, ok, err := Reservations.Find(tx, Number(session))
	if err != nil || !ok {
		return "", err
	}
	c, err := Capsules.Get(tx, Name(r.Capsule))
	if err != nil {
		return "", err
	}
	if err := unreserve(tx, &c, session, false); err != nil {
		return "", err
	}
	if err := emit(tx, &c, Event{Type: what, Time: at.Now, Session: session}); err != nil {
		return "", err
	}
	return r.payer(), Capsules.Put(tx, Name(c.ID), c)
}
