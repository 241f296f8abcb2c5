package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"sluice/session"
)

// partsSink is a sink that keeps its bytes, and the lengths in which they come. It takes most bytes
// at once (0: any number).
type partsSink struct {
	all  []byte
	lens []int
	most int
	err  error
}

func (p *partsSink) WriteAt(b []byte, off int64) (int, error) {
	if int(off) != len(p.all) {
		return 0, fmt.Errorf("at %d, behind %d bytes", off, len(p.all))
	}
	if p.most > 0 {
		b = b[:min(len(b), p.most)]
	}
	p.all = append(p.all, b...)
	p.lens = append(p.lens, len(b))
	return len(b), p.err
}

// bufferSink is a partsSink that counts the bytes which came in memory of its own.
type bufferSink struct {
	partsSink
	mem []byte
	has bool // the engine has it
	own int  // bytes that came in it
}

func (l *bufferSink) New() session.Buffer { return l }

func (l *bufferSink) Acquire(_, n int64) []byte {
	if l.has {
		panic("acquired twice")
	}
	if n < int64(len(l.mem))/2 {
		return nil
	}
	l.has = true
	return l.mem
}

func (l *bufferSink) Release() { l.has = false }
func (l *bufferSink) Wait()    {}

func (l *bufferSink) WriteAt(b []byte, off int64) (int, error) {
	if l.has && &b[0] == &l.mem[0] {
		l.own += len(b)
	}
	return l.partsSink.WriteAt(b, off)
}

func newCopier(t *testing.T) *session.Service {
	return start(t, session.Config{Small: 4, Large: 16, MaxLarge: 1})
}

func TestCopyHandsAFastBodyOnInOnePiece(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newCopier(t)
		for n := range int64(40) {
			content := bytes.Repeat([]byte("abcdefg"), 6)[:n]
			var to partsSink
			if err := v.Copy(&to, bytes.NewReader(content), n); err != nil || !bytes.Equal(to.all, content) {
				t.Fatalf("%d bytes: %q, %v", n, to.all, err)
			}
			if want := int(n+15) / 16; len(to.lens) != want {
				t.Errorf("%d bytes came in %v", n, to.lens)
			}
			to = partsSink{most: 3}
			if err := v.Copy(
				&to, iotest.OneByteReader(bytes.NewReader(content)), n,
			); err != nil || !bytes.Equal(to.all, content) {
				t.Fatalf("%d bytes, a few at a time: %q, %v", n, to.all, err)
			}
		}
	})
}

func TestCopyReadsIntoTheConfiguredBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n := range int64(100) {
			content := bytes.Repeat([]byte("abcdefg"), 15)[:n]
			to := bufferSink{mem: make([]byte, 32)}
			v := start(t, session.Config{Small: 4, Large: 16, MaxLarge: 1, Buffers: &to})
			if err := v.Copy(&to, bytes.NewReader(content), n); err != nil || !bytes.Equal(to.all, content) {
				t.Fatalf("%d bytes: %q, %v", n, to.all, err)
			}
			if to.has || n >= 16 && to.own < int(n)-16 {
				t.Errorf("%d bytes: %d of them in memory of its own, which the engine has: %v", n, to.own, to.has)
			}
		}
	})
}

func TestCopyRefusesAnotherLength(t *testing.T) {
	v := newCopier(t)
	own, cut := errors.New("the sink's own"), errors.New("the body's own")
	for name, c := range map[string]struct {
		body io.Reader
		to   partsSink
		want error
	}{
		"too short":      {body: bytes.NewReader(make([]byte, 19)), want: session.ErrShort},
		"empty":          {body: bytes.NewReader(nil), want: session.ErrShort},
		"cut":            {body: io.MultiReader(bytes.NewReader(make([]byte, 5)), iotest.ErrReader(io.ErrUnexpectedEOF)), want: session.ErrShort},
		"too long":       {body: bytes.NewReader(make([]byte, 21)), want: session.ErrLong},
		"broken":         {body: io.MultiReader(bytes.NewReader(make([]byte, 5)), iotest.ErrReader(cut)), want: cut},
		"broken behind":  {body: io.MultiReader(bytes.NewReader(make([]byte, 20)), iotest.ErrReader(cut)), want: cut},
		"the sink fails": {body: bytes.NewReader(make([]byte, 20)), to: partsSink{err: own}, want: own},
	} {
		if err := v.Copy(&c.to, c.body, 20); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// byteASecond is a body whose bytes come one a second.
type byteASecond struct{ io.Reader }

func (s byteASecond) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Reader.Read(p[:min(len(p), 1)])
}

// A slow body has a small buffer only, so that fast ones find the larger buffers free.
func TestCopyGivesASlowBodyLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newCopier(t)
		var slow partsSink
		ended := make(chan error, 1)
		go func() { ended <- v.Copy(&slow, byteASecond{strings.NewReader("abcdefghijkl")}, 12) }()
		for range 11 {
			time.Sleep(time.Second)
			var fast partsSink
			if err := v.Copy(&fast, bytes.NewReader(make([]byte, 16)), 16); err != nil || len(fast.lens) != 1 {
				t.Errorf("beside a slow body a fast one came in %v, %v", fast.lens, err)
			}
		}
		if err := <-ended; err != nil || string(slow.all) != "abcdefghijkl" || len(slow.lens) != 3 {
			t.Errorf("%q in %v, %v", slow.all, slow.lens, err)
		}
	})
}

// A body that begins fast and then trickles gives its larger buffer back.
func TestATrickleKeepsNoLargeBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newCopier(t)
		var slow partsSink
		ended := make(chan error, 1)
		go func() {
			body := io.MultiReader(strings.NewReader("abcdefgh"), byteASecond{strings.NewReader("ijklmnopqrst")})
			ended <- v.Copy(&slow, body, 20)
		}()
		time.Sleep(3500 * time.Millisecond)
		var fast partsSink
		if err := v.Copy(&fast, bytes.NewReader(make([]byte, 16)), 16); err != nil || len(fast.lens) != 1 {
			t.Errorf("beside a trickle a fast body came in %v, %v", fast.lens, err)
		}
		if err := <-ended; err != nil || string(slow.all) != "abcdefghijklmnopqrst" {
			t.Errorf("%q in %v, %v", slow.all, slow.lens, err)
		}
	})
}
