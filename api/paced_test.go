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

// taker is a connection that takes so many bytes a second; how many may change. It reads ahead, as one does that copies through a buffer.
type taker struct {
	http.ResponseWriter
	rate  func(sent int64) int64 // 0: it has stopped
	until time.Time
	got   bytes.Buffer
	asked []int64
}

func (t *taker) SetWriteDeadline(at time.Time) error {
	t.until = at
	return nil
}

func (*taker) WriteHeader(int) {}

func (t *taker) ReadFrom(r io.Reader) (n int64, err error) {
	t.asked = append(t.asked, r.(*io.LimitedReader).N)
	buf := make([]byte, 8<<10)
	for {
		k, err := r.Read(buf)
		for _, b := range buf[:k] {
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
		if err == io.EOF {
			return n, nil
		}
	}
}

// Who takes a content fast gets it in large pieces, and is held to the same rate as everybody once it gets slow.
func TestAFastReaderThatGetsSlow(t *testing.T) {
	const (
		rate   = 1 << 10
		window = 30 * time.Second
	)
	content := bytes.Repeat([]byte("0123456789abcdef,"), 1<<23/17)
	for name, c := range map[string]struct {
		after int64 // it is fast until then
		slow  int64 // and then as fast as this
		cut   bool
		most  int64         // the largest piece
		at    time.Duration // how many times as long as a piece has it may last until it is cut; what came fast before counts for the piece
	}{
		"fast":                {after: 1 << 40, most: pieceMost},
		"slow from the start": {slow: 2 * rate, most: pieceBytes},
		"slow":                {after: 3 << 20, slow: 2 * rate, most: pieceMost},
		"too slow":            {after: 3 << 20, slow: rate / 2, cut: true, most: pieceMost, at: 2},
		"gone between two":    {after: 1792 << 10, cut: true, most: pieceMost, at: 1},
		"gone":                {after: 3 << 20, cut: true, most: pieceMost, at: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &taker{rate: func(sent int64) int64 {
					if sent < c.after {
						return 100 << 20
					}
					return c.slow
				}}
				p := &paced{
					c:       &call{ResponseWriter: w, body: &body{rc: http.NewResponseController(w)}},
					allowed: window + pieceBytes/rate*time.Second,
				}
				began := time.Now()
				n, err := p.TakeFile(bytes.NewReader(content), int64(len(content)))
				if cut := errors.As(err, new(*cutError)); cut != c.cut || !cut && (err != nil || n != int64(len(content))) {
					t.Errorf("%d bytes, %v", n, err)
				}
				if got := w.got.Bytes(); int64(len(got)) != n || p.sent != n || !bytes.Equal(got, content[:n]) {
					t.Errorf("%d bytes came of %d that count as sent, or others", len(got), n)
				}
				var most int64
				for _, k := range w.asked {
					most = max(most, k)
				}
				if most != c.most {
					t.Errorf("the largest piece had %d bytes, want %d", most, c.most)
				}
				if took := time.Since(began); c.cut && took > c.at*p.allowed+time.Second {
					t.Errorf("it was cut after %v, and a piece has %v", took, p.allowed)
				}
			})
		})
	}
}
