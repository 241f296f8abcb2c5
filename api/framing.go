package api

import (
	"context"
	"net"
	"net/http"
)

// checkFraming refuses a request whose body ends in two places, and closes the connection behind it
// and behind every one whose end this server and a proxy could see in different places.
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
	if c.req.ProtoMajor != 1 { // what begins as HTTP/2 does, and goes on otherwise
		return &refusal{code: CodeInvalidArgument, detail: "the protocol must be HTTP/1.1 or HTTP/2"}
	}
	return nil
}

type connKey struct{}

// connOf gives the connection of a request, or nil where it is not one of ours.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// withConn is an http.Server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
