package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Grant lets the bearer of a secret do one thing, in the place of the principal that made it: an
// upload ticket takes uploads into one capsule, a read link gives one memory out. It ends with its
// maker's role in the capsule. The catalog keeps only the hash of the secret.
type Grant struct {
	// ID is that of the ticket or the link. A ticket owns what it uploads.
	ID   string
	Kind GrantKind
	Hash SHA256
	Name string
	// Maker is the principal that has made it. What its uploads reserve counts for the maker.
	Maker, Capsule   string
	Created, Expires time.Time

	// Of a ticket. MaxBytes bounds each upload. MIME are the types that are allowed, as
	// patterns; empty: all. See MIMEAllowed.
	MaxBytes int64
	MIME     []string
	// Uploads bounds Open and Done together: the uploads that are under way, and the finished ones.
	Uploads, Open, Done int64

	// Of a link. Downloads bounds how often all bytes of the memory may be read, 0: no bound. Read
	// is how many bytes have been read, or are promised to a reader.
	Memory          MemoryID
	Downloads, Read int64
}

// GrantKind says what a grant is for.
type GrantKind uint8

// The kinds of grants.
const (
	Ticket GrantKind = iota + 1
	Link
)

// The errors of grants.
var (
	// ErrUsedUp: the ticket has had its uploads (see *UsedUpError), or the link its downloads.
	ErrUsedUp = errors.New("used up")
	// ErrTooManyGrants: the principal has MostGrants. See *CountError.
	ErrTooManyGrants = errors.New("too many tickets and links")
)

// Bounds of grants.
const (
	// MostGrants bounds the tickets and links of one principal together.
	MostGrants = 1000
	// MostUploads bounds the uploads of one ticket, and the downloads of one link.
	MostUploads = 1_000_000
	// MaxGrantTTL is the longest life of a ticket and of a link.
	MaxGrantTTL = 366 * 24 * time.Hour
)

// GrantRef says which grant has a secret, or is in a list.
type GrantRef struct {
	ID     string
	Kind   GrantKind
	Hash   SHA256
	Maker  string
	Holder GrantHolder // of the list
}

// GrantHolder is the principal or the capsule whose grants a list has.
type GrantHolder string

// MadeBy is the holder of the grants that a principal has made.
func MadeBy(principal string) GrantHolder { return GrantHolder("p" + principal) }

// GrantsOf is the holder of the grants of a capsule.
func GrantsOf(capsule string) GrantHolder { return GrantHolder("c" + capsule) }

// GrantListKey lists the grants of a holder by their ids, the oldest first.
type GrantListKey struct {
	Holder GrantHolder
	ID     string
}

// AppendKey appends the ordered encoding.
func (k GrantListKey) AppendKey(b []byte) []byte {
	return append(appendString(b, string(k.Holder)), k.ID...)
}

// Fits gives a *UsedUpError unless one more upload of the ticket may begin.
func (g Grant) Fits() error {
	if g.Open+g.Done >= g.Uploads {
		return &UsedUpError{Limit: g.Uploads, Done: g.Done, Open: g.Open}
	}
	return nil
}

// NewGrant stores a grant, which has an id, and lists it. After as much running time as it is made
// for it is removed, so that a wall clock that is set back does not revive it. It gives
// ErrTooManyGrants if its maker has MostGrants.
func NewGrant(tx Tx, g Grant, at Moment) error {
	if err := checkGrant(g); err != nil {
		return err
	}
	n := 0
	for ref, err := range GrantLists.After(tx, GrantListKey{Holder: MadeBy(g.Maker)}) {
		if err == nil && ref.Holder != MadeBy(g.Maker) {
			break
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		if n++; n >= MostGrants {
			return &CountError{
				Err: ErrTooManyGrants, Of: "the principal", Things: "tickets and links", Limit: MostGrants, Used: int64(n),
				Remedy: "revoke some",
			}
		}
	}
	return errors.Join(
		Grants.Put(tx, Name(g.ID), g), IndexGrant(tx, g),
		due(tx, at.in(g.Expires.Sub(g.Created)), DueGrant, g.ID),
	)
}

func checkGrant(g Grant) error {
	if err := checkText("name", g.Name, 0, maxName, false); err != nil {
		return err
	}
	count := func(field string, n, least int64) error {
		if n < least || n > MostUploads {
			return &FieldError{Field: field, Problem: fmt.Sprintf("must be %d to %d", least, MostUploads)}
		}
		return nil
	}
	if g.Kind == Link {
		return count("downloads", g.Downloads, 0)
	}
	if g.MaxBytes < 1 {
		return &FieldError{Field: "max_bytes", Problem: "must be 1 at least"}
	}
	return count("uploads", g.Uploads, 1)
}

func (g Grant) ref(h GrantHolder) GrantRef {
	return GrantRef{ID: g.ID, Kind: g.Kind, Hash: g.Hash, Maker: g.Maker, Holder: h}
}

// holders are those whose lists have the grant.
func (g Grant) holders() [2]GrantHolder { return [2]GrantHolder{MadeBy(g.Maker), GrantsOf(g.Capsule)} }

// IndexGrant makes a grant known by its secret, and puts it into the two lists of grants.
func IndexGrant(tx Tx, g Grant) error {
	err := GrantSecrets.Put(tx, TokenKey(g.Hash), g.ref(""))
	for _, h := range g.holders() {
		err = errors.Join(err, GrantLists.Put(tx, GrantListKey{h, g.ID}, g.ref(h)))
	}
	return err
}

// EndGrant removes a grant. What a ticket has under way is due to be aborted. A repeat does
// nothing.
func EndGrant(tx Tx, id string) error {
	g, ok, err := Grants.Find(tx, Name(id))
	if err != nil || !ok {
		return err
	}
	err = errors.Join(Grants.Delete(tx, Name(id)), GrantSecrets.Delete(tx, TokenKey(g.Hash)))
	for _, h := range g.holders() {
		err = errors.Join(err, GrantLists.Delete(tx, GrantListKey{h, g.ID}))
	}
	if g.Kind == Ticket && g.Open > 0 {
		err = errors.Join(err, due(tx, 0, DueTicket, id))
	}
	return err
}

// endGrants ends the grants in a list for which is holds: at most so many, 0 for all. It leaves out
// rows that can't be read.
func endGrants(tx Tx, h GrantHolder, most int, is func(GrantRef) bool) (more bool, err error) {
	var ids []string
	for ref, err := range GrantLists.After(tx, GrantListKey{Holder: h}) {
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil {
			return false, err
		}
		if ref.Holder != h {
			break
		}
		if !is(ref) {
			continue
		}
		if most > 0 && len(ids) == most {
			more = true
			break
		}
		ids = append(ids, ref.ID)
	}
	for _, id := range ids {
		if err := EndGrant(tx, id); err != nil {
			return false, err
		}
	}
	return more, nil
}

// begunWith counts an upload that begins for the ticket that owns it, and gives the ticket's maker;
// "" if no such ticket is there.
func begunWith(tx Tx, owner string) (maker string, err error) {
	g, ok, err := Grants.Find(tx, Name(owner))
	if err != nil || !ok {
		return "", err
	}
	if err := g.Fits(); err != nil {
		return "", err
	}
	g.Open++
	return g.Maker, Grants.Put(tx, Name(owner), g)
}

// endedWith counts the end of an upload for the ticket that owns it, if that is still there: as
// done if it is finished, else the ticket gets it back.
func endedWith(tx Tx, r Reservation, finished bool) error {
	if r.Payer == "" {
		return nil
	}
	g, ok, err := Grants.Find(tx, Name(r.Owner))
	if err != nil || !ok {
		return err
	}
	g.Open--
	if finished {
		g.Done++
	}
	return Grants.Put(tx, Name(g.ID), g)
}

// Promise counts n bytes that a link is about to give out, of a memory of size bytes. It gives
// ErrUsedUp if the link's downloads do not allow them. A memory of no bytes counts as one byte.
func Promise(tx Tx, id string, n, size int64) error {
	g, err := Grants.Get(tx, Name(id))
	if err != nil || g.Downloads == 0 {
		return err
	}
	n = max(n, 1)
	if all := max(size, 1); n > all*g.Downloads-g.Read {
		return fmt.Errorf("%w: the link is for %d downloads", ErrUsedUp, g.Downloads)
	}
	g.Read += n
	return Grants.Put(tx, Name(id), g)
}

// Unread gives back n bytes of a Promise that were not given out. A link that has ended has no use
// for them.
func Unread(tx Tx, id string, n int64) error {
	g, ok, err := Grants.Find(tx, Name(id))
	if err != nil || !ok || g.Downloads == 0 {
		return err
	}
	g.Read = max(g.Read-n, 0)
	return Grants.Put(tx, Name(id), g)
}

// payer is the principal that the reservation counts for.
func (r Reservation) payer() string { return cmp.Or(r.Payer, r.Owner) }
