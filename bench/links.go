package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// onLink is the result of Sluice over one simulated link: shares of what the link gives.
type onLink struct {
	shape linkShape
	bytes int64
	ways  map[string][]float64 // by the way of using it, one of each round
}

// ways are the ways of using a link, in the order of the table.
var ways = []string{"chunks one after the other", atATime, puts, gets, nobody}

const (
	atATime = "4 chunks at a time"

	puts = "`sluice put`"
	gets = "`sluice get`"
)

// nobody is what the link gives to four connections that nobody slows down. It is less than it
// should be if the machine is too busy to simulate the link.
const nobody = "the bare link"

// linkShapes are the rows, with their sizes: some seconds each, as short as several chunks allow.
func linkShapes() []*onLink {
	row := func(mbits float64, ms int, slow float64, mib int64) *onLink {
		return &onLink{
			linkShape{mbits * 1e6, time.Duration(ms) * time.Millisecond, slow * 1e6}, mib << 20, map[string][]float64{},
		}
	}
	return []*onLink{
		row(10, 1, 0, 32), row(10, 100, 0, 32), row(100, 20, 0, 256), row(1000, 1, 0, 512), row(1000, 100, 0, 512),
		row(100, 20, 10, 256),
	}
}

// links measures uploads and a download over simulated links, with the bench's client and with the
// program's own.
func links(ctx context.Context, bins, dir string, a *arena, all []*onLink, say func(string)) error {
	for _, l := range all {
		for _, way := range ways {
			share, err := l.use(ctx, bins, dir, a, way)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", l.shape, way, err)
			}
			l.ways[way] = append(l.ways[way], share)
			say(fmt.Sprintf("%s, %s: %.2f of the link", l.shape, way, share))
		}
	}
	return nil
}

// use goes once over a fresh link to a fresh server, and gives the share.
func (l *onLink) use(ctx context.Context, bins, dir string, a *arena, way string) (float64, error) {
	if way == nobody {
		took, err := l.bare()
		return l.share(took), err
	}
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	s, err := openSluice(ctx, bins, dir)
	if err != nil {
		return 0, err
	}
	defer s.p.stop()
	u, err := url.Parse(s.url)
	if err != nil {
		return 0, err
	}
	k, err := newLink(l.shape, u.Host)
	if err != nil {
		return 0, err
	}
	defer k.close()
	c := newClient(ctx)
	defer c.close()
	it := a.item("link", 7, l.bytes, chunk)
	straight := s.url
	near := "http://" + k.addr()
	var took time.Duration
	var ref string
	switch way {
	case puts:
		ref, took, err = l.put(ctx, bins, dir, near, s, it)
	case gets:
		if ref, err = s.store(c, it, 4); err == nil {
			// it compares the SHA-256
			_, took, err = s.run(ctx, bins, "get", "--server", near, "-o", filepath.Join(dir, "got"), ref)
		}
	default:
		inflight := 1
		if way == atATime {
			inflight = 4
		}
		s.url = near
		start := time.Now()
		ref, err = s.store(c, it, inflight)
		took = time.Since(start)
		s.url = straight
	}
	if err != nil {
		return 0, err
	}
	r, err := s.fetch(ref)
	if err != nil {
		return 0, err
	}
	return l.share(took), c.verify(r, it)
}

func (l *onLink) share(took time.Duration) float64 {
	return float64(l.bytes) * 8 / took.Seconds() / l.shape.bits
}

// bare sends as many bytes to a server that only takes them.
func (l *onLink) bare() (time.Duration, error) {
	const conns = 4
	to, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer to.Close()
	k, err := newLink(l.shape, to.Addr().String())
	if err != nil {
		return 0, err
	}
	defer k.close()
	left := make(chan int64) // bytes that nobody has sent yet, in parts
	go func() {
		defer close(left)
		for n := l.bytes; n > 0; n -= chunk / 32 {
			left <- min(n, chunk/32)
		}
	}()
	var taken sync.WaitGroup
	taken.Go(func() {
		for range conns {
			c, err := to.Accept()
			if err != nil {
				return
			}
			taken.Go(func() {
				_, _ = io.Copy(nowhere{}, c)
				_ = c.Close()
			})
		}
	})
	start := time.Now()
	err = parallel(conns, conns, func(int) error {
		c, err := net.Dial("tcp", k.addr())
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, chunk/32)
		for n := range left {
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	taken.Wait()
	return time.Since(start), nil
}

// put lets the program send a file of the item's bytes.
func (l *onLink) put(
	ctx context.Context, bins, dir, url string, s *sluice, it item,
) (ref string, took time.Duration, err error) {
	path := filepath.Join(dir, "file")
	f, err := os.Create(path)
	if err != nil {
		return "", 0, err
	}
	for _, p := range it.pieces(0, it.size) {
		if _, err := f.Write(p); err != nil {
			return "", 0, closeAfter(f, err)
		}
	}
	if err := f.Close(); err != nil {
		return "", 0, err
	}
	out, took, err := s.run(ctx, bins, "put", "--server", url, path)
	ref, _, _ = strings.Cut(out, " ")
	return ref, took, err
}

// run runs the program as a client of the server.
func (s *sluice) run(ctx context.Context, bins string, args ...string) (out string, took time.Duration, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bins, "sluice"), args...)
	cmd.Env = append(os.Environ(), "SLUICE_TOKEN="+strings.TrimPrefix(s.token[0], "Bearer "))
	var problems strings.Builder
	cmd.Stderr = &problems
	start := time.Now()
	b, err := cmd.Output()
	if err != nil {
		return "", 0, fmt.Errorf("sluice %s: %w: %s", args[0], err, problems.String())
	}
	return string(b), time.Since(start), nil
}

func closeAfter(f *os.File, err error) error {
	_ = f.Close()
	return err
}

func linkTable(w *strings.Builder, all []*onLink) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(
		w,
		"### links: one upload, and one download, over simulated links\n\nShares of what the link gives, medians "+
			"(min–max); chunks of %s. The delay is there and back; no loss, no slow start.\n\n| link | size |",
		bytesOf(chunk),
	)
	for _, way := range ways {
		fmt.Fprintf(w, " %s |", way)
	}
	fmt.Fprintf(w, "\n| --- | --- |%s\n", strings.Repeat(" --- |", len(ways)))
	for _, l := range all {
		fmt.Fprintf(w, "| %s | %s |", l.shape, bytesOf(l.bytes))
		for _, way := range ways {
			v := spreadOf(l.ways[way])
			fmt.Fprintf(w, " %.2f (%.2f–%.2f) |", v.median, v.min, v.max)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}
