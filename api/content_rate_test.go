package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// taker is a connection that takes a number of bytes a second, which may change.
type taker struct {
	http.ResponseWriter
	rate    func(sent int64) int64 // 0: it has stopped
	until   time.Time
	got     bytes.Buffer
	largest int
}

func (t *taker) SetWriteDeadline(at time.Time) error {
	t.until = at
	return nil
}

func (*taker) WriteHeader(int) {}

func (t *taker) Write(p []byte) (n int, err error) {
	t.largest = max(t.largest, len(p))
	for _, b := range p {
		rate := t.rate(int64(t.got.Len()))
		if rate == 0 {
			time.Sleep(time.Until(t.until))
		} else if t.got.Len()%1024 == 0 {
			time.Sleep(1024 * time.Second / time.Duration(rate))
		}
		if !time.Now().Before(t.until) {
			return n, os.ErrDeadlineExceeded
		}
		t.got.WriteByte(b)
		n++
	}
	return n, nil
}

// A reader is held to the minimum rate, however fast it was before. The memory that is kept for it
// is bounded, and so is that of all readers together.
func TestAReaderThatGetsSlow(t *testing.T) {
	const (
		rate   = 1 << 10
		window = 30 * time.Second
	)
	content := bytes.Repeat([]byte("0123456789abcdef,"), 1<<20/17)
	for name, c := range map[string]struct {
		after int64 // it is fast until then
		slow  int64 // and then as fast as this
		cut   bool
		busy  bool // others hold all memory for blocks
	}{
		"fast":                {after: 1 << 40},
		"fast among others":   {after: 1 << 40, busy: true},
		"slow from the start": {slow: 2 * rate},
		"slow":                {after: 1 << 19, slow: 2 * rate},
		"too slow":            {after: 1 << 19, slow: rate / 4, cut: true},
		"gone":                {after: 1 << 19, cut: true},
		"gone among others":   {after: 1 << 19, cut: true, busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &taker{rate: func(sent int64) int64 {
					if sent < c.after {
						return 100 << 20
					}
					return c.slow
				}}
				s := &Server{
					machine: testMachine, cfg: Config{MinRate: rate, RateWindow: window},
					limits: newLimits(10, maxHeld, maxHeld, maxRefused),
				}
				most := blockLarge
				if c.busy {
					most = blockMin
					acquire := s.limits.blocks.acquire
					for acquire("them", blockLarge) == nil || acquire("us", blockLarge) == nil {
					}
				}
				before := s.limits.blocks.inUse()
				began := time.Now()
				b := &body{rc: http.NewResponseController(w), machine: testMachine}
				err := s.sendContent(
					&call{w: w, usage: usage{principal: "us"}, body: b}, bytes.NewReader(content), int64(len(content)),
					200,
				)
				took := time.Since(began)
				if gone := (*cutError)(nil); errors.As(err, &gone) != c.cut || !c.cut && err != nil {
					t.Errorf("%v", err)
				}
				if got := w.got.Bytes(); !bytes.Equal(got, content[:len(got)]) || !c.cut && len(got) != len(content) {
					t.Errorf("%d bytes came, or others", len(got))
				}
				if w.largest != most || s.limits.blocks.inUse() != before {
					t.Errorf(
						"blocks of %d bytes, want %d; %d bytes stay held", w.largest, most,
						s.limits.blocks.inUse()-before,
					)
				}
				// and what came fast before
				if allowed := window + time.Duration(most)*time.Second/rate; c.cut && took > allowed+4*time.Second {
					t.Errorf("it was cut after %v, and a block has %v", took, allowed)
				}
			})
		})
	}
}

// failing gives some bytes and then fails.
type failing struct {
	io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

// Content that turns out to be corrupt before its first block was given is refused. If it turns out
// later, the answer is cut off.
func TestNothingIsAnsweredBeforeItWasCompared(t *testing.T) {
	corrupt := errors.New("corrupt")
	for _, good := range []int{0, blockLarge} {
		w := &taker{rate: func(int64) int64 { return 1 << 40 }}
		s := &Server{
			machine: testMachine, cfg: Config{MinRate: 1, RateWindow: time.Minute},
			limits: newLimits(10, maxHeld, maxHeld, maxRefused),
		}
		c := &call{
			w: w, usage: usage{principal: "us"}, body: &body{rc: http.NewResponseController(w), machine: testMachine},
		}
		w.ResponseWriter = headers{"Etag": {"x"}, "Content-Range": {"x"}}
		err := s.sendContent(c, failing{bytes.NewReader(make([]byte, good)), corrupt}, 1<<20, 206)
		if !errors.Is(err, corrupt) || errors.As(err, new(*cutError)) || w.got.Len() != good ||
			(c.status == 0) != (good == 0) || (len(w.Header()) == 0) != (good == 0) {
			t.Errorf("%d good bytes: %d are given, status %d, %v, %v", good, w.got.Len(), c.status, w.Header(), err)
		}
	}
}

type headers http.Header

func (h headers) Header() http.Header       { return http.Header(h) }
func (headers) Write(p []byte) (int, error) { return len(p), nil }
func (headers) WriteHeader(int)             {}
