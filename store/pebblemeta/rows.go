package pebblemeta

import (
	"time"

	"sluice/catalog"
)

// codecs says how the rows of each table are stored. The numbers in the stored structs are the
// format: they are never given another meaning. Times are Unix milliseconds in UTC. A zero time and
// an empty list are absent.
var codecs = map[catalog.TableID]codec{
	catalog.CapsuleTable:     codecOfVersion(2, "capsules", storeCapsule, loadCapsule),
	catalog.RoleTable:        codecOf("roles", storeRole, loadRole),
	catalog.MemoryTable:      codecOf("memories", storeMemory, loadMemory),
	catalog.OrderTable:       codecOf("order", storeID, loadID),
	catalog.DigestTable:      codecOf("digests", storeID, loadID),
	catalog.ContentTable:     codecOf("contents", storeContent, loadContent),
	catalog.PlaceTable:       codecOf("places", storePlace, loadPlace),
	catalog.ReservationTable: codecOfVersion(2, "reservations", storeReservation, loadReservation),
	catalog.UsageTable:       codecOf("usages", storeUsage, loadUsage),
	catalog.IdemTable:        codecOf("idems", storeIdem, loadIdem),
	catalog.OutcomeTable:     codecOf("outcomes", storeOutcome, loadOutcome),
	catalog.EventTable:       codecOf("events", storeEvent, loadEvent),
	catalog.PrincipalTable:   codecOfVersion(2, "principals", storePrincipal, loadPrincipal),
	catalog.TokenTable:       codecOfVersion(2, "tokens", storeToken, loadToken),
	catalog.CheckpointTable:  codecOf("states", storeCheckpoint, loadCheckpoint),
	catalog.DueTable:         codecOf("dues", storeDue, loadDue),
	catalog.TokenIDTable:     codecOf("token ids", storeTokenRef, loadTokenRef),

	catalog.PrincipalTokenTable: codecOf("tokens of principals", storeTokenRef, loadTokenRef),

	catalog.GrantTable:       codecOf("grants", storeGrant, loadGrant),
	catalog.GrantSecretTable: codecOf("secrets of grants", storeGrantRef, loadGrantRef),
	catalog.GrantListTable:   codecOf("lists of grants", storeGrantRef, loadGrantRef),

	catalog.IdentityTable: codecOf("identities", storeIdentity, loadIdentity),
}

// stamp is a time; nil is the zero time.
type stamp = *int64

func storeTime(t time.Time) stamp {
	if t.IsZero() {
		return nil
	}
	ms := t.UnixMilli()
	return &ms
}

func loadTime(ms stamp) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(*ms).UTC()
}

type capsuleRow struct {
	ID            string   `cbor:"1,keyasint"`
	Name          string   `cbor:"2,keyasint,omitempty"`
	Subject       string   `cbor:"3,keyasint,omitempty"`
	Owners        []string `cbor:"4,keyasint,omitempty"`
	Controllers   []string `cbor:"5,keyasint,omitempty"`
	Created       stamp    `cbor:"6,keyasint,omitempty"`
	Memories      int64    `cbor:"7,keyasint,omitempty"`
	Bytes         int64    `cbor:"8,keyasint,omitempty"`
	Trashed       int64    `cbor:"9,keyasint,omitempty"`
	Sessions      int64    `cbor:"10,keyasint,omitempty"`
	Reserved      int64    `cbor:"11,keyasint,omitempty"`
	QuotaBytes    int64    `cbor:"12,keyasint,omitempty"`
	QuotaMemories int64    `cbor:"13,keyasint,omitempty"`
	Seq           uint64   `cbor:"14,keyasint,omitempty"`
	MIMETypes     []string `cbor:"15,keyasint,omitempty"` // since version 2
}

func storeCapsule(c catalog.Capsule) capsuleRow {
	return capsuleRow{
		c.ID, c.Name, c.Subject, c.Owners, c.Controllers, storeTime(c.Created), c.Memories, c.Bytes, c.Trashed,
		c.Sessions, c.Reserved, c.QuotaBytes, c.QuotaMemories, c.Seq, c.MIMETypes,
	}
}

func loadCapsule(r capsuleRow) catalog.Capsule {
	return catalog.Capsule{
		ID: r.ID, Name: r.Name, Subject: r.Subject,
		Owners: r.Owners, Controllers: r.Controllers, Created: loadTime(r.Created),
		Memories: r.Memories, Bytes: r.Bytes, Trashed: r.Trashed, Sessions: r.Sessions, Reserved: r.Reserved,
		QuotaBytes: r.QuotaBytes, QuotaMemories: r.QuotaMemories, Seq: r.Seq, MIMETypes: r.MIMETypes,
	}
}

type roleRow struct {
	Principal string `cbor:"1,keyasint"`
	Capsule   string `cbor:"2,keyasint"`
}

func storeRole(k catalog.RoleKey) roleRow { return roleRow{k.Principal, k.Capsule} }
func loadRole(r roleRow) catalog.RoleKey {
	return catalog.RoleKey{Principal: r.Principal, Capsule: r.Capsule}
}

type memoryRow struct {
	ID          [16]byte `cbor:"1,keyasint"`
	Capsule     string   `cbor:"2,keyasint"`
	Name        string   `cbor:"3,keyasint,omitempty"`
	Path        string   `cbor:"4,keyasint,omitempty"`
	MIME        string   `cbor:"5,keyasint,omitempty"`
	Description string   `cbor:"6,keyasint,omitempty"`
	Tags        []string `cbor:"7,keyasint,omitempty"`
	Width       int64    `cbor:"8,keyasint,omitempty"`
	Height      int64    `cbor:"9,keyasint,omitempty"`
	TakenAt     stamp    `cbor:"10,keyasint,omitempty"`
	Bytes       int64    `cbor:"11,keyasint,omitempty"`
	SHA256      [32]byte `cbor:"12,keyasint"`
	Created     stamp    `cbor:"13,keyasint,omitempty"`
	Owner       string   `cbor:"14,keyasint,omitempty"`
	Seq         uint64   `cbor:"15,keyasint,omitempty"`
	Trashed     stamp    `cbor:"16,keyasint,omitempty"`
	PurgeAt     int64    `cbor:"17,keyasint,omitempty"`
	By          uint64   `cbor:"18,keyasint,omitempty"`
	Idem        string   `cbor:"19,keyasint,omitempty"`
}

func storeMemory(m catalog.Memory) memoryRow {
	return memoryRow{
		m.ID, m.Capsule, m.Name, m.Path, m.MIME, m.Description, m.Tags, m.Width, m.Height, storeTime(m.TakenAt),
		m.Bytes, m.SHA256, storeTime(m.Created), m.Owner, m.Seq, storeTime(m.Trashed), m.PurgeAt, m.By, m.Idem,
	}
}

func loadMemory(r memoryRow) catalog.Memory {
	return catalog.Memory{
		ID: r.ID, Capsule: r.Capsule,
		Meta: catalog.Meta{
			Name: r.Name, Path: r.Path, MIME: r.MIME, Description: r.Description, Tags: r.Tags,
			Width: r.Width, Height: r.Height, TakenAt: loadTime(r.TakenAt),
		},
		Bytes: r.Bytes, SHA256: r.SHA256, Created: loadTime(r.Created), Owner: r.Owner, Seq: r.Seq,
		Trashed: loadTime(r.Trashed), PurgeAt: r.PurgeAt, By: r.By, Idem: r.Idem,
	}
}

// idRow is the value of an index row: the memory's id.
type idRow struct {
	ID [16]byte `cbor:"1,keyasint"`
}

func storeID(id catalog.MemoryID) idRow { return idRow{id} }
func loadID(r idRow) catalog.MemoryID   { return r.ID }

type extentRow struct {
	_     struct{} `cbor:",toarray"`
	Place string
	Off   int64
	Len   int64
	CRC   uint32
}

type contentRow struct {
	Capsule string      `cbor:"1,keyasint"`
	SHA256  [32]byte    `cbor:"2,keyasint"`
	Bytes   int64       `cbor:"3,keyasint,omitempty"`
	Extents []extentRow `cbor:"4,keyasint,omitempty"`
	Inline  []byte      `cbor:"5,keyasint,omitempty"`
	CRC     uint32      `cbor:"6,keyasint,omitempty"`
	Refs    int64       `cbor:"7,keyasint,omitempty"`
	Damaged stamp       `cbor:"8,keyasint,omitempty"`
}

func storeContent(c catalog.Content) contentRow {
	r := contentRow{c.Capsule, c.SHA256, c.Bytes, nil, c.Inline, c.CRC32C, c.Refs, storeTime(c.Damaged)}
	for _, e := range c.Extents {
		r.Extents = append(r.Extents, extentRow{Place: e.Place, Off: e.Off, Len: e.Len, CRC: e.CRC32C})
	}
	return r
}

func loadContent(r contentRow) catalog.Content {
	c := catalog.Content{
		Capsule: r.Capsule, SHA256: r.SHA256, Bytes: r.Bytes, Inline: r.Inline, CRC32C: r.CRC,
		Refs: r.Refs, Damaged: loadTime(r.Damaged),
	}
	for _, e := range r.Extents {
		c.Extents = append(c.Extents, catalog.Extent{Place: e.Place, Off: e.Off, Len: e.Len, CRC32C: e.CRC})
	}
	return c
}

type placeRow struct {
	Name string `cbor:"1,keyasint"`
	Refs int64  `cbor:"2,keyasint,omitempty"`
}

func storePlace(p catalog.Place) placeRow { return placeRow{p.Name, p.Refs} }
func loadPlace(r placeRow) catalog.Place  { return catalog.Place{Name: r.Name, Refs: r.Refs} }

type reservationRow struct {
	Session uint64 `cbor:"1,keyasint"`
	Capsule string `cbor:"2,keyasint"`
	Owner   string `cbor:"3,keyasint,omitempty"`
	Bytes   int64  `cbor:"4,keyasint,omitempty"`
	Payer   string `cbor:"5,keyasint,omitempty"`
}

func storeReservation(v catalog.Reservation) reservationRow {
	return reservationRow{v.Session, v.Capsule, v.Owner, v.Bytes, v.Payer}
}

func loadReservation(r reservationRow) catalog.Reservation {
	return catalog.Reservation{Session: r.Session, Capsule: r.Capsule, Owner: r.Owner, Payer: r.Payer, Bytes: r.Bytes}
}

type usageRow struct {
	Owner    string `cbor:"1,keyasint"`
	Sessions int64  `cbor:"2,keyasint,omitempty"`
	Reserved int64  `cbor:"3,keyasint,omitempty"`
}

func storeUsage(u catalog.Usage) usageRow { return usageRow{u.Owner, u.Sessions, u.Reserved} }
func loadUsage(r usageRow) catalog.Usage {
	return catalog.Usage{Owner: r.Owner, Sessions: r.Sessions, Reserved: r.Reserved}
}

type idemRow struct {
	Capsule     string   `cbor:"1,keyasint"`
	Owner       string   `cbor:"2,keyasint,omitempty"`
	Key         string   `cbor:"3,keyasint"`
	Fingerprint []byte   `cbor:"4,keyasint,omitempty"`
	Memory      [16]byte `cbor:"5,keyasint"`
	Session     uint64   `cbor:"6,keyasint,omitempty"`
}

func storeIdem(v catalog.Idem) idemRow {
	return idemRow{v.Capsule, v.Owner, v.Key, v.Fingerprint, v.Memory, v.Session}
}

func loadIdem(r idemRow) catalog.Idem {
	return catalog.Idem{
		Capsule: r.Capsule, Owner: r.Owner, Key: r.Key,
		Fingerprint: r.Fingerprint, Memory: r.Memory, Session: r.Session,
	}
}

type outcomeRow struct {
	Session uint64   `cbor:"1,keyasint"`
	Capsule string   `cbor:"2,keyasint"`
	Memory  [16]byte `cbor:"3,keyasint"`
	SHA256  [32]byte `cbor:"4,keyasint"`
	Bytes   int64    `cbor:"5,keyasint,omitempty"`
}

func storeOutcome(o catalog.Outcome) outcomeRow {
	return outcomeRow{o.Session, o.Capsule, o.Memory, o.SHA256, o.Bytes}
}

func loadOutcome(r outcomeRow) catalog.Outcome {
	return catalog.Outcome{Session: r.Session, Capsule: r.Capsule, Memory: r.Memory, SHA256: r.SHA256, Bytes: r.Bytes}
}

type eventRow struct {
	Capsule string     `cbor:"1,keyasint"`
	Seq     uint64     `cbor:"2,keyasint"`
	Type    string     `cbor:"3,keyasint"`
	Time    stamp      `cbor:"4,keyasint,omitempty"`
	Memory  *memoryRow `cbor:"5,keyasint,omitempty"`
	ID      [16]byte   `cbor:"6,keyasint"`
	Session uint64     `cbor:"7,keyasint,omitempty"`
}

func storeEvent(e catalog.Event) eventRow {
	r := eventRow{e.Capsule, e.Seq, string(e.Type), storeTime(e.Time), nil, e.ID, e.Session}
	if e.Memory != nil {
		m := storeMemory(*e.Memory)
		r.Memory = &m
	}
	return r
}

func loadEvent(r eventRow) catalog.Event {
	e := catalog.Event{
		Capsule: r.Capsule, Seq: r.Seq, Type: catalog.EventType(r.Type),
		Time: loadTime(r.Time), ID: r.ID, Session: r.Session,
	}
	if r.Memory != nil {
		m := loadMemory(*r.Memory)
		e.Memory = &m
	}
	return e
}

type principalRow struct {
	ID         string `cbor:"1,keyasint"`
	Name       string `cbor:"2,keyasint,omitempty"`
	Admin      bool   `cbor:"3,keyasint,omitempty"`
	Created    stamp  `cbor:"4,keyasint,omitempty"`
	MaxOpen    int64  `cbor:"5,keyasint,omitempty"`
	QuotaBytes int64  `cbor:"6,keyasint,omitempty"`
	Issuer     string `cbor:"7,keyasint,omitempty"`
	Subject    string `cbor:"8,keyasint,omitempty"`
}

func storePrincipal(p catalog.Principal) principalRow {
	return principalRow{
		p.ID, p.Name, p.Admin, storeTime(p.Created), p.MaxOpenSessions, p.QuotaBytes,
		p.Identity.Issuer, p.Identity.Subject,
	}
}

func loadPrincipal(r principalRow) catalog.Principal {
	return catalog.Principal{
		ID: r.ID, Name: r.Name, Admin: r.Admin, Created: loadTime(r.Created),
		MaxOpenSessions: r.MaxOpen, QuotaBytes: r.QuotaBytes,
		Identity: catalog.Identity{Issuer: r.Issuer, Subject: r.Subject},
	}
}

type identityRow struct {
	Issuer    string `cbor:"1,keyasint"`
	Subject   string `cbor:"2,keyasint"`
	Principal string `cbor:"3,keyasint"`
}

func storeIdentity(v catalog.IdentityRef) identityRow {
	return identityRow{v.Issuer, v.Subject, v.Principal}
}

func loadIdentity(r identityRow) catalog.IdentityRef {
	return catalog.IdentityRef{
		Identity: catalog.Identity{Issuer: r.Issuer, Subject: r.Subject}, Principal: r.Principal,
	}
}

type tokenRow struct {
	Hash      [32]byte `cbor:"1,keyasint"`
	ID        string   `cbor:"2,keyasint"`
	Name      string   `cbor:"3,keyasint,omitempty"`
	Principal string   `cbor:"4,keyasint"`
	ReadOnly  bool     `cbor:"5,keyasint,omitempty"`
	Created   stamp    `cbor:"6,keyasint,omitempty"`
	Expires   stamp    `cbor:"7,keyasint,omitempty"`
	LastUsed  stamp    `cbor:"8,keyasint,omitempty"`
}

func storeToken(t catalog.Token) tokenRow {
	return tokenRow{
		t.Hash, t.ID, t.Name, t.Principal, t.ReadOnly,
		storeTime(t.Created), storeTime(t.Expires), storeTime(t.LastUsed),
	}
}

func loadToken(r tokenRow) catalog.Token {
	return catalog.Token{
		Hash: r.Hash, ID: r.ID, Name: r.Name, Principal: r.Principal, ReadOnly: r.ReadOnly,
		Created: loadTime(r.Created), Expires: loadTime(r.Expires), LastUsed: loadTime(r.LastUsed),
	}
}

type tokenRefRow struct {
	ID        string   `cbor:"1,keyasint"`
	Principal string   `cbor:"2,keyasint"`
	Hash      [32]byte `cbor:"3,keyasint"`
}

func storeTokenRef(t catalog.TokenRef) tokenRefRow { return tokenRefRow{t.ID, t.Principal, t.Hash} }

func loadTokenRef(r tokenRefRow) catalog.TokenRef {
	return catalog.TokenRef{ID: r.ID, Principal: r.Principal, Hash: r.Hash}
}

type checkpointRow struct {
	Session uint64 `cbor:"1,keyasint"`
	Off     int64  `cbor:"2,keyasint"`
	Gen     uint64 `cbor:"3,keyasint"`
	State   []byte `cbor:"4,keyasint,omitempty"`
}

func storeCheckpoint(h catalog.HashCheckpoint) checkpointRow {
	return checkpointRow{h.Session, h.Off, h.Gen, h.State}
}

func loadCheckpoint(r checkpointRow) catalog.HashCheckpoint {
	return catalog.HashCheckpoint{Session: r.Session, Off: r.Off, Gen: r.Gen, State: r.State}
}

type dueRow struct {
	At   int64  `cbor:"1,keyasint"`
	Kind uint8  `cbor:"2,keyasint"`
	Key  string `cbor:"3,keyasint"`
}

func storeDue(d catalog.Due) dueRow { return dueRow{d.At, uint8(d.Kind), d.Key} }
func loadDue(r dueRow) catalog.Due {
	return catalog.Due{At: r.At, Kind: catalog.DueKind(r.Kind), Key: r.Key}
}
