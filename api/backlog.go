package api

import (
	"encoding/binary"
	"errors"
	"net/http"
	"sync"
	"time"
)

// On HTTP/2 net/http keeps in its own memory what a client has sent and the handler has not read
// yet, up to the flow-control windows that the client was given. So these say how fast one upload
// can be over a long way, and how much memory it takes where the disk is slower than the network:
//
//	client ──▶ kernel ──▶ conn.Read ──▶ net/http's buffers ──▶ handler ──▶ disk
//	             ╰─ held here while the backlog is full
//
// docs/adr/0012 has the figures.
const (
	// streamWindow fills 1 Gbit/s over 100 ms (12.5 MB), with some to spare for credit that is on
	// its way.
	streamWindow = 16 << 20
	// connWindow keeps a connection moving while three of its streams are full and nobody reads
	// them.
	connWindow = 4 * streamWindow
	// maxFrame is the longest frame. net/http makes room for a whole one when its first 9 bytes
	// have come, and keeps it for as long as the connection lives.
	maxFrame = 16 << 10
	// mostBacklog bounds the backlog of all connections, but for lowBacklog, or less where the
	// bound is less, and a frame of each: with no more than that a connection always goes on.
	mostBacklog = 128 << 20
	lowBacklog  = 32 << 10
)

// flowControl is the server's side of HTTP/2. A client that takes nothing for stuck is gone.
func flowControl(stuck time.Duration, streams int) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: streams, MaxReadFrameSize: maxFrame, WriteByteTimeout: stuck,
		MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connWindow,
	}
}

// backlog counts the bytes of bodies that have come on HTTP/2 and that no handler has read, over
// all connections. While there are more than most, those that have a good part of them are not read
// from: their clients wait for TCP, as on HTTP/1.1.
type backlog struct {
	most, low int64

	mu    sync.Mutex
	less  sync.Cond // there is less of it, or a connection less
	bytes int64
}

func newBacklog(most int64) *backlog {
	b := &backlog{most: most, low: min(lowBacklog, max(most/2048, 1))}
	b.less.L = &b.mu
	return b
}

// size is the backlog in bytes.
func (b *backlog) size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// meter is one connection's part of the backlog. It is read off the wire: DATA frames bring it, and
// the credit that net/http gives back for the connection says what was read or thrown away (RFC
// 9113, sections 5.2 and 6.9). On HTTP/1.1 it does nothing.
//
// One goroutine reads the connection, one at a time writes it, and any closes it.
type meter struct {
	all     *backlog
	streams streams

	begun   int  // how much of the preface has come
	not     bool // it is not HTTP/2
	in, out frames
	word    [4]byte // of the credit that is being written
	have    int
	opened  bool // the first credit, which only widens the window to connWindow, is out

	// all.mu guards these.
	unread int64
	gone   bool
}

// preface is how HTTP/2 begins (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	dataFrame   = 0x0
	headFrame   = 0x1 // HEADERS
	resetFrame  = 0x3 // RST_STREAM
	leaveFrame  = 0x7 // GOAWAY
	creditFrame = 0x8 // WINDOW_UPDATE
	moreFrame   = 0x9 // CONTINUATION

	endStream  = 0x1 // a flag of DATA and HEADERS
	endHeaders = 0x4 // a flag of the two that have fields
)

var errFlow = errors.New("the client has sent more than HTTP/2's flow control let it")

func (m *meter) on() bool { return !m.not && m.begun == len(preface) }

// wait holds a Read while the backlog is full and a good part of it is this connection's, or
// net/http has enough of its streams.
func (m *meter) wait() {
	if !m.on() {
		return
	}
	m.streams.wait()
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	for m.all.bytes > m.all.most && m.unread > m.all.low && !m.gone {
		m.all.less.Wait()
	}
}

// came counts what was read. It gives errFlow where that is more than the client may send.
func (m *meter) came(p []byte) error {
	for !m.not && m.begun < len(preface) && len(p) > 0 {
		m.not = p[0] != preface[m.begun]
		m.begun, p = m.begun+1, p[1:]
	}
	if !m.on() {
		return nil
	}
	var n int64
	m.in.each(p, m.streams.began, func(kind byte, _ uint32, payload []byte) {
		if kind == dataFrame {
			n += int64(len(payload))
		}
	})
	if n > 0 && m.add(n) > connWindow {
		return errFlow
	}
	return nil
}

// writes counts what is about to be written.
func (m *meter) writes(p []byte) {
	if !m.on() {
		return
	}
	ends := func(kind byte, stream uint32, length int, _ byte) {
		if kind == dataFrame {
			m.streams.sends(length)
		}
		switch {
		case kind == resetFrame, kind <= headFrame && m.out.head[4]&endStream != 0:
			m.streams.ended(stream)
		case kind == leaveFrame:
			m.streams.leaves()
		}
	}
	m.out.each(p, ends, func(kind byte, stream uint32, payload []byte) {
		if kind != creditFrame || stream != 0 {
			return
		}
		if m.have += copy(m.word[m.have:], payload); m.have < len(m.word) {
			return
		}
		if m.opened {
			m.add(-int64(binary.BigEndian.Uint32(m.word[:])))
		}
		m.have, m.opened = 0, true
	})
}

// add changes the connection's part, and gives it.
func (m *meter) add(n int64) int64 {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.gone {
		return 0
	}
	if n < 0 && m.all.bytes > m.all.most {
		m.all.less.Broadcast()
	}
	m.unread, m.all.bytes = m.unread+n, m.all.bytes+n
	return m.unread
}

// close takes the connection's part away.
func (m *meter) close() {
	m.streams.close()
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.all.bytes -= m.unread
	m.unread, m.gone = 0, true
	m.all.less.Broadcast()
}

// frames finds the frames of one direction (RFC 9113, section 4.1):
//
//	length 24 │ type 8 │ flags 8 │ stream 32 │ payload …
type frames struct {
	head  [9]byte
	have  int  // of head
	left  int  // of the payload
	block bool // the fields of a head go on in the next frame
}

// open reports whether something else than DATA is under way: a frame, or a head that is split into
// several.
func (f *frames) open() bool {
	return f.block || f.have > 0 && (f.have < len(f.head) || f.head[3] != dataFrame)
}

// each calls begun for every frame that begins, when its own head is there, and part for every
// payload in p, or as much of it as p has.
func (f *frames) each(p []byte, begun func(kind byte, stream uint32, length int, flags byte), part func(kind byte, stream uint32, payload []byte)) {
	for len(p) > 0 {
		if f.have < len(f.head) {
			n := copy(f.head[f.have:], p)
			if f.have, p = f.have+n, p[n:]; f.have < len(f.head) {
				return
			}
			f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			if kind := f.head[3]; kind == headFrame || kind == moreFrame {
				f.block = f.head[4]&endHeaders == 0
			}
			begun(f.head[3], f.stream(), f.left, f.head[4])
		}
		n := min(f.left, len(p))
		if n > 0 {
			part(f.head[3], f.stream(), p[:n])
		}
		if f.left, p = f.left-n, p[n:]; f.left == 0 {
			f.have = 0
		}
	}
}

// stream is that of the frame.
func (f *frames) stream() uint32 { return binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1) }
