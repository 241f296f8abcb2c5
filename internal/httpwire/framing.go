package httpwire

import (
	"bytes"
	"strconv"
)

// Framing reads the heads of the requests on an HTTP/1 connection as net/http will, byte by byte.
// It hands net/http no byte past the end of a request before net/http asks for more. So it always
// knows which bytes are a head. net/http believes one of several framings and forgets the others,
// while a proxy before it may have believed another: a body for one is the next request for the
// other (RFC 9112, sections 6.1 and 11.2).
//
//	head ── blank line ── Content-Length bytes ── head …
//	                  └── anything else: the last request of the connection; its end does not matter
//
// One goroutine at a time reads. The results of Last and Wrong are set before net/http has the head
// of a request, and do not change until its handler has returned.
type Framing struct {
	line  []byte // the part of it that has come
	lines int    // of the head that is read
	head  head

	left    int64  // of the body that is read
	last    bool   // no other request is taken
	ahead   []byte // bytes behind the request; net/http has not seen them
	current head   // the request that net/http has
}

// head is what matters of a request's head.
type head struct {
	otherVersion bool // not HTTP/1.1
	lengths      int  // Content-Length fields
	length       int64
	encoded      bool   // there is a Transfer-Encoding
	oddLine      bool   // some programs would end a line elsewhere
	wrong        string // why the request is refused
}

// maxLineBuffer is how many bytes of memory for lines a connection keeps.
const maxLineBuffer = 1 << 10

// Next returns bytes that have come already. It is called before more is read.
func (f *Framing) Next(p []byte) int {
	if len(f.ahead) == 0 {
		return 0
	}
	n := f.scan(p[:copy(p, f.ahead)])
	if f.ahead = f.ahead[n:]; len(f.ahead) == 0 {
		f.ahead = nil
	}
	return n
}

// Want returns how many bytes may be read at most.
func (f *Framing) Want(n int) int {
	if f.left > 0 && !f.last {
		return int(min(int64(n), f.left))
	}
	return n
}

// Take looks at bytes that were read, and returns how many of them net/http gets now.
func (f *Framing) Take(p []byte) int {
	n := f.scan(p)
	if n < len(p) {
		f.ahead = append(f.ahead, p[n:]...)
	}
	return n
}

// Last reports whether no request follows the one that net/http has, since its end is in doubt.
func (f *Framing) Last() bool { return f.last }

// Wrong says why the request that net/http has must be refused; "": it must not.
func (f *Framing) Wrong() string { return f.current.wrong }

// scan follows p to the end of the request, and returns how far that is.
func (f *Framing) scan(p []byte) int {
	if f.last {
		return len(p)
	}
	if f.left > 0 {
		f.left -= int64(len(p)) // Want has bounded what was read; of bytes that were ahead, the rest follows
		if f.left < 0 {
			n := len(p) + int(f.left)
			f.left = 0
			return n
		}
		return len(p)
	}
	for i := 0; i < len(p); {
		end := bytes.IndexByte(p[i:], '\n')
		part := p[i:]
		if end >= 0 {
			part = part[:end]
		}
		f.line = append(f.line, part...)
		if i += len(part); end < 0 {
			break
		}
		i++
		if f.endLine() {
			if rest := int64(len(p) - i); !f.last && rest > f.left {
				i, f.left = i+int(f.left), 0
				return i
			} else if !f.last {
				f.left -= rest
			}
			return len(p)
		}
	}
	return len(p)
}

// endLine takes one line, and reports whether it ends the head.
func (f *Framing) endLine() bool {
	h := &f.head
	line, cr := bytes.CutSuffix(f.line, []byte("\r"))
	if f.line = f.line[:0]; cap(f.line) > maxLineBuffer {
		f.line = nil
	}
	if f.lines == 0 && len(line) == 0 {
		return false // a blank line before a request is skipped (RFC 9112, section 2.2)
	}
	h.oddLine = h.oddLine || !cr
	if f.lines++; f.lines == 1 {
		h.otherVersion = !bytes.HasSuffix(line, []byte(" HTTP/1.1"))
		h.oddLine = h.oddLine || bytes.HasPrefix(line, []byte("CONNECT "))
		return false
	}
	if len(line) > 0 {
		h.field(line)
		return false
	}
	switch {
	case h.wrong != "":
	case h.encoded && h.otherVersion:
		h.wrong = "a request of HTTP/1.0 has no Transfer-Encoding"
	case h.encoded && h.lengths > 0:
		h.wrong = "a request has a Content-Length or a Transfer-Encoding, and not both"
	case h.lengths > 1:
		h.wrong = "a request has one Content-Length"
	}
	f.last = h.wrong != "" || h.otherVersion || h.oddLine || h.encoded
	f.left, f.current, f.head, f.lines = h.length, *h, head{}, 0
	return true
}

func (h *head) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.Trim(value, " \t")
	switch trimmed := bytes.TrimRight(name, " \t"); {
	case line[0] == ' ' || line[0] == '\t':
		h.wrong = "a field of the head goes on in another line"
	case bytes.EqualFold(trimmed, []byte("Content-Length")):
		h.lengths++
		var err error
		if h.length, err = strconv.ParseInt(string(value), 10, 64); err != nil || value[0] < '0' || value[0] > '9' {
			h.wrong = "Content-Length is no number"
		}
	case bytes.EqualFold(trimmed, []byte("Transfer-Encoding")):
		h.encoded = true
	}
}
