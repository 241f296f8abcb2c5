package attack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/api"
)

// dial opens a connection of an attacker. The attacker does not read, and its system keeps hardly
// any bytes. If the server takes no connection, everything on the connection fails.
func (v *victim) dial() net.Conn {
	d := net.Dialer{Timeout: 20 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(
			func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) },
		)
	}}
	c, err := d.Dial("tcp", v.addr)
	if err != nil {
		c, _ = net.Pipe()
		_ = c.Close()
	}
	v.keep(c)
	return c
}

// post is the head of an attacker's POST.
func (v *victim) post(path string, length int) string {
	return fmt.Sprintf(
		"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: "+
			"application/json\r\nContent-Length: %d\r\n\r\n",
		path, v.attacker, length)
}

// each runs do n times at once, and waits for all of them. The server may refuse anything: errors
// of the connections are no failure.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			do(i)
		})
	}
	wg.Wait()
}

// send writes for at most five seconds: a server that has stopped reading has defended itself.
func send(c net.Conn, parts ...[]byte) {
	_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			return
		}
	}
}

// bodies are attacks by sending.
var bodies = []attack{
	{name: "lists of nothing", strike: func(v *victim) {
		list := []byte(`{"finishes":[{}` + strings.Repeat(",{}", (8<<20-20)/3) + `]}`)
		each(8, func(int) {
			c := v.dial()
			send(c, []byte(v.post("/v1/uploads_finish_batch", len(list))), list)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Read(make([]byte, 64))
		})
	}},
	{name: "lists in lists", strike: func(v *victim) {
		each(8, func(i int) {
			deep := bytes.Repeat([]byte{"[{"[i%2]}, 1<<20)
			if i%2 == 1 {
				deep = bytes.Repeat([]byte(`{"a":`), 1<<18)
			}
			c := v.dial()
			send(c, []byte(v.post("/v1/uploads_begin", len(deep))), deep)
		})
	}},
	{name: "large JSON that stops before its end", strike: func(v *victim) {
		text := bytes.Repeat([]byte(`{"finishes":[          `), 8<<20/22+1)
		each(120, func(int) { send(v.dial(), []byte(v.post("/v1/uploads_finish_batch", 8<<20)), text[:8<<20-1]) })
	}},
	{name: "begins that stop before their end", strike: func(v *victim) {
		text := []byte(`{"capsule_id":"mallory","meta":{"name":"` + strings.Repeat("x", 1<<20))
		each(1000, func(int) { send(v.dial(), []byte(v.post("/v1/uploads_begin", 1<<20)), text[:1<<20-1]) })
	}},
	{name: "bodies without a token", strike: func(v *victim) {
		some := make([]byte, 1<<20)
		each(300, func(i int) {
			send(
				v.dial(),
				fmt.Appendf(
					nil, "PUT /v1/uploads_put_chunk/1/0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<30,
				),
				some,
			)
		})
	}},
	{name: "puts that bring a little", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		some := make([]byte, 100<<10)
		each(400, func(i int) {
			send(v.dial(), fmt.Appendf(nil, "PUT /v1/uploads_put_chunk/%s/%d HTTP/1.1\r\nHost: x\r\nAuthorization: "+
				"Bearer %s\r\nContent-Length: %d\r\n\r\n",
				s, i, v.attacker, 1<<20), some)
		})
	}},
	{name: "puts of the same bytes", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		each(600, func(i int) {
			send(v.dial(), fmt.Appendf(nil, "PUT /v1/uploads_put_chunk/%s/0 HTTP/1.1\r\nHost: x\r\nAuthorization: "+
				"Bearer %s\r\nContent-Length: %d\r\n\r\nx",
				s, v.attacker, 1<<20))
		})
	}},
	{name: "tiny chunks of a chunked body", prepare: (*victim).begin, strike: func(v *victim) {
		s := v.session
		tiny := bytes.Repeat([]byte("1;"+strings.Repeat("e", 1000)+"\r\nx\r\n"), 500)
		each(100, func(i int) {
			send(v.dial(), fmt.Appendf(nil, "PUT /v1/uploads_put_chunk/%s/%d HTTP/1.1\r\nHost: x\r\nAuthorization: "+
				"Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n",
				s, i, v.attacker), tiny)
		})
	}},
}

// begin begins an upload of the attacker with chunks of 1 MiB.
func (v *victim) begin() {
	v.Helper()
	size := int64(1 << 30)
	s, err := v.mallory.Begin(v.Context(), api.BeginRequest{
		CapsuleID: "mallory", Meta: api.Meta{Name: "attack", Bytes: &size}, ChunkSize: 1 << 20, Idem: "attack",
	})
	v.must(err)
	v.session = s.SessionID
}

// responses are attacks by not reading.
var responses = []attack{
	{name: "pages that nobody reads", prepare: (*victim).manyMemories, strike: func(v *victim) {
		each(300, func(i int) {
			path := "/v1/memories_list?capsule_id=mallory&limit=1000"
			if i%3 == 0 {
				path = "/openapi.json?"
			}
			send(v.dial(), fmt.Appendf(
				nil, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, v.attacker,
			))
		})
	}},
	{name: "pipelined requests whose answers nobody reads", prepare: (*victim).manyMemories, strike: func(v *victim) {
		one := fmt.Sprintf(
			"GET /v1/memories_list?capsule_id=mallory&limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+
				"%s\r\n\r\n",
			v.attacker,
		)
		many := []byte(strings.Repeat(one, 200))
		each(100, func(int) { send(v.dial(), many) })
	}},
	{name: "content that nobody reads", prepare: (*victim).large, strike: func(v *victim) {
		each(300, func(int) {
			send(v.dial(), fmt.Appendf(
				nil, "GET /v1/memories_content/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", v.content,
				v.attacker,
			))
		})
	}},
	{name: "states of an upload in many pieces", prepare: (*victim).gaps, strike: func(v *victim) {
		each(600, func(i int) {
			c := v.dial()
			send(c, fmt.Appendf(
				nil, "GET /v1/uploads_status/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", v.gapped,
				v.attacker,
			))
		})
	}},
	{name: "puts to an upload in many pieces", prepare: (*victim).gaps, strike: func(v *victim) {
		some := make([]byte, 4<<10)
		each(600, func(i int) {
			send(v.dial(), fmt.Appendf(nil, "PUT /v1/uploads_put_range/%s/%d HTTP/1.1\r\nHost: x\r\nAuthorization: "+
				"Bearer %s\r\nContent-Length: %d\r\n\r\n",
				v.gapped, 4096+8192*i, v.attacker, 2<<20), some)
		})
	}},
	{name: "single bytes of large content", prepare: (*victim).large, strike: func(v *victim) {
		each(500, func(i int) {
			send(v.dial(), fmt.Appendf(nil, "GET /v1/memories_content/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+
				"%s\r\nRange: bytes=%d-%d\r\n\r\n",
				v.content, v.attacker, i*100_000, i*100_000))
		})
	}},
}

// gaps makes an upload of the attacker in which every second block is there.
func (v *victim) gaps() {
	v.Helper()
	if v.gapped != "" {
		return
	}
	const n, block = 4000, 4 << 10
	size := int64(2 * n * block)
	s, err := v.mallory.Begin(v.Context(), api.BeginRequest{
		CapsuleID: "mallory", Meta: api.Meta{Name: "gaps", Bytes: &size}, ChunkSize: 1 << 20,
	})
	v.must(err)
	each(n, func(i int) {
		if _, err := v.mallory.PutRange(
			v.Context(), s.SessionID, int64(2*i*block), bytes.NewReader(make([]byte, block)), block, api.PutOptions{},
		); err != nil {
			v.Error(err)
		}
	})
	v.gapped = s.SessionID
}

// manyMemories stores many memories that consist of metadata alone.
func (v *victim) manyMemories() {
	v.Helper()
	if page, err := v.mallory.ListMemories(v.Context(), api.MemoryQuery{
		CapsuleID: "mallory", Limit: 1000,
	}); err == nil && len(page.Memories) > 500 || page.NextCursor != "" {
		return
	}
	const n = 900 // a principal may have 1,000 open uploads
	all := make([]api.FinishRequest, n)
	none := int64(0)
	each(n, func(i int) {
		meta := api.Meta{
			Name: fmt.Sprint("m", i), Bytes: &none, Description: strings.Repeat("\"", 2048),
			Tags: []string{strings.Repeat("\"", 256), strings.Repeat("\\", 256)},
		}
		s, err := v.mallory.Begin(v.Context(), api.BeginRequest{CapsuleID: "mallory", Meta: meta})
		if err != nil {
			v.Error(err)
			return
		}
		all[i] = api.FinishRequest{
			SessionID: s.SessionID, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		}
	})
	if v.Failed() {
		v.FailNow()
	}
	for part := range n / 225 {
		_, err := v.mallory.FinishBatch(v.Context(), all[part*225:(part+1)*225])
		v.must(err)
	}
}

const largeBytes = 64 << 20

// large stores a large memory of the attacker.
func (v *victim) large() {
	v.Helper()
	if v.content != "" {
		return
	}
	m, err := v.mallory.Create(
		v.Context(), api.CreateRequest{CapsuleID: "mallory", Name: "large"}, io.LimitReader(v.rand, largeBytes),
		largeBytes,
	)
	v.must(err)
	v.content = m.MemoryID
}

// longest is the longest head that the server takes, in bytes.
const longest = 16 << 10

// connections are attacks by open connections.
var connections = []attack{
	{name: "idle connections at the limit", limit: "ulimit -n 512;", strike: func(v *victim) {
		for range 400 {
			c := v.dial()
			send(c, []byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Read(make([]byte, 512))
		}
	}},
	{name: "heads that never end", strike: func(v *victim) {
		head := []byte("GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat(
			"X-A: "+strings.Repeat("b", 1000)+"\r\n", longest>>10-2,
		))
		each(500, func(int) { send(v.dial(), head) })
	}},
	{name: "lines of a head that never end", strike: func(v *victim) {
		head := []byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("b", longest-1<<10))
		each(600, func(int) { send(v.dial(), head) })
	}},
	{name: "OPTIONS * with a body that never comes", strike: func(v *victim) {
		each(500, func(int) {
			send(v.dial(), []byte("OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx"))
		})
	}},
	{name: "connections that come and go", strike: func(v *victim) {
		each(3000, func(int) {
			c := v.dial()
			send(c, []byte("GET / HT"))
			_ = c.Close()
		})
	}},
	{
		name: "more resting uploads than descriptors", limit: "ulimit -n 256;", keeps: 256 / 4,
		strike: func(v *victim) {
			block := make([]byte, 64<<10)
			each(300, func(i int) {
				size := int64(16 << 20)
				s, err := v.mallory.Begin(v.Context(), api.BeginRequest{
					CapsuleID: "mallory", Meta: api.Meta{Name: "resting", Bytes: &size}, ChunkSize: 1 << 20,
				})
				if err == nil {
					_, err = v.mallory.PutRange(
						v.Context(), s.SessionID, 0, bytes.NewReader(block), int64(len(block)), api.PutOptions{},
					)
				}
				if err != nil && !v.many {
					v.Errorf("upload %d: %v", i, err)
				}
			})
		},
	},
}
