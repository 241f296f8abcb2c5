package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/sender"
)

type putCmd struct {
	remote
	Files    []string      `arg:"" name:"file" help:"Files and folders; - reads standard input."`
	Capsule  string        `default:"default" env:"SLUICE_CAPSULE" help:"The capsule to store into."`
	Parallel *int          `placeholder:"N" help:"Requests at a time, 1 to 64; else as many as the link gives most with."`
	Name     string        `help:"What to call it (one file, or -)."`
	Patience time.Duration `default:"5m" help:"How long to go on trying while nothing moves."`
	DryRun   bool          `help:"Send nothing: say what would be sent, what is there already, and what would be refused."`
}

// Help is what --help says beside the flags.
func (*putCmd) Help() string {
	return "What is left out of a folder is named, and makes the exit status 1: links, pipes, sockets, devices, the " +
		"data folder of a server, and half of a get. A link that is named here is followed.\n\n" +
		"With --dry-run the exit status is 1 if anything would be refused. A file is there already if the " +
		"capsule has its content; put sends it all the same, under its own name, unless it is the very file that " +
		"was put before."
}

// Run stores files. One bad file of many does not keep the others from being stored.
func (c *putCmd) Run(e *env) error {
	switch {
	case c.Parallel != nil && (*c.Parallel < 1 || *c.Parallel > 64):
		return usageError("--parallel must be 1 to 64")
	case c.Name != "" && len(c.Files) != 1:
		return usageError("--name needs exactly one file")
	case slices.Contains(c.Files[slices.Index(c.Files, "-")+1:], "-"):
		return usageError("- can be read once")
	case c.DryRun && slices.Contains(c.Files, "-"):
		return usageError("--dry-run does not go with -, which can be read once")
	}
	if info, err := os.Stat(c.Files[0]); err == nil && info.IsDir() && c.Name != "" {
		return usageError("--name is for a file, and " + c.Files[0] + " is a folder")
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	parallel := 0
	if c.Parallel != nil {
		parallel = *c.Parallel
	}
	if n := atMost(sender.MaxParallel, descriptorsOfPut); n < cmp.Or(parallel, sender.MaxParallel) {
		parallel = n
	}
	bars := newProgress(e)
	defer bars.close()
	log := newMessages(bars)
	p := &putter{e: e, bars: bars, dirs: map[string]string{}}
	p.sender = sender.New(client, sender.Options{
		Capsule: c.Capsule, Parallel: parallel, Patience: c.Patience, Log: log,
		Progress: func(f sender.File, done, total int64) { bars.set(f.Disk, done, total) },
	})
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	if c.DryRun {
		p.dry = &dryRun{p: p, client: client, capsule: c.Capsule, patience: c.Patience, stop: stop}
	}
	// Files of one request each go several at a time. A large file uses all requests for itself.
	p.slots = make(chan struct{}, atMost(cmp.Or(parallel, sender.MaxParallel), descriptorsOfPut))
	for _, arg := range c.Files {
		if ctx.Err() == nil {
			c.add(ctx, p, arg)
		}
	}
	p.wg.Wait()
	if p.dry != nil {
		if err := p.dry.end(ctx); err != nil {
			return err
		}
	}
	p.e.sayLeftOut(p.left)
	if p.unsent > 0 {
		p.e.report(map[string]int{"not_tried": p.unsent}, "%d more not tried", p.unsent)
	}
	if e.ctx.Err() != nil {
		if p.dry != nil {
			return errors.New("stopped")
		}
		if slices.Contains(c.Files, "-") {
			return errors.New(
				"stopped; of standard input nothing was stored, and for files the same command goes on where it was",
			)
		}
		return errors.New("stopped; the same command goes on where it was")
	}
	if p.failed {
		return errSaid
	}
	return nil
}

// putter sends files and reports what became of them.
type putter struct {
	e      *env
	bars   *progress
	sender *sender.Sender
	slots  chan struct{}
	wg     sync.WaitGroup
	dry    *dryRun // nil: files are sent

	dirs map[string]string // the folders that are sent, by the paths under which they are stored

	mu      sync.Mutex // guards the fields below
	failed  bool
	useless bool // it was reported that nothing can be stored there
	left    int  // how many were left out
	unsent  int  // files that were not tried, as nothing can be stored there
}

// add sends what one argument names.
func (c *putCmd) add(ctx context.Context, p *putter, arg string) {
	if arg == "-" {
		name := c.Name
		if name == "" {
			name = "stdin"
		}
		f := sender.File{Disk: name, Name: name, MIME: mimeOf(name)}
		p.wg.Wait()
		m, err := p.sender.SendPipe(ctx, f, &interruptible{ctx: ctx, from: p.e.stdin})
		p.bars.end(f.Disk)
		p.done(f, func() { p.e.memory(m) }, err)
		return
	}
	info, err := os.Stat(arg)
	if err != nil {
		p.done(sender.File{Disk: arg}, nil, err)
		return
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		p.done(sender.File{Disk: arg}, nil, errors.New(
			"it is not a regular file; what a pipe brings is stored with: sluice put - --name NAME",
		))
		return
	}
	if !info.IsDir() {
		name := c.Name
		if name == "" {
			name = filepath.Base(arg)
		}
		p.send(ctx, sender.File{Disk: arg, Name: name, MIME: mimeOf(name)}, info.Size())
		return
	}
	p.folder(ctx, arg)
}

// interruptible is a reader whose Read returns when ctx ends, even if no byte ever comes. The Read
// below it goes on until the end of the process.
type interruptible struct {
	ctx  context.Context
	from io.Reader
	rest []byte
	err  error
}

// Read implements io.Reader.
func (r *interruptible) Read(p []byte) (int, error) {
	if len(r.rest) == 0 && r.err == nil {
		type read struct {
			b   []byte
			err error
		}
		came := make(chan read, 1)
		go func() {
			b := make([]byte, 256<<10)
			n, err := r.from.Read(b)
			came <- read{b[:n], err}
		}()
		select {
		case got := <-came:
			r.rest, r.err = got.b, got.err
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if len(r.rest) == 0 {
		return n, r.err
	}
	return n, nil
}

// alone is the size in bytes from which a file has all requests for itself.
const alone = 8 << 20

func (p *putter) send(ctx context.Context, f sender.File, n int64) {
	if !utf8.ValidString(f.Dir + f.Name) {
		p.done(f, nil, errors.New("its name is not UTF-8; rename it, or store it with --name"))
		return
	}
	if p.dry != nil {
		p.dry.add(ctx, f)
		return
	}
	one := func() {
		m, err := p.sender.Send(ctx, f)
		p.bars.end(f.Disk)
		p.done(f, func() { p.e.memory(m) }, err)
	}
	if n >= alone {
		p.wg.Wait()
		one()
		return
	}
	p.slots <- struct{}{}
	p.wg.Go(func() {
		defer func() { <-p.slots }()
		one()
	})
}

// done reports what became of a file.
func (p *putter) done(f sender.File, report func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		report()
	case p.e.ctx.Err() != nil:
		p.failed = true // a stop is reported once, at the end
	case p.useless && errors.Is(err, sender.ErrServer):
		p.unsent++
	default:
		p.useless = p.useless || errors.Is(err, sender.ErrServer)
		p.failed = true
		p.e.failOf(f.Disk, ofCapsule(p.sender.Capsule(), err))
	}
}

// mimeOf guesses the type from the name's ending.
func mimeOf(name string) string { return mime.TypeByExtension(strings.ToLower(filepath.Ext(name))) }

// messages writes log records as plain lines, above the bars. Each kind of message is written once
// in a while.
type messages struct {
	out  *progress
	with []slog.Attr

	mu   sync.Mutex
	said map[string]time.Time
}

// newMessages gives a log for people, above the bars. With --json nothing is written.
func newMessages(p *progress) *slog.Logger {
	if p.e.json {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&messages{out: p})
}

// due reports whether no message of this kind was written lately.
func (m *messages) due(kind string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, ok := m.said[kind]; ok && time.Since(last) < plainEvery {
		return false
	}
	if m.said == nil {
		m.said = map[string]time.Time{}
	}
	m.said[kind] = time.Now()
	return true
}

func (m *messages) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (m *messages) Handle(_ context.Context, r slog.Record) error {
	line, kind := r.Message, r.Message
	add := func(a slog.Attr) bool {
		value := a.Value.String()
		if a.Key == "file" {
			kind += value
		}
		if err, ok := a.Value.Any().(error); ok {
			value = detail(err)
		}
		line += fmt.Sprintf("  %s=%s", a.Key, cleanLines(value))
		return true
	}
	for _, a := range m.with {
		add(a)
	}
	r.Attrs(add)
	if !m.due(kind) {
		return nil
	}
	_, err := fmt.Fprintln(m.out.out(), line)
	return err
}

func (m *messages) WithAttrs(as []slog.Attr) slog.Handler {
	return &messages{out: m.out, with: append(m.with[:len(m.with):len(m.with)], as...)}
}

func (m *messages) WithGroup(string) slog.Handler { return m }
