package upload

import (
	"sluice/catalog"
	"sluice/session"
)

// Piece is what the note of a recorded entry says.
type Piece struct {
	// Extent is where the entry's bytes are.
	Extent catalog.Extent
	// State is SHA-256's over the first Hashed bytes of the session, computed while it was at Gen; Hashed is 0 where there is none.
	State  []byte
	Hashed int64
	Gen    uint64
}

// InspectPiece reads an entry's note, for whoever looks at what is stored from outside.
func InspectPiece(e session.Entry) (Piece, error) {
	p, err := decodePiece(e.Note)
	return Piece{Extent: p.extent(e.Range), State: p.State, Hashed: p.Hashed, Gen: p.Gen}, err
}

// WithoutState gives the note of an entry without the state of its hash: that is computed again then.
func WithoutState(e session.Entry) ([]byte, error) {
	p, err := decodePiece(e.Note)
	if err != nil {
		return nil, err
	}
	p.Gen, p.Hashed, p.State = 0, 0, nil
	return p.encode()
}

// InspectSession reads a session's note: of which file it is, and what it reserves.
func InspectSession(s session.Session) (catalog.Meta, catalog.Reservation, error) {
	n, err := decodeNote(s.Note)
	return n.Meta, catalog.Reservation{Session: uint64(s.ID), Capsule: n.Capsule, Owner: s.Owner, Bytes: reserved(s)}, err
}

// Reserves reports whether an open session that reserves `least` may hold so many bytes: just those, or whole steps of a time when its length was
// not known, since what is taken so is given back at the end only.
func Reserves(least, bytes int64) bool {
	return bytes == least || bytes > least && bytes%reserveStep == 0
}
