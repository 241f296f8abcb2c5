package pebblemeta

import (
	"encoding/binary"

	"sluice/session"
)

// The first byte of a key. See the package comment.
const (
	keySession  = 'S'
	keyEntry    = 'E'
	keyIdem     = 'I'
	keyBegan    = 'N'
	keyOwner    = 'O'
	keySeen     = 'T'
	keyEnded    = 'X'
	keyCatalog  = 'C'
	keyPosition = 16 // bytes at the end of a key of N, O, T, X: the sort order, and the id
)

var totalsKey = []byte{'M'}

func appendUint(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

// signed gives a number that sorts as the signed n does.
func signed(n int64) uint64 { return uint64(n) ^ 1<<63 }

func appendStr(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func sessionKey(id session.SessionID) []byte {
	return appendUint([]byte{keySession}, uint64(id))
}

func entriesPrefix(id session.SessionID) []byte {
	return appendUint(append(make([]byte, 0, 17), keyEntry), uint64(id))
}

func entryKey(id session.SessionID, off int64) []byte {
	return appendUint(entriesPrefix(id), signed(off))
}

func idemKey(s *session.Session) []byte {
	return append(appendStr([]byte{keyIdem}, s.Owner), s.Idem...)
}

func statePrefix(st session.State) []byte { return []byte{keyBegan, byte(st)} }

func ownerPrefix(owner string, st session.State) []byte {
	return append(appendStr([]byte{keyOwner}, owner), byte(st))
}

// position is where a session stands in a list.
type position struct {
	order uint64
	id    session.SessionID
}

func (p position) compare(o position) int {
	switch {
	case p == o:
		return 0
	case p.order < o.order || (p.order == o.order && p.id < o.id):
		return -1
	}
	return 1
}

func (p position) appendTo(prefix []byte) []byte {
	return appendUint(appendUint(prefix, p.order), uint64(p.id))
}

// parsePosition reads a position from the end of a key.
func parsePosition(key []byte) (position, bool) {
	i := len(key) - keyPosition
	if i < 0 {
		return position{}, false
	}
	return position{binary.BigEndian.Uint64(key[i:]), session.SessionID(binary.BigEndian.Uint64(key[i+8:]))}, true
}

// byBegan gives the position in a list with the youngest session first.
func byBegan(s *session.Session) position { return position{^signed(s.Began.UnixMilli()), s.ID} }

// bySeen gives the position in a list with the longest unseen session first.
func bySeen(s *session.Session) position { return position{signed(s.Seen), s.ID} }

// seenPrefix is the prefix of the index by Seen that has the sessions of this state.
func seenPrefix(st session.State) []byte {
	if st.Ended() {
		return []byte{keyEnded}
	}
	return []byte{keySeen}
}

// prefixEnd gives the first key behind all keys with this prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
