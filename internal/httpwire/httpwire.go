// Package httpwire reads the bytes of HTTP/1 and HTTP/2 connections below net/http: where heads and
// bodies end, which parts of a head can be read in two ways, and which frames go by. It owns the
// two formats. It knows no limit, deadline or answer of a server: those are the caller's (package
// api). It does no I/O, starts nothing, and is used by one goroutine for each direction.
//
// Breaks when net/http reads otherwise than this package does. It was read from net/http of Go 1.26
// (server.go, transfer.go, h2_bundle.go), and from RFC 9112 (sections 2.2, 3, 5, 6 and 11.2) and
// RFC 9113 (sections 3.4, 4.1, 6 and 6.9). It relies on this:
//
//   - A request of HTTP/1 whose head is sound here ends for net/http where its Content-Length says.
//     If net/http ended one earlier, it would read a head that nobody has checked, and a request
//     could be smuggled past a proxy. If it ended one later, a part of a body would be checked as a
//     head: a good client would see 400, or a connection that closes.
//   - A head has no other field and no other end of line that says where a request ends. A new one
//     that net/http believes would have to be looked at here, or a request could be smuggled.
//   - net/http refuses a head with a CR inside of a line, which is not looked for here. If it took
//     one, a proxy that ends lines at a CR could be misled.
//   - net/http begins its own answers to heads that it can't read with HTTP/1., in one Write. Else
//     they would go out as net/http has them, without our form.
//   - On HTTP/2 net/http gives credit back for each byte of DATA that was read or thrown away, by
//     WINDOW_UPDATE on stream 0, and its first one only widens the window. If it gave less,
//     connections would come to be held for ever; if more, memory would not be bounded.
//   - net/http tells the end of each stream by END_STREAM or RST_STREAM. Else streams would count
//     as open until their connection ends, and heads would no longer be let in.
//
// TestReadFromThisGo fails with another minor version of Go, and says what to read again.
// docs/adr/0024 weighs the way without this package.
package httpwire

import (
	"bytes"
	"strconv"
)

const (
	// EndOfHead ends the head of a request of HTTP/1 (RFC 9112, section 2.1).
	EndOfHead = "\r\n\r\n"
	// PrefaceLine is the beginning of a client's first line on HTTP/2.
	PrefaceLine = "PRI * HTTP/2.0"
	// preface is all that a client sends before its first frame (RFC 9113, section 3.4).
	preface = PrefaceLine + EndOfHead + "SM" + EndOfHead
)

// Refusal returns the status with which net/http itself answers a head that it can't read or take;
// 0: p is no such answer. net/http writes it at once.
func Refusal(p []byte) int {
	line, is := bytes.CutPrefix(p, []byte("HTTP/1."))
	if !is || len(line) < len("1 400") {
		return 0
	}
	status, err := strconv.Atoi(string(line[len("1 "):len("1 400")]))
	if err != nil || status < 400 {
		return 0
	}
	return status
}
