package api

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"sluice/internal/httpwire"
)

// On HTTP/2 net/http keeps in its own memory what a client has sent and the handler has not read
// yet. The flow-control windows that the client gets bound it. So the windows decide how fast one
// upload can be over a long way, and how much memory it takes if the disk is slower than the
// network:
//
//	client ──▶ kernel ──▶ conn.Read ──▶ net/http's buffers ──▶ handler ──▶ disk
//	             ╰─ held here while too many bytes are unread
//
// docs/adr/0012 has the figures.
const (
	// streamWindow fills 1 Gbit/s over 100 ms (12.5 MB), and leaves some for credit that is on its
	// way.
	streamWindow = 16 << 20
	// connWindow keeps a connection moving while three of its streams have used up their windows
	// and nobody reads them.
	connWindow = 4 * streamWindow
	// maxFrame is the longest frame. net/http allocates memory for a whole frame when its first 9
	// bytes have come, and keeps it as long as the connection lives.
	maxFrame = 16 << 10
	// maxUnread bounds the unread bytes of all connections. Each connection may have maxUnreadEach
	// beside it (or less if the bound is small), and one frame: a connection with no more than that
	// always goes on.
	maxUnread     = 128 << 20
	maxUnreadEach = 32 << 10
)

// flowControl is the server's side of HTTP/2. A client that takes nothing for the time stuck is
// taken for gone.
func flowControl(stuck time.Duration, streams int) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: streams, MaxReadFrameSize: maxFrame, WriteByteTimeout: stuck,
		MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connWindow,
	}
}

// unreadBytes counts the bytes of bodies that have come on HTTP/2 and that no handler has read,
// over all connections. While there are more than max, the server does not read from connections
// with more than each of them. Their clients wait for TCP, as on HTTP/1.1.
type unreadBytes struct {
	max, each int64

	mu    sync.Mutex
	freed sync.Cond // signals fewer bytes, or a connection less
	bytes int64
}

func newUnreadBytes(most int64) *unreadBytes {
	b := &unreadBytes{max: most, each: min(maxUnreadEach, max(most/2048, 1))}
	b.freed.L = &b.mu
	return b
}

// size returns the count in bytes.
func (u *unreadBytes) size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes
}

// flowMeter is one connection's part of the unread bytes. It is read off the wire: DATA frames add
// to it. The credit that net/http gives back for the connection says which bytes were read or
// discarded (RFC 9113, sections 5.2 and 6.9). On HTTP/1.1 flowMeter does nothing.
//
// One goroutine reads the connection, one at a time writes it, and any may close it.
type flowMeter struct {
	shared  *unreadBytes
	streams streams

	preface   httpwire.Preface
	in, out   httpwire.Frames
	credit    httpwire.Credit // the one that is being written
	windowSet bool            // the first credit is out; it only widens the window to connWindow

	// shared.mu guards these.
	unread int64
	closed bool
}

var errFlow = errors.New("the client has sent more than HTTP/2's flow control let it")

func (m *flowMeter) isHTTP2() bool { return m.preface.Whole() }

// waitToRead blocks a Read while all connections have too many unread bytes and this one has a good
// part of them, or while net/http has enough of its streams.
func (m *flowMeter) waitToRead() {
	if !m.isHTTP2() {
		return
	}
	m.streams.waitToRead()
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	for m.shared.bytes > m.shared.max && m.unread > m.shared.each && !m.closed {
		m.shared.freed.Wait()
	}
}

// received counts what was read. It returns errFlow if that is more than the client may send.
func (m *flowMeter) received(p []byte) error {
	p = m.preface.Take(p)
	if !m.isHTTP2() {
		return nil
	}
	var n int64
	m.in.Each(p, m.streams.frameReceived, func(kind byte, _ uint32, payload []byte) {
		if kind == httpwire.FrameData {
			n += int64(len(payload))
		}
	})
	if n > 0 && m.add(n) > connWindow {
		return errFlow
	}
	return nil
}

// sending counts what is about to be written.
func (m *flowMeter) sending(p []byte) {
	if !m.isHTTP2() {
		return
	}
	ends := func(kind byte, stream uint32, length int, flags byte) {
		if kind == httpwire.FrameData {
			m.streams.dataSent(length)
		}
		switch {
		case kind == httpwire.FrameRSTStream, kind <= httpwire.FrameHeaders && flags&httpwire.FlagEndStream != 0:
			m.streams.streamEnded(stream)
		case kind == httpwire.FrameGoAway:
			m.streams.takeNoMore()
		}
	}
	m.out.Each(p, ends, func(kind byte, stream uint32, payload []byte) {
		if kind != httpwire.FrameWindowUpdate || stream != 0 {
			return
		}
		credit, whole := m.credit.Take(payload)
		if !whole {
			return
		}
		if m.windowSet {
			m.add(-credit)
		}
		m.windowSet = true
	})
}

// add changes the connection's part, and returns it.
func (m *flowMeter) add(n int64) int64 {
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	if m.closed {
		return 0
	}
	if n < 0 && m.shared.bytes > m.shared.max {
		m.shared.freed.Broadcast()
	}
	m.unread, m.shared.bytes = m.unread+n, m.shared.bytes+n
	return m.unread
}

// close removes the connection's part.
func (m *flowMeter) close() {
	m.streams.close()
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	m.shared.bytes -= m.unread
	m.unread, m.closed = 0, true
	m.shared.freed.Broadcast()
}
