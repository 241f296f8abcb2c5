package pebblemeta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"sluice/catalog"
	"sluice/session"
)

// rowVersion is the version of the rows of entries and totals, and sessionVersion of those of
// sessions. Version 2 of the latter has Start.
const (
	rowVersion     = 1
	sessionVersion = 2
)

// sessionRow is a session as it is stored. Strings are opaque, so they are bytes here. Its numbers
// are never given another meaning.
type sessionRow struct {
	ChunkSize int64  `cbor:"1,keyasint"`
	Expected  int64  `cbor:"2,keyasint"`
	Owner     []byte `cbor:"3,keyasint,omitempty"`
	Idem      []byte `cbor:"4,keyasint,omitempty"`
	Note      []byte `cbor:"5,keyasint,omitempty"`
	State     uint8  `cbor:"6,keyasint"`
	Gen       uint64 `cbor:"7,keyasint"`
	Rev       uint64 `cbor:"8,keyasint"`
	Received  []byte `cbor:"9,keyasint,omitempty"`
	Entries   int    `cbor:"10,keyasint,omitempty"`
	Dropped   []byte `cbor:"11,keyasint,omitempty"`
	Began     int64  `cbor:"12,keyasint"` // Unix ms
	LastSeen  int64  `cbor:"13,keyasint"` // Unix ms
	Seen      int64  `cbor:"14,keyasint"`
	Start     int64  `cbor:"15,keyasint,omitempty"` // since version 2
}

func encodeSession(s *session.Session) ([]byte, error) {
	return encodeRow(sessionVersion, sessionRow{
		ChunkSize: s.ChunkSize, Expected: s.BytesExpected, Owner: []byte(s.Owner), Idem: []byte(s.Idem), Note: s.Note,
		State: uint8(s.State), Gen: s.Gen, Rev: s.Rev, Received: appendRanges(nil, s.Received), Entries: s.EntryCount,
		Dropped: appendDropped(nil, s.Dropped),
		Began:   s.Began.UnixMilli(), LastSeen: s.LastSeen.UnixMilli(), Seen: s.Seen, Start: s.Start,
	})
}

func decodeSession(id session.SessionID, row []byte) (session.Session, error) {
	return decodeSessionWith(id, row, readRanges)
}

// decodeSessionWith is decodeSession with another way to read the received ranges.
func decodeSessionWith(
	id session.SessionID, row []byte, ranges func([]byte) ([]session.Range, error),
) (session.Session, error) {
	var r sessionRow
	if err := decodeRow(sessionVersion, row, &r); err != nil {
		return session.Session{}, err
	}
	s := session.Session{
		ID: id, State: session.State(r.State), Gen: r.Gen, Rev: r.Rev, EntryCount: r.Entries, Seen: r.Seen, Start: r.Start,
		Spec: session.Spec{
			ChunkSize: r.ChunkSize, BytesExpected: r.Expected,
			Owner: string(r.Owner), Idem: string(r.Idem), Note: r.Note,
		},
		Began: time.UnixMilli(r.Began).UTC(), LastSeen: time.UnixMilli(r.LastSeen).UTC(),
	}
	if s.State != session.Open && (!s.State.Ended() || s.State >= session.Gone) {
		return s, fmt.Errorf("%w: state %d", catalog.ErrDamaged, r.State)
	}
	if r.ChunkSize < 1 || r.Expected < session.Unknown || r.Entries < 0 || r.Gen == 0 || r.Rev == 0 {
		return s, fmt.Errorf("%w: impossible numbers", catalog.ErrDamaged)
	}
	var err error
	if s.Received, err = ranges(r.Received); err != nil {
		return s, err
	}
	s.Dropped, err = readDropped(r.Dropped)
	return s, err
}

// appendRanges writes coalesced, sorted ranges.
func appendRanges(b []byte, rs []session.Range) []byte {
	var at int64
	for _, r := range rs {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Off-at)), uint64(r.Len()))
		at = r.End
	}
	return b
}

func readRanges(b []byte) ([]session.Range, error) {
	if len(b) == 0 {
		return nil, nil
	}
	rs := make([]session.Range, 0, countVarints(b)/2)
	for at := int64(0); len(b) > 0; {
		gap, n := binary.Uvarint(b)
		length, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || length == 0 || (gap == 0 && len(rs) > 0) ||
			gap > math.MaxInt64 || length > math.MaxInt64 || math.MaxInt64-at < int64(gap) ||
			math.MaxInt64-at-int64(gap) < int64(length) {
			return nil, fmt.Errorf("%w: received ranges", catalog.ErrDamaged)
		}
		r := session.Range{Off: at + int64(gap), End: at + int64(gap) + int64(length)}
		rs, at, b = append(rs, r), r.End, b[n+m:]
	}
	return rs, nil
}

// countVarints counts the varints in b. Each ends with a byte whose highest bit is not set.
func countVarints(b []byte) (n int) {
	for _, c := range b {
		n += int(^c >> 7)
	}
	return n
}

// appendDropped writes each range as three varints.
func appendDropped(b []byte, ds []session.Dropped) []byte {
	for _, d := range ds {
		b = binary.AppendVarint(binary.AppendVarint(binary.AppendUvarint(b, d.Gen), d.Off), d.End)
	}
	return b
}

func readDropped(b []byte) ([]session.Dropped, error) {
	if len(b) == 0 {
		return nil, nil
	}
	ds := make([]session.Dropped, 0, countVarints(b)/3)
	for len(b) > 0 {
		gen, n := binary.Uvarint(b)
		off, m := binary.Varint(b[max(n, 0):])
		if n <= 0 || m <= 0 {
			return nil, fmt.Errorf("%w: dropped ranges", catalog.ErrDamaged)
		}
		end, k := binary.Varint(b[n+m:])
		if k <= 0 {
			return nil, fmt.Errorf("%w: dropped ranges", catalog.ErrDamaged)
		}
		ds, b = append(ds, session.Dropped{Gen: gen, Range: session.Range{Off: off, End: end}}), b[n+m+k:]
	}
	return ds, nil
}

func encodeEntry(e session.Entry) []byte {
	b := binary.AppendUvarint(append(make([]byte, 0, 11+len(e.Note)), rowVersion), uint64(e.Len()))
	return append(b, e.Note...)
}

// decodeEntry reads the entry that begins at off. Its note is a copy.
func decodeEntry(off int64, row []byte) (e session.Entry, err error) {
	if err := checkVersion(rowVersion, row); err != nil {
		return e, err
	}
	length, n := binary.Uvarint(row[1:])
	if n <= 0 || length == 0 || length > math.MaxInt64 || off < 0 || math.MaxInt64-off < int64(length) {
		return e, fmt.Errorf("%w: length", catalog.ErrDamaged)
	}
	e.Range = session.Range{Off: off, End: off + int64(length)}
	if note := row[1+n:]; len(note) > 0 {
		e.Note = append([]byte(nil), note...)
	}
	return e, nil
}

// totals are those figures of session.Stats that can't be had otherwise.
type totals struct {
	_        struct{} `cbor:",toarray"`
	Open     int64    // sealed ones too
	Expected int64
	Received int64
	Begun    int64
	Finished int64
	Aborted  int64
	Expired  int64
	Newest   int64
}

func (t totals) encode() ([]byte, error) { return encodeRow(rowVersion, t) }

// plus adds d. Of Newest the greater one counts.
func (t totals) plus(d totals) totals {
	return totals{
		Open: t.Open + d.Open, Expected: t.Expected + d.Expected, Received: t.Received + d.Received,
		Begun: t.Begun + d.Begun, Finished: t.Finished + d.Finished, Aborted: t.Aborted + d.Aborted,
		Expired: t.Expired + d.Expired,
		Newest:  max(t.Newest, d.Newest),
	}
}

// count adds an open s (sign 1), or takes it away (sign -1). It ignores an ended one.
func (t *totals) count(s *session.Session, sign int64) {
	if s.State.Ended() {
		return
	}
	t.Open += sign
	t.Expected += sign * max(s.BytesExpected, 0)
	t.Received += sign * s.Bytes()
}

func loadTotals(r pebble.Reader) (t totals, err error) {
	row, err := get(r, totalsKey)
	if err != nil || row == nil {
		return t, err
	}
	if err := decodeRow(rowVersion, row, &t); err != nil {
		return t, fmt.Errorf("row of the totals: %w", err)
	}
	return t, nil
}

// loadTotals reads the figures at the start. If they can't be read they are counted anew, except
// for sessions that have ended and are forgotten.
func (db *DB) loadTotals(log *slog.Logger) (err error) {
	if db.totals, err = loadTotals(db.peb); !errors.Is(err, catalog.ErrDamaged) {
		return err
	}
	log.Error("the metadata's totals can't be read: they are counted anew", "err", err)
	t := totals{}
	prefix := []byte{keySession}
	err = db.each(db.peb, prefix, prefixEnd(prefix), false, func(key, row []byte) bool {
		id, _ := parsePosition(append(make([]byte, 8, keyPosition), key[1:]...))
		if s, err := decodeSession(id.id, row); db.reportUnreadable(err) == nil {
			t.count(&s, 1)
			t.Begun, t.Newest = t.Begun+1, max(t.Newest, s.Seen)
		}
		return true
	}, func(error) bool { return true })
	if err != nil {
		return err
	}
	if db.totals = t; db.readOnly {
		return nil
	}
	row, err := t.encode()
	if err != nil {
		return err
	}
	return db.peb.Set(totalsKey, row, pebble.Sync)
}

// loadSession reads the stored row, or gives session.ErrNotFound.
func loadSession(r pebble.Reader, id session.SessionID) (session.Session, error) {
	return loadSessionWith(r, id, readRanges)
}

// sessionAt gives the session as a view of commit seq has it, or session.ErrNotFound. A request
// loads it several times, so it is cached.
func (db *DB) sessionAt(r pebble.Reader, id session.SessionID, seq uint64) (session.Session, error) {
	if s, ok := db.cachedSession(id, seq); ok {
		return s, nil
	}
	s, err := loadSessionWith(r, id, db.ranges.decoder(id))
	if err == nil && cacheable(&s) {
		db.cache.put(sessionTable, cacheKey(id), seq, s)
	}
	return s, err
}

// listedAt is sessionAt for a list, which takes no place in the cache from what requests need.
func (db *DB) listedAt(r pebble.Reader, id session.SessionID, seq uint64) (session.Session, error) {
	if s, ok := db.cachedSession(id, seq); ok {
		return s, nil
	}
	return loadSession(r, id)
}

// cachedSession gives the session as a view of commit seq has it, if the cache has that.
func (db *DB) cachedSession(id session.SessionID, seq uint64) (s session.Session, ok bool) {
	s, ok = db.cache.get(sessionTable, cacheKey(id), seq).(session.Session)
	return s, ok
}

// cacheKey is the key of a session in the cache.
func cacheKey(id session.SessionID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// cacheable reports whether the cache takes a session.
func cacheable(s *session.Session) bool { return s.Size() <= 2*cacheLargest }

func loadSessionWith(
	r pebble.Reader, id session.SessionID, ranges func([]byte) ([]session.Range, error),
) (session.Session, error) {
	row, err := get(r, sessionKey(id))
	if err != nil {
		return session.Session{}, err
	}
	if row == nil {
		return session.Session{}, session.ErrNotFound
	}
	s, err := decodeSessionWith(id, row, ranges)
	if err != nil {
		return s, fmt.Errorf("row of session %s: %w", id, err)
	}
	return s, nil
}
