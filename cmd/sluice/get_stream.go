package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/api"
	"sluice/download"
	"sluice/internal/backoff"
	"sluice/sender"
)

// target fetches a memory to the file that has the name: a device or a pipe is written to, a link
// is followed, a regular file is replaced in one step.
func (g *getter) target(m api.Memory, dest string) error {
	if n, is := descriptor(dest); is {
		if n == 1 {
			return g.stream(m, g.e.stdout)
		}
		f := os.NewFile(uintptr(n), dest)
		if f == nil {
			return os.ErrNotExist
		}
		return g.reportWritten(m, dest, f, g.stream(m, f))
	}
	info, err := os.Stat(dest)
	if err != nil {
		if _, l := os.Lstat(dest); l == nil {
			return fmt.Errorf("it is a symbolic link that leads nowhere: %w", err)
		}
		return g.file(m, dest)
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		real, err := filepath.EvalSymlinks(dest)
		if err != nil {
			return err
		}
		return g.file(m, real)
	case mode&os.ModeNamedPipe != 0, mode&os.ModeCharDevice != 0, mode&os.ModeDevice != 0 && g.c.Force:
		return g.into(m, dest)
	case mode&os.ModeDevice != 0:
		return errors.New("it is a disk; --force writes to it")
	}
	return errors.New("it is not a regular file")
}

// reportWritten reports a memory that was written to f, unless f is standard output: there the
// report would go into the content.
func (g *getter) reportWritten(m api.Memory, dest string, f *os.File, err error) error {
	if err != nil {
		return err
	}
	to, err := f.Stat()
	if err != nil {
		return err
	}
	if stdout, ok := g.e.stdout.(*os.File); ok {
		if out, err := stdout.Stat(); err == nil && os.SameFile(out, to) {
			return nil
		}
	}
	g.report(m, dest)
	return nil
}

// into writes a memory to a device or a pipe. Opening a pipe waits for its reader.
func (g *getter) into(m api.Memory, dest string) error {
	type opened struct {
		f   *os.File
		err error
	}
	came := make(chan opened, 1)
	go func() {
		f, err := os.OpenFile(dest, os.O_WRONLY, 0)
		came <- opened{f, err}
	}()
	select {
	case o := <-came:
		if o.err != nil {
			return o.err
		}
		return errors.Join(g.reportWritten(m, dest, o.f, g.stream(m, o.f)), o.f.Close())
	case <-g.e.ctx.Done():
		return errStopped
	}
}

// descriptor knows the names of this process's own open files.
func descriptor(path string) (n int, is bool) {
	switch path = filepath.Clean(path); path {
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if s, below := strings.CutPrefix(path, dir); below {
			n, err := strconv.Atoi(s)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

var errStopped = errors.New("stopped; the same command goes on where it was")

// stream writes a memory in order, and goes on after a connection broke. It compares the digest at
// the end, when all is written.
func (g *getter) stream(m api.Memory, w io.Writer) error {
	src, err := newSource(g.client, g.link, m)
	if err != nil {
		return err
	}
	h := sha256.New()
	out := io.MultiWriter(w, h)
	for at := int64(0); at < m.Bytes; {
		began := at
		err := g.ask(func(context.Context) error {
			ctx, cancel := context.WithCancelCause(g.e.ctx)
			defer cancel(nil)
			still := min(30*time.Second, max(g.c.Patience, time.Second))
			watch := time.AfterFunc(still, func() { cancel(errStandsStill) })
			defer watch.Stop()
			body, err := src.Open(ctx, at, m.Bytes-at)
			if errors.Is(err, download.ErrNoParts) {
				body, err = src.Open(ctx, at, m.Bytes-at)
			}
			if err != nil {
				return err
			}
			defer body.Close()
			n, err := io.Copy(&writing{w: out}, io.LimitReader(&watched{body, watch, still}, m.Bytes-at))
			if at += n; err == nil && at < m.Bytes {
				err = io.ErrUnexpectedEOF
			}
			if n > 0 {
				g.pace.Moved()
			}
			return err
		})
		if err != nil && (at == began || permanent(err)) {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != m.SHA256 {
		return fmt.Errorf("what arrived has SHA-256 %s, not %s", got, m.SHA256)
	}
	return nil
}

var errStandsStill = errors.New("the connection stands still")

// watched is a body whose request ends when no byte of it comes for a while. The time between two
// Reads does not count.
type watched struct {
	r     io.Reader
	watch *time.Timer
	still time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	w.watch.Reset(w.still)
	defer w.watch.Stop()
	return w.r.Read(p)
}

// writing marks the errors of standard output: another try does not help there.
type writing struct{ w io.Writer }

type writeError struct{ error }

func (w *writing) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// ask repeats a request as long as patience lasts, if its outcome may change.
func (g *getter) ask(request func(context.Context) error) error {
	began := time.Now()
	for failed := 0; ; failed++ {
		if err := g.pace.Enter(g.e.ctx, g.c.Patience-g.pace.Idle(began)); err != nil {
			return errStopped
		}
		ctx, stop := context.WithTimeoutCause(
			g.e.ctx, max(g.c.Patience-g.pace.Idle(began), time.Second), errStandsStill,
		)
		err := request(ctx)
		stop()
		outcome, after := sender.OutcomeOf(err)
		g.pace.Exit(outcome, after)
		left := g.c.Patience - g.pace.Idle(began)
		switch {
		case g.e.ctx.Err() != nil:
			return errStopped
		case err == nil, permanent(err):
			return err
		case left <= 0:
			return fmt.Errorf("%w: %w", download.ErrPatience, err)
		}
		g.log.Info("waiting for the server", "because", detail(err))
		if outcome == backoff.Refused {
			continue
		}
		select {
		case <-time.After(min(max(g.pace.Pause(failed), after), left)):
		case <-g.e.ctx.Done():
			return errStopped
		}
	}
}

// source gives the bytes of a memory.
type source struct {
	client *api.Client
	link   string // is read instead of the memory; "": none
	m      api.Memory
	sum    [32]byte
	whole  atomic.Bool // something between here and the server gives no parts
}

func newSource(client *api.Client, link string, m api.Memory) (*source, error) {
	s := &source{client: client, link: link, m: m}
	if n, err := hex.Decode(s.sum[:], []byte(m.SHA256)); err != nil || n != len(s.sum) {
		return nil, fmt.Errorf("the server names no SHA-256: %.80q", m.SHA256)
	}
	return s, nil
}

// Size implements download.Source.
func (s *source) Size() int64 { return s.m.Bytes }

// SHA256 implements download.Source.
func (s *source) SHA256() [32]byte { return s.sum }

// Open implements download.Source. If something between here and the server gives no parts, Open
// says so once. From then on it reads from the beginning, and discards the bytes before the part.
func (s *source) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	skip := int64(0)
	if s.whole.Load() {
		off, n, skip = 0, s.m.Bytes, off
	}
	if off == 0 && n == s.m.Bytes {
		n = -1 // without a range in the request
	}
	body, info, err := s.read(ctx, off, n)
	if err == nil && info.Bytes >= 0 && info.Bytes != s.m.Bytes {
		err = errors.Join(
			fmt.Errorf(
				"%w: the answer has %d bytes, and the content has %d: something on the way answers in the server's "+
					"place",
				download.ErrPermanent, info.Bytes, s.m.Bytes,
			),
			body.Close(),
		)
	}
	if err == nil && skip > 0 {
		if _, err = io.CopyN(io.Discard, body, skip); err != nil {
			body.Close()
		}
	}
	var refused *api.Error
	answered := errors.As(err, &refused)
	switch {
	case err == nil:
		return body, nil
	case errors.Is(err, api.ErrWhole):
		s.whole.Store(true)
		return nil, fmt.Errorf("%w: %w", download.ErrNoParts, err)
	case permanent(err):
		return nil, fmt.Errorf("%w: %w", download.ErrPermanent, err)
	case answered && api.Everywhere(err):
		return nil, &download.LaterError{Err: err, After: refused.RetryAfter}
	}
	return nil, err
}

func (s *source) read(ctx context.Context, off, n int64) (io.ReadCloser, api.ContentInfo, error) {
	if s.link != "" {
		return s.client.Linked(ctx, s.link, off, n)
	}
	return s.client.Content(ctx, s.m.MemoryID, off, n)
}

// permanent reports whether another try can't succeed.
func permanent(err error) bool {
	var failed *writeError
	return errors.As(err, &failed) || errors.Is(err, download.ErrPermanent) || api.ClassOf(err) == api.Permanent ||
		api.ClassOf(err) == api.TooLarge
}
