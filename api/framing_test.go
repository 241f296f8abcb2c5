package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// exchange writes text to a new connection. It returns the answers until the server closes it or
// want answers have come.
func (w *world) exchange(text string, want int) (answers []*http.Response, closed bool) {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.check(err)
	defer c.Close()
	w.check(c.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = io.WriteString(c, text)
	w.check(err)
	in := bufio.NewReader(c)
	for len(answers) < want {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			break
		}
		body, err := io.ReadAll(res.Body)
		w.check(err)
		res.Status = string(body)
		answers = append(answers, res)
	}
	if len(answers) == want && !answers[want-1].Close {
		return answers, false
	}
	_, err = in.ReadByte()
	return answers, err == io.EOF
}

// Two framings are one too many. If a program believes the other one, the bytes after the body are
// its next request (RFC 9112, section 11.2).
func TestAmbiguousFramingIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	head := func(fields ...string) string {
		return "POST /v1/capsules_create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.secret +
			"\r\nContent-Type: application/json\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
	}
	create := func(id string) string {
		body := fmt.Sprintf(`{"capsule_id":%q}`, id)
		return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	const chunked = "Transfer-Encoding: chunked"
	smuggled := "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, both := range [][]string{
		{"Content-Length: 4", chunked},
		{chunked, "content-length: 4"},
		{chunked, "X-Long: " + strings.Repeat("x", 5000), "CONTENT-LENGTH:4"},
	} {
		answers, closed := w.exchange(head(both...)+create("both")+smuggled, 2)
		if len(answers) != 1 || answers[0].StatusCode != http.StatusBadRequest ||
			!strings.Contains(answers[0].Status, "and not both") || !answers[0].Close || !closed {
			t.Errorf("%.40q: %d answers, closed %v: %+v", both, len(answers), closed, answers)
		}
	}
	// Chunks alone are fine. The server does not look for their end, and the connection closes
	// behind them.
	answers, closed := w.exchange(head(chunked)+create("alone")+smuggled, 2)
	if len(answers) != 1 || answers[0].StatusCode != http.StatusOK || !closed {
		t.Errorf("chunks alone: %d answers, closed %v: %+v", len(answers), closed, answers)
	}
	// The same holds behind other requests, in one packet with them or not.
	plain := head("Content-Length: 2") + "{}"
	answers, closed = w.exchange(smuggled+plain+smuggled+head(chunked, "Content-Length: 3")+create("later")+smuggled, 5)
	if len(answers) != 4 || answers[3].StatusCode != http.StatusBadRequest || !closed {
		t.Errorf("behind others: %d answers, closed %v", len(answers), closed)
	}
}

// However a head is split, a request in doubt is refused or is the last one of its connection. A
// request inside of it is never served.
func TestNoHeadSmugglesARequest(t *testing.T) {
	w := newWorld(t, nil)
	const inner = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
	auth := "Host: x\r\nAuthorization: Bearer " + w.secret + "\r\n"
	const post, ping = "POST /v1/memories_ping HTTP/1.1\r\n", `{"memory_ids":[]}`
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(ping), ping)
	for name, row := range map[string]struct {
		text     string
		statuses []int // of the answers; after the last one the connection is closed
	}{
		"both":                 {post + auth + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{400}},
		"both, the other way":  {post + auth + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunks, []int{400}},
		"a request in a value": {post + auth + "X: GET /openapi.json HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{400}},
		"1.0 with chunks":      {"POST /v1/memories_ping HTTP/1.0\r\n" + auth + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{400}},
		// else they are no body
		"1.0 with chunks to a GET": {
			"GET /healthz HTTP/1.0\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n" + chunks, []int{400},
		},
		"1.0 with both":            {"POST /v1/memories_ping HTTP/1.0\r\n" + auth + "Connection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{400}},
		"1.0 that stays":           {"GET /healthz HTTP/1.0\r\n" + auth + "Connection: keep-alive\r\n\r\n", []int{200}},
		"two codings":              {post + auth + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunks, []int{501}},
		"two fields of codings":    {post + auth + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{501}},
		"identity":                 {post + auth + "Transfer-Encoding: identity\r\nContent-Length: 17\r\n\r\n" + ping, []int{501}},
		"a coding nobody has":      {post + auth + "Transfer-Encoding: xchunked\r\n\r\n" + chunks, []int{501}},
		"a space before the colon": {post + auth + "Transfer-Encoding : chunked\r\n\r\n" + chunks, []int{400}},
		"a folded field":           {post + auth + "X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 17\r\n\r\n" + ping, []int{400}},
		"a folded coding":          {post + auth + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunks, []int{400}},
		"two lengths":              {post + auth + "Content-Length: 17\r\nContent-Length: 0\r\n\r\n" + ping, []int{400}},
		"a length twice":           {post + auth + "Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + ping, []int{400}},
		"a list of lengths":        {post + auth + "Content-Length: 17, 17\r\n\r\n" + ping, []int{400}},
		"a signed length":          {post + auth + "Content-Length: +17\r\n\r\n" + ping, []int{400}},
		"a negative length":        {post + auth + "Content-Length: -1\r\n\r\n" + ping, []int{400}},
		"a length in hex":          {post + auth + "Content-Length: 0x11\r\n\r\n" + ping, []int{400}},
		"no length":                {post + auth + "Content-Length:\r\n\r\n" + ping, []int{400}},
		"a bare CR":                {post + auth + "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 17\r\n\r\n" + ping, []int{400}},
		"bare LFs":                 {"GET /healthz HTTP/1.1\nHost: x\n\n", []int{200}},
		"one bare LF":              {"GET /healthz HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", []int{200}},
		"no version":               {"GET /healthz\r\nHost: x\r\n\r\n", []int{400}},
		"another version":          {"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", []int{200}},
		"HTTP/3":                   {"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", []int{505}},
		"half of HTTP/2":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", []int{400}},
		"no host":                  {"GET /healthz HTTP/1.1\r\n\r\n", []int{400}},
		"a tunnel":                 {"CONNECT /healthz HTTP/1.1\r\n" + auth + "Content-Length: 0\r\n\r\n", []int{405}},
		"an expectation":           {post + auth + "Expect: 200-ok\r\nContent-Length: 17\r\n\r\n" + ping, []int{417}},
		"behind a good one":        {post + auth + "Content-Length: 17\r\n\r\n" + ping + post + auth + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, []int{200, 400}},
		"chunks":                   {post + auth + "Transfer-Encoding: chunked\r\n\r\n" + chunks, []int{200}},
		"chunks with extensions":   {post + auth + "Transfer-Encoding: chunked\r\n\r\n11;a=b\r\n" + ping + "\r\n0;c\r\n\r\n", []int{200}},
		"chunks that end in LF":    {post + auth + "Transfer-Encoding: chunked\r\n\r\n11\n" + ping + "\n0\n\n", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			text := row.text + inner
			for at := 1; at < len(row.text)+2; at++ {
				statuses, ids, closed := w.cutAt(text, at, len(row.statuses)+1)
				if !slices.Equal(statuses, row.statuses) || !ids || !closed {
					t.Fatalf("cut at %d: %v, want %v; ids %v, closed %v", at, statuses, row.statuses, ids, closed)
				}
			}
		})
	}
	// A connection goes on behind requests without doubt, and each one is found behind the body
	// before it.
	good := post + auth + "Content-Length: 17\r\n\r\n" + ping + "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	for at := 1; at < 2*len(good); at++ {
		if statuses, _, closed := w.cutAt(good+good, at, 4); !slices.Equal(statuses, []int{200, 200, 200, 200}) ||
			closed {
			t.Fatalf("cut at %d: %v, closed %v", at, statuses, closed)
		}
	}
}

// cutAt sends text in two packets. It returns the statuses of the answers, whether each has an id,
// and whether the connection is closed behind them.
func (w *world) cutAt(text string, at, most int) (statuses []int, ids, closed bool) {
	w.t.Helper()
	c := w.dial()
	defer c.Close()
	w.check(c.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err := io.WriteString(c, text[:at])
	w.check(err)
	runtime.Gosched() // most packets come apart
	_, _ = io.WriteString(c, text[at:])
	in, ids := bufio.NewReader(c), true
	for len(statuses) < most {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses, ids, true
		}
		_, _ = io.Copy(io.Discard, res.Body)
		statuses = append(statuses, res.StatusCode)
		ids = ids && res.Header.Get("X-Request-Id") != ""
	}
	return statuses, ids, false
}
