package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/internal/httpwire"
)

// streamsOf returns how many streams a connection may have: as many as a principal has requests,
// within usual numbers (RFC 9113, section 6.5.2).
func streamsOf(requests int64) int { return int(min(max(requests/2, 100), 250)) }

// From its head on, a stream of HTTP/2 costs net/http memory and a goroutine, before any handler
// can refuse its request. So the heads are let in one by one, as the handlers get to them:
//
//	client ──▶ conn.Read ──▶ net/http ──▶ guard ──▶ a slot among the running requests
//	             ╰─ the next head waits here       ╰──▶ refused: a head alone, which needs no window
//
// A stream is pending from its head until its request has a slot among the running requests or
// among the refused that wait for their clients, or until its answer is out. So a pending stream
// waits for the server, or for a client that takes nothing at all. It never waits for a window: the
// frame that widens the window may come behind the head that waits.

const (
	// maxPending is how many streams of one connection may be pending. It keeps the processors
	// busy.
	maxPending = 8
	// maxFrames is how many frames are read of a connection while one write to it stands still.
	// net/http answers most of them with frames that wait in its memory.
	maxFrames = 64
	// longFrame is the length in bytes from which DATA of an open stream does not count towards
	// maxFrames: flowMeter counts it.
	longFrame = 1 << 10
	// A frame that costs the server more than it brings costs units: WINDOW_UPDATE, RST_STREAM of
	// no open stream and short DATA one; RST_STREAM of an open stream fifty; all else that has no
	// head, and DATA of no open stream, ten. Longer DATA, and the last of a stream, cost nothing. A
	// long head costs ten for each KiB past longHead. A connection has
	// connUnits a second. It has one more for each bytesPerUnit bytes that it is sent, since it
	// must acknowledge them. After these it uses units that all connections share.
	sharedUnits  = 100_000
	connUnits    = 1_000
	answerUnits  = 10
	resetUnits   = 50
	longHead     = 2 << 10
	bytesPerUnit = 2 << 10
	// maxCredit is how many bytes give units at most.
	maxCredit = 16 << 20
	// tinyData is the length in bytes up to which DATA is a small frame.
	tinyData = 64
	// maxPause is how long a connection waits for its units at most.
	maxPause = time.Second
)

// pendingStreams counts the pending streams of all connections. Past max, a connection may have
// one.
type pendingStreams struct {
	max     int
	streams int // that a connection may have
	units   *rate.Limiter
	now     func() time.Time

	mu      sync.Mutex
	count   int
	waiting map[*streams]struct{} // connections whose Read waits
}

func newPendingStreams(most, each int, now func() time.Time) *pendingStreams {
	return &pendingStreams{
		max: most, streams: each, now: now, units: rate.NewLimiter(sharedUnits, sharedUnits),
		waiting: map[*streams]struct{}{},
	}
}

// streams are those of one connection.
type streams struct {
	shared *pendingStreams

	// shared.mu guards these.
	open        map[uint32]struct{} // neither side has ended them
	newest      uint32              // the highest id that has come
	handlers    int                 // that have begun and not returned
	slots       int                 // that its requests hold
	pending     int                 // its part of shared.count
	writing     bool                // a write is under way
	framesRead  int                 // read since the last write ended
	dataNext    bool                // the next frame is DATA
	leaving     bool                // net/http takes no new stream
	units       *rate.Limiter       // its own; nil: none was needed
	credit      int                 // bytes of DATA that were sent and have given no unit yet
	pausedUntil time.Time           // until when it is not read from, since it lacks units
	closed      bool
	readable    sync.Cond // signals that it may be read from again
}

// update changes the connection's part, and counts it anew.
func (s *streams) update(change func()) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	change()
	s.recount()
}

// recount counts the connection's pending streams. The client may end a stream while its handler
// runs. shared.mu is held.
func (s *streams) recount() {
	now := 0
	if !s.closed {
		now = max(len(s.open), s.handlers) - s.slots
	}
	wasOver := s.shared.count > s.shared.max
	s.shared.count += now - s.pending
	s.pending = now
	if wasOver && s.shared.count <= s.shared.max {
		for other := range s.shared.waiting {
			other.readable.Signal()
		}
	} else if len(s.shared.waiting) > 0 {
		s.readable.Signal()
	}
}

// frameReceived notes the header of a frame that the client sends.
func (s *streams) frameReceived(kind byte, stream uint32, length int, flags byte) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.charge(s.cost(kind, stream, length, flags))
	s.dataNext = kind == httpwire.FrameData && length > 0
	if s.writing {
		_, open := s.open[stream]
		if kind != httpwire.FrameData || length < longFrame || !open {
			s.framesRead++
		}
	}
	switch {
	case kind == httpwire.FrameHeaders && stream > s.newest && !s.leaving:
		if s.open == nil {
			s.open = map[uint32]struct{}{}
		}
		s.newest = stream
		s.open[stream] = struct{}{}
	case kind == httpwire.FrameRSTStream:
		delete(s.open, stream)
	default:
		return
	}
	s.recount()
}

// cost returns the units of a frame that the client sends. shared.mu is held.
func (s *streams) cost(kind byte, stream uint32, length int, flags byte) int {
	_, open := s.open[stream]
	switch {
	case kind == httpwire.FrameHeaders, kind == httpwire.FrameContinuation:
		return answerUnits * (max(length-longHead, 0) >> 10)
	case kind == httpwire.FrameData && open && (length > tinyData || flags&httpwire.FlagEndStream != 0):
		return 0
	case kind == httpwire.FrameData && open, kind == httpwire.FrameRSTStream && !open,
		kind == httpwire.FrameWindowUpdate:
		return 1
	case kind == httpwire.FrameRSTStream:
		return resetUnits
	}
	return answerUnits
}

// charge takes a frame's units, or makes the connection wait for them. shared.mu is held.
func (s *streams) charge(n int) {
	if n == 0 {
		return
	}
	taken := s.credit / bytesPerUnit
	if s.credit -= min(n, taken) * bytesPerUnit; n <= taken {
		return
	}
	now := s.shared.now()
	if s.units == nil {
		s.units = rate.NewLimiter(connUnits, connUnits)
	}
	if s.units.AllowN(now, n) {
		return
	}
	if d := min(s.shared.units.ReserveN(now, n).DelayFrom(now), maxPause); d > 0 {
		s.pausedUntil = now.Add(d)
		time.AfterFunc(d, s.wake)
	}
}

// wake lets a waiting Read check again.
func (s *streams) wake() {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.readable.Signal()
}

// streamEnded notes the head of a frame by which the server ends a stream.
func (s *streams) streamEnded(stream uint32) { s.update(func() { delete(s.open, stream) }) }

// dataSent notes that n bytes of DATA are about to be sent.
func (s *streams) dataSent(n int) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.credit = min(s.credit+n, maxCredit)
}

// takeNoMore notes that net/http begins no further stream. It discards the heads of new ones, and
// answers none.
func (s *streams) takeNoMore() { s.update(func() { s.leaving = true }) }

// setWriting notes that a write begins or ends.
func (s *streams) setWriting(begins bool) { s.update(func() { s.writing, s.framesRead = begins, 0 }) }

// addHandlers notes that a handler begins (1) or returns (-1).
func (s *streams) addHandlers(n int) { s.update(func() { s.handlers += n }) }

// addSlots notes that a request has got a slot (1) or given it back (-1).
func (s *streams) addSlots(n int) { s.update(func() { s.slots += n }) }

// waitToRead blocks a Read while net/http has enough of the connection.
func (s *streams) waitToRead() {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	for s.mustWait() {
		s.readable.L = &s.shared.mu
		s.shared.waiting[s] = struct{}{}
		s.readable.Wait()
		delete(s.shared.waiting, s)
	}
}

// mustWait reports whether the connection must not be read from. shared.mu is held.
func (s *streams) mustWait() bool {
	switch {
	case s.closed:
		return false
	case s.pausedUntil.After(s.shared.now()):
		return true
	case s.writing && s.framesRead > maxFrames:
		return true
	case s.handlers > len(s.open) && s.handlers > s.shared.streams-maxPending:
		return true // the client has reset their streams; net/http would keep the next ones for later
	}
	if s.dataNext && s.pending > 0 && s.shared.count > s.shared.max/4 {
		return !s.leaving // net/http would make buffers for bodies that are about to be refused
	}
	return !s.leaving && (s.pending > maxPending || s.pending > 1 && s.shared.count > s.shared.max)
}

// close removes the connection's part.
func (s *streams) close() {
	s.update(func() { s.closed = true })
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.readable.Signal()
}
