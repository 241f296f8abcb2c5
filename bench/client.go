package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// client is the one client of all systems: net/http, HTTP/1.1, connections kept alive, every status
// checked.
type client struct {
	ctx   context.Context
	http  *http.Client
	bodys latencies // of each request that sent content
}

func newClient(ctx context.Context) *client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return conn{c.(*net.TCPConn)}, nil
	}
	return &client{ctx: ctx, http: &http.Client{Transport: &http.Transport{
		DialContext:  dial,
		MaxIdleConns: 64, MaxIdleConnsPerHost: 64, DisableCompression: true, ReadBufferSize: 64 << 10,
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call sends a request with a small body, or none. Any status except the wanted one is an error.
func (c *client) call(method, url string, h http.Header, body string, want int) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(c.ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if h != nil {
		r.Header = h
	}
	return c.answer(r, want)
}

// send sends a request whose body is n bytes of an item. sign, if given, may add to its head.
func (c *client) send(
	method, url string, h http.Header, it item, off, n int64, want int, sign func(*http.Request) error,
) (*http.Response, []byte, error) {
	body, err := it.body(off, n)
	if err != nil {
		return nil, nil, err
	}
	r, err := http.NewRequestWithContext(c.ctx, method, url, body)
	if err != nil {
		return nil, nil, err
	}
	if h != nil {
		r.Header = h
	}
	r.ContentLength = n
	if sign != nil {
		if err := sign(r); err != nil {
			return nil, nil, err
		}
	}
	start := time.Now()
	resp, b, err := c.answer(r, want)
	c.bodys.add(time.Since(start))
	return resp, b, err
}

func (c *client) answer(r *http.Request, want int) (*http.Response, []byte, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: %s instead of %d: %s", r.Method, r.URL.Path, resp.Status, want, bytes.TrimSpace(b))
	}
	return resp, b, err
}

var readBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// read fetches a content into w.
func (c *client) read(r *http.Request, size int64, w io.Writer) error {
	resp, err := c.http.Do(r.WithContext(c.ctx))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, resp.Status, b)
	}
	b := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(b)
	n, err := io.CopyBuffer(w, struct{ io.Reader }{resp.Body}, *b)
	if err == nil && n != size {
		err = fmt.Errorf("%s %s: %d bytes instead of %d", r.Method, r.URL.Path, n, size)
	}
	return err
}

// nowhere takes bytes as io.Discard does, in the buffers that it is given.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// verify reads an item back and compares its SHA-256.
func (c *client) verify(r *http.Request, it item) error {
	sum := sha256.New()
	if err := c.read(r, it.size, sum); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != it.sum {
		return fmt.Errorf("%s was stored wrong: SHA-256 %s instead of %s", it.name, got, it.sum)
	}
	return nil
}

// parallel runs f for 0…n-1, at most width at a time, and stops at the first error.
func parallel(n, width int, f func(i int) error) error {
	if width == 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	next := make(chan int)
	errs := make(chan error, width)
	failed := make(chan struct{})
	var once sync.Once
	for range width {
		go func() {
			var err error
			for i := range next {
				if err = f(i); err != nil {
					once.Do(func() { close(failed) })
					break
				}
			}
			errs <- err
		}()
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-failed:
			break feed
		}
	}
	close(next)
	var first error
	for range width {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// latencies collects how long each request took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	l.all = append(l.all, d)
	l.mu.Unlock()
}

// take gives the latencies, and starts anew.
func (l *latencies) take() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

// quantile gives a quantile of durations; 0 of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	return s[int(q*float64(len(s)-1)+0.5)]
}
