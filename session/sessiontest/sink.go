package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"sluice/session"
)

// disk has the bytes of the model's puts: a place for each session and Service. The note of an
// entry is the name of its place.
type disk struct {
	mu       sync.Mutex
	places   map[string]*place
	failures []string // errors of sinks
	buffers  []*lateBuffer
}

// lateBuffer is a session.Buffer whose bytes are written as late as possible.
type lateBuffer struct {
	disk *disk
	mem  [5]byte
	has  bool // the engine has it

	mu      sync.Mutex
	pending func() // the write that is not done yet; nil: none
}

// New implements session.Buffers.
func (d *disk) New() session.Buffer {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := &lateBuffer{disk: d}
	d.buffers = append(d.buffers, l)
	return l
}

// Acquire implements session.Buffer.
func (l *lateBuffer) Acquire(_, n int64) []byte {
	if l.Wait(); n < 2 {
		return nil
	}
	if l.has {
		panic("acquired twice")
	}
	l.has = true
	return l.mem[:]
}

// Release implements session.Buffer.
func (l *lateBuffer) Release() { l.has = false }

// Wait implements session.Buffer.
func (l *lateBuffer) Wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil {
		l.pending()
		l.pending = nil
	}
}

// bufferOf returns the Buffer that b is a part of, or nil.
func (d *disk) bufferOf(b []byte) *lateBuffer {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.buffers {
		if at := len(l.mem) - cap(b); len(b) > 0 && at >= 0 && &l.mem[at] == &b[0] {
			return l
		}
	}
	return nil
}

// place holds bytes at their offsets. Recorded bytes are never written again.
type place struct {
	bytes    [maxBytes]byte
	recorded []session.Range
}

// place returns the place of that name. The disk is locked.
func (d *disk) place(name string) *place {
	if d.places[name] == nil {
		d.places[name] = &place{}
	}
	return d.places[name]
}

// dropped allows the bytes of a drop to be written again.
func (d *disk) dropped(id session.SessionID, r session.Range) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, p := range d.places {
		var of session.SessionID
		if _, _ = fmt.Sscanf(name, "%d/", &of); of == id {
			p.recorded = session.Sub(p.recorded, r)
		}
	}
}

// read returns the bytes of an entry.
func (d *disk) read(e session.Entry) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.place(string(e.Note)).bytes[e.Off:e.End])
}

// sink is the sink of one put.
type sink struct {
	disk    *disk
	name    string // of the place
	session session.SessionID
	store   session.Store
	done    []session.Range // committed
	closed  bool            // no more calls may come
	buffer  *lateBuffer     // of the last write; nil: it was in no Buffer
}

func (s *sink) shut() {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.closed = true
}

// wait waits for the late write.
func (s *sink) wait() {
	if s.buffer != nil {
		s.buffer.Wait()
	}
}

// WriteAt implements session.ByteSink.
func (s *sink) WriteAt(b []byte, off int64) (int, error) {
	s.wait()
	if s.buffer = s.disk.bufferOf(b); s.buffer == nil {
		return s.write(b, off)
	}
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	s.buffer.pending = func() { _, _ = s.write(b, off) }
	return len(b), nil
}

func (s *sink) write(b []byte, off int64) (int, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	p := s.disk.place(s.name)
	if r := rng(off, off+int64(len(b))); session.Touches(p.recorded, r) {
		s.disk.failures = append(
			s.disk.failures, fmt.Sprintf("recorded bytes within %v of %s are written again", r, s.name),
		)
	}
	if s.closed {
		s.disk.failures = append(s.disk.failures, fmt.Sprintf("a put that was stopped writes at %d of %s", off, s.name))
	}
	return copy(p.bytes[off:], b), nil
}

// Commit implements session.Committer.
func (s *sink) Commit(_ context.Context, r session.Range) ([]byte, error) {
	s.wait()
	s.done = append(s.done, r)
	return []byte(s.name), nil
}

// Recorded implements session.Committer.
func (s *sink) Recorded(session.Session) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	p := s.disk.place(s.name)
	for _, r := range s.done {
		p.recorded = session.Add(p.recorded, r)
	}
	s.done = nil
}

// Undo implements session.Committer.
func (s *sink) Undo([]session.Range) {}

// VerifyAt implements session.Verifier.
func (s *sink) VerifyAt(b []byte, off int64) error {
	at := rng(off, off+int64(len(b)))
	es, err := s.store.Entries(context.Background(), s.session, at, 0)
	if err != nil {
		return err
	}
	for _, e := range es {
		in := e.Intersect(at)
		if !bytes.Equal(s.disk.read(session.Entry{Range: in, Note: e.Note}), b[in.Off-off:in.End-off]) {
			return session.ErrConflict
		}
	}
	return nil
}

// match is a session.Config.Match.
func (d *disk) match(own, theirs session.Entry) error {
	if !bytes.Equal(d.read(own), d.read(theirs)) {
		return session.ErrConflict
	}
	return nil
}

// body is the body of a put: the test sends its bytes. When the engine asks for more, or has
// returned, it has taken all bytes that were sent.
type body struct {
	sent chan []byte // closed: the body ends with the error why
	why  error       // io.EOF, or a cut
	more chan struct{}
	rest []byte
}

var errCut = errors.New("the connection was cut")

func newBody() *body { return &body{sent: make(chan []byte), more: make(chan struct{})} }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		b.more <- struct{}{}
		var open bool
		if b.rest, open = <-b.sent; !open {
			return 0, b.why
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// put is a running put.
type put struct {
	on      *service
	chunk   int64 // its index, or -1 for PutAt
	off     int64
	whole   bool
	version byte
	sent    int64 // bytes
	// disturbed is set by each other call that changes the session meanwhile. From then on the put
	// may lose.
	disturbed bool

	sink      *sink
	body      *body
	wantsMore bool // the engine waits for more
	finished  chan struct{}
	n         int64
	err       error
}

// start begins the put, and returns when it waits for its body or has returned.
func (p *put) start(id session.SessionID, to *sink) {
	p.sink, p.body, p.finished = to, newBody(), make(chan struct{})
	go func() {
		defer close(p.finished)
		if p.chunk >= 0 {
			p.err = p.on.PutChunk(context.Background(), id, p.chunk, p.body, to)
		} else {
			p.n, p.err = p.on.PutAt(context.Background(), id, p.off, session.Unknown, p.body, to, p.whole)
		}
	}()
	p.wait()
}

// wait returns when the engine asks for more, or has returned.
func (p *put) wait() {
	select {
	case <-p.body.more:
		p.wantsMore = true
	case <-p.finished:
	}
}

// returned reports whether the engine has returned.
func (p *put) returned() bool {
	select {
	case <-p.finished:
		return true
	default:
		return false
	}
}

// send gives the put its next bytes: n of them, if there are so many.
func (p *put) send(n int64) {
	b := make([]byte, max(0, min(n, maxBytes-p.off-p.sent)))
	for i := range b {
		b[i] = byteOf(p.off+p.sent+int64(i), p.version)
	}
	if len(b) > 0 && p.wantsMore {
		p.sent += int64(len(b))
		p.wantsMore = false
		p.body.sent <- b
		p.wait()
	}
}

// end ends the body with an error, and waits for the answer.
func (p *put) end(why error) {
	p.body.why = why
	close(p.body.sent)
	for !p.returned() {
		p.wait()
	}
}

var (
	_ io.Reader         = (*body)(nil)
	_ session.Committer = (*sink)(nil)
	_ session.Verifier  = (*sink)(nil)
	_ session.Buffers   = (*disk)(nil)
)

// byteOf is the byte at off in a version of a session's content. It is never 0, which stands for a
// byte that is not recorded.
func byteOf(off int64, version byte) byte { return byte(1+2*off) + version }
