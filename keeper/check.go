package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// CheckConfig is what a Check works on: stores that no other process has open. A field is needed
// unless it "may be nil".
type CheckConfig struct {
	Sessions session.Store
	Catalog  catalog.Store
	Blobs    blob.Store
	Clock    session.Clock
	// Repair mends what can be mended; see the docs of Check.
	Repair bool
	// Found is called for each finding, in the order in which they are found.
	Found func(Finding)
	// Progress, which may be nil, gets the number of bytes that have been read, and of all bytes.
	Progress func(done, total int64)
	// File, which may be nil, gives the name of a place's file, for people.
	File func(place string) string
	// KnownPlace, which may be nil, reports whether the catalog can know what a place is. Otherwise
	// its rows may be lost, or be in a newer copy of the catalog, and the place is no garbage
	// for having no row.
	KnownPlace func(place string) bool
	// Metadata, which may be nil, lets the metadata's store check what it alone can see. It calls
	// found for each problem. hole: neighbouring rows are lost, and new metadata have to be made of
	// the others.
	Metadata func(ctx context.Context, found func(problem string, hole bool)) error
}

// Kind says what sort of thing was found, for programs. A word never gets another meaning.
type Kind string

// The kinds.
const (
	KindContent  Kind = "content"  // the bytes of a memory are not what was stored
	KindPiece    Kind = "piece"    // a recorded piece of an open session is not what was stored
	KindHash     Kind = "hash"     // a saved state of SHA-256 is not that of the bytes
	KindRecord   Kind = "record"   // a row can't be read, or contradicts itself
	KindIndex    Kind = "index"    // an index and what it leads to differ
	KindCounter  Kind = "counter"  // a counter, or a count of references, is wrong
	KindReserved Kind = "reserved" // a reservation and its session differ
	KindDue      Kind = "due"      // the list of due work and the garbage differ
	KindEvent    Kind = "event"    // the numbers of the events have a gap
	KindLeftover Kind = "leftover" // nothing names it; always a note
)

// Finding is one thing that was found, in words for the owner of the data.
type Finding struct {
	Kind Kind
	Text string
	// The capsule, memory, session and place that it is about; each may be empty.
	Capsule string
	Memory  catalog.MemoryID
	Session session.SessionID
	Place   string
	// Range are the bytes of the memory or the session that it is about; empty if it is about none.
	session.Range
	// Note: nothing is wrong, but it is worth knowing.
	Note bool
	// Remedy is what Repair does, or did, about it; empty if Repair can do nothing.
	Remedy string
	// Repaired: the remedy was applied, and nothing is wrong any more. Quarantined: it was applied,
	// and the memory is still damaged.
	Repaired, Quarantined bool
	// Err is why the remedy could not be applied.
	Err error

	fix         func(ctx context.Context) error
	needsRows   bool // the fix follows from rows, all of which have to be readable
	quarantines bool // the fix only quarantines
}

// Summary counts what was looked at and what was found.
type Summary struct {
	Capsules, Memories, Contents, Sessions, Places int64
	// Bytes of content and of pieces that were read.
	Bytes int64
	// Wrong is the number of findings without notes; Repaired and Quarantined say how many of them
	// were treated so. Mendable is the number of findings with a remedy.
	Wrong, Mendable, Repaired, Quarantined, Notes int64
}

// Left is the number of findings that are still wrong.
func (s Summary) Left() int64 { return s.Wrong - s.Repaired }

// Check reads everything that is stored, past the caches, and compares it: each extent with its
// CRC-32C, each content with its SHA-256, and the rows of the catalog, the sessions and the places
// with each other, both ways. It calls Found for each finding. An error means that it could not go
// on.
//
// With Repair it repairs each thing in a transaction of its own: after a stop at any moment each
// thing is repaired or as it was.
//
//   - Rows that follow from other rows are computed anew: indexes, counters, references,
//     reservations, due work. If a row that they follow from can't be read, they are left alone.
//   - Pieces of open sessions whose bytes are lost are dropped: the client is asked for them again.
//   - Content whose bytes are not what was stored is marked as damaged (catalog.Content.Damaged):
//     it is not read, and an upload of the same bytes heals it. The mark goes when a later Check
//     finds the bytes right.
//
// It deletes no bytes, no memory and no content. Places that nothing names are reported and left to
// the keeper.
func Check(ctx context.Context, cfg CheckConfig) (Summary, error) {
	c := &check{cfg: cfg}
	if c.cfg.File == nil {
		c.cfg.File = func(place string) string { return place }
	}
	if c.cfg.KnownPlace == nil {
		c.cfg.KnownPlace = func(string) bool { return true }
	}
	if c.cfg.Progress == nil {
		c.cfg.Progress = func(int64, int64) {}
	}
	steps := []func(context.Context) error{c.metadata, c.readSessions, c.rows, c.entries, c.contents, c.places}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return c.sum, err
		}
	}
	return c.sum, nil
}

// check is one run of Check.
type check struct {
	cfg        CheckConfig
	sum        Summary
	pending    []*Finding // found, not yet reported
	unreadable bool       // some rows could not be read
	now        catalog.Moment
	done       int64
	total      int64

	sessions        map[session.SessionID]*openSession
	finished        []session.SessionID
	sessionPlaces   map[string]session.SessionID // by place: the open session whose entries are there
	namedPlaces     map[string]bool              // places that a row or a session names
	missingContents map[catalog.ContentKey]bool  // contents that memories name and that have no row
}

// wrong notes a finding. The caller adds what it is about.
func (c *check) wrong(kind Kind, format string, args ...any) *Finding {
	f := &Finding{Kind: kind, Text: fmt.Sprintf(format, args...)}
	c.pending = append(c.pending, f)
	return f
}

// mend sets the repair, in one transaction of the catalog, as a consequence of other rows.
func (f *Finding) mend(c *check, remedy string, do func(catalog.Tx) error) *Finding {
	f.Remedy, f.needsRows = remedy, true
	f.fix = func(ctx context.Context) error { return c.cfg.Catalog.Update(ctx, do) }
	return f
}

var errDepends = errors.New("it follows from records that can't be read")

// report repairs and reports the findings since its last call. No transaction may be running.
func (c *check) report(ctx context.Context) error {
	found := c.pending
	c.pending = nil
	for _, f := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.Remedy != "" {
			c.sum.Mendable++
		}
		if c.cfg.Repair && f.fix != nil {
			if f.Err = errDepends; !f.needsRows || !c.unreadable {
				f.Err = f.fix(ctx)
			}
			f.Repaired, f.Quarantined = f.Err == nil && !f.quarantines, f.Err == nil && f.quarantines
		}
		switch {
		case f.Note:
			c.sum.Notes++
		case f.Repaired:
			c.sum.Wrong, c.sum.Repaired = c.sum.Wrong+1, c.sum.Repaired+1
		case f.Quarantined:
			c.sum.Wrong, c.sum.Quarantined = c.sum.Wrong+1, c.sum.Quarantined+1
		default:
			c.sum.Wrong++
		}
		c.cfg.Found(*f)
	}
	return nil
}

// metadata lets the store of the metadata check first: damage below the rows explains the other
// findings.
func (c *check) metadata(ctx context.Context) error {
	if c.cfg.Metadata == nil {
		return nil
	}
	err := c.cfg.Metadata(ctx, func(problem string, hole bool) {
		f := c.wrong(KindRecord, "the metadata is damaged: %s", problem)
		if hole {
			f.Remedy = "new metadata are made of all that is left"
		}
	})
	c.unreadable = c.unreadable || len(c.pending) > 0
	return errors.Join(c.report(ctx), err)
}

// openSession is what a check remembers of a session that has not ended.
type openSession struct {
	reserved catalog.Reservation
	s        session.Session // without its ranges and its note
	name     string
	// reserves reports whether the session may hold so many bytes of quota.
	reserves func(bytes int64) bool
}

// readSessions lists all sessions. It remembers what the open ones hold, and which ones are
// finished.
func (c *check) readSessions(ctx context.Context) error {
	stats, err := c.cfg.Sessions.Stats(ctx)
	if err != nil {
		return fmt.Errorf("reading the figures of the sessions: %w", err)
	}
	c.now = catalog.Moment{Now: c.cfg.Clock.Now(), Running: max(stats.Newest, 1)}
	c.sessions, c.sessionPlaces = map[session.SessionID]*openSession{}, map[string]session.SessionID{}
	for _, st := range []session.State{
		session.Open, session.Sealed, session.Finished, session.Aborted, session.Expired,
	} {
		err := session.Page(ctx, c.cfg.Sessions, session.Query{State: st, Limit: 500},
			func(s session.Session) (bool, error) {
				c.sum.Sessions++
				if s.State == session.Finished {
					c.finished = append(c.finished, s.ID)
				}
				if !s.State.Ended() {
					return true, c.readSession(ctx, s)
				}
				return true, ctx.Err()
			})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.unreadable = true
			c.wrong(KindRecord, "the %s sessions can't all be read: %v", st, err)
		}
	}
	return c.report(ctx)
}

func (c *check) readSession(ctx context.Context, s session.Session) error {
	meta, holds, err := upload.InspectSession(s)
	o := &openSession{reserved: holds, s: s, name: meta.Name}
	whole := session.Session{
		Spec:     session.Spec{BytesExpected: s.BytesExpected},
		Received: s.Received[max(len(s.Received)-1, 0):],
	}
	o.reserves = func(bytes int64) bool { return upload.Reserves(whole, bytes) }
	if meta.Path != "" {
		o.name = meta.Path + "/" + o.name
	}
	if err != nil {
		c.unreadable = true
		c.wrong(KindRecord, "session %s: what it is for can't be read: %v", s.ID, err).Session = s.ID
	}
	entries, err := c.cfg.Sessions.Entries(ctx, s.ID, session.All(), 0)
	if err != nil {
		c.unreadable = true
		c.wrong(KindRecord, "%s: its pieces can't be read: %v", o, err).Session = s.ID
	}
	o.s.Received, o.s.Note, c.total = nil, nil, c.total+session.Total(s.Received)
	var got []session.Range
	for _, e := range entries {
		if session.Touches(got, e.Range) || s.BytesExpected >= 0 && e.End > s.BytesExpected ||
			e.Off/s.ChunkSize != (e.End-1)/s.ChunkSize {
			f := c.wrong(KindRecord, "%s: the piece at bytes %s is where none can be", o, span(e.Range))
			f.Session, f.Range = s.ID, e.Range
		}
		got = session.Add(got, e.Range)
		if p, err := upload.InspectPiece(e); err == nil {
			c.sessionPlaces[p.Extent.Place] = s.ID
		}
	}
	if err == nil && (!slices.Equal(got, s.Received) || len(entries) != s.EntryCount) {
		c.wrong(KindRecord, "%s: its record says that %s is there in %d pieces, and its pieces are %s in %d",
			o, ranges(s.Received), s.EntryCount, ranges(got), len(entries)).Session = s.ID
	}
	c.sessions[s.ID] = o
	return nil
}

// String names the session for people.
func (o *openSession) String() string {
	return fmt.Sprintf("upload of %q under way (session %s, capsule %s)", o.name, o.s.ID, o.reserved.Capsule)
}

// span gives the range as docs/api.md counts bytes: the last one included.
func span(r session.Range) string {
	if r.Len() == 1 {
		return fmt.Sprint(r.Off)
	}
	return fmt.Sprintf("%d to %d", r.Off, r.End-1)
}

func ranges(rs []session.Range) string {
	switch len(rs) {
	case 0:
		return "nothing"
	case 1:
		return "bytes " + span(rs[0])
	}
	return fmt.Sprintf("bytes %s and %d more ranges", span(rs[0]), len(rs)-1)
}
