package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// exchange writes text to a new connection, and gives what is answered until the server closes it or want answers have come.
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

// Two framings are one too many: what follows the body of one is the next request to whoever believes the other (RFC 9112, section 11.2).
func TestAmbiguousFramingIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	head := func(fields ...string) string {
		return "POST /v1/capsules_create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.secret + "\r\nContent-Type: application/json\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
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
		if len(answers) != 1 || answers[0].StatusCode != http.StatusBadRequest || !strings.Contains(answers[0].Status, "and not both") || !answers[0].Close || !closed {
			t.Errorf("%.40q: %d answers, closed %v: %+v", both, len(answers), closed, answers)
		}
	}
	// Chunks alone are fine, also on a connection that is used again, one request behind the other.
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.check(err)
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range 3 {
		_, err := io.WriteString(c, head(chunked)+create(fmt.Sprint("alone", i)))
		w.check(err)
		res, err := http.ReadResponse(in, nil)
		w.check(err)
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK || res.Close {
			t.Fatalf("request %d: %d, close %v, %v", i, res.StatusCode, res.Close, err)
		}
	}
	_, err = io.WriteString(c, head(chunked, "Content-Length: 3")+create("later")+smuggled)
	w.check(err)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusBadRequest || !res.Close {
		t.Errorf("on a connection that is used again: %+v, %v", res, err)
	}
	// A head that came along with the request before it was not seen: nothing is answered behind it.
	answers, closed := w.exchange(smuggled+head(chunked, "Content-Length: 3")+create("unseen")+smuggled, 3)
	if len(answers) != 2 || !answers[1].Close || !closed {
		t.Errorf("behind another: %d answers, closed %v", len(answers), closed)
	}
}
