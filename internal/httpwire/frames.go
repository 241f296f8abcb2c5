package httpwire

import "encoding/binary"

// The types of frames that matter here (RFC 9113, section 6).
const (
	FrameData         = 0x0
	FrameHeaders      = 0x1
	FrameRSTStream    = 0x3
	FrameGoAway       = 0x7
	FrameWindowUpdate = 0x8
	FrameContinuation = 0x9
)

const (
	// FlagEndStream is a flag of DATA and HEADERS.
	FlagEndStream = 0x1
	// FlagEndHeaders is a flag of HEADERS and CONTINUATION.
	FlagEndHeaders = 0x4
)

// Preface checks whether a client begins as on HTTP/2 (RFC 9113, section 3.4).
type Preface struct {
	have int // bytes of it that have come
	not  bool
}

// Take looks at bytes that have come, and returns the rest, which is no part of a preface.
func (f *Preface) Take(p []byte) (rest []byte) {
	for !f.not && f.have < len(preface) && len(p) > 0 {
		f.not = p[0] != preface[f.have]
		f.have, p = f.have+1, p[1:]
	}
	return p
}

// Whole reports whether the whole preface has come. Frames follow it.
func (f *Preface) Whole() bool { return !f.not && f.have == len(preface) }

// Credit reads the payload of a WINDOW_UPDATE, which may come in parts (RFC 9113, section 6.9).
type Credit struct {
	word [4]byte
	have int
}

// Take looks at a part of the payload. With the last part it returns the bytes of credit, and true.
func (c *Credit) Take(payload []byte) (bytes int64, whole bool) {
	if c.have += copy(c.word[c.have:], payload); c.have < len(c.word) {
		return 0, false
	}
	c.have = 0
	return int64(binary.BigEndian.Uint32(c.word[:])), true
}

// GoAway makes a GOAWAY frame without an error (RFC 9113, section 6.8). It names the newest stream
// that has come.
func GoAway(last uint32) []byte {
	const noError = 0
	frame := []byte{0, 0, 8, FrameGoAway, 0, 0, 0, 0, 0}
	frame = binary.BigEndian.AppendUint32(frame, last)
	return binary.BigEndian.AppendUint32(frame, noError)
}

// Frames finds the frames of one direction (RFC 9113, section 4.1):
//
//	length 24 │ type 8 │ flags 8 │ stream 32 │ payload …
type Frames struct {
	head  [9]byte
	have  int  // of head
	left  int  // of the payload
	block bool // the next frame continues the fields of a head
}

// Open reports whether anything except DATA is under way: a frame, or a head that is split into
// several.
func (f *Frames) Open() bool {
	return f.block || f.have > 0 && (f.have < len(f.head) || f.head[3] != FrameData)
}

// Each calls begun for every frame that begins, once its own head is there. It calls part for every
// payload in p, or as much of it as p has.
func (f *Frames) Each(
	p []byte,
	begun func(kind byte, stream uint32, length int, flags byte),
	part func(kind byte, stream uint32, payload []byte),
) {
	for len(p) > 0 {
		if f.have < len(f.head) {
			n := copy(f.head[f.have:], p)
			if f.have, p = f.have+n, p[n:]; f.have < len(f.head) {
				return
			}
			f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			if kind := f.head[3]; kind == FrameHeaders || kind == FrameContinuation {
				f.block = f.head[4]&FlagEndHeaders == 0
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

// stream returns the frame's stream.
func (f *Frames) stream() uint32 { return binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1) }
