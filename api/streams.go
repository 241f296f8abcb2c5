package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/internal/httpwire"
)

// streamsOf is how many streams a connection may have: as many as a principal has requests, where
// that is within what is usual (RFC 9113, section 6.5.2).
func streamsOf(requests int64) int { return int(min(max(requests/2, 100), 250)) }

// A stream of HTTP/2 costs net/http memory and a goroutine from its head on, before any handler can
// refuse its request. So the heads are let in one by one, as the handlers get to them:
//
//	client ──▶ conn.Read ──▶ net/http ──▶ guard ──▶ a place among the running requests
//	             ╰─ the next head waits here       ╰──▶ refused: a head alone, which needs no window
//
// A stream is unsettled from its head until its request has a place, or one among the refused that
// wait for their clients, or its answer is out. So it waits for the server, or for a client that
// takes nothing at all; and never for a window: the frame that widens it may come behind the head
// that waits.

const (
	// mostUnsettled is how many streams of one connection may be unsettled. It keeps the processors
	// busy.
	mostUnsettled = 8
	// mostFrames is how many frames are read of a connection while one write to it stands still.
	// Most of them are answered, with frames that wait in net/http's memory.
	mostFrames = 64
	// longFrame is the length in bytes from which DATA of an open stream does not count as one of
	// these: the backlog counts it.
	longFrame = 1 << 10
	// A frame that costs the server more than it brings costs units. One that has neither a head
	// nor a part of a body costs one unit, or ten if it asks for an answer. One that takes a
	// request back costs fifty. A long head costs ten for each KiB past longHead.
	// A connection has ownUnits a second, and one unit for each creditPiece bytes that it is sent,
	// since it says that it has taken them. After these it uses units that all connections share.
	sharedUnits = 100_000
	ownUnits    = 1_000
	asksAnswer  = 10
	takesBack   = 50
	longHead    = 2 << 10
	creditPiece = 2 << 10
	// mostCredit is how many bytes of them count.
	mostCredit = 16 << 20
	// tinyData is the length in bytes up to which DATA is a small frame.
	tinyData = 64
	// mostPause is how long a connection waits for its units at most.
	mostPause = time.Second
)

// unsettled counts the streams of all connections that are unsettled. Past the bound a connection
// has one at a time.
type unsettled struct {
	most    int
	streams int // that a connection may have
	shared  *rate.Limiter
	now     func() time.Time

	mu    sync.Mutex
	count int
	held  map[*streams]struct{} // connections that are not read from
}

func newUnsettled(most, each int, now func() time.Time) *unsettled {
	return &unsettled{most: most, streams: each, now: now, shared: rate.NewLimiter(sharedUnits, sharedUnits), held: map[*streams]struct{}{}}
}

// streams are those of one connection.
type streams struct {
	all *unsettled

	// all.mu guards these.
	open     map[uint32]struct{} // neither side has ended them
	last     uint32              // the newest
	handlers int                 // that have begun and not returned
	places   int                 // that they have
	pending  int                 // its part of all.count
	writing  bool                // a write is under way
	frames   int                 // that were read since the last write ended
	body     bool                // the frame that is read next is DATA
	leaving  bool                // net/http takes no new stream
	own      *rate.Limiter       // of units; nil: none was needed
	sent     int                 // bytes of DATA for which no unit was given yet
	pause    time.Time           // until when it is not read from, for the units that are lacking
	gone     bool
	free     sync.Cond // it may be read from again
}

// change makes a change of the connection's part.
func (s *streams) change(by func()) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	by()
	s.settle()
}

// settle counts anew. The client may end a stream while its handler runs. all.mu is held.
func (s *streams) settle() {
	now := 0
	if !s.gone {
		now = max(len(s.open), s.handlers) - s.places
	}
	full := s.all.count > s.all.most
	s.all.count += now - s.pending
	s.pending = now
	if full && s.all.count <= s.all.most {
		for other := range s.all.held {
			other.free.Signal()
		}
	} else if len(s.all.held) > 0 {
		s.free.Signal()
	}
}

// began notes the head of a frame that the client sends.
func (s *streams) began(kind byte, stream uint32, length int, flags byte) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.charge(s.cost(kind, stream, length, flags))
	s.body = kind == httpwire.FrameData && length > 0
	if s.writing {
		_, open := s.open[stream]
		if kind != httpwire.FrameData || length < longFrame || !open {
			s.frames++
		}
	}
	switch {
	case kind == httpwire.FrameHeaders && stream > s.last && !s.leaving:
		if s.open == nil {
			s.open = map[uint32]struct{}{}
		}
		s.last = stream
		s.open[stream] = struct{}{}
	case kind == httpwire.FrameRSTStream:
		delete(s.open, stream)
	default:
		return
	}
	s.settle()
}

// cost gives the units of a frame that the client sends. all.mu is held.
func (s *streams) cost(kind byte, stream uint32, length int, flags byte) int {
	_, open := s.open[stream]
	switch {
	case kind == httpwire.FrameHeaders, kind == httpwire.FrameContinuation:
		return asksAnswer * (max(length-longHead, 0) >> 10)
	case kind == httpwire.FrameData && open && (length > tinyData || flags&httpwire.FlagEndStream != 0):
		return 0
	case kind == httpwire.FrameData && open, kind == httpwire.FrameRSTStream && !open, kind == httpwire.FrameWindowUpdate:
		return 1
	case kind == httpwire.FrameRSTStream:
		return takesBack
	}
	return asksAnswer
}

// charge takes a frame's units, or makes the connection wait for them. all.mu is held.
func (s *streams) charge(n int) {
	if n == 0 {
		return
	}
	taken := s.sent / creditPiece
	if s.sent -= min(n, taken) * creditPiece; n <= taken {
		return
	}
	now := s.all.now()
	if s.own == nil {
		s.own = rate.NewLimiter(ownUnits, ownUnits)
	}
	if s.own.AllowN(now, n) {
		return
	}
	if d := min(s.all.shared.ReserveN(now, n).DelayFrom(now), mostPause); d > 0 {
		s.pause = now.Add(d)
		time.AfterFunc(d, s.wake)
	}
}

// wake lets a Read look again.
func (s *streams) wake() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.free.Signal()
}

// ended notes the head of a frame of ours that ends a stream.
func (s *streams) ended(stream uint32) { s.change(func() { delete(s.open, stream) }) }

// sends notes that DATA of so many bytes is about to be sent.
func (s *streams) sends(n int) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.sent = min(s.sent+n, mostCredit)
}

// leaves notes that net/http begins no further stream: what it throws away is answered by nobody.
func (s *streams) leaves() { s.change(func() { s.leaving = true }) }

// writes notes that a write begins or ends.
func (s *streams) writes(begins bool) { s.change(func() { s.writing, s.frames = begins, 0 }) }

// handles notes that a handler begins (1) or returns (-1).
func (s *streams) handles(n int) { s.change(func() { s.handlers += n }) }

// placed notes that a request gets a place (1) or gives it back (-1).
func (s *streams) placed(n int) { s.change(func() { s.places += n }) }

// wait holds a Read for as long as net/http has enough of the connection.
func (s *streams) wait() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	for s.enough() {
		s.free.L = &s.all.mu
		s.all.held[s] = struct{}{}
		s.free.Wait()
		delete(s.all.held, s)
	}
}

// enough reports whether the connection is not to be read from. all.mu is held.
func (s *streams) enough() bool {
	switch {
	case s.gone:
		return false
	case s.pause.After(s.all.now()):
		return true
	case s.writing && s.frames > mostFrames:
		return true
	case s.handlers > len(s.open) && s.handlers > s.all.streams-mostUnsettled:
		return true // of streams that the client has reset; net/http would keep those that follow for later
	}
	if s.body && s.pending > 0 && s.all.count > s.all.most/4 {
		return !s.leaving // net/http would make room for the bodies of those that are about to be refused
	}
	return !s.leaving && (s.pending > mostUnsettled || s.pending > 1 && s.all.count > s.all.most)
}

// close takes the connection's part away.
func (s *streams) close() {
	s.change(func() { s.gone = true })
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.free.Signal()
}
