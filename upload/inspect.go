package upload

import (
	"sluice/catalog"
	"sluice/session"
)

// Piece is the decoded note of a recorded entry.
type Piece struct {
	// Extent is where the entry's bytes are.
	Extent catalog.Extent
	// State is the state of SHA-256 over the first Hashed bytes of the session, computed while the
	// session was at Gen. Hashed is 0 if there is no state.
	State  []byte
	Hashed int64
	Gen    uint64
}

// InspectPiece decodes an entry's note, for programs that inspect what is stored.
func InspectPiece(e session.Entry) (Piece, error) {
	n, err := decodeEntryNote(e.Note)
	return Piece{Extent: n.extent(e.Range), State: n.State, Hashed: n.Hashed, Gen: n.Gen}, err
}

// WithoutState gives the note of an entry without the state of its hash, which is then computed
// again.
func WithoutState(e session.Entry) ([]byte, error) {
	n, err := decodeEntryNote(e.Note)
	if err != nil {
		return nil, err
	}
	n.Gen, n.Hashed, n.State = 0, 0, nil
	return n.encode()
}

// InspectSession decodes a session's note: the metadata of its file, and the quota that it is to
// reserve.
func InspectSession(s session.Session) (catalog.Meta, catalog.Reservation, error) {
	n, err := decodeNote(s.Note)
	_, most := reserves(s)
	return n.Meta, catalog.Reservation{Session: uint64(s.ID), Capsule: n.Capsule, Owner: s.Owner, Bytes: most}, err
}

// Reserves reports whether an open session may hold so many bytes of reserved quota. It may hold
// what it brings. It may hold more in whole steps, because older programs gave back only what they
// had reserved. While its length is unknown it may hold less than a step, if no more quota was
// left.
func Reserves(s session.Session, bytes int64) bool {
	least, most := reserves(s)
	return bytes >= least && (bytes <= most || bytes%reserveStep == 0)
}
