package httpwire

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"

	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// The package was read from one minor version of Go. Each patch of it is as good.
func TestReadFromThisGo(t *testing.T) {
	const from = "go1.26"
	if v := runtime.Version(); v != from && !strings.HasPrefix(v, from+".") {
		t.Errorf(`this is %s, and package httpwire was read from %s. Compare net/http of the two:
  - transfer.go: readTransfer, parseTransferEncoding and fixLength (where does a request end?)
  - server.go: readRequest and the errors of serve (what is answered without a handler?)
  - h2_bundle.go: sendWindowUpdate, noteBodyRead, processData, closeStream (what credit comes back?)
  - server.go and h2_bundle.go: does net/http now do a part of this by itself? (docs/adr/0024)
Run the tests of package api, correct what differs, and then set this constant.`, v, from)
	}
}

// A head is sound, the last one of its connection, or wrong.
func TestHeads(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: x\r\n"
	const sound, last, wrong = "sound", "last", "wrong"
	for name, row := range map[string]struct{ head, want string }{
		"no body":                  {post, sound},
		"a length":                 {post + "Content-Length: 4\r\n", sound},
		"a length with blanks":     {post + "content-LENGTH:\t 4 \r\n", sound},
		"a blank line before":      {"\r\n" + post, sound},
		"chunks":                   {post + "Transfer-Encoding: chunked\r\n", last},
		"HTTP/1.0":                 {"GET / HTTP/1.0\r\n", last},
		"no version":               {"GET /\r\n", last},
		"a tunnel":                 {"CONNECT x HTTP/1.1\r\n", last},
		"a bare LF":                {post + "X: y\n", last},
		"both framings":            {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", wrong},
		"a length twice":           {post + "Content-Length: 4\r\nContent-Length: 4\r\n", wrong},
		"a list of lengths":        {post + "Content-Length: 4, 4\r\n", wrong},
		"a signed length":          {post + "Content-Length: +4\r\n", wrong},
		"a length in hex":          {post + "Content-Length: 0x4\r\n", wrong},
		"no length":                {post + "Content-Length:\r\n", wrong},
		"a length past 64 bits":    {post + "Content-Length: 9223372036854775808\r\n", wrong},
		"a space before the colon": {post + "Content-Length : 4\r\nTransfer-Encoding: chunked\r\n", wrong},
		"a folded field":           {post + "X: y\r\n Content-Length: 4\r\n", wrong},
		"chunks in HTTP/1.0":       {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", wrong},
	} {
		var f Framing
		text := row.head + "\r\n"
		if n := f.Take([]byte(text)); n != len(text) {
			t.Errorf("%s: %d of %d bytes are given on", name, n, len(text))
		}
		got := sound
		switch {
		case f.Wrong() != "":
			got = wrong
		case f.Last():
			got = last
		}
		if got != row.want || (got == wrong) != (f.Wrong() != "") || got == wrong && !f.Last() {
			t.Errorf("%s: %s (%q), want %s", name, got, f.Wrong(), row.want)
		}
	}
}

// However the bytes come, and however many are asked for, all of them are handed on in their order.
// None is handed on past the end of a request before more is asked for. What is said of each
// request is the same.
func TestRequestsAreFollowed(t *testing.T) {
	heads := []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n\n",
		"\r\nPUT / HTTP/1.1\r\nContent-Length: 41\r\nHost: x\r\n\r\n" +
			"GET / HTTP/1.1\r\nContent-Length: +\r\n\r\n....",
	}
	ends := []string{
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	}
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		edges := map[int]bool{} // of requests
		for range rapid.IntRange(0, 5).Draw(t, "requests") {
			text.WriteString(rapid.SampledFrom(heads).Draw(t, "request"))
			edges[text.Len()] = true
		}
		sound := text.Len()
		end := rapid.SampledFrom(append(ends, "")).Draw(t, "the last")
		text.WriteString(end)
		var f Framing
		var got bytes.Buffer
		for in := strings.NewReader(text.String()); in.Len() > 0 || got.Len() < text.Len(); {
			p := make([]byte, rapid.IntRange(1, 60).Draw(t, "asked for"))
			n := f.Next(p)
			if n == 0 {
				var err error
				if n, err = in.Read(p[:f.Want(len(p))]); err != nil {
					t.Fatalf("%d of %d bytes are given on: %v", got.Len(), text.Len(), err)
				}
				n = f.Take(p[:n])
			}
			for at := got.Len() + 1; at < got.Len()+n; at++ {
				if edges[at] {
					t.Fatalf("one read goes past byte %d, where a request ends", at)
				}
			}
			got.Write(p[:n])
			if got.Len() <= sound && f.Last() {
				t.Fatalf("byte %d of %d: in doubt, for %q", got.Len(), sound, f.Wrong())
			}
		}
		if got.String() != text.String() || f.Last() != (end != "") || (f.Wrong() != "") != (end == ends[1]) {
			t.Fatalf("%q was given on of %q; last %v, wrong %q", &got, &text, f.Last(), f.Wrong())
		}
	})
}

// The frames are those that golang.org/x/net writes, however the bytes are split.
func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&wire, nil)
	for _, err := range []error{
		w.WriteSettings(),
		w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("ab")}),
		w.WriteContinuation(1, true, []byte("c")),
		w.WriteData(1, false, make([]byte, 300)),
		w.WriteData(1, true, nil),
		w.WriteWindowUpdate(0, 1<<30),
		w.WriteWindowUpdate(0, 7),
		w.WriteRSTStream(3, http2.ErrCodeCancel),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wire.Write(GoAway(3))
	type frame struct {
		kind   byte
		stream uint32
		length int
		flags  byte
	}
	var want []frame
	r := http2.NewFramer(io.Discard, bytes.NewReader(wire.Bytes()[len(http2.ClientPreface):]))
	for {
		f, err := r.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		h := f.Header()
		want = append(want, frame{byte(h.Type), h.StreamID, int(h.Length), byte(h.Flags)})
		if g, ok := f.(*http2.GoAwayFrame); ok && (g.LastStreamID != 3 || g.ErrCode != http2.ErrCodeNo) {
			t.Errorf("GOAWAY is %v", g)
		}
	}
	for by := range 40 {
		var preface Preface
		var frames Frames
		var credit Credit
		var got []frame
		var sum, payload, open int64
		for p := wire.Bytes(); len(p) > 0; {
			n := min(by+1, len(p))
			part := preface.Take(p[:n])
			if p = p[n:]; !preface.Whole() {
				continue
			}
			frames.Each(part, func(kind byte, stream uint32, length int, flags byte) {
				got = append(got, frame{kind, stream, length, flags})
			}, func(kind byte, _ uint32, p []byte) {
				payload += int64(len(p))
				if kind == FrameWindowUpdate {
					n, _ := credit.Take(p)
					sum += n
				}
			})
			if frames.Open() {
				open++
			}
		}
		lengths := int64(0)
		for i := range want {
			lengths += int64(want[i].length)
			if len(got) != len(want) || got[i] != want[i] {
				t.Fatalf("cut by %d: %v, want %v", by+1, got, want)
			}
		}
		if payload != lengths || sum != 1<<30+7 || frames.Open() || by == 0 && open == 0 {
			t.Errorf("cut by %d: %d of %d bytes, credit %d, open %v", by+1, payload, lengths, sum, frames.Open())
		}
	}
	var other Preface
	if rest := other.Take([]byte("PRIX rest")); other.Whole() || string(rest) != " rest" {
		t.Errorf("another protocol: %q is left", rest)
	}
}

func TestRefusal(t *testing.T) {
	for text, want := range map[string]int{
		"HTTP/1.1 400 Bad Request\r\n": 400, "HTTP/1.0 505 x": 505, "HTTP/1.1 100 Continue\r\n": 0,
		"HTTP/1.1 200 OK\r\n": 0,
		"HTTP/1.1 40":         0, "HTTP/1.": 0, "": 0, "HTTP/2.0 400 x": 0,
	} {
		if got := Refusal([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
