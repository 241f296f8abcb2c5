package sessiontest

import (
	"context"
	"errors"
	"io"
	"slices"

	"sluice/session"
)

// newPut draws a put into a session: of a chunk, or of bytes from some offset on.
func (w *world) newPut(chunk bool) (*known, *put) {
	k := w.pick()
	if len(k.puts) == 3 {
		w.t.Skip("enough puts")
	}
	// This is long enough after the put before, so that it may take over.
	w.now = w.now.Add(11e9)
	p := &put{on: w.any(), chunk: -1, version: byte(max(0, w.draw("version", -2, 1)))}
	at := w.draw("off", 0, maxBytes-1)
	if len(k.puts) > 0 && w.draw("at a put", 0, 1) == 1 {
		at = k.puts[0].off
	}
	if chunk {
		p.chunk = min(at/k.ChunkSize, max(0, maxBytes/k.ChunkSize-1))
		p.off = p.chunk * k.ChunkSize
	} else {
		p.off = at
		p.whole = w.draw("whole", 0, 1) == 1
	}
	k.disturb()
	p.start(k.id, w.sink(k.id, p.on))
	if p.wantsMore {
		k.fence(p.on, p.bytes(k))
	}
	k.puts = append(k.puts, p)
	return k, p
}

// bytes is the range that the put may bring.
func (p *put) bytes(k *known) session.Range { return rng(p.off, p.off+k.bytesLeft(p)) }

// fence notes that the puts of these bytes through that Service were stopped: no more calls of
// their sinks may come.
func (k *known) fence(v *service, r session.Range) {
	for _, p := range k.puts {
		if p.on == v && p.bytes(k).Overlaps(r) {
			p.sink.shut()
		}
	}
}

// bytesLeft is how many bytes a put may bring at most.
func (k *known) bytesLeft(p *put) int64 {
	end := int64(maxBytes)
	if k.BytesExpected >= 0 {
		end = k.BytesExpected
	}
	if p.chunk >= 0 {
		end = min(end, p.off+k.ChunkSize)
	}
	return max(0, end-p.off)
}

// put is a whole put, without other calls during it.
func (w *world) put() {
	if w.draw("kind", 0, 1) == 0 {
		k, p := w.newPut(false)
		p.send(w.draw("n", 0, k.bytesLeft(p)+1))
		w.endPut(k, p, w.how())
		return
	}
	k, p := w.newPut(true)
	p.send(k.bytesLeft(p) + max(0, w.draw("too much", -5, 1)) - max(0, w.draw("too little", -3, 2)))
	w.endPut(k, p, w.how())
}

// some draws how many of the bytes left are sent: often all.
func (w *world) some(left int64) int64 {
	return min(max(0, left), w.draw("n", 0, 2*maxBytes))
}

// how draws the end of a body.
func (w *world) how() error {
	if w.draw("cut", 0, 3) == 0 {
		return errCut
	}
	return io.EOF
}

// start leaves a put open.
func (w *world) start() {
	k, p := w.newPut(w.draw("kind", 0, 1) == 0)
	p.send(w.some(k.bytesLeft(p)))
	w.learn(k, p, p.sent)
	if p.returned() {
		w.endPut(k, p, errCut)
	}
}

// goOn lets an open put go on, or end.
func (w *world) goOn() {
	var of []*known
	for _, k := range w.sessions {
		for range k.puts {
			of = append(of, k)
		}
	}
	if len(of) == 0 {
		w.t.Skip("no put")
	}
	k := of[w.draw("session", 0, int64(len(of)-1))]
	p := k.puts[w.draw("put", 0, int64(len(k.puts)-1))]
	for _, o := range k.puts {
		if o != p {
			o.disturbed = true
		}
	}
	p.send(w.some(k.bytesLeft(p) - p.sent))
	w.learn(k, p, p.sent)
	if w.draw("end", 0, 1) == 1 || p.returned() {
		w.endPut(k, p, w.how())
	}
}

// endPut ends the put's body and judges the answer.
func (w *world) endPut(k *known, p *put, why error) {
	before := *k
	p.end(why)
	k.puts = slices.DeleteFunc(k.puts, func(o *put) bool { return o == p })
	k.disturb()
	n := p.n
	switch {
	case p.chunk >= 0 && p.err == nil:
		n = p.sent
		if k.BytesExpected < 0 && n < k.ChunkSize {
			k.BytesExpected = p.off + n
		}
	case p.chunk >= 0 && n != 0, n > p.sent, n < 0, p.whole && p.err != nil && n != 0:
		w.t.Fatalf("a put of %d bytes has recorded %d: %v", p.sent, n, p.err)
	}
	w.learn(k, p, n)
	if !k.state.Ended() {
		for i := p.off; i < p.off+n; i++ {
			if k.content[i] == 0 && !p.disturbed {
				w.t.Fatalf("byte %d is not recorded, and was answered for", i)
			}
		}
	}
	if p.err == nil && !k.state.Ended() {
		// At the time of the answer all its bytes were recorded. The model knows of later changes.
		for i := p.off; i < p.off+p.sent; i++ {
			if k.content[i] != byteOf(i, p.version) {
				w.t.Fatalf("byte %d is %d, and %d was answered for", i, k.content[i], byteOf(i, p.version))
			}
		}
	}
	w.judge(before, p, why)
}

// learn adds the bytes that a put has recorded by now. These may only be among its own first n
// bytes.
func (w *world) learn(k *known, p *put, n int64) {
	if k.state != session.Open {
		return
	}
	s, err := p.on.Status(context.Background(), k.id)
	w.must(err)
	for i := range int64(maxBytes) {
		r := rng(i, i+1)
		switch has := session.Covers(s.Received, r); {
		case has && k.content[i] == 0:
			if !rng(p.off, p.off+n).Contains(r) {
				w.t.Fatalf("byte %d was recorded by a put of bytes %d to %d", i, p.off, p.off+n)
			}
			k.content[i] = byteOf(i, p.version)
		case !has && k.content[i] != 0:
			w.t.Fatalf("byte %d was recorded, and is not any more", i)
		}
	}
}

// judge checks the put's error. before is the session as of the end of the body.
func (w *world) judge(before known, p *put, why error) {
	want := before.answer(p, why)
	if p.disturbed {
		// It may have come before or after the other call, or have lost. Whether its bytes are
		// recorded was checked before.
		if p.err == nil && why == io.EOF {
			return
		}
		for _, loses := range []error{
			session.ErrSuperseded, session.ErrConflict, session.ErrRange, session.ErrShort, session.ErrLong,
			session.ErrLength, errCut,
			session.ErrSealed, session.ErrFinished, session.ErrAborted, session.ErrExpired, session.ErrNotFound,
		} {
			if errors.Is(p.err, loses) {
				return
			}
		}
	}
	if (want == nil) != (p.err == nil) || !errors.Is(p.err, want) {
		w.t.Fatalf("put (chunk %d, %d bytes at %d of %d, in chunks of %d, whole %v, ended by %v): %v, not %v",
			p.chunk, p.sent, p.off, before.BytesExpected, before.ChunkSize, p.whole, why, p.err, want)
	}
}

// answer is the error of a put that nothing disturbed.
func (k *known) answer(p *put, why error) error {
	if err := k.err(); err != nil {
		return err
	}
	n, known := k.BytesExpected, k.BytesExpected >= 0
	if known && (p.off > n || p.off == n && (p.chunk >= 0 || n > 0)) {
		return session.ErrRange
	}
	left := k.bytesLeft(p)
	for i := p.off; i < p.off+min(p.sent, left); i++ {
		if k.content[i] != 0 && k.content[i] != byteOf(i, p.version) {
			return session.ErrConflict
		}
	}
	switch {
	case p.sent > left:
		return session.ErrLong
	case why != io.EOF:
		return why
	case p.chunk >= 0 && p.sent < left && (known || k.end() > p.off+p.sent):
		return session.ErrShort
	}
	return nil
}
