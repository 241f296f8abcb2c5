// Package session is a generic engine for work whose bytes arrive in parts. It hands out ids,
// records the byte ranges that have been received, isolates concurrent writers of one session from
// each other, and ends sessions by finish, abort or a time to live.
//
// It owns:
//
//   - session ids, their states, and idempotent begin
//   - received ranges, and the opaque notes that belong to them
//   - claims and takeovers between puts, fencing of stale writers
//   - sliding time to live, and a longest life, in time during which the engine ran
//
// It does not own bytes, and does not know what they are for. A caller hands a [ByteSink] to every
// put, and to every end a function that does the caller's part of it. There are no files, MIME
// types, hashes, users or HTTP in here. Anything that only one workflow could need belongs to that
// workflow.
//
// The life of a session:
//
//	           Begin
//	             │
//	             ▼     Finish, Abort, TickTTL: seal     End says yes
//	put ──▶    Open ────────────────────────▶ Sealed ─────────────▶ Finished
//	             ▲                               │                  Aborted
//	             └───────────────────────────────┘                  Expired
//	              End says: certainly nothing was committed            │
//	                                                  Config.Keep later ▼
//	                                                                  Gone
//
// A put is recorded in this order, and only then answered:
//
//	claim ─▶ stream to the sink ─▶ Committer.Commit ─▶ Store.Record ─▶ answer
//
// So a recorded byte is always one that the sink has made safe, and a recorded byte is never handed
// to WriteAt again.
package session

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"
)

// SessionID names a session. It is random, never 0, and never reused. Its text form is a decimal
// number.
type SessionID uint64

// String returns the decimal form.
func (id SessionID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ParseID reads the decimal form strictly: digits only, no sign, no leading zero, not 0.
func ParseID(s string) (SessionID, error) {
	if s == "" || s[0] == '0' || s[0] == '+' || s[0] == '-' {
		return 0, fmt.Errorf("session id %.24q is not a positive decimal number", s)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("session id %.24q is not a positive decimal number below 2^64", s)
	}
	return SessionID(n), nil
}

// State says where a session is in its life. See the package comment.
type State uint8

// The states. Gone is only ever the target of a [Store.Move]: it removes what
// is kept of an ended session.
const (
	Open State = iota + 1
	Sealed
	Finished
	Aborted
	Expired
	Gone
)

// Ended reports whether no further change of state but Gone can follow.
func (s State) Ended() bool { return s >= Finished }

// String returns the lower-case word.
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case Sealed:
		return "sealed"
	case Finished:
		return "finished"
	case Aborted:
		return "aborted"
	case Expired:
		return "expired"
	case Gone:
		return "gone"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Unknown is the value of Spec.BytesExpected while the length is not known.
const Unknown int64 = -1

// MaxNote bounds Spec.Note, MaxEntryNote Entry.Note, in bytes.
const (
	MaxNote      = 4 << 10
	MaxEntryNote = 1 << 10
)

// Spec is what a caller says of a session when it begins.
type Spec struct {
	// ChunkSize is the length of every chunk except the last, ≥ 1 byte.
	ChunkSize int64
	// BytesExpected is the whole length, ≥ 0, or Unknown until a short last chunk or Finish gives
	// it.
	BytesExpected int64
	// Owner and Idem are opaque. At most one session of an (Owner, Idem) is open, sealed or
	// finished at a time. An empty Idem holds no session.
	Owner, Idem string
	// Note is opaque, ≤ MaxNote bytes, stored in the same commit as the session.
	Note []byte
}

// Session is a snapshot: changing it changes nothing. Everything in it survives the death of
// the process, except a seal that the store keeps in memory (see Store.Move).
type Session struct {
	ID SessionID
	Spec
	State State
	// Gen is the fence: it grows with each seal, each reopening and each Drop, by any amount.
	// Rev grows with each change at all.
	Gen, Rev uint64
	// Received is coalesced and sorted. EntryCount is the number of its entries.
	Received   []Range
	EntryCount int
	// Dropped are the latest Drops, oldest first. With them a caller that derived something from
	// received bytes can tell whether it is stale (see Stale). Their number is bounded; older ones
	// are folded into a wider, newer one.
	Dropped []Dropped
	// Began and LastSeen are wall-clock times, for people. Ends is when the time to live will have
	// passed if nothing more arrives; zero once the session has ended. Stores leave Ends zero: the
	// Service computes it.
	// The longest life is part of it: Ends is the earlier of the two.
	Began, LastSeen, Ends time.Time
	// Seen is the engine's running time, in ms, from which the time to live counts: that of the
	// last touch of the session, or the last one with which the session ends by its longest life.
	// See Service.TickTTL.
	Seen int64
	// Start is the running time, in ms, at the begin. It is 0 if the session was begun without a
	// Config.MaxAge; the next change of a Service that has one then sets it, to the Seen of before.
	Start int64
}

// Dropped says that the Drop which moved the session to Gen forgot the bytes of Range.
type Dropped struct {
	Gen uint64
	Range
}

// Bytes is the number of bytes received.
func (s *Session) Bytes() int64 { return Total(s.Received) }

// Missing lists what is not received, in order, at most max ranges of it (0: all). While
// the length is unknown only the gaps below the last received byte count.
func (s *Session) Missing(max int) []Range {
	end := s.BytesExpected
	if end < 0 {
		end = 0
		if n := len(s.Received); n > 0 {
			end = s.Received[n-1].End
		}
	}
	return Gaps(s.Received, Range{0, end}, max)
}

// PageBytes is about how many bytes of sessions a page has at most. A page always has one session,
// however large.
const PageBytes = 256 << 10

// Size is about how many bytes a session takes in memory.
func (s *Session) Size() int {
	return 512 + 16*(len(s.Received)+len(s.Dropped)) + len(s.Note) + len(s.Owner) + len(s.Idem)
}

// Chunks is the number of chunks, or Unknown.
func (s *Session) Chunks() int64 {
	if s.BytesExpected < 0 {
		return Unknown
	}
	return (s.BytesExpected + s.ChunkSize - 1) / s.ChunkSize
}

// Prefix is the number of bytes that were received without a gap from 0 on.
func (s *Session) Prefix() int64 {
	if len(s.Received) == 0 || s.Received[0].Off != 0 {
		return 0
	}
	return s.Received[0].End
}

// Stale reports whether bytes of r were dropped after gen. Then everything that was derived from r
// while the session was at gen is void.
func (s *Session) Stale(gen uint64, r Range) bool {
	for _, d := range s.Dropped {
		if d.Gen > gen && d.Overlaps(r) {
			return true
		}
	}
	return false
}

// Entry is one recorded range; it lies within one chunk. Its note came from the sink's Commit and
// was stored in the same commit as the range.
type Entry struct {
	Range
	Note []byte
}

// EndError says which session of a Finish was refused.
type EndError struct {
	ID  SessionID
	Err error
}

func (e *EndError) Error() string { return fmt.Sprintf("session %s: %v", e.ID, e.Err) }

// Unwrap returns the reason.
func (e *EndError) Unwrap() error { return e.Err }

// ByteSink takes the bytes of one put: in order of their offsets, one call at a time, and never a
// byte that is recorded already, since the put splits around those. It may also be an [Admitter], a
// [Committer] and a [Verifier]. None of their calls overlaps another.
//
// The sink has p until WriteAt returns. If p is memory of Config.Buffers, the sink may go on
// writing from it afterwards; see [Buffer].
type ByteSink interface {
	WriteAt(p []byte, off int64) (int, error)
}

// Admitter is a sink that decides whether its put may be done.
type Admitter interface {
	// Admit gets the session, in any state, before any other error of the put can tell of it. The
	// put returns Admit's error. So a caller that may not put learns nothing of the session.
	Admit(ctx context.Context, s Session) error
	// Claim gets an open session and the bytes that the put is going to claim of it, and returns
	// how many of them, from the first on, may come. It is called before the put takes over from
	// others. It is called once more, after Admit, if the session may have changed by the time when
	// the put has its bytes to itself. From then on only the newer s counts: bytes that were known
	// earlier may have been dropped since. The put returns Claim's error.
	Claim(ctx context.Context, s Session, r Range) (most int64, err error)
}

// Committer is a sink that takes part in the record of its bytes.
type Committer interface {
	// Commit returns nil when r is as safe as the sink's owner promises. It is called once for each
	// range that will be recorded, in order, after all writes of r. note (≤ MaxEntryNote) is stored
	// with the range. If several Services share one Store, the notes of one range must differ if
	// the bytes may: an entry with the same note is taken for this put's own, whose answer was
	// lost. ctx is not cancelled with the put.
	Commit(ctx context.Context, r Range) (note []byte, err error)
	// Recorded is called when the ranges that Commit got are recorded. It is also called at the end
	// of a put that has found all its bytes recorded. s is the session as of that record.
	Recorded(s Session)
	// Undo is called at most once: at the end of a put that leaves bytes unrecorded, before another
	// put may have them. rest are the ranges of the put that are not recorded. It is not called if
	// another put has taken them over already.
	Undo(rest []Range)
}

// Verifier is a sink that compares bytes which are recorded already. It returns an error that wraps
// [ErrConflict] if p differs. If the sink is no Verifier, such bytes are read and ignored. The
// calls come among those of WriteAt, in order of offset.
type Verifier interface {
	VerifyAt(p []byte, off int64) error
}

// Buffers is memory for fast puts. It is safe for concurrent use.
type Buffers interface {
	// New returns the Buffer of one put.
	New() Buffer
}

// Buffer is the memory of one put, one block at a time. A sink that knows it may still write from
// one block while the next is filled. Then it has to make the Buffer wait for that write.
type Buffer interface {
	// Acquire returns memory for at most n bytes from off on, or nil: then the engine reads into
	// its own. The memory is not empty. Release comes before the next Acquire.
	Acquire(off, n int64) []byte
	// Release says that the engine does not use the acquired memory any more. It may be called when
	// nothing is acquired.
	Release()
	// Wait returns when none of the put's bytes is being written any more: then a newer put may
	// have them. Commit tells whether the writes went well. Any goroutine may call it.
	Wait()
}

// DeadlineReader is a reader whose blocked Read can be woken. A takeover wakes the older put's
// reader by a deadline in the past.
type DeadlineReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// End is the caller's part of an end. It runs while the sessions are sealed, and is not cancelled
// with the request. It must be idempotent by (ID, Gen). ended says that its commit has also moved
// the sessions to their end; else the Service does that. An error says that nothing was committed,
// and the sessions open again. If that is not certain the error must wrap [ErrUnknownOutcome], and
// they stay sealed.
type End func(ctx context.Context, sealed []Session) (ended bool, err error)

// SplitNote returns the note of rest, a part of e that a Drop leaves standing. An error refuses the
// Drop.
type SplitNote func(ctx context.Context, e Entry, rest Range) (note []byte, err error)

// Verified names a session for Finish and what its caller has verified of it.
type Verified struct {
	ID SessionID
	// Gen is the generation that was verified: the seal is refused with
	// ErrGenMoved if it is another by then. 0 accepts any.
	Gen uint64
	// Bytes is the whole length, which fixes an unknown one; Unknown accepts what is there.
	Bytes int64
}

// Clock tells the time. For expiry only its differences between ticks count; within a put they
// decide how much memory it gets.
type Clock interface{ Now() time.Time }

// KeepEnded is how long an ended session stays readable, in running time, if Config.Keep does not
// say.
const KeepEnded = 48 * time.Hour

// Config is what a Service needs beside its Store. A zero field takes the default in parentheses.
type Config struct {
	// TTL is how long a session lives without a byte or a touch (168 h).
	TTL time.Duration
	// MaxAge is how long a session lives at most from its begin, in running time, whatever is still
	// put into it (0: no bound). It is TTL at least. Each touch stores what it means for the
	// session: after a change of TTL or MaxAge a session that nobody touches ends as it would have.
	MaxAge time.Duration
	// MaxStep is the longest step that one TickTTL may count for (1 min).
	MaxStep time.Duration
	// Keep is how long an ended session stays readable, in running time (KeepEnded).
	Keep time.Duration
	// MaxGaps and MaxEntries bound the gaps and entries of one session (16,384; 65,536).
	MaxGaps, MaxEntries int
	// MinEntry is the smallest entry, in bytes, that PutAt records if it neither closes a gap nor
	// ends the session, as far as is known (1).
	MinEntry int64
	// Flush is how long PutAt leaves bytes that arrived unrecorded (1 s).
	Flush time.Duration
	// Small is the size in bytes of the buffer that a put begins with, and a slow one stays with
	// (32 KiB). A fast one goes on with memory of Buffers (nil: there is none), or with a buffer of
	// Large bytes (256 KiB). There are MaxLarge of these at most (64).
	Small, Large, MaxLarge int
	Buffers                Buffers
	// Wait is how long a call waits for others of its session (10 s): a put for earlier ones of the
	// same bytes, any call for a commit or an end that is under way.
	Wait time.Duration
	// Puts is how many puts may run on one session at a time, those that wait included (1,024).
	// Waiting is how many of these may wait for others of the same bytes (16). More are ErrBusy.
	Puts, Waiting int
	// States bounds the memory, in bytes, of the received ranges that all running puts keep. Only
	// sessions with many ranges count. Puts past the bound are ErrBusy (0: no bound).
	States int64
	// AtOnce is how many sessions TickTTL and ClearAll end at a time (16).
	AtOnce int
	// Merge, if set, joins two adjacent entries of one chunk into one, whose note it returns; ok is
	// false if they can't be joined.
	Merge func(a, b Entry) (note []byte, ok bool)
	// Match, if set, compares two entries of the very same range: own was streamed and committed
	// here, while another Service of the Store recorded theirs. If it returns nil both hold the
	// same bytes, and theirs stays; else the put returns its error. Without Match the put ends with
	// ErrSuperseded.
	Match func(own, theirs Entry) error
	// Clock (the system's) and Rand (crypto/rand), each safe for concurrent use.
	Clock Clock
	Rand  io.Reader
}
