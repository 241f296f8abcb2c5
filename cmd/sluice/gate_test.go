package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// gate is a relay before a server. A script can stop everything in it at a known point, so that the
// middle of a transfer does not depend on who is faster. It knows nothing of HTTP.
type gate struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu          sync.Mutex
	moved       sync.Cond // left, held, opened or disconnects changed
	left        int64     // bytes that may still pass
	held        bool      // bytes wait that may not pass yet
	opened      bool
	closed      bool
	disconnects int // how often disconnect has run
	server      string
	conns       map[net.Conn]bool
}

func newGate(n int64) (*gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{listener: l, left: n, conns: map[net.Conn]bool{}}
	g.moved.L = &g.mu
	g.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.connect(client) })
		}
	})
	return g, nil
}

// to sets the address of the server.
func (g *gate) to(url string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.server = strings.TrimPrefix(url, "http://")
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = true
	g.moved.Broadcast()
}

// wait returns when the gate holds something. A request is under way then, and stays so.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.held && !g.closed {
		g.moved.Wait()
	}
}

// disconnect ends every connection. The bytes on their way are lost, as if a machine died with all
// that it had sent. Later connections pass.
func (g *gate) disconnect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.disconnects++
	for c := range g.conns {
		c.Close()
	}
	g.moved.Broadcast()
}

// close disconnects everything, and returns when nothing of the gate runs any more.
func (g *gate) close() {
	g.listener.Close()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.disconnect()
	g.wg.Wait()
}

// connect joins a client with the server. Without a server the client is disconnected.
func (g *gate) connect(client net.Conn) {
	defer client.Close()
	g.mu.Lock()
	at, disconnects := g.server, g.disconnects
	g.mu.Unlock()
	server, err := net.Dial("tcp", at)
	if err != nil {
		return
	}
	defer server.Close()
	if !g.keep(disconnects, client, server) {
		return
	}
	var wg sync.WaitGroup
	forward := func(to, from net.Conn) {
		// Either end closes both, so that the other end learns of it.
		defer to.Close()
		defer from.Close()
		io.Copy(passing{g, disconnects, to}, from)
	}
	wg.Go(func() { forward(server, client) })
	wg.Go(func() { forward(client, server) })
	wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, client)
	delete(g.conns, server)
}

// keep notes connections that disconnect must close. It is false if disconnect has run since the
// given number of its calls.
func (g *gate) keep(disconnects int, conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		g.conns[c] = true
	}
	return !g.closed && disconnects == g.disconnects
}

// passing writes the bytes that the gate lets pass.
type passing struct {
	g           *gate
	disconnects int // when its connection began
	to          io.Writer
}

func (p passing) Write(b []byte) (int, error) {
	g, n := p.g, int64(len(b))
	g.mu.Lock()
	for !g.opened && p.disconnects == g.disconnects && g.left < n {
		g.left = 0 // later bytes must not overtake
		if !g.held {
			g.held = true
			g.moved.Broadcast()
		}
		g.moved.Wait()
	}
	g.left -= n
	gone := p.disconnects != g.disconnects
	g.mu.Unlock()
	if gone {
		return 0, net.ErrClosed
	}
	return p.to.Write(b)
}

// newProxy makes a proxy that refuses bodies of more than most bytes.
func newProxy(to *url.URL, most int64) *httptest.Server {
	proxy := httputil.NewSingleHostReverseProxy(to)
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength <= most {
			proxy.ServeHTTP(w, r)
			return
		}
		io.Copy(io.Discard, r.Body) // else the answer may be lost
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "<html><head><title>413 Request Entity Too Large</title></head></html>\r\n")
	}))
}
