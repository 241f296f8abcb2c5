package session

import "context"

// Store keeps sessions. It is linearizable, and any number of Services may share it. A call that
// returned survives the death of the process. A change is not shown before it does so too: no
// method tells of a change that such a death could still take back. Every implementation passes
// sessiontest.TestStore. One that serves uploads must also commit together with a catalog: see
// metadata.Store.
type Store interface {
	// Create stores s (State Open, Gen and Rev 1), atomically on s.ID and, if Idem is not empty, on
	// (s.Owner, s.Idem). If an open, sealed or finished session holds that pair, it is returned
	// with created false, and nothing is stored. An ID that is taken: ErrTaken.
	Create(ctx context.Context, s Session) (stored Session, created bool, err error)

	// Load returns the session, in any state. Unknown or Gone: ErrNotFound.
	Load(ctx context.Context, id SessionID) (Session, error)

	// Record applies c to an open session of generation gen in one commit, and returns the session
	// after it. Refusals change nothing: ErrNotFound; the ended states' errors and ErrSealed;
	// ErrFenced if gen is not the session's; ErrOverlap if c.Add overlaps received bytes (without
	// those of c.Remove), or if c.Remove names an entry that is not there; ErrLength if c.Length is
	// not Unknown and differs from a known length, or received bytes lie past it.
	Record(ctx context.Context, id SessionID, gen uint64, c Change) (Session, error)

	// Move changes the state by compare-and-set; see Step. A repeat of the very same Step changes
	// nothing and returns the session. If another step has moved it: ErrFenced, ErrNotFound, or the
	// error of the session's state. Aborted and Expired give (Owner, Idem) free. Every end forgets
	// the entries. A store whose catalog commit also ends the session may keep a seal in memory
	// alone.
	Move(ctx context.Context, id SessionID, step Step) (Session, error)

	// Entries returns the recorded entries that overlap r, sorted, at most n (0: all).
	Entries(ctx context.Context, id SessionID, r Range, n int) ([]Entry, error)

	// List returns at most q.Limit sessions and where to go on; see Query. Its cost is that of the
	// sessions that it returns.
	List(ctx context.Context, q Query) (page []Session, next string, err error)

	// KeepTime stores that the running time has come to running, in ms, and returns the newest that
	// is stored, which other Services may have brought further. A smaller one than stored changes
	// nothing.
	KeepTime(ctx context.Context, running int64) (newest int64, err error)

	// Stats costs the same with one session as with a million.
	Stats(ctx context.Context) (Stats, error)
}

// Change is what one Record does. With a Length that is Unknown and nothing else, it is a touch.
type Change struct {
	// Remove are entries to take out, each exactly as recorded; Add are entries to put in.
	Remove []Range
	Add    []Entry
	// Drop, if not empty, moves Gen by one and is noted in Session.Dropped.
	Drop Range
	// Length gives an unknown length; Unknown leaves it.
	Length int64
	// Seen is the new Session.Seen; a smaller one than stored is ignored. Now is for LastSeen, in
	// Unix ms.
	Seen, Now int64
	// Start, if not 0, is the Start of a session that has none.
	Start int64
}

// Step is one change of state: from Open to Sealed, from Sealed back to Open, from either to
// Finished, Aborted or Expired, and from one of those to Gone.
type Step struct {
	// Gen is the generation that the session must have.
	Gen uint64
	To  State
	// Next is the generation after the step, if To is Sealed or Open. It is above Gen by an amount
	// that was drawn for this step. So two seals at once differ, and a repeat is known as one.
	Next uint64
	// Seen is the running time of the step. The time for which an ended session is kept counts from
	// it.
	Seen int64
}

// Query selects sessions. Without Due and State it selects all states, Open first.
type Query struct {
	// Owner, if set, selects sessions of this owner only.
	Owner *string
	// State, if not 0, selects sessions of this state only, newest first.
	State State
	// Due, if not 0, selects sessions whose Seen is below it instead, the longest unseen first: the
	// Open ones (State 0 or Open) or the ended ones (State Finished, Aborted or Expired: any of the
	// three selects all ended ones). Owner is ignored.
	Due int64
	// Idem, if not empty, selects instead the one session that holds (Owner, Idem), if there is
	// one. Owner is set then, and the other fields are ignored.
	Idem string
	// After is a former call's next, or empty. A malformed one is ErrInvalid.
	After string
	// Limit is 1 to 10,000.
	Limit int
}

// Stats are the figures of a Store.
type Stats struct {
	Open, Sealed int64
	// BytesExpected (unknown lengths count 0) and BytesReceived of the open and sealed ones.
	BytesExpected, BytesReceived int64
	// OldestSeen is the smallest LastSeen of the open ones in Unix ms, 0 if there is none; to the
	// precision of a tick. A session that will end by its longest life may hide a smaller one.
	OldestSeen int64
	// Totals since the store was made.
	Begun, Finished, Aborted, Expired int64
	// Newest is the newest running time ever stored, by KeepTime or as the Seen of a session. A new
	// Service continues from it.
	Newest int64
}

// Errors of Stores beside those of the engine.
var (
	// ErrTaken: the ID is in use.
	ErrTaken = constError("session id is taken")
	// ErrFenced: the session has another generation.
	ErrFenced = constError("session has moved to another generation")
	// ErrOverlap: an entry would overlap a recorded one, or one to remove is not there.
	ErrOverlap = constError("entries overlap")
)

type constError string

func (e constError) Error() string { return string(e) }
