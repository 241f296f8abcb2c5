package upload

import (
	"sluice/catalog"
	"sluice/session"
)

// Piece is what the note of a recorded entry says.
type Piece struct {
	// Extent is where the entry's bytes are.
	Extent catalog.Extent
	// State is SHA-256's over the first Hashed bytes of the session, computed while it was at Gen;
	// Hashed is 0 where there is none.
	State  []byte
	Hashed int64
	Gen    uint64
}

// InspectPiece reads an entry's note, for whoever looks at what is stored from outside.
func InspectPiece(e session.Entry) (Piece, error) {
	n, err := decodeEntryNote(e.Note)
	return Piece{Extent: n.extent(e.Range), State: n.State, Hashed: n.Hashed, Gen: n.Gen}, err
}

// WithoutState gives the note of an entry without the state of its hash: that is computed again
// then.
func WithoutState(e session.Entry) ([]byte, error) {
	n, err := decodeEntryNote(e.Note)
	if err != nil {
		return nil, err
	}
	n.Gen, n.Hashed, n.State = 0, 0, nil
	return n.encode()
}

// InspectSession reads a session's note: of which file it is, and what it is to reserve.
func InspectSession(s session.Session) (catalog.Meta, catalog.Reservation, error) {
	n, err := decodeNote(s.Note)
	_, most := reserves(s)
	return n.Meta, catalog.Reservation{Session: uint64(s.ID), Capsule: n.Capsule, Owner: s.Owner, Bytes: most}, err
}

// Reserves reports whether an open session may hold so many bytes of quota: what it brings, or more
// in whole steps, since older programs gave back at the end only what they had taken so; and while
// its length is unknown also less than a step, where no more was left.
func Reserves(s session.Session, bytes int64) bool {
	least, most := reserves(s)
	return bytes >= least && (bytes <= most || bytes%reserveStep == 0)
}
