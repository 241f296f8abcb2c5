package api

import (
	"context"
	"net"
	"net/http"
)

// checkFraming refuses a request whose body could end in two places. It makes the connection close
// after that request, and after any whose end this server and a proxy could see in different
// places.
func (c *call) checkFraming() error {
	conn := connOf(c.req)
	if conn == nil || conn.flow.isHTTP2() {
		return nil
	}
	if conn.framing.Last() {
		c.closeAfter()
	}
	if why := conn.framing.Wrong(); why != "" {
		return &refusal{code: CodeInvalidArgument, detail: why}
	}
	if c.req.ProtoMajor != 1 { // it begins as HTTP/2, and goes on otherwise
		return &refusal{code: CodeInvalidArgument, detail: "the protocol must be HTTP/1.1 or HTTP/2"}
	}
	return nil
}

type connKey struct{}

// connOf returns the connection of a request, or nil if the Server did not accept it.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// withConn is an http.Server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
