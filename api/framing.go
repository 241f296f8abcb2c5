package api

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"
)

// framing is what the head of a request says of where its body ends. Of a request that has a Content-Length and a Transfer-Encoding net/http believes the latter and
// forgets the former, while a proxy before us may have believed the other: what is a body to one is the next request to the other (RFC 9112,
// sections 6.1 and 11.2). So the connection is looked at as well.
//
//	between requests ── first line ── fields ── blank line ── body …
//	        └────────── each byte is seen once ───────┘
type framing struct {
	mu      sync.Mutex
	on      bool // in a head
	line    []byte
	lines   int
	first   []byte // the request line, or how it begins
	length  bool   // there is a Content-Length
	encoded bool   // there is a Transfer-Encoding
	whole   bool   // the blank line was seen
}

// longestLine is how much of a line is kept: enough for the names of the two fields, and to tell a request line from what it is not.
const longestLine = 64

// next begins the head of another request.
func (f *framing) next() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.line, f.lines, f.first = true, f.line[:0], 0, f.first[:0]
	f.length, f.encoded, f.whole = false, false, false
}

// saw takes what was read from the connection.
func (f *framing) saw(p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.on && len(p) > 0 {
		part, rest, ends := bytes.Cut(p, []byte("\n"))
		f.line = append(f.line, part[:min(len(part), longestLine-len(f.line))]...)
		if p = rest; ends {
			f.ended(bytes.TrimSuffix(f.line, []byte("\r")))
			f.line = f.line[:0]
		}
	}
}

// ended takes one line.
func (f *framing) ended(line []byte) {
	f.lines++
	name, _, _ := bytes.Cut(line, []byte(":"))
	switch {
	case f.lines == 1 && len(line) == 0:
		f.lines = 0 // a blank line before a request is skipped (RFC 9112, section 2.2)
	case f.lines == 1:
		f.first = append(f.first[:0], line...)
	case len(line) == 0:
		f.on, f.whole = false, true
	case bytes.EqualFold(name, []byte("Content-Length")):
		f.length = true
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		f.encoded = true
	}
}

// of says whether the head that was seen is this request's, and whether it has both fields. The first byte may be missing: net/http reads one ahead, to
// learn that a client has gone.
func (f *framing) of(r *http.Request) (seen, both bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := r.Method + " " + r.RequestURI + " " + r.Proto
	first := func(s string) string { return s[:min(len(s), longestLine)] }
	seen = f.whole && (string(f.first) == first(line) || string(f.first) == first(line[1:]))
	return seen, f.length && f.encoded
}

// ambiguous refuses a request whose body ends in two places. Where its head was not seen, since it came along with the end of the one before, the connection
// closes behind the answer: then nothing can be smuggled behind it.
func (c *call) ambiguous() error {
	f, ok := c.Context().Value(framingKey{}).(*framing)
	if !ok || c.ProtoMajor != 1 || len(c.TransferEncoding) == 0 {
		return nil
	}
	seen, both := f.of(c.Request)
	if !seen || both {
		c.closing()
	}
	if both && seen {
		return &denial{code: CodeInvalidArgument, detail: "a request has a Content-Length or a Transfer-Encoding, and not both"}
	}
	return nil
}

type framingKey struct{}

// withFraming is an http.Server's ConnContext.
func withFraming(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, framingKey{}, &c.framing)
	}
	return ctx
}

// nextHead is an http.Server's ConnState.
func nextHead(c net.Conn, state http.ConnState) {
	if c, ok := c.(*conn); ok && (state == http.StateNew || state == http.StateIdle) {
		c.framing.next()
	}
}
